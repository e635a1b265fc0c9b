"""Random steps over the ports, to compare two implementations: the same steps must give the same answers.

Guards (owner, rev, epoch, counter) are drawn as a distance from what the twin has before the step, so that most steps
pass their guards and some do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.core.events import NO_ID, Op, Page, Record, Verdict
from actors.core.queue import Queue
from actors.core.task import State, Task
from storage.memory import MemoryDatabase
from tests.actors.ports.worlds import Stores
from tests.support.builders import (
    T0_DAY,
    T0_MS,
    make_outcome,
    make_record,
    make_task,
    task_id,
)

NUMBERS = range(8)
SHARDS = range(2)
BOOTS = ("boot-a", "boot-b", "boot-c")
QUEUES = (("default", "q0"), ("default", "q1"), ("acme", "q0"))
TERMINAL = (State.SUCCEEDED, State.DEAD, State.EXPIRED, State.CANCELLED)


def id_of(number: int) -> str:
    return task_id(number, number % len(SHARDS))


class Guards:
    """What the twin has at one moment."""

    def __init__(self, twin: MemoryDatabase) -> None:
        rows = {number: twin.row(id_of(number)) for number in NUMBERS}
        self.revs = {number: row.rev if row else 0 for number, row in rows.items()}
        self.over = {number for number, row in rows.items() if row and row.state in TERMINAL}
        self.owner = twin.shards[0].owner or BOOTS[0]
        self.epochs = {shard: twin.shards[shard].epoch for shard in SHARDS}
        self.beats = {boot: node.beats for boot, node in twin.nodes.items()}


@dataclass(frozen=True)
class Side:
    """One of the two implementations."""

    stores: Stores
    queues: Sequence[Queue]


class Step(Protocol):
    """One call of a port."""

    async def take(self, side: Side, guards: Guards) -> object: ...


# --- accepting and loading ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """A task to accept."""

    number: int
    queue: int
    due: int
    payload: bytes | None
    labels: str | None
    key_hash: bytes

    def task(self, side: Side, *, keyed: bool) -> Task:
        return make_task(
            self.number,
            side.queues[self.queue],
            shard=self.number % len(SHARDS),
            due_ms=T0_MS + self.due,
            payload=self.payload,
            labels=self.labels,
            key_hash=self.key_hash if keyed else None,
        )


@dataclass(frozen=True)
class Accept:
    """Unkeyed tasks are of ids that were never finished: a random id has no second life."""

    draws: list[Draw]

    async def take(self, side: Side, guards: Guards) -> object:
        fresh = [draw for draw in self.draws if guards.revs[draw.number] == 0]
        return await side.stores.tasks.accept([draw.task(side, keyed=False) for draw in fresh])


@dataclass(frozen=True)
class AcceptKeyed:
    draws: list[Draw]

    async def take(self, side: Side, guards: Guards) -> object:
        return await side.stores.tasks.accept_keyed([draw.task(side, keyed=True) for draw in self.draws])


@dataclass(frozen=True)
class PageDraw:
    shard: int
    queue: int | None
    after: tuple[int, int] | None
    until: int
    limit: int
    total: int
    cap: tuple[int, int] | None

    def page(self, side: Side) -> Page:
        after_ms, after_id = (T0_MS + self.after[0], id_of(self.after[1])) if self.after else (0, NO_ID)
        queue_id = side.queues[self.queue].id if self.queue is not None else None
        caps = {side.queues[self.cap[0]].id: T0_MS + self.cap[1]} if self.cap is not None else {}
        until_ms = T0_MS + self.until
        return Page(self.shard, 1, queue_id, after_ms, after_id, until_ms, self.limit, self.total, caps)


@dataclass(frozen=True)
class Load:
    """Answers per page: its tasks in order, then the full queues; then the payloads of them all."""

    pages: list[PageDraw]

    async def take(self, side: Side, guards: Guards) -> object:
        loads = await side.stores.tasks.load([draw.page(side) for draw in self.pages])
        tasks = [task for loaded in loads for task in loaded.tasks]
        before = [plain(task) for task in tasks]
        await side.stores.tasks.payloads(tasks)
        return before, [task.payload for task in tasks], [loaded.full for loaded in loads]


@dataclass(frozen=True)
class Find:
    tenant: str | None
    numbers: list[int]

    async def take(self, side: Side, guards: Guards) -> object:
        found = await side.stores.tasks.find(self.tenant, [id_of(number) for number in self.numbers])
        return [(one.id, plain(one.task) if one.task else None, one.state, one.epoch) for one in found]


# --- ledger ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RecordDraw:
    """A record; `fits` False lets it try what the task's state does not allow."""

    number: int
    op: Op
    fits: bool
    state: State
    rev_off: int
    epoch_off: int
    due: int
    verdict: Verdict | None
    duration_ms: int

    def _op(self, guards: Guards) -> Op:
        if self.fits and self.number in guards.over:
            return Op.REDRIVE
        return Op.FINISH if self.fits and self.op is Op.REDRIVE else self.op

    def record(self, side: Side, guards: Guards) -> Record:
        op = self._op(guards)
        task = make_task(self.number, side.queues[0], shard=self.number % len(SHARDS))
        rev = guards.revs[self.number] + self.rev_off
        epoch = guards.epochs[task.shard] + self.epoch_off
        outcome = None
        if self.verdict is not None and op is not Op.REDRIVE:
            outcome = make_outcome(
                task, self.verdict, epoch=epoch, attempt=rev + 1, duration_ms=self.duration_ms, result=b"r", error="e"
            )
        return make_record(
            op,
            task,
            epoch,
            rev=rev,
            state=self.state if op is Op.FINISH else State.SCHEDULED,
            due_ms=T0_MS + self.due,
            attempt=rev + 1,
            budget=rev + 6,
            lateness_ms=self.due,
            claim_ms=T0_MS + self.duration_ms,
            outcome=outcome,
        )


@dataclass(frozen=True)
class Write:
    """By the owner of shard 0 unless a boot is named."""

    boot: str | None
    draws: list[RecordDraw]

    async def take(self, side: Side, guards: Guards) -> object:
        return await side.stores.ledger.write(
            self.boot or guards.owner, [draw.record(side, guards) for draw in self.draws]
        )


# --- leases ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Join:
    boot: str

    async def take(self, side: Side, guards: Guards) -> object:
        return (await side.stores.leases.join(self.boot, self.boot, "here:7070")).shards


@dataclass(frozen=True)
class BeatOnce:
    boot: str

    async def take(self, side: Side, guards: Guards) -> object:
        beat = await side.stores.leases.beat(self.boot)
        if beat is None:
            return None
        return beat.owned, beat.orphans, beat.holders, sorted(beat.peers, key=lambda peer: peer.boot)


@dataclass(frozen=True)
class Condemn:
    boot: str
    off: int

    async def take(self, side: Side, guards: Guards) -> object:
        return await side.stores.leases.condemn(self.boot, guards.beats.get(self.boot, 0) + self.off)


@dataclass(frozen=True)
class Sweep:
    boot: str
    offs: dict[int, int]

    async def take(self, side: Side, guards: Guards) -> object:
        orphans = {shard: guards.epochs[shard] + off for shard, off in self.offs.items()}
        return await side.stores.leases.sweep(self.boot, orphans)


@dataclass(frozen=True)
class Leave:
    boot: str

    async def take(self, side: Side, guards: Guards) -> object:
        await side.stores.leases.leave(self.boot)
        return None


@dataclass(frozen=True)
class Depart:
    boot: str

    async def take(self, side: Side, guards: Guards) -> object:
        await side.stores.leases.depart(self.boot)
        return None


@dataclass(frozen=True)
class Give:
    """By the owner of shard 0 unless a boot is named; `offs` are of epochs."""

    boot: str | None
    heirs: dict[int, tuple[int, str]]

    async def take(self, side: Side, guards: Guards) -> object:
        moves = {shard: (guards.epochs[shard] + off, heir) for shard, (off, heir) in self.heirs.items()}
        return await side.stores.leases.give(self.boot or guards.owner, moves)


# --- reading and history -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Get:
    tenant: str
    number: int
    payload: bool

    async def take(self, side: Side, guards: Guards) -> object:
        row = await side.stores.reader.get(self.tenant, id_of(self.number), payload=self.payload)
        attempts = await side.stores.reader.attempts(self.tenant, id_of(self.number))
        return plain(row) if row else None, [plain(attempt) for attempt in attempts]


@dataclass(frozen=True)
class ReadPage:
    tenant: str
    queue: str | None
    states: list[State]
    after: tuple[int, int] | None
    limit: int
    backwards: bool

    async def take(self, side: Side, guards: Guards) -> object:
        after = (T0_MS + self.after[0], id_of(self.after[1])) if self.after else None
        page = side.stores.reader.page
        rows = await page(self.tenant, self.queue, self.states, after, self.limit, backwards=self.backwards)
        return [plain(row) for row in rows]


@dataclass(frozen=True)
class DropDays:
    """Drop the days before one of the near future, and make room again for what finishes later."""

    ahead: int

    async def take(self, side: Side, guards: Guards) -> object:
        dropped = await side.stores.housekeeping.drop_partitions(T0_DAY + self.ahead)
        await side.stores.housekeeping.make_partitions(T0_DAY, T0_DAY + 8)
        return len(dropped)


def plain(noun: object) -> tuple[object, ...]:
    """The fields of a slotted noun, its queue by number."""
    names: Sequence[str] = type(noun).__slots__  # type: ignore[attr-defined]
    return tuple((name, _value(getattr(noun, name))) for name in sorted(names))


def _value(value: object) -> object:
    return value.id if isinstance(value, Queue) else value
