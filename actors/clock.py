"""The primary's clock, as this node knows it, and the boot clock that leases are measured with.

Time between two beats comes from CLOCK_BOOTTIME (it counts suspended time, and no wall clock moves it). The offset to
the primary is the largest of the last 16 samples of "server time in the answer minus my time on receipt": each sample
errs only downwards, by the answer's way and by DRIFT for its age, so the estimate is never ahead of the primary and no
task fires early.

Promises: never goes back, never ahead of the primary's clock beyond its own steps; corrections are slewed, at most
SLEW_MS a sample. Refuses: an answer before the first sample.
"""

import time
from collections import deque
from collections.abc import Callable

from actors.core.errors import Unavailable

SAMPLES = 16
SLEW_MS = 50.0
DRIFT = 0.0005
"""How much faster than the primary's this node's clock may run: what a kernel slews a clock at most (adjtime)."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC_RAW", time.CLOCK_MONOTONIC))


def boot_ms() -> float:
    """Milliseconds since some fixed moment, suspended time included; for intervals only."""
    return time.clock_gettime_ns(_CLOCK) / 1_000_000


class Clock:
    """Milliseconds since 1970 on the primary's clock; `boot_ms` is the node's own clock, for intervals."""

    def __init__(self, boot_ms: Callable[[], float] = boot_ms) -> None:
        self.boot_ms = boot_ms
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)
        """(offset, when it was received)."""
        self._offset_ms: float | None = None
        """As of `_seen_ms`, when the last sample was received."""
        self._seen_ms = 0.0
        self._base_ms: float | None = None
        """What a stretch of `boot_ms` that DRIFT has been taken off begins at."""
        self._last_ms = 0
        self._ahead_ms = 0
        """How far it was set forward (`advance`)."""

    def observe(self, primary_ms: float, received_ms: float) -> None:
        """One sample: the primary's clock in an answer, and `boot_ms()` when it came."""
        self._samples.append((primary_ms - received_ms, received_ms))
        best = max(offset_ms - DRIFT * (received_ms - at_ms) for offset_ms, at_ms in self._samples)
        if self._offset_ms is None:
            self._offset_ms = best
        else:
            held = self._offset_ms - DRIFT * (received_ms - self._seen_ms)
            self._offset_ms = held + max(-SLEW_MS, min(best - held, SLEW_MS))
        self._seen_ms = received_ms
        self._base_ms = self._offset_ms + DRIFT * received_ms

    def now_ms(self) -> int:
        """The primary's time, rounded down. Raises Unavailable before the first sample."""
        now_ms = int(self._estimate_ms())
        if now_ms > self._last_ms:
            self._last_ms = now_ms
        return self._last_ms

    def ms_until(self, at_ms: int) -> float:
        """How long until `now_ms` says `at_ms`; negative when that is past. Raises Unavailable as `now_ms` does."""
        return at_ms - self._estimate_ms()

    def advance(self, by_ms: int) -> None:
        """Go on from so much later, whatever the primary says: for users' tests, on one node alone."""
        self._ahead_ms += by_ms

    @property
    def known(self) -> bool:
        """Whether there was a first sample."""
        return self._offset_ms is not None

    def _estimate_ms(self) -> float:
        if self._base_ms is None:
            raise Unavailable("the database's clock is not known yet")
        return self._base_ms + self._ahead_ms + self.boot_ms() * (1 - DRIFT)
