"""How many single submits may be under way at once: what comes beyond is refused before it costs anything.

The limit follows what submits take from their last byte to their answer: while they take longer than they need to, it
shrinks; while all of it is used and answers come in time, it grows (feedback with multiplicative decrease: Chiu and
Jain, 1989). "Need to" is measured too, so that a slow disk alone is not taken for overload (as TCP Vegas does:
Brakmo and Peterson, 1995).

Promises: nothing that was accepted is lost by it; the refusal is bytes made beforehand, with a Retry-After that is not
the same for all, so that they do not come back together.
Refuses: to know tenants (`quota.py`) and connections (`server.py`).
"""

from dataclasses import dataclass
from itertools import cycle
from time import perf_counter

from gateway.problems import Problem

WINDOW_S = 0.1
"""How often the limit is looked at."""
LEAST, MOST = 128, 4_096
SLOW = 3
"""Windows in a row after which it is no hiccup of a disk."""
ALLOWANCE_S = 0.05
"""Submits may take twice the time that they need, and this."""
DRIFT = 1.001
"""By how much, each window, the time that they need may have grown."""
WORDS = "more submits come than can be answered in time"


@dataclass(slots=True)
class Window:
    """What has been seen since the limit was last looked at."""

    since_s: float
    ended: int = 0
    took_s: float = 0.0
    peak: int = 0
    """Most under way at once."""


class Admission:
    """One a server. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self.limit = 256.0
        self.under_way = 0
        self.refused = 0
        self._needed_s = float("inf")
        self._slow = 0
        self._window = Window(perf_counter())
        self._refusals = cycle([_refusal(retry_s) for retry_s in (1, 2, 3)])

    @property
    def full(self) -> bool:
        """One more would be too many."""
        return self.under_way >= self.limit

    def refusal(self) -> bytes:
        """An HTTP/1.1 answer that leaves the connection open."""
        self.refused += 1
        return next(self._refusals)

    def begin(self) -> float:
        """A submit came, all of it; answers what to end it with."""
        self.under_way += 1
        if self.under_way > self._window.peak:
            self._window.peak = self.under_way
        return perf_counter()

    def end(self, began_s: float) -> None:
        """It is answered, or its client is gone."""
        self.under_way -= 1
        now_s, window = perf_counter(), self._window
        window.ended += 1
        window.took_s += now_s - began_s
        if now_s - window.since_s >= WINDOW_S:
            self._adapt(window)
            self._window = Window(now_s)

    def _adapt(self, window: Window) -> None:
        took_s = window.took_s / window.ended
        self._needed_s = min(took_s, self._needed_s * DRIFT)
        target_s = 2 * self._needed_s + ALLOWANCE_S
        self._slow = self._slow + 1 if took_s > target_s else 0
        if self._slow >= SLOW:
            self.limit = max(LEAST, self.limit * max(0.7, target_s / took_s))
        elif not self._slow and window.peak >= self.limit * 0.9:
            self.limit = min(MOST, self.limit * 1.1)


def _refusal(retry_s: int) -> bytes:
    headers = {"Retry-After": str(retry_s), "RateLimit": f'"submits";r=0;t={retry_s}'}
    return Problem("unavailable", WORDS, headers=headers).written()
