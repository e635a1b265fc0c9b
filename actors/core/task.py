"""A task: its public states, THE table of legal moves, and its in-memory form.

`MOVES` is the only place that knows which state may follow which; the API's 409s, the shard and the diagram in the
docs are all read from it. `Task` is what an owner keeps of a live row: slim, quick to make, mutable, and changed by
its shard alone (see `shard.py`).

Promises: a terminal state is left by `redrive` only. Refuses: every pair that is not in the table.
"""

import enum
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from actors.core.errors import Conflict

if TYPE_CHECKING:
    from actors.core.queue import Queue
    from actors.core.spec import Spec


class State(enum.StrEnum):
    """What a client sees. `SCHEDULED` also between two attempts (then `attempt > 0`)."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    __hash__ = str.__hash__  # an enum's own is a call of Python, and states are keys wherever records are made


TERMINAL = frozenset({State.SUCCEEDED, State.DEAD, State.EXPIRED, State.CANCELLED})


class Move(enum.StrEnum):
    """What can happen to a task: its own life first, then the commands of clients."""

    START = "start"
    SUCCEED = "succeed"
    RETRY = "retry"
    DIE = "die"
    EXPIRE = "expire"
    CANCEL = "cancel"
    RUN = "run"
    RESCHEDULE = "reschedule"
    REDRIVE = "redrive"


MOVES: dict[tuple[State, Move], State] = {
    (State.SCHEDULED, Move.START): State.RUNNING,
    (State.SCHEDULED, Move.EXPIRE): State.EXPIRED,
    (State.SCHEDULED, Move.CANCEL): State.CANCELLED,
    (State.SCHEDULED, Move.RUN): State.SCHEDULED,
    (State.SCHEDULED, Move.RESCHEDULE): State.SCHEDULED,
    (State.RUNNING, Move.SUCCEED): State.SUCCEEDED,
    (State.RUNNING, Move.RETRY): State.SCHEDULED,
    (State.RUNNING, Move.DIE): State.DEAD,
    (State.CANCELLED, Move.CANCEL): State.CANCELLED,
    (State.DEAD, Move.REDRIVE): State.SCHEDULED,
    (State.EXPIRED, Move.REDRIVE): State.SCHEDULED,
    (State.CANCELLED, Move.REDRIVE): State.SCHEDULED,
}
LEASED_MOVES: dict[tuple[State, Move], State] = {(State.RUNNING, Move.CANCEL): State.CANCELLED}
"""What besides can happen to a task that a worker runs: it can be told to stop, and its late result be refused."""


def after(state: State, move: Move, *, leased: bool = False) -> State:
    """The state that `move` leads to; raises Conflict when the table does not have it."""
    to = MOVES.get((state, move)) or (LEASED_MOVES.get((state, move)) if leased else None)
    if to is None:
        raise refusal(state, move)
    return to


_IS = {
    State.SCHEDULED: "is scheduled",
    State.RUNNING: "is running",
    State.SUCCEEDED: "has succeeded",
    State.DEAD: "is dead",
    State.EXPIRED: "has expired",
    State.CANCELLED: "was cancelled",
}
_DO = {Move.SUCCEED: "complete", Move.RETRY: "complete", Move.DIE: "complete"}


def refusal(state: State, move: Move) -> Conflict:
    """Why the table does not have this pair, in words."""
    return Conflict(f"can't {_DO.get(move, move.value)} a task that {_IS[state]}", state.value)


class Phase(enum.IntEnum):
    """Where the owner has a live task. Finer than `State`, never stored, never shown."""

    WAITING = 0
    """In the wheel, until `due_ms`."""
    OFFERED = 1
    """Due, at the desk of its queue, until somebody takes it."""
    RUNNING = 2
    """An attempt is under way."""
    WRITING = 3
    """A record of it is on its way to the ledger; nothing else may touch it."""
    GONE = 4
    """No longer held by this owner; whoever still has a reference drops it."""


_WAITING = Phase.WAITING  # on 3.11 a member of an enum costs ten times a global
UNTRIED = None, None
"""`Task.last` before an attempt has ended."""


class Task(msgspec.Struct, eq=False):
    """A live task in its owner's memory; mirrors the row of `tasks` with the same `rev`.

    All times are integer milliseconds since 1970 on the primary's clock. `schedule_ms` is as asked and never moves;
    `due_ms` is the next action. `rev` grows by one with each durable change. `payload` is None while it rests in
    Postgres; `payload_bytes` says how large it is there (0 = the task has none).
    """

    id: str
    shard: int
    queue: "Queue"
    schedule_ms: int
    due_ms: int
    accept_us: int
    """Microseconds, node-monotonic: when it was accepted, and its place among equals."""
    spec: "Spec"
    payload: bytes | None = None
    payload_bytes: int = 0
    labels: str | None = None
    """JSON object as text, or None."""
    key_hash: bytes | None = None
    """Hash of the request, when it came with an idempotency key."""
    trace: str | None = None
    """`traceparent` of the request that brought it, or None."""
    budget: int = 5
    """The number of the last attempt that this task may have."""
    rev: int = 0
    attempt: int = 0
    lateness_ms: int | None = None
    """How late the first attempt started; None before it."""
    claim_ms: int | None = None
    """A durable claim's deadline; None when no claim is stored."""
    claim_boot: str | None = None
    """Who wrote the claim, as a row told it; None of a claim that was made here."""
    started_ms: int = 0
    """When the current attempt started; 0 when none runs."""
    last: tuple[int | None, str | None] = UNTRIED
    """Status and error of the attempt that ended last: what watchers are told of it."""
    step: int = 0
    """Starts and starts taken back under this revision; odd while an attempt runs (`changes.py`)."""
    epoch: int = 0
    """The shard's epoch under which the current attempt started."""
    phase: Phase = _WAITING
    wake_ms: int = 0
    """When the wheel brings it back: `due_ms` while waiting, a deadline or an expiry later on."""
    slot: object = None
    """Belongs to the wheel."""
    lease_ms: int = 0
    """When the lease of its worker ends (`lease.py`); 0: it has none."""

    @property
    def pulled(self) -> bool:
        """It waits for a worker to take it; others are sent to their target."""
        return self.spec.http is None

    def __repr__(self) -> str:
        return f"<Task {self.id} {Phase(self.phase).name} due={self.due_ms} rev={self.rev} attempt={self.attempt}>"


_FENCE = re.compile(r"([0-9a-f]{8})\.(\d{10})\.(\d{6})", re.ASCII)


def fence(timeline: int, epoch: int, attempt: int) -> str:
    """The fence of an attempt: fixed width, so that comparing the text compares (timeline, epoch, attempt)."""
    return f"{_fence_head(timeline, epoch)}{attempt:06d}"


@lru_cache(maxsize=4096)  # a shard has one epoch for as long as it stays
def _fence_head(timeline: int, epoch: int) -> str:
    return f"{timeline:08x}.{epoch:010d}."


@lru_cache(maxsize=4096)  # most are of first attempts under one epoch
def fence_parts(text: str) -> tuple[int, int, int] | None:
    """(timeline, epoch, attempt) of a fence; None when `text` is none."""
    match = _FENCE.fullmatch(text)
    return None if match is None else (int(match[1], 16), int(match[2]), int(match[3]))


def by_shard(tasks: Iterable[Task]) -> dict[int, list[Task]]:
    """The tasks of each shard, in their order."""
    groups: dict[int, list[Task]] = defaultdict(list)
    for task in tasks:
        groups[task.shard].append(task)
    return groups
