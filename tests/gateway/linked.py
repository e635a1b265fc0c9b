"""Two ends of links on real sockets, each with a node that takes what it is told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from actors.core.codec import SpecCodec
from actors.core.errors import RingwheelError, Unavailable
from actors.core.events import Answer, Change, Command
from actors.core.live import Live, gone
from actors.core.queue import Queue, QueueBook
from actors.core.reach import Reach
from actors.core.task import Move, Task
from actors.core.wire import Wire
from actors.ports.leases import Peer
from gateway.hub import Event
from gateway.link import PATH, Link
from gateway.peers import PEERS, Peers, peer
from gateway.problems import answering
from gateway.tls import trusting
from gateway.topics import Topic
from gateway.turn import Turn
from tests.gateway.lent import BorrowingDouble, LendingDouble
from tests.gateway.watched import SignalHub
from tests.support.builders import T0_MS, task_id

SECRET = b"s" * 32
QUEUE = Queue(7, "default", "mail")
NEW = Queue(8, "default", "new")
EPOCHS = {0: 3}


@dataclass
class NodeDouble:
    """Takes what it is told."""

    book: QueueBook
    hinted: list[str] = field(default_factory=list)
    given: int = 0
    """How often it was told to beat."""
    asked: list[Command] = field(default_factory=list)
    measured: list[int] = field(default_factory=list)
    learned: list[Queue] = field(default_factory=list)
    """Queues that it learns of when it looks."""
    reads: list[list[int]] = field(default_factory=list)
    """Which it looked for."""
    table: asyncio.Event = field(default_factory=asyncio.Event)
    """Until then it goes on looking."""
    answers: Callable[[Command], Answer | None] = lambda command: Answer(None, changed=False)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    lending: LendingDouble = field(init=False)
    pulling: BorrowingDouble = field(init=False)

    def __post_init__(self) -> None:
        self.lending, self.pulling = LendingDouble(self.news), BorrowingDouble(self.news)
        self.held.set()
        self.table.set()

    def take_hint(self, tasks: list[Task], at_ms: int, epochs: dict[int, int]) -> None:
        assert (at_ms, epochs) == (T0_MS, EPOCHS)
        self.hinted += [task.id for task in tasks]
        self.news.set()

    def beat_soon(self) -> None:
        self.given += 1
        self.news.set()

    async def learn_queues(self, numbers: Collection[int]) -> None:
        self.reads.append(sorted(numbers))
        self.news.set()
        await self.table.wait()
        for queue in self.learned:
            if queue.id in numbers:
                self.book.put(queue)
        if not self.learned:
            raise Unavailable("the database is away")

    async def answer(self, command: Command) -> Answer | None:
        self.asked.append(command)
        self.news.set()
        await self.held.wait()
        return self.answers(command)

    def show(self, ids: Sequence[str]) -> list[Live]:
        return [gone(task_id, 3) for task_id in ids]

    async def measure(self, before_us: int) -> list[Reach]:
        self.measured.append(before_us)
        self.news.set()
        await self.held.wait()
        return [Reach(3, before_us, 7, {7: (T0_MS, task_id(1))})]

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not true():
                self.news.clear()
                await self.news.wait()


@dataclass
class End:
    """One process."""

    boot: str
    hub: SignalHub
    peers: Peers
    node: NodeDouble
    address: str = ""

    @property
    def peer(self) -> Peer:
        return Peer(self.boot, f"name-{self.boot}", self.address, "up", 1)

    def see(self, *others: "End", secret: bytes = SECRET) -> None:
        self.peers.see(self.boot, secret, [self.peer, *(other.peer for other in others)])

    async def linked(self, other: "End") -> Link:
        """Wait until it has a link."""
        way = self.peers.link(other.boot)
        assert way is not None
        async with asyncio.timeout(10):
            await way.up.wait()
        return way


class Ear:
    """A watcher."""

    def __init__(self) -> None:
        self.heard: list[Change] = []
        self.gaps = 0
        self._news = asyncio.Event()

    def push(self, event: Event) -> None:
        self.heard.append(event.change)
        self._news.set()

    def interrupt(self, *, foreign: bool) -> None:
        self.gaps += 1
        self._news.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def watching(at: End, topic: Topic) -> AsyncIterator[Ear]:
    """Someone who watches, as soon as the other nodes know of it."""
    ear = Ear()
    with at.hub.watching():
        at.hub.interest.take(topic)
        await at.hub.interest.told(topic)
        at.hub.add(topic, ear)
        try:
            yield ear
        finally:
            at.hub.remove(topic, ear)
            at.hub.interest.leave(topic)


@asynccontextmanager
async def end(boot: str) -> AsyncIterator[End]:
    book = QueueBook()
    book.put(QUEUE)
    node = NodeDouble(book)
    hub = SignalHub(boot, kept=1_000)
    made = Peers(Wire(book, SpecCodec()), hub, trusting(None), Turn())
    made.node = node
    app = web.Application()
    app[PEERS] = made
    app.router.add_get(PATH, answering(peer))
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(made.run())
            yield End(boot, hub, made, node, f"127.0.0.1:{runner.addresses[0][1]}")
            running.cancel()
    finally:
        await runner.cleanup()


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[End, End]]:
    async with end("boot-a") as a, end("boot-b") as b:
        a.see(b)
        b.see(a)
        await a.hub.until(lambda: a.hub.seq > 0)  # the interruption that comes of a new link
        await b.hub.until(lambda: b.hub.seq > 0)
        try:
            yield a, b
        finally:  # a server waits for the links to it
            a.see()
            b.see()


def command(number: int = 1) -> Command:
    return Command(Move.CANCEL, task_id(number), None)


async def error_of(a: End, asked: Command) -> RingwheelError:
    """What a command is refused with."""
    with pytest.raises(RingwheelError) as error:
        await a.peers.ask("boot-b", asked)
    return error.value
