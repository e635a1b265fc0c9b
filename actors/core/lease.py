"""A lease: a worker's right to a running attempt of a pulled task, for a period that it may extend.

A lease is known by (task, epoch, attempt), the fence of its attempt; what a worker says of it is a `Report` (how the
attempt ended) or an `Extension`, and what it hears back of a report is a `Word`.

`Leases` is what a shard keeps of them. Leases live in memory: an extension costs no write. What is durable is the claim
of an attempt that outlives half a second, and whoever takes the shard over gives each claimed lease one fresh period,
so that a living worker has the time to say that it goes on.

Promises: a lease ends at its time or later, never before; under one lease a result is recorded once.
Refuses: what is said under a lease that is over.
"""

import enum

import msgspec

from actors.core.events import Outcome, Record, Verdict
from actors.core.holding import Holding
from actors.core.settle import deadline_ms_of, settle
from actors.core.task import Phase, Task

LEAST_MS = 1_000
"""No lease is shorter, however short the deadline of its task: a claim takes half of that."""
LAPSED = "its lease ran out"

Key = tuple[str, int, int]
"""What a lease is known by: the id of its task, the epoch, the attempt."""


class Report(msgspec.Struct, array_like=True):
    """How an attempt ended, as its worker says."""

    id: str
    epoch: int
    attempt: int
    verdict: int
    error: str | None = None
    result: bytes | None = None
    retry_after_ms: int | None = None
    jitter: float = 0.5


class Extension(msgspec.Struct, frozen=True, array_like=True):
    """A worker goes on: its lease ends `by_ms` from now, or a full period if that is None."""

    id: str
    epoch: int
    attempt: int
    by_ms: int | None = None


class Said(enum.IntEnum):
    """What came of something that a worker said."""

    RECORDED = 0
    """It is committed, by this or by an earlier word of the same."""
    OVER = 1
    """The lease is over: the task was given to another worker, was cancelled, or ended otherwise."""
    UNKNOWN = 2
    """There is no such task."""
    UNSURE = 3
    """Nobody knows, or nobody is there to ask: say it again."""


class Word(msgspec.Struct, frozen=True, array_like=True):
    """The answer to a report. `state`: the task's, after it was recorded."""

    id: str
    epoch: int
    attempt: int
    said: int
    state: str = ""
    detail: str = ""


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """The answer to an extension: the lease ends at `until_ms`, or what `said` says."""

    id: str
    epoch: int
    attempt: int
    said: int
    until_ms: int = 0


class Lent(msgspec.Struct, frozen=True, array_like=True):
    """A pulled task whose attempt is about to be given to a worker."""

    id: str
    queue: int
    epoch: int
    attempt: int
    budget: int
    schedule_ms: int
    until_ms: int
    period_ms: int
    payload: bytes | None = None
    content_type: str | None = None
    labels: str | None = None
    trace: str | None = None


def period_ms_of(task: Task) -> int:
    """How long a lease of this task lasts when it begins, and when it is extended by no other time."""
    return max(deadline_ms_of(task.spec, task.queue), LEAST_MS)


def lent(task: Task) -> Lent:
    """The running attempt of a pulled task, for its worker."""
    return Lent(
        task.id,
        task.queue.id,
        task.epoch,
        task.attempt,
        task.budget,
        task.schedule_ms,
        task.lease_ms,
        period_ms_of(task),
        task.payload,
        task.spec.content_type,
        task.labels,
        task.trace,
    )


def unsure(said: Extension) -> Kept:
    """The answer of one who does not know this task, although it may be there."""
    return Kept(said.id, said.epoch, said.attempt, Said.UNSURE)


class Leases:
    """The leases of one shard."""

    __slots__ = ("_epoch", "_holding")

    def __init__(self, holding: Holding, epoch: int) -> None:
        self._holding = holding
        self._epoch = epoch

    @staticmethod
    def begin(task: Task, now_ms: int) -> None:
        """The task has a lease from now on, for a full period."""
        task.lease_ms = now_ms + period_ms_of(task)

    def lapse(self, task: Task, now_ms: int) -> Record | None:
        """The time of a claimed lease has come: the record of its end; None: it was extended, and goes on."""
        if task.lease_ms > now_ms:
            task.wake_ms = task.lease_ms
            self._holding.timers.insert(task)
            return None
        outcome = Outcome(task, task.epoch, task.attempt, Verdict.LOST, task.started_ms, now_ms, error=LAPSED)
        self._holding.withdraw(task, Phase.WRITING)
        return settle(task, outcome, self._epoch, now_ms)

    def extend(self, said: Extension, now_ms: int) -> Kept:
        """A worker goes on with a task."""
        task = self._holding.known.get(said.id)
        if task is None:
            return _over(said) if self._holding.last_rev(said.id) else self.extend_none(said, now_ms)
        if task.phase is not Phase.RUNNING or (task.epoch, task.attempt) != (said.epoch, said.attempt):
            return _over(said)
        task.lease_ms = now_ms + (period_ms_of(task) if said.by_ms is None else max(said.by_ms, LEAST_MS))
        if task.slot is not None and task.lease_ms < task.wake_ms:  # a later time is looked at when the old one comes
            self._holding.timers.cancel(task)
            task.wake_ms = task.lease_ms
            self._holding.timers.insert(task)
        return Kept(said.id, said.epoch, said.attempt, Said.RECORDED, task.lease_ms)

    def extend_none(self, said: Extension, now_ms: int) -> Kept:
        """The answer for a task that there is not, or that is another tenant's, which is to be told by nobody.

        What is not in memory can't be one that runs, where everything that is due is here.
        """
        holding = self._holding
        return _over(said) if holding.sure_ms > now_ms and not holding.spilled else unsure(said)


def _over(said: Extension) -> Kept:
    return Kept(said.id, said.epoch, said.attempt, Said.OVER)
