"""A node's counters since its start: plain integers, raised on the hot path, read by the metrics."""

from bisect import bisect_left

from actors.core.events import Verdict
from actors.core.shard import Tally
from actors.core.task import TERMINAL, State

LATENESS_BOUNDS_MS = (
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    30_000,
    60_000,
    300_000,
    3_600_000,
)
"""Upper bounds of the lateness buckets; a last one is open."""


class Stats:
    """What a node has done."""

    def __init__(self) -> None:
        self.accepted = 0
        self.replayed = 0
        self.attempts: dict[Verdict, int] = dict.fromkeys(Verdict, 0)
        self.finished: dict[State, int] = dict.fromkeys(sorted(TERMINAL), 0)
        self.tally = Tally()
        self.stale_writes = 0
        self.epoch_changes = 0
        self.shard_losses = 0
        self.rejoins = 0
        self.lateness_bounds_ms = LATENESS_BOUNDS_MS
        self.lateness_counts = [0] * (len(LATENESS_BOUNDS_MS) + 1)
        self.lateness_sum_ms = 0

    def late(self, lateness_ms: int) -> None:
        """A first attempt started this long after its time."""
        self.lateness_counts[bisect_left(LATENESS_BOUNDS_MS, lateness_ms)] += 1
        self.lateness_sum_ms += lateness_ms

    def refuse(self, count: int) -> None:
        """The ledger refused so many records."""
        self.stale_writes += count

    @property
    def probe_finds(self) -> int:
        """Overdue rows that the probe had to bring: 0 in a healthy cluster."""
        return self.tally.found

    @property
    def stale_outcomes(self) -> int:
        """Attempts whose end came under an old fence."""
        return self.tally.stale
