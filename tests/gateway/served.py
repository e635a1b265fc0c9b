"""The HTTP application on a real socket: real intake and reader on the memory twin, a double for the node."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson
from aiohttp import ClientResponse, ClientSession, DummyCookieJar, web
from aiohttp.test_utils import BaseTestServer, TestServer
from multidict import CIMultiDict

from actors.core.codec import SpecCodec
from actors.core.draft import Draft, Receipt
from actors.core.errors import KeyReused
from actors.core.events import Change, Command
from actors.core.ids import keyed_id, shard_of
from actors.core.lease import Extension, Report
from actors.core.live import Live, gone, live
from actors.core.reach import Reach
from actors.core.task import State, Task, fence
from actors.ports.reader import TaskRow
from actors.ports.tasks import Accepted
from actors.pulling import Room, Speaker
from actors.stats import Stats
from gateway.admission import Admission
from gateway.app import make_app
from gateway.context import Gateway, Settings
from gateway.crew import Crew
from gateway.hub import Hub
from gateway.keyring import Keyring
from gateway.server import Bounds, Runner
from gateway.session import Limits
from gateway.watcher import LIMITS
from storage.memory import MemoryDatabase, MemoryStores
from tests.gateway.held import hold

NOW_MS = 1_790_000_000_000
"""2026-09-21T14:13:20Z"""
SMALL = Settings(batch_items=50)


@dataclass
class MembershipDouble:
    """A place in the cluster, as a test says."""

    boot: str = "boot-1"
    timeline: int = 1
    margin_ms: float = 3_500.5
    take_overs: int = 3
    take_overs_ms: int = 4_500
    orphaned: int = 0
    still: dict[str, int] = field(default_factory=lambda: {"boot-1": 200})

    def still_ms(self, boot: str) -> int | None:
        return self.still.get(boot)


@dataclass
class CensusDouble:
    """What memories hold, as a test says."""

    shards: int = 0
    told: dict[str, list[Reach]] = field(default_factory=lambda: {"boot-1": []})
    before_us: int = 0

    async def of(self, mine: str, boots: Collection[str], before_us: int) -> dict[str, list[Reach] | None]:
        self.before_us = before_us
        return {boot: self.told.get(boot) for boot in boots}


@dataclass
class HandoverDouble:
    """What goes on elsewhere, as a test says."""

    forwarding: int = 0


@dataclass(eq=False)
class PullingDouble:
    """Has the tasks that a test says, and answers what workers say as a test says."""

    workers: Room | None = None
    full: bool = False
    wanted: list[frozenset[int]] = field(default_factory=list)
    looked: list[int] = field(default_factory=list)
    reported: list[tuple[Speaker, str, list[Report]]] = field(default_factory=list)
    extended: list[tuple[Speaker, str, list[Extension]]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def want(self, queues: Iterable[int]) -> None:
        self.wanted.append(frozenset(queues))
        self.news.set()

    def look(self, queue: int) -> None:
        self.looked.append(queue)
        self.news.set()

    def report(self, speaker: Speaker, tenant: str, reports: Sequence[Report]) -> None:
        self.reported.append((speaker, tenant, list(reports)))
        self.news.set()

    def extend(self, speaker: Speaker, tenant: str, extensions: Sequence[Extension]) -> None:
        self.extended.append((speaker, tenant, list(extensions)))
        self.news.set()

    def forget(self, speaker: Speaker) -> None:
        self.extended = [said for said in self.extended if said[0] is not speaker]
        self.news.set()

    async def until(self, true: Callable[[], object]) -> None:
        """Return once what was said makes it true."""
        async with asyncio.timeout(10):
            while not true():
                self.news.clear()
                await self.news.wait()


@dataclass
class NodeDouble:
    """A node that holds what a test says, and answers commands as a test says."""

    name: str = "node-1"
    ready: bool = True
    timeline: int = 1
    stats: Stats = field(default_factory=Stats)
    membership: MembershipDouble = field(default_factory=MembershipDouble)
    handover: HandoverDouble = field(default_factory=HandoverDouble)
    census: CensusDouble = field(default_factory=CensusDouble)
    pulling: PullingDouble = field(default_factory=PullingDouble)
    advanced_ms: int = 0
    tasks: dict[str, Task] = field(default_factory=dict)
    revs: dict[str, int] = field(default_factory=dict)
    """The revisions that memory has come to."""
    asked: list[Command] = field(default_factory=list)
    answer: Callable[[Command], Change | None] = lambda command: None

    def advance(self, by_ms: int) -> None:
        self.advanced_ms += by_ms

    async def ask(self, command: Command) -> Change | None:
        self.asked.append(command)
        return self.answer(command)

    async def look(self, ids: Sequence[str]) -> dict[str, Live]:
        found = {task_id: live(self.tasks[task_id]) for task_id in ids if task_id in self.tasks}
        known = {task_id: found.get(task_id, gone(task_id, 0)) for task_id in self.revs}
        return found | {
            task_id: msgspec.structs.replace(told, rev=self.revs[task_id]) for task_id, told in known.items()
        }

    def fence_of(self, task: Task | TaskRow | Live) -> str:
        return fence(self.timeline, task.epoch, task.attempt)


class ClockDouble:
    def now_ms(self) -> int:
        return NOW_MS


@dataclass
class IntakeDouble:
    """Writes each draft to the memory twin at once; `error` is raised instead, when set."""

    stores: MemoryStores
    group: asyncio.TaskGroup
    error: Exception | None = None
    drafts: list[Draft] = field(default_factory=list)
    batches: int = 0

    async def submit(self, drafts: Sequence[Draft]) -> list[Receipt | Exception]:
        if self.error is not None:
            raise self.error
        self.batches += 1
        return [await self._accept(draft) for draft in drafts]

    def submit_one(self, draft: Draft) -> asyncio.Future[Receipt]:
        if self.error is not None:
            raise self.error
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self.group.create_task(self._settle(draft, receipt))
        return receipt

    async def _settle(self, draft: Draft, receipt: asyncio.Future[Receipt]) -> None:
        (answer,) = await self.submit((draft,))
        if receipt.done():
            return
        if isinstance(answer, Exception):
            receipt.set_exception(answer)
        else:
            receipt.set_result(answer)

    async def _accept(self, draft: Draft) -> Receipt | Exception:
        self.drafts.append(draft)
        task = self._task(draft)
        accepted = Accepted(True, True, State.SCHEDULED)
        if draft.key is None:
            await self.stores.tasks.accept([task])
        else:
            (answer,) = await self.stores.tasks.accept_keyed([task])
            assert isinstance(answer, Accepted)
            accepted = answer
        if not accepted.same_request:
            return KeyReused("used before")
        return Receipt(task.id, task.shard, accepted.state, accepted.new, task.schedule_ms, task.accept_us, task.due_ms)

    def _task(self, draft: Draft) -> Task:
        number = len(self.drafts)
        task_id = f"{number:08x}-0000-7000-8000-000000000000"
        if draft.key is not None:
            task_id = keyed_id(draft.queue.tenant, draft.key, draft.queue.name, draft.ring_key)
        at_ms = NOW_MS + (draft.delay_ms or 0) if draft.schedule_ms is None else draft.schedule_ms
        return Task(
            task_id,
            shard_of(task_id, 256),
            draft.queue,
            at_ms,
            max(at_ms, NOW_MS),
            NOW_MS * 1000 + number,
            draft.spec,
            payload=draft.payload,
            payload_bytes=len(draft.payload or b""),
            labels=draft.labels,
            key_hash=draft.key_hash,
            trace=draft.trace,
            budget=(draft.spec.retry or draft.queue.retry).max_attempts,
        )


@dataclass
class Served:
    """The running application, and what it stands on."""

    node: NodeDouble
    intake: IntakeDouble
    stores: MemoryStores
    gateway: Gateway
    server: BaseTestServer
    client: ClientSession

    async def send(self, method: str, path: str, body: object = None, **options: Any) -> "Answer":
        """One request, whose answer is held to the API's types; a body that is not bytes is sent as JSON."""
        headers = CIMultiDict({"Content-Type": "application/json"})
        given = options.pop("headers", {})
        for name in given:
            headers.popall(name, None)
        headers.extend(given)
        data = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        url = self.server.make_url("/").with_path(path.partition("?")[0], encoded=True)
        query = path.partition("?")[2]
        url = url.with_query(query) if query else url
        async with self.client.request(method, url, data=data, headers=headers, **options) as response:
            answer = Answer(response, await response.read())
        hold(method, path, answer.status, answer.headers, answer.body)
        return answer

    async def post(self, path: str, body: object = None, **options: Any) -> "Answer":
        return await self.send("POST", path, body, **options)

    async def get(self, path: str, **options: Any) -> "Answer":
        return await self.send("GET", path, **options)

    async def create(self, **task: object) -> str:
        """The id of a new task."""
        answer = await self.post("/v1/tasks", task)
        assert answer.status == 201, answer.json
        return str(answer.json["id"])


class Answer:
    """A whole answer."""

    def __init__(self, response: ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def pointers(self) -> list[str]:
        """Of a problem."""
        assert self.headers["Content-Type"] == "application/problem+json"
        return [error["pointer"] for error in self.json["errors"]]


class AppServer(TestServer):
    """aiohttp's test server, on the connections of the service."""

    bounds = Bounds()

    async def _make_runner(self, **options: Any) -> Runner:
        return Runner(self.app, bounds=self.bounds, **options)


@asynccontextmanager
async def served(
    settings: Settings = SMALL, bounds: Bounds | None = None, limits: Limits | None = None
) -> AsyncIterator[Served]:
    """The application on a free port of the loopback."""
    stores = MemoryStores(MemoryDatabase(lambda: NOW_MS), "boot-1")
    await stores.leases.join("boot-1", "node-1", "127.0.0.1:0")
    node = NodeDouble()
    hub, clock = Hub("boot-1"), ClockDouble()
    keyring = Keyring(stores.keys, clock.now_ms)
    keyring.local = True
    await keyring.refresh()
    async with asyncio.TaskGroup() as group:
        intake = IntakeDouble(stores, group)
        gateway = Gateway(
            node,
            intake,
            stores.reader,
            stores.cluster,
            stores.book,
            stores.queues,
            SpecCodec(),
            hub,
            Crew(node.pulling, stores.book, lambda _: None),
            keyring,
            clock,
            settings,
            Admission(),
        )
        app = make_app(gateway)
        app[LIMITS] = limits or Limits()
        made = AppServer(app)
        made.bounds = bounds or Bounds()
        async with made as server, ClientSession(cookie_jar=DummyCookieJar()) as client:
            yield Served(node, intake, stores, gateway, server, client)


async def raw(server: BaseTestServer, request: bytes) -> bytes:
    """Bytes to the socket, and all that comes back until the server closes it."""
    assert server.port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


__all__ = ["NOW_MS", "Answer", "Served", "raw", "served", "web"]
