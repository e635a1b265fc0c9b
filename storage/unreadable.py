"""Rows that this program can't read, as after a roll-back: of a newer program, or of a queue that is not in the table.

Such a row is left out of what was read and harms no neighbour; a program that knows it will run it. It is met again
with every probe, so it is counted each time, but named in the log once.

Promises: at most LINES lines a WINDOW_S, however many rows there are, and KEPT of them remembered.
"""

import time
from collections.abc import Callable

import structlog

KEPT = 1_024
"""Rows that are remembered as named; all are forgotten when there are more."""
LINES = 10
WINDOW_S = 60.0
_log = structlog.get_logger(__name__)


class Unreadable:
    """What became of the unreadable rows of one database. `now_s` is a monotonic clock."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._named: set[tuple[str, str]] = set()
        self._window_ends_s = 0.0
        self._lines = 0
        self.count = 0
        """Rows left out since the start, each time that one was met."""

    def note(self, task_id: str, reason: str) -> None:
        """The row of this task was left out."""
        self.count += 1
        if (task_id, reason) not in self._named and self._has_line():
            if len(self._named) >= KEPT:
                self._named.clear()
            self._named.add((task_id, reason))
            _log.error("a row can't be read; it is left out", id=task_id, reason=reason, left_out=self.count)

    def _has_line(self) -> bool:
        """Whether one more may be named now. Who finds no line is named when it is met again."""
        now_s = self._now_s()
        if now_s >= self._window_ends_s:
            self._window_ends_s, self._lines = now_s + WINDOW_S, 0
        self._lines += 1
        return self._lines <= LINES
