"""What workers of a simulated cluster were given, and what has to hold of it.

C12 a lease that is claimed and extended ends no sooner than a period later, whoever owns the task by then: until then
nobody else is given it, unless its worker has said something. C13 what was recorded as a success has the result of the
attempt that the tables name, and that worker alone is told so.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from actors.core.lease import Key, Lent
from actors.core.task import State, fence
from storage.memory import MemoryDatabase
from storage.memory.rows import Row
from tests.support.builders import T0_MS

KEPT_MS = 3_500
"""So long after an extension, at least, of a period of 6 s: the primary's clock may have been set by a second, which
nodes come to know in their own time."""


class Wrong(Exception):
    """What is not as it has to be."""


@dataclass(slots=True, eq=False)
class Held:
    """A task in the hands of a worker."""

    task: Lent
    node: str
    at_ms: float
    """Virtual, as all times here."""
    claimed: bool = False
    """Its attempt is in the tables."""
    kept_ms: float | None = None
    """When its owner extended it last."""
    until_ms: int = 0
    """Until when, on the owner's clock."""
    left: bool = False
    """Its worker has said that it ended, gave it up, or is gone."""
    recorded: bool = False
    """Its worker was told that its success is recorded."""
    refused: bool = False
    """Its worker was told that its success came too late."""

    @property
    def fence(self) -> str:
        """Of its attempt."""
        return fence(1, self.task.epoch, self.task.attempt)

    def extended(self, until_ms: int, clock_ms: float) -> None:
        """The owner said so; `clock_ms` is how far the primary's clock was set in all."""
        if until_ms > self.until_ms:
            self.until_ms = until_ms
            self.kept_ms = until_ms - self.task.period_ms - T0_MS - clock_ms


class LeaseHistory:
    """Filled while the cluster runs; `check` at the end."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database
        self.held: dict[str, list[Held]] = defaultdict(list)
        """Task -> who had it, in order."""
        self._under_way: dict[Key, Held] = {}
        self._given_back: set[Key] = set()
        self.redriven: set[str] = set()
        self.extended = 0
        self.lapsed = 0

    def deliver(self, held: Held) -> None:
        """A worker was given a task. Raises Wrong."""
        for before in self.held[held.task.id]:
            self._may_follow(before, held)
        self.held[held.task.id].append(held)
        self._under_way[_key(held.task)] = held

    def _may_follow(self, before: Held, after: Held) -> None:
        if before.left or before.kept_ms is None or not before.claimed or before.fence >= after.fence:
            return
        if _key(before.task) in self._given_back or before.task.id in self.redriven:
            return
        if after.at_ms - before.kept_ms < KEPT_MS:
            raise Wrong(f"C12: {after} although {before} goes on")
        self.lapsed += 1

    def leave(self, held: Held) -> None:
        """Its worker does not work on it any more."""
        held.left = True
        self._under_way.pop(_key(held.task), None)

    def give_back(self, tasks: Iterable[Lent]) -> None:
        """Nobody knows whether these came to their workers."""
        self._given_back.update(map(_key, tasks))

    def carried(self, statement: str) -> None:
        """A statement has taken effect."""
        if statement == "write":
            for (task_id, epoch, attempt), held in self._under_way.items():
                row = None if held.claimed else self._database.live.get(task_id)
                if row is not None and row.claim_ms is not None and (row.epoch, row.attempt) == (epoch, attempt):
                    held.claimed = True

    def check(self) -> None:
        """Raises Wrong."""
        for task_id, some in self.held.items():
            row = self._database.row(task_id)
            assert row is not None
            if task_id not in self.redriven:
                self._result_is_that_of_its_attempt(row, some)

    @staticmethod
    def _result_is_that_of_its_attempt(row: Row, some: list[Held]) -> None:
        result = (row.result or b"").decode()
        told = [held.fence for held in some if held.recorded]
        if row.state is State.SUCCEEDED and int(result.rpartition(".")[2]) != row.attempt:
            raise Wrong(f"C13: {row.id} ended in attempt {row.attempt} with the result of {result}")
        if any(fence != result for fence in told):
            raise Wrong(f"C13: {row.id} is {row.state} with {result!r}, but {told} were told to be recorded")
        if any(held.refused and held.fence == result for held in some):
            raise Wrong(f"C13: {row.id} has the result {result}, and its worker was told that it has not")


def _key(task: Lent) -> Key:
    return task.id, task.epoch, task.attempt
