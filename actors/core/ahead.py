"""Attempts that are claimed ahead of their send, as a queue may want it (`Unheard`): claimed, ready, handed out.

    Started -> claim being written --(Recorded)--> ready --(HandedOut)--> under way like any other
                      |                              |
                      +------------------------------+--> taken back by a record, as if it had not started

Until it is handed out, nothing of an attempt was sent, and whoever comes to know that says so in the tables: a shard
that is closed, or an attempt that nobody took for READY_MS.

Promises: an attempt that was taken back is not handed out, and one that was handed out is not taken back. Bound: what
is ahead, in all shards of a node together, is what its dispatchers have room for (`node.py`).
"""

from collections.abc import Iterable

from actors.core.events import Outcome, Record, Verdict
from actors.core.holding import Holding
from actors.core.settle import claim, settle
from actors.core.task import Phase, Task

READY_MS = 2_000
"""An attempt's deadline counts from its claim: one that is sent later than this is claimed anew. Less than OVERRUN_MS,
so that an attempt has ended before somebody who can't see it counts it as lost."""
_RUNNING, _WRITING = Phase.RUNNING, Phase.WRITING


class Ahead:
    """Those of one shard."""

    __slots__ = ("_epoch", "_holding", "_tasks")

    def __init__(self, holding: Holding, epoch: int, tasks: set[Task]) -> None:
        """`tasks`: of all shards of the node."""
        self._holding = holding
        self._epoch = epoch
        self._tasks = tasks

    def __contains__(self, task: Task) -> bool:
        return task in self._tasks

    def claim(self, tasks: Iterable[Task], now_ms: int) -> list[Record]:
        """These have just started: the records of their claims."""
        records: list[Record] = []
        for task in tasks:
            self._tasks.add(task)
            task.phase = _WRITING
            records.append(claim(task, self._epoch, now_ms))
        return records

    def hand_out(self, tasks: Iterable[Task], now_ms: int) -> list[Record]:
        """A dispatcher takes these; what it may not have any more is no longer RUNNING."""
        late: list[Task] = []
        for task in tasks:
            if task in self._tasks and task.phase is _RUNNING:
                if now_ms - task.started_ms > READY_MS:
                    late.append(task)
                else:
                    self._tasks.discard(task)
        return self.take_back(late, now_ms)

    def take_back(self, tasks: Iterable[Task], now_ms: int) -> list[Record]:
        """The records by which these, whose claims are written, have not started."""
        records: list[Record] = []
        for task in tasks:
            self._tasks.discard(task)
            self._holding.withdraw(task, _WRITING)
            unsent = Outcome(task, task.epoch, task.attempt, Verdict.UNSENT, task.started_ms, now_ms)
            records.append(settle(task, unsent, self._epoch, now_ms))
        return records

    def ready(self) -> list[Task]:
        """Those whose claims are written."""
        return [task for task in self._holding.known.values() if task.phase is _RUNNING and task in self._tasks]

    def forget(self, task: Task) -> None:
        """Somebody else has written this task."""
        self._tasks.discard(task)
