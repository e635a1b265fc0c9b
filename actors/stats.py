"""A node's counters since its start: plain integers, raised on the hot path, read by the metrics.

Attempts are counted by queue, for at most NAMED_QUEUES queues by name; those that come later share one more.
"""

from bisect import bisect_left

from actors.core.events import Outcome, Verdict
from actors.core.queue import Queue
from actors.core.shard import Tally
from actors.core.task import State

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
_UNSENT = Verdict.UNSENT  # on 3.11 a member of an enum costs ten times a global

NAMED_QUEUES = 50
"""Each costs some 30 series in whatever stores the metrics."""


class QueueStats:
    """What became of the attempts of one queue; without a name: of all that have no place of their own."""

    __slots__ = ("attempts", "lateness_counts", "lateness_sum_ms", "name", "tenant")

    def __init__(self, tenant: str | None = None, name: str | None = None) -> None:
        self.tenant = tenant
        self.name = name
        self.attempts: dict[Verdict, int] = dict.fromkeys(Verdict, 0)
        self.lateness_counts = [0] * (len(LATENESS_BOUNDS_MS) + 1)
        self.lateness_sum_ms = 0

    def late(self, lateness_ms: int) -> None:
        """A first attempt started this long after its time."""
        self.lateness_counts[bisect_left(LATENESS_BOUNDS_MS, lateness_ms)] += 1
        self.lateness_sum_ms += lateness_ms


class Stats:
    """What a node has done."""

    def __init__(self) -> None:
        self.accepted = 0
        self.replayed = 0
        self.tally = Tally()
        self.stale_writes = 0
        self.epoch_changes = 0
        self.shard_losses = 0
        self.shard_failures = 0
        self.moves = 0
        self.rejoins = 0
        self.lateness_bounds_ms = LATENESS_BOUNDS_MS
        self._queues: dict[int, QueueStats] = {}
        self._others = QueueStats()

    def of(self, queue: Queue) -> QueueStats:
        """The counters of this queue: its own, or those that it shares."""
        return self._queues.get(queue.id) or self._place(queue)

    def ended(self, outcome: Outcome) -> None:
        """An attempt ended."""
        task, verdict = outcome.task, outcome.verdict
        mine = self.of(task.queue)
        mine.attempts[verdict] += 1
        if outcome.attempt == 1 and verdict is not _UNSENT:
            mine.late(max(outcome.started_ms - task.schedule_ms, 0))

    @property
    def queues(self) -> list[QueueStats]:
        """The counters by queue; their sum is all there is."""
        return [*self._queues.values(), self._others]

    @property
    def attempts(self) -> dict[Verdict, int]:
        """Ended attempts of all queues."""
        queues = self.queues
        return {verdict: sum(queue.attempts[verdict] for queue in queues) for verdict in Verdict}

    @property
    def lateness_counts(self) -> list[int]:
        """First attempts of all queues by lateness."""
        return [sum(counts) for counts in zip(*(queue.lateness_counts for queue in self.queues), strict=True)]

    @property
    def lateness_sum_ms(self) -> int:
        """Sum of all lateness."""
        return sum(queue.lateness_sum_ms for queue in self.queues)

    def _place(self, queue: Queue) -> QueueStats:
        if len(self._queues) >= NAMED_QUEUES:
            return self._others
        made = self._queues[queue.id] = QueueStats(queue.tenant, queue.name)
        return made

    def refuse(self, count: int) -> None:
        """The ledger refused so many records."""
        self.stale_writes += count

    @property
    def finished(self) -> dict[State, int]:
        """Tasks that came to an end, by their state."""
        return self.tally.finished

    @property
    def probe_finds(self) -> int:
        """Overdue rows that the probe had to bring: 0 in a healthy cluster."""
        return self.tally.found

    @property
    def held(self) -> int:
        """Tasks that were held because nobody knows how their attempt ended."""
        return self.tally.held

    @property
    def lapsed(self) -> int:
        """Leases of workers that ran out."""
        return self.tally.lapsed

    @property
    def stale_outcomes(self) -> int:
        """Attempts whose end came under an old fence."""
        return self.tally.stale
