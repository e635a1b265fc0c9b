"""Attempts whose end nobody here sees: those of an earlier owner, of which a claim tells, and those nobody reports on.

An attempt of a living boot, which gave the shard away, goes on there: that boot tells how it ends. One of a boot that
is gone is lost, at once or, as its queue may want it, at its deadline. One that is to be completed later is waited for
until its deadline, whoever owns the task. One that a worker has is the worker's, which may live whoever owned the task:
its lease has a fresh period (`lease.py`).

Promises: an attempt that goes on keeps the fence it started under, and is given up OVERRUN_MS after its deadline.
"""

from actors.core.events import Outcome, Record, Verdict
from actors.core.holding import Holding
from actors.core.lease import Leases
from actors.core.queue import Unheard
from actors.core.settle import settle, started_ms_of
from actors.core.task import Phase, Task

OVERRUN_MS = 5_000
"""A dispatcher that has not reported an attempt's end this long after its deadline never will."""

LATE = "not completed in time"


class Inherited:
    """What a shard makes of attempts that it can't see."""

    __slots__ = ("_epoch", "_holding", "_leases", "_living")

    def __init__(self, holding: Holding, leases: Leases, epoch: int, living: frozenset[str]) -> None:
        self._holding = holding
        self._leases = leases
        self._epoch = epoch
        self._living = living

    def judge(self, tasks: list[Task], now_ms: int) -> list[Record]:
        """The records of those of these claimed tasks, which are due, whose attempts are over; the rest goes on.

        One that goes on may have seemed to be due in the future: it started by a clock that is ahead of this one.
        """
        return [self._overtaken(task, now_ms) for task in tasks if not self._goes_on(task, now_ms)]

    def _goes_on(self, task: Task, now_ms: int) -> bool:
        """Whether a living boot still runs the attempt of this waiting task, or its deadline is waited for.

        If so, the task waits for that attempt's end.
        """
        claim_ms = task.claim_ms
        assert claim_ms is not None
        if task.pulled and task.due_ms != claim_ms:
            self._leases.begin(task, now_ms)
            self._see_run(task, task.lease_ms, now_ms)
            return True
        if task.due_ms == claim_ms or claim_ms + OVERRUN_MS <= now_ms or self._is_lost(task):
            return False
        self._see_run(task, claim_ms + OVERRUN_MS, now_ms)
        return True

    def _see_run(self, task: Task, until_ms: int, now_ms: int) -> None:
        self._holding.withdraw(task, Phase.RUNNING)
        task.started_ms = started_ms_of(task) or now_ms
        task.wake_ms = until_ms
        self._holding.timers.insert(task)

    def see_living(self, boots: frozenset[str], now_ms: int) -> list[Record]:
        """These boots live; the attempts of all others are lost."""
        self._living = boots
        return [
            self._overtaken(task, now_ms)
            for task in self._holding.known.values()
            if task.claim_boot is not None and task.phase is Phase.RUNNING and not task.lease_ms and self._is_lost(task)
        ]

    def _is_lost(self, task: Task) -> bool:
        """Whether nobody will tell of this attempt's end, and nobody waits for it either."""
        return task.claim_boot not in self._living and task.queue.unknown is not Unheard.WAIT_DEADLINE

    def _overtaken(self, task: Task, now_ms: int) -> Record:
        """A claimed attempt of an earlier owner: completed by nobody in time, or lost with that owner."""
        if task.due_ms == task.claim_ms:
            return self._unheard(task, Verdict.FAILED, LATE, now_ms)
        return self._unheard(task, Verdict.LOST, "its owner was lost during the attempt", now_ms)

    def overdue(self, task: Task, now_ms: int) -> Record:
        """The record of a running attempt of which somebody should have told by now."""
        if task.claim_boot is not None and task.claim_boot not in self._living:
            return self._overtaken(task, now_ms)
        verdict = Verdict.LOST if task.queue.unknown is Unheard.HOLD else Verdict.FAILED
        return self._unheard(task, verdict, LATE, now_ms)

    def _unheard(self, task: Task, verdict: Verdict, error: str, now_ms: int) -> Record:
        """The record of an attempt that ends without a word."""
        started_ms = started_ms_of(task) or now_ms
        outcome = Outcome(task, task.epoch, task.attempt, verdict, started_ms, now_ms, error=error)
        self._holding.withdraw(task, Phase.WRITING)
        return settle(task, outcome, self._epoch, now_ms)
