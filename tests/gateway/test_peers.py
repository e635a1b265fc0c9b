"""Links between nodes on real sockets: who gets in, what arrives, and what a broken link means."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from actors.core.codec import SpecCodec
from actors.core.errors import Conflict, Invalid, RingwheelError, Unavailable
from actors.core.events import Answer, Command
from actors.core.live import Live, gone
from actors.core.queue import Queue, QueueBook
from actors.core.task import Move, Task
from actors.core.wire import PAYLOAD_BYTES, Frame, Wire, encode
from actors.ports.leases import Peer
from gateway import peers
from gateway.peers import NONCE_BYTES, OUTBOX, PATH, PEERS, Link, Peers, peer
from gateway.problems import answering
from tests.support.builders import T0_MS, make_task, task_id

SECRET = b"s" * 32
QUEUE = Queue(7, "default", "mail")
NEW = Queue(8, "default", "new")


@dataclass
class NodeDouble:
    """Takes what it is told."""

    book: QueueBook
    hinted: list[str] = field(default_factory=list)
    asked: list[Command] = field(default_factory=list)
    learned: list[Queue] = field(default_factory=list)
    """Queues that it learns of when it looks."""
    answers: Callable[[Command], Answer | None] = lambda command: Answer(None, changed=False)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.held.set()

    def take_hint(self, tasks: list[Task], at_ms: int) -> None:
        assert at_ms == T0_MS
        self.hinted += [task.id for task in tasks]
        self.news.set()

    async def learn_queues(self) -> None:
        for queue in self.learned:
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

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():
                self.news.clear()
                await self.news.wait()


@dataclass
class End:
    """One process."""

    boot: str
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
        link = self.peers.link(other.boot)
        assert link is not None
        async with asyncio.timeout(10):
            await link.up.wait()
        return link


@asynccontextmanager
async def end(boot: str) -> AsyncIterator[End]:
    book = QueueBook()
    book.put(QUEUE)
    node = NodeDouble(book)
    made = Peers(Wire(book, SpecCodec()))
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
            yield End(boot, made, node, f"127.0.0.1:{runner.addresses[0][1]}")
            running.cancel()
    finally:
        await runner.cleanup()


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[End, End]]:
    async with end("boot-a") as a, end("boot-b") as b:
        a.see(b)
        b.see(a)
        await a.linked(b)
        await b.linked(a)
        yield a, b


def command(number: int = 1) -> Command:
    return Command(Move.CANCEL, task_id(number), None)


async def test_hints_arrive() -> None:
    async with pair() as (a, b):
        a.peers.hint("boot-b", [make_task(n, QUEUE) for n in range(1_200)], T0_MS)
        b.peers.hint("boot-a", [make_task(7, QUEUE)], T0_MS)
        await b.node.until(lambda: len(b.node.hinted) == 1_200)
        assert b.node.hinted == [task_id(n) for n in range(1_200)]
        await a.node.until(lambda: a.node.hinted == [task_id(7)])


async def test_a_hint_of_a_new_queue_is_taken_once_the_queue_is_known() -> None:
    async with pair() as (a, b):
        b.node.learned = [NEW]
        a.peers.hint("boot-b", [make_task(1, NEW)], T0_MS)
        await b.node.until(lambda: b.node.hinted == [task_id(1)])


async def test_of_a_queue_that_can_not_be_read_nothing_is_taken() -> None:
    async with pair() as (a, b):
        a.peers.hint("boot-b", [make_task(1, NEW), make_task(2, QUEUE)], T0_MS)
        await b.node.until(lambda: b.node.hinted == [task_id(2)])


async def test_questions_are_answered_each_by_its_own() -> None:
    def answers(asked: Command) -> Answer | None:
        match int(asked.id[:8], 16) % 4:
            case 0:
                return None
            case 1:
                return Answer(None, error=Conflict("a task that runs", "running"))
            case 2:
                raise Invalid("no")
        return Answer(None, changed=False)

    async with pair() as (a, b), asyncio.TaskGroup() as group:
        b.node.answers = answers
        asked = [group.create_task(a.peers.ask("boot-b", command(n))) for n in range(40)]
        told = [await one for one in asked]
        assert [answer is None for answer in told] == [n % 4 == 0 for n in range(40)]
        for n, answer in enumerate(told):
            if answer is not None:
                error = {1: Conflict, 2: Unavailable, 3: type(None)}[n % 4]
                assert isinstance(answer.error, error)


async def test_what_owners_know_is_told() -> None:
    async with pair() as (a, _):
        ids = [task_id(1), task_id(2)]
        assert await a.peers.look("boot-b", ids) == [gone(each, 3) for each in ids]
        a.see()
        assert await a.peers.look("boot-b", ids) == []


async def test_who_is_not_linked_is_not_asked() -> None:
    async with end("boot-a") as a, end("boot-b") as b:
        assert await a.peers.ask("boot-b", command()) is None
        a.peers.hint("boot-b", [make_task(1, QUEUE)], T0_MS)
        a.see(b)
        assert await a.peers.ask("boot-b", command()) is None, "not before it is up"


async def test_a_link_that_breaks_answers_its_questions_and_is_opened_anew() -> None:
    async with pair() as (a, b), asyncio.TaskGroup() as group:
        b.node.held.clear()
        asked = group.create_task(_error_of(a, command()))
        await b.node.until(lambda: len(b.node.asked) == 1)
        link = a.peers.link("boot-b")
        assert link is not None
        await link.cut()
        assert isinstance(await asked, Unavailable)
        b.node.held.set()
        await a.linked(b)
        assert await a.peers.ask("boot-b", command()) is not None


async def _error_of(a: End, asked: Command) -> RingwheelError:
    with pytest.raises(RingwheelError) as error:
        await a.peers.ask("boot-b", asked)
    return error.value


async def test_a_dead_boot_is_let_go_and_its_questions_are_answered() -> None:
    async with pair() as (a, b), asyncio.TaskGroup() as group:
        b.node.held.clear()
        asked = group.create_task(_error_of(a, command()))
        await b.node.until(lambda: len(b.node.asked) == 1)
        a.see()
        assert isinstance(await asked, Unavailable)
        assert a.peers.link("boot-b") is None
        b.node.held.set()


async def test_who_starts_again_under_a_new_boot_is_linked_anew() -> None:
    async with pair() as (a, b):
        old, b.boot = b.boot, "boot-c"
        b.see(a)
        a.see(b)
        await a.linked(b)
        assert await a.peers.ask("boot-c", command()) is not None
        assert await a.peers.ask(old, command()) is None


async def test_a_frame_for_the_boot_that_was_here_before_is_not_heard() -> None:
    async with pair() as (a, b):
        b.peers.boot = "boot-c"
        assert isinstance(await _error_of(a, command()), Unavailable)
        assert b.node.asked == []


@pytest.mark.parametrize("secret", [b"x" * 32, b""])
async def test_a_node_of_another_cluster_gets_no_link(secret: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PAUSES_S", (0.01,))
    refused = asyncio.Event()
    monkeypatch.setattr(peers.log, "warning", lambda *args, **fields: refused.set())
    async with end("boot-a") as a, end("boot-b") as b:
        a.see(b, secret=secret)
        b.see(a)
        async with asyncio.timeout(10):
            await refused.wait()
        link = a.peers.link("boot-b")
        assert link is not None
        assert not link.up.is_set()


async def test_a_server_that_is_not_of_the_cluster_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts any proof, and has none of its own."""
    left = asyncio.Event()

    async def impostor(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.send_bytes(bytes(NONCE_BYTES))
        await ws.receive()
        await ws.send_bytes(bytes(NONCE_BYTES))
        async for _ in ws:
            raise AssertionError("nothing is said to it")
        left.set()
        return ws

    async with end("boot-a") as a, end("boot-b") as b:
        app = web.Application()
        app.router.add_get(PATH, impostor)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            b.address = f"127.0.0.1:{runner.addresses[0][1]}"
            a.see(b)
            async with asyncio.timeout(10):
                await left.wait()
        finally:
            await runner.cleanup()


@pytest.mark.parametrize(
    "first",
    [b"", b"x" * 64, b"x" * 1_000, encode(Frame("boot-b", "boot-a", [])), "text"],
    ids=lambda first: str(len(first)),
)
async def test_a_stranger_is_sent_away(first: bytes | str) -> None:
    async with end("boot-b") as b, aiohttp.ClientSession() as session:
        b.see()
        async with session.ws_connect(f"http://{b.address}{PATH}") as ws, asyncio.timeout(10):
            assert len(await ws.receive_bytes()) == NONCE_BYTES
            await (ws.send_str(first) if isinstance(first, str) else ws.send_bytes(first))
            assert (await ws.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def test_who_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "HANDSHAKE_S", 0.05)
    async with end("boot-b") as b, aiohttp.ClientSession() as session:
        b.see()
        async with session.ws_connect(f"http://{b.address}{PATH}") as ws, asyncio.timeout(10):
            await ws.receive_bytes()
            assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_before_it_has_joined_a_node_lets_nobody_in() -> None:
    async with (
        end("boot-b") as b,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://{b.address}{PATH}") as ws,
        asyncio.timeout(10),
    ):
        assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_a_full_link_loses_hints_and_refuses_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "OUTBOX", 3)
    async with pair() as (a, b):
        for n in range(10):
            a.peers.hint("boot-b", [make_task(n, QUEUE)], T0_MS)
        assert await a.peers.ask("boot-b", command()) is None
        await b.node.until(lambda: len(b.node.hinted) == 3)
        assert a.peers.lost == 7


async def test_many_large_tasks_go_in_frames_that_fit() -> None:
    async with pair() as (a, b):
        many = [make_task(n, QUEUE, payload=bytes(PAYLOAD_BYTES)) for n in range(OUTBOX)]
        a.peers.hint("boot-b", many, T0_MS)
        await b.node.until(lambda: len(b.node.hinted) == OUTBOX)
        assert a.peers.lost == 0
