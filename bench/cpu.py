"""Processor time from /proc (Linux), in seconds: of a process, of one with its children, of the whole machine.

It comes in hundredths of a second: for runs of a second or more; that of one thread in nanoseconds.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import perf_counter

TICKS_HZ = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")
IDLE = slice(3, 5)
"""Idle, and idle while a disk is waited for; among the figures of the first line of /proc/stat."""
GUESTS = 8
"""What begins here is counted elsewhere in the line already."""


def process_s(pid: int) -> float:
    """What this process has used. Raises OSError when there is none."""
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_HZ


def thread_s(pid: int) -> float:
    """What the first thread of this process has used. Raises OSError."""
    return int((PROC / str(pid) / "schedstat").read_text().split()[0]) / 1e9


def family_s(pid: int) -> float:
    """What this process and its children have used, those included that have ended. Raises OSError."""
    ended_s = sum(map(int, _fields(pid)[13:15])) / TICKS_HZ
    total_s = process_s(pid) + ended_s
    for folder in PROC.iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # it has ended meanwhile
                if int(_fields(int(folder.name))[1]) == pid:
                    total_s += process_s(int(folder.name))
    return total_s


def machine_s() -> float:
    """What all processors have done, for whomever."""
    figures = [int(figure) for figure in (PROC / "stat").read_text().split("\n", 1)[0].split()[1:]][:GUESTS]
    return (sum(figures) - sum(figures[IDLE])) / TICKS_HZ


def _fields(pid: int) -> list[str]:
    """Of /proc/PID/stat, after the name: state, parent, ..."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


class Cores:
    """How many processors each of these used between two moments. `parties`: name -> seconds so far.

    `spent_s` is the same as processor time.
    """

    def __init__(self, parties: Mapping[str, Callable[[], float]]) -> None:
        self._parties = parties
        self.used: dict[str, float] = {}
        self.spent_s: dict[str, float] = {}
        self.begin()

    def begin(self) -> None:
        """From now on."""
        self._since = perf_counter()
        self._before = {name: seconds() for name, seconds in self._parties.items()}

    def end(self) -> None:
        """Until now."""
        took_s = perf_counter() - self._since
        self.spent_s = {name: seconds() - self._before[name] for name, seconds in self._parties.items()}
        self.used = {name: spent_s / took_s for name, spent_s in self.spent_s.items()}
