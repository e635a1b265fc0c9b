"""Port: what people and programs read. Never on the hot path; always tenant-bound."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.core.queue import Queue
from actors.core.spec import Spec
from actors.core.task import State


@dataclass(slots=True)
class TaskRow:
    """One task as the tables have it, live or finished."""

    id: str
    shard: int
    queue: Queue
    state: State
    schedule_ms: int
    due_ms: int
    accept_us: int
    rev: int
    attempt: int
    budget: int
    epoch: int
    spec: Spec
    labels: str | None
    payload: bytes | None
    """Only when asked for and still there."""
    claim_ms: int | None
    lateness_ms: int | None
    finish_ms: int | None
    result: bytes | None
    last_started_ms: int | None
    last_duration_ms: int | None
    last_status: int | None
    last_error: str | None


@dataclass(slots=True)
class AttemptRow:
    """One attempt that failed or was slow."""

    attempt: int
    fence: str
    started_ms: int
    duration_ms: int
    verdict: str
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Narrow:
    """Which tasks of a queue and state a page shows; None: all."""

    labels: str | None = None
    """JSON object as text: all of these."""
    first_ms: int | None = None
    """`schedule_ms` from here on."""
    end_ms: int | None = None
    """`schedule_ms` before this."""


ALL = Narrow()


@dataclass(slots=True)
class Backlog:
    """How much of a queue waits, runs or is held, counted up to `most` each."""

    live: int
    due: int
    """Of those: their time has come."""
    held: int
    """Of those: nobody knows how their attempt ended, and somebody has to say it."""
    most: int


class Reader(Protocol):
    """Reads for the API and for snapshots of live status."""

    async def get(self, tenant: str, task_id: str, *, payload: bool = False) -> TaskRow | None:
        """One task, by one statement over live and finished rows."""
        ...

    async def attempts(self, tenant: str, task_id: str) -> list[AttemptRow]:
        """Its recorded attempts, oldest first, at most 1,000."""
        ...

    async def page(
        self,
        tenant: str,
        queue: str | None,
        states: Sequence[State],
        after: tuple[int, str] | None,
        limit: int,
        narrow: Narrow = ALL,
        *,
        backwards: bool = False,
    ) -> list[TaskRow]:
        """A key-set page in (due_ms, id) order, strictly after `after`; live rows have state SCHEDULED here.

        `backwards` turns the order, and what "after" means, round.

        Raises Unavailable when it can't be read in time.
        """
        ...

    async def backlog(self, queue: Queue, now_ms: int) -> Backlog:
        """The queue's live tasks, and those due at `now_ms`. Raises Unavailable when they can't be counted in time."""
        ...
