"""A gateway's double for the stream: tables that a test fills, a node's memory, a hub that it publishes to."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
from aiohttp import ClientSession, ClientWebSocketResponse, web

from actors.core.codec import SpecCodec
from actors.core.events import Change
from actors.core.live import Live, live
from actors.core.queue import Queue, QueueBook
from actors.core.spec import Spec
from actors.core.task import State, Task
from actors.ports.reader import ALL, AttemptRow, Backlog, Narrow, TaskRow
from gateway.auth import READ, WATCH, guarded
from gateway.context import GATEWAY, Gateway
from gateway.events import events
from gateway.hub import Feed, Hub
from gateway.keyring import Keyring
from gateway.problems import Handler, answering
from gateway.server import Runner
from gateway.session import Limits
from gateway.stream import SUBPROTOCOL, stream
from gateway.topics import Topic
from gateway.watcher import LIMITS
from storage.memory import MemoryDatabase, MemoryKeyStore, MemoryStores

NOW_MS = 1_800_000_000_000
QUEUE = Queue(1, "default", "mail")
OTHER = Queue(2, "default", "other")
FOREIGN = Queue(3, "stranger", "mail")


def id_of(number: int) -> str:
    return f"{number:08x}-0000-7000-8000-000000000000"


def a_change(number: int, version: int = 0, state: State | None = None, queue: Queue = QUEUE, **more: Any) -> Change:
    """Version `version` of task `number`; odd ones are running."""
    if state is None:
        state = State.RUNNING if version % 2 else State.SCHEDULED
    values: dict[str, Any] = {"labels": None, "status": None, "error": None, "lateness_ms": None} | more
    return Change(id_of(number), queue, state, (version + 1) // 2, version, NOW_MS, NOW_MS, NOW_MS, **values)


def a_row(number: int, rev: int = 0, state: State = State.SCHEDULED, queue: Queue = QUEUE, **more: Any) -> TaskRow:
    values: dict[str, Any] = {
        "id": id_of(number),
        "shard": 0,
        "queue": queue,
        "state": state,
        "schedule_ms": NOW_MS,
        "due_ms": NOW_MS,
        "accept_us": NOW_MS * 1000,
        "rev": rev,
        "attempt": rev,
        "budget": 5,
        "epoch": 1,
        "spec": Spec(),
        "labels": None,
        "payload": None,
        "claim_ms": None,
        "lateness_ms": None,
        "finish_ms": None if state in (State.SCHEDULED, State.RUNNING) else NOW_MS,
        "result": None,
        "last_started_ms": None,
        "last_duration_ms": None,
        "last_status": None,
        "last_error": None,
    }
    return TaskRow(**values | more)


@dataclass
class Tables:
    """A reader whose answer a test may hold back: it is what the tables held when the read began."""

    rows: dict[str, TaskRow] = field(default_factory=dict)
    errors: list[Exception] = field(default_factory=list)
    """Raised by the next reads, one each."""
    reads: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    answer: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answer.set()

    def put(self, *rows: TaskRow) -> None:
        self.rows |= {row.id: row for row in rows}

    async def get(self, tenant: str, task_id: str, *, payload: bool = False) -> TaskRow | None:
        row = self.rows.get(task_id)
        await self._wait()
        return row if row is not None and row.queue.tenant == tenant else None

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
        assert not backwards
        found = [
            row
            for row in sorted(self.rows.values(), key=lambda row: (row.due_ms, row.id))
            if row.queue.tenant == tenant and queue in (None, row.queue.name) and row.state in states
            if orjson.loads(narrow.labels or "{}").items() <= orjson.loads(row.labels or "{}").items()
        ]
        await self._wait()
        return found[:limit]

    async def attempts(self, tenant: str, task_id: str) -> list[AttemptRow]:
        raise NotImplementedError

    async def backlog(self, queue: Queue, now_ms: int) -> Backlog:
        raise NotImplementedError

    async def _wait(self) -> None:
        self.reads += 1
        self.asked.set()
        await self.answer.wait()
        if self.errors:
            raise self.errors.pop(0)


@dataclass
class Memory:
    """A node that only knows which tasks it holds."""

    tasks: dict[str, Task] = field(default_factory=dict)
    at_ms: int = NOW_MS

    async def look(self, ids: Sequence[str]) -> dict[str, Live]:
        return {task_id: live(self.tasks[task_id]) for task_id in ids if task_id in self.tasks}

    def now_ms(self) -> int:
        return self.at_ms


class SignalHub(Hub):
    """A hub that a test can wait for."""

    def __init__(self, boot: str, *, kept: int) -> None:
        super().__init__(boot, kept=kept)
        self._changed = asyncio.Event()

    def add(self, topic: Topic, feed: Feed) -> None:
        super().add(topic, feed)
        self._changed.set()

    def remove(self, topic: Topic, feed: Feed) -> None:
        super().remove(topic, feed)
        self._changed.set()

    def interrupt(self, *, foreign: bool = False) -> None:
        super().interrupt(foreign=foreign)
        self._changed.set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        try:
            with super().watching():
                yield
        finally:
            self._changed.set()

    def feeds(self, topic: str | tuple[str, str] = ("default", "mail")) -> int:
        """How many are told of this topic, or by labels."""
        return len(self._feeds.get(topic, ())) + len(self._by_label.items())

    async def until(self, state: Callable[[], bool]) -> None:
        """Wait until feeds and watchers are as wanted."""
        async with asyncio.timeout(30):
            while not state():
                self._changed.clear()
                await self._changed.wait()


@dataclass
class World:
    """The double and what it is made of."""

    hub: SignalHub
    tables: Tables
    memory: Memory
    gateway: Gateway
    keys: MemoryKeyStore
    url: str = ""
    client: ClientSession | None = None

    @asynccontextmanager
    async def watcher(self, **options: Any) -> AsyncIterator["Watcher"]:
        """A connected client."""
        assert self.client is not None
        async with self.client.ws_connect(self.url, protocols=(SUBPROTOCOL,), **options) as ws:
            yield Watcher(ws)


@dataclass
class Watcher:
    """A client's end of a stream."""

    ws: ClientWebSocketResponse

    async def say(self, kind: str, sub: str, **fields: Any) -> None:
        await self.ws.send_str(orjson.dumps({"type": kind, "sub": sub, **fields}).decode())

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(30):
            return cast(dict[str, Any], orjson.loads(await self.ws.receive_str()))

    async def watch(self, sub: str, **wanted: Any) -> dict[str, Any]:
        """Subscribe; answers the first message about it."""
        cursor = {"from": wanted.pop("cursor")} if "cursor" in wanted else {}
        await self.say("subscribe", sub, filter=wanted, **cursor)
        return await self.hear()


def make_world(kept: int = 1000) -> World:
    stores = MemoryStores(MemoryDatabase(lambda: NOW_MS), "boot")
    hub, tables, memory = SignalHub("boot", kept=kept), Tables(), Memory()
    gateway = Gateway(
        node=cast(Any, memory),
        intake=cast(Any, None),
        reader=tables,
        cluster=cast(Any, None),
        queues=QueueBook(),
        queue_store=cast(Any, None),
        codec=SpecCodec(),
        hub=hub,
        crew=cast(Any, None),
        keyring=Keyring(stores.keys, memory.now_ms),
        clock=memory,
    )
    return World(hub, tables, memory, gateway, stores.keys)


@asynccontextmanager
async def serving(kept: int = 1000, rest: Handler | None = None, **limits: Any) -> AsyncIterator[World]:
    """The stream on a real socket whose send buffer is small: a reader that stalls is soon felt.

    `rest` answers every other path.
    """
    world = make_world(kept)
    ring = world.gateway.keyring
    ring.local = True
    await ring.refresh()
    app = web.Application()
    app[GATEWAY] = world.gateway
    app[LIMITS] = Limits(**limits)
    app.router.add_get("/v1/stream", answering(guarded(ring, WATCH, stream)))
    app.router.add_get("/v1/events", answering(guarded(ring, READ, events)))
    if rest is not None:
        app.router.add_route("*", "/{rest:.*}", rest)
    runner = Runner(app, shutdown_timeout=5)
    await runner.setup()
    try:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        await web.SockSite(runner, listener, backlog=512).start()
        world.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/stream"
        async with ClientSession() as world.client:
            yield world
    finally:
        world.hub.close()
        await runner.cleanup()
