"""Whole nodes over one memory database, in one loop and in virtual time, with a scripted dispatcher each.

A node can be paused (its process is stopped), killed, cut off from the database, or started again. What was run and
what was published is kept for the test to look at.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from types import TracebackType
from typing import Any, Self, TypeVar

from actors.core.draft import Draft, Receipt
from actors.core.errors import RingwheelError, Unavailable
from actors.core.events import Change
from actors.core.ids import shard_of
from actors.core.queue import Queue, QueueBook
from actors.core.spec import Spec
from actors.core.task import State, Task
from actors.membership import new_boot
from actors.node import Node
from storage.memory import (
    Fault,
    MemoryDatabase,
    MemoryHousekeeping,
    MemoryLeaseStore,
    MemoryLedgerStore,
    MemoryLink,
    MemoryQueueStore,
    MemoryReader,
    MemoryTaskStore,
)
from storage.memory.database import NodeRow
from storage.memory.rows import Row
from tests.support.builders import HASH, SPEC, T0_MS
from tests.support.network import MemoryLinks, Network
from tests.support.scripted import Run, Script, ScriptedDispatcher, succeed
from tests.support.virtual_time import Process

T = TypeVar("T")

WITHIN_S = 60.0
"""How long `until` waits, in virtual time, unless told otherwise."""


class Wire(MemoryLink):
    """A link whose statements travel: they take effect half of the way later, and the reply needs as long again.

    What is under way is the network's and the server's: it arrives although its sender was stopped meanwhile, or, as
    long as `forgets` says no, gave it up.
    """

    def __init__(self, cluster: "Cluster", boot: str) -> None:
        super().__init__(cluster.database, boot)
        self._cluster = cluster
        self._hung: list[Callable[[], None]] | None = None
        """What would have arrived, while nothing does."""
        self._closed = False
        self._age = 0
        self._replies: dict[asyncio.Future[Any], None] = {}
        self.forgets: Callable[[], bool] = lambda: True
        """Whether a statement that its sender gave up does not arrive any more."""
        self.carried: Callable[[str], None] = lambda statement: None
        """Called when a statement has taken effect."""
        self.sent: list[str] = []
        """Names of all statements so far."""

    def hang(self) -> None:
        """Statements are neither carried out nor refused, until `flow`."""
        if self._hung is None:
            self._hung = []

    def flow(self) -> None:
        """Statements go on."""
        hung, self._hung = self._hung or [], None
        for arrive in hung:
            arrive()

    def cut(self) -> None:
        """Nothing arrives, and whoever sent it learns so."""
        self.away = True

    def mend(self) -> None:
        """Statements arrive again."""
        self.away = False

    def heal(self) -> None:
        """All connections are new: what was under way is lost, what comes now arrives, and no fault waits for it."""
        self.mend()
        self._faults.clear()
        self._age += 1
        self.flow()
        for reply in list(self._replies):
            if not reply.done():
                reply.set_exception(Unavailable("the connection was cut"))

    def close(self, *, forgets: bool = True) -> None:
        """Its process has ended: nothing more is sent; what is under way may still take effect."""
        self._closed = True
        self.away = self.away or forgets
        if not forgets:
            self.forgets = lambda: False

    async def call(self, statement: str, work: Callable[[], T]) -> T:
        """See MemoryLink."""
        self.sent.append(statement)
        if self._closed:
            raise Unavailable(f"{statement}: this process has ended")
        fault, gate = self.next_of(statement)
        if gate is not None:
            await gate.passed()
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[T] = loop.create_future()
        age = self._age

        def arrive() -> None:
            if self._hung is not None:
                self._hung.append(arrive)
            elif age == self._age and not (reply.cancelled() and self.forgets()):
                self._carry_out(statement, work, reply, fault)

        loop.call_later(self._cluster.way_ms() / 1_000, arrive, context=Context())
        self._replies[reply] = None
        try:
            return await reply
        finally:
            del self._replies[reply]

    def _carry_out(self, statement: str, work: Callable[[], T], reply: asyncio.Future[T], fault: Fault | None) -> None:
        """At the server, at one instant."""
        answer: T | None = None
        error: Exception | None = None
        if self.away or self._cluster.away or fault is Fault.LOST:
            error = Unavailable(f"{statement}: the database can't be reached")
        else:
            try:
                answer = work()
            except RingwheelError as refused:
                error = refused
            self.carried(statement)
            if fault is Fault.REPLY_LOST:
                error = Unavailable(f"{statement}: the reply was lost")

        def come_back() -> None:
            if self._hung is not None:
                self._hung.append(come_back)
                return
            self._cluster.changed.set()
            if reply.done():
                return
            if self.away or self._cluster.away or error is not None:
                reply.set_exception(error or Unavailable(f"{statement}: the reply was lost"))
            else:
                reply.set_result(answer)  # type: ignore[arg-type]

        asyncio.get_running_loop().call_later(self._cluster.way_ms() / 1_000, come_back, context=Context())


class Member:
    """One process of the cluster: a node, its dispatcher, its way to the database."""

    def __init__(self, cluster: "Cluster", name: str, script: Script, address: str) -> None:
        boot = new_boot()
        self.name = name
        self.boot = boot
        self.process = Process(name)
        self.wire = Wire(cluster, boot)
        self.book = QueueBook()
        self.queues = MemoryQueueStore(self.wire, self.book)
        self.reader = MemoryReader(self.wire, self.book)
        self.links = MemoryLinks(cluster.network, self, address)
        self.changes: list[Change] = []
        self.drift = 0.0
        """How much faster this node's clock runs than the others'."""
        self._cluster = cluster
        self.node = Node(
            boot=boot,
            name=name,
            address=address,
            tasks=MemoryTaskStore(self.wire, self.book),
            ledger=MemoryLedgerStore(self.wire),
            leases=MemoryLeaseStore(self.wire),
            queues=self.queues,
            housekeeping=MemoryHousekeeping(self.wire),
            links=self.links,
            lines=self.links.lines,
            publish=self._publish,
            boot_ms=lambda: asyncio.get_running_loop().time() * 1_000 * (1 + self.drift),
        )
        self.dispatcher = ScriptedDispatcher(self.node, self._wrote, script)
        self.failure: BaseExceptionGroup | None = None
        self.ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def owned(self) -> dict[int, int]:
        """Shard -> epoch, as this node believes."""
        return {shard: actor.state.epoch for shard, actor in self.node.hand.actors.items()}

    def task(self, task_id: str) -> Task | None:
        """The task in this node's memory."""
        actor = self.node.hand.actors.get(shard_of(task_id, self.node.membership.shards))
        return None if actor is None else actor.state.holding.known.get(task_id)

    def live_in(self, group: asyncio.TaskGroup) -> None:
        """Run until killed."""
        self._task = self.process.start(group, self._live())

    async def _live(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.node.run())
                group.create_task(self.links.run())
                group.create_task(self.dispatcher.run())
        except BaseExceptionGroup as failure:
            self.failure = failure
        finally:
            self._cluster.database.sessions.discard(self.node.membership.boot)
            self._cluster.network.leave(self.links)
            self.ended.set()
            asyncio.get_running_loop().call_soon(self.process.end, context=Context())
            self._cluster.changed.set()

    def keep(self) -> None:
        """Give no shards away."""
        self.node.handover.look = lambda: None  # type: ignore[method-assign]

    async def failed(self) -> BaseException:
        """Wait for its end, and answer the one error that ended it."""
        await self.ended.wait()
        error: BaseException | None = self.failure
        self.failure = None
        while isinstance(error, BaseExceptionGroup):
            (error,) = error.exceptions
        assert error is not None
        return error

    async def kill(self, *, forgets: bool = True) -> None:
        """Nothing of it happens any more: what is under way is neither finished nor taken back.

        Unless it `forgets`, statements that it has sent arrive all the same.
        """
        assert self._task is not None
        self.wire.close(forgets=forgets)
        self._task.cancel()
        self.process.resume()
        await asyncio.wait({self._task})
        self.process.end()
        self.ended.set()  # one that was cancelled before its first step says nothing

    def _publish(self, changes: list[Change]) -> None:
        self.changes.extend(changes)
        self._cluster.changed.set()

    def _wrote(self, task: Task) -> None:
        self._cluster.wrote(self, task)


class Cluster:
    """A database, and the nodes on it."""

    def __init__(self, *, shards: int = 256) -> None:
        self.database = MemoryDatabase(self.now_ms, shards)
        self.members: list[Member] = []
        self.network = Network()
        self.runs: list[Run] = []
        self.changed = asyncio.Event()
        """Something happened that a test may wait for."""
        self.way_ms: Callable[[], float] = lambda: 0.5
        """Half a round trip to the database."""
        self.away = False
        """Nobody reaches the database."""
        self.step_ms = 0.0
        """How far the primary's clock was set since the beginning."""
        self.observe: Callable[[Member, Run, Task], None] = lambda member, run, task: None
        """Called for each run."""
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self.members:
            await member.kill()
        await self._group.__aexit__(kind, error, trace)
        for member in self.members:
            if member.failure is not None:
                raise member.failure

    def now_ms(self) -> float:
        """The primary's clock."""
        return T0_MS + asyncio.get_running_loop().time() * 1_000 + self.step_ms

    def join(self, name: str = "a", script: Script = succeed, address: str | None = None) -> Member:
        """A new process; it is not ready yet."""
        member = Member(self, name, script, address or f"{name}:7070")
        self.members.append(member)
        member.live_in(self._group)
        return member

    async def start(self, name: str = "a", script: Script = succeed) -> Member:
        """A new process that has its part of the shards."""
        member = self.join(name, script)
        await self.until(lambda: member.node.ready)
        return member

    async def until(self, true: Callable[[], bool], within_s: float = WITHIN_S) -> None:
        """Wait until it is true; it is asked after everything that happens."""
        async with asyncio.timeout(within_s):
            while not true():
                self.changed.clear()
                await self.changed.wait()

    async def ended(self, ids: Iterable[str], within_s: float = WITHIN_S) -> None:
        """Wait until all of them are finished, and the word of it is out."""
        wanted = set(ids)
        await self.until(lambda: wanted <= self.database.finished.keys(), within_s)
        await asyncio.sleep(0.01)

    def wrote(self, member: Member, task: Task) -> None:
        """An attempt's request goes out."""
        run = Run(
            task.id,
            member.name,
            task.epoch,
            task.attempt,
            self.now_ms(),
            task.payload,
            task.schedule_ms,
            member.node.fence_of(task),
            task.started_ms,
        )
        self.runs.append(run)
        self.observe(member, run, task)
        self.changed.set()

    def runs_of(self, task_id: str) -> list[Run]:
        """The attempts of one task, in order."""
        return [run for run in self.runs if run.id == task_id]

    def row(self, task_id: str) -> Row:
        """The row, live or finished."""
        row = self.database.row(task_id)
        assert row is not None
        return row

    def state(self, task_id: str) -> State:
        """What the tables say."""
        return self.row(task_id).state

    def cut(self, *, away: bool) -> None:
        """The database goes away for everybody, or comes back."""
        self.away = away

    def give_away(self, boot: str) -> None:
        """Every shard changes hands at once: somebody else took it, who may be no member of this cluster."""
        self.database.nodes.setdefault(boot, NodeRow(boot, boot, f"{boot}:7070"))
        for row in self.database.shards.values():
            row.owner, row.epoch = boot, row.epoch + 1

    def owners(self) -> dict[int, str | None]:
        """Shard -> boot, as the tables have it."""
        return {shard: row.owner for shard, row in self.database.shards.items()}


async def submit(member: Member, drafts: Sequence[Draft]) -> list[Receipt]:
    """Submit drafts that must all be accepted."""
    receipts: list[Receipt] = []
    for answer in await member.node.intake.submit(drafts):
        assert isinstance(answer, Receipt), answer
        receipts.append(answer)
    return receipts


async def submit_some(member: Member, count: int, queue: str = "emails", *, delay_ms: int | None = None) -> list[str]:
    """Submit `count` plain webhook tasks; their ids."""
    home = await member.queues.ensure("default", queue)
    return [receipt.id for receipt in await submit(member, [draft(home, delay_ms=delay_ms) for _ in range(count)])]


def draft(
    queue: Queue,
    *,
    spec: Spec = SPEC,
    key: str | None = None,
    key_hash: bytes = HASH,
    delay_ms: int | None = None,
    schedule_ms: int | None = None,
    payload: bytes | None = None,
    ring_key: str | None = None,
) -> Draft:
    """A draft of a webhook task."""
    return Draft(
        queue,
        spec,
        key=key,
        key_hash=None if key is None else key_hash,
        delay_ms=delay_ms,
        schedule_ms=schedule_ms,
        payload=payload,
        ring_key=ring_key,
    )
