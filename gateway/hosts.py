"""Callers shared out among hosts, so that targets that hang can't take all of them. Pure: no I/O, no clock.

A host may have as many calls under way as there are callers free (dynamic thresholds: Choudhury and Hahne, "Dynamic
Queue Length Thresholds for Shared-Memory Packet Switches", IEEE/ACM ToN 6, 1998). One host alone gets half of the
callers; of n hosts that hang each gets 1/(n+1), and as much stays free for all others.

What its host has no caller for waits in a small common room. A host that answers empties its part of the room in no
time; one that hangs would fill it. So each host may keep no more there than it answered in the last window, and what
is beyond that is turned away: it goes back to its shard, unsent, for about as long as the host seems to need for those
before it. One window without an answer does not make a fast host slow: what it seemed to manage fades by a quarter a
window. And none stays away for longer than its host has been behind: what looks like the end after two seconds without
an answer mostly is a pause of two seconds. A host that nobody has called for a while, and of which no call is away, may
use the whole room until its first window ends.

Promises: the room is bounded; every task that was admitted is started, or handed back by `admit` or `review`.
"""

from collections import deque
from typing import Generic, TypeVar

WINDOW_MS = 250
"""How often `review` has to be called while calls are under way."""
MIN_AWAY_MS = 1_000
MAX_AWAY_MS = 30_000

Call = TypeVar("Call")


class Host(Generic[Call]):
    """What one host has under way, waiting and away."""

    __slots__ = ("allowance", "away", "back", "behind_ms", "busy", "ended", "rate", "waiting")

    def __init__(self, allowance: int) -> None:
        self.busy = 0
        """Calls under way."""
        self.waiting: deque[Call] = deque()
        self.ended = 0
        """Calls that ended since the last review."""
        self.allowance = allowance
        """How many may wait."""
        self.rate = 0
        """About how many calls it answers in a window."""
        self.away = 0
        """How many were turned away and are not back yet."""
        self.back: dict[int, int] = {}
        """Window -> how many of those are back before it begins."""
        self.behind_ms = 0
        """How long some have been away."""


class Hosts(Generic[Call]):
    """Shares `callers` out; `room` is how many calls may wait in all."""

    def __init__(self, callers: int, room: int) -> None:
        self._hosts: dict[str, Host[Call]] = {}
        self._room = room
        self.free = callers
        """Callers that call nobody."""
        self.waiting = 0
        """Calls in the room."""
        self._window = 0
        """The number of this one."""

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def limit(self) -> int:
        """How many more calls may be admitted without one being turned away for want of room."""
        return min(self.free, self._room - self.waiting)

    def admit(self, name: str, call: Call) -> tuple[bool, int]:
        """(True, 0): start it now. (False, 0): it waits. (False, ms): turned away for so long."""
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = Host(self._room)
        if host.busy < self.free:
            self._start(host)
            return True, 0
        if len(host.waiting) < host.allowance and self.waiting < self._room:
            host.waiting.append(call)
            self.waiting += 1
            return False, 0
        return False, self._turn_away(host)

    def done(self, name: str) -> list[Call]:
        """A call ended; answers those that start now in its place."""
        host = self._hosts[name]
        host.busy -= 1
        host.ended += 1
        self.free += 1
        started: list[Call] = []
        while host.waiting and host.busy < self.free:
            started.append(host.waiting.popleft())
            self.waiting -= 1
            self._start(host)
        return started

    def review(self) -> list[tuple[Call, int]]:
        """A window ended: answers the calls that are turned away, each with its milliseconds."""
        turned: list[tuple[Call, int]] = []
        self._window += 1
        for name, host in list(self._hosts.items()):
            host.rate = max(host.ended, host.rate * 3 // 4)
            host.away -= host.back.pop(self._window, 0)
            host.behind_ms = host.behind_ms + WINDOW_MS if host.away else 0
            host.allowance, host.ended = host.ended, 0
            while len(host.waiting) > host.allowance:
                self.waiting -= 1
                turned.append((host.waiting.pop(), self._turn_away(host)))
            if not host.busy and not host.away:
                del self._hosts[name]
        return turned

    def leave(self) -> list[Call]:
        """Empties the room."""
        left = [call for host in self._hosts.values() for call in host.waiting]
        for host in self._hosts.values():
            host.waiting.clear()
        self.waiting = 0
        return left

    def _start(self, host: Host[Call]) -> None:
        host.busy += 1
        self.free -= 1

    def _turn_away(self, host: Host[Call]) -> int:
        host.away += 1
        needs_ms = min(host.away * WINDOW_MS // max(host.rate, 1), host.behind_ms, MAX_AWAY_MS)
        away_ms = max(needs_ms, MIN_AWAY_MS)
        back = self._window + 1 - -away_ms // WINDOW_MS
        host.back[back] = host.back.get(back, 0) + 1
        return away_ms
