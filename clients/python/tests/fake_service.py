"""A small service that keeps the contract of workers, and the faults that a test asks of it.

Real sockets, tasks in memory, no delays. What it was told and what it gave is on record.
"""

import asyncio
import itertools
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

LIMIT_S = 10.0
NOW = datetime(2027, 1, 31, 9, tzinfo=UTC)
Message = dict[str, Any]


@dataclass
class Held:
    """A task of the fake's."""

    id: str
    queue: str
    body: Message
    lease_s: float = 30.0
    attempt: int = 0
    lease: str = ""
    link: "Link | None" = None
    end: asyncio.TimerHandle | None = None
    state: str = "scheduled"
    ends: list[Message] = field(default_factory=list)
    """Results that were recorded."""
    extended: int = 0

    def shown(self) -> Message:
        """As `GET` answers it."""
        return {
            "id": self.id,
            "queue": self.queue,
            "state": self.state,
            "schedule_time": NOW,
            "create_time": NOW,
            "attempt": self.attempt,
            "max_attempts": 5,
            "labels": self.body.get("labels", {}),
            "result": self.ends[-1].get("result") if self.ends else None,
        }


class Link:
    """A worker's websocket."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        self.ws = ws
        self.credits: Counter[str] = Counter()
        self.frames: list[Message] = []
        """What the worker said."""

    async def say(self, kind: str, **fields: Any) -> None:
        """A frame."""
        try:
            await self.ws.send_str(msgspec.json.encode({"type": kind} | fields).decode())
        except ConnectionError:
            pass  # its end is noticed where it is listened to


class Fake:
    """The service."""

    def __init__(self, *, back_s: float = 0.3) -> None:
        self.url = ""
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where it runs, when that is elsewhere."""
        self.back_s = back_s
        """How long a lease outlives its link."""
        self.tasks: dict[str, Held] = {}
        self.due: dict[str, deque[Held]] = {}
        self.links: list[Link] = []
        self.seen: list[Link] = []
        """Every link there ever was."""
        self.lost: list[str] = []
        """Tasks whose leases ended without a result."""
        self.faults: deque[Callable[[web.Request], int]] = deque()
        """For the next submits: a status to answer with, negative: after they were taken, 0: cut the connection."""
        self.keys: dict[str, str] = {}
        self.requests: Counter[str] = Counter()
        self.authorization: set[str | None] = set()
        self.refusals: dict[str, list[int]] = {}
        """Statuses with which results of a task are refused, first one first."""
        self.spoilers: dict[str, int] = {}
        """So many times a frame that holds a result of this task is refused as a whole."""
        self.credits_refused = 0
        """So many times credits are answered with an error."""
        self.deaf = False
        """Say nothing of results."""
        self.full = 0
        """So many items of a batch, one a request, can't be taken just now."""
        self.gate: asyncio.Event | None = None
        """Submits wait for it."""
        self.door: int | None = None
        """Status that workers are turned away with."""
        self._ids = itertools.count(1)
        self._news = asyncio.Event()
        self._work = asyncio.Event()

    # --- for tests -----------------------------------------------------------------------------------------------

    def add(self, payload: Any = None, *, queue: str = "q", lease_s: float = 30.0, **body: Any) -> Held:
        """A task that is due."""
        held = Held(f"t{next(self._ids)}", queue, body | ({} if payload is None else {"payload": payload}), lease_s)
        self.tasks[held.id] = held
        self._make_due(held)
        return held

    async def until(self, true: Callable[[], Any]) -> None:
        """Return when it is true; looked at after everything that happens here."""
        async with asyncio.timeout(LIMIT_S):
            while not true():
                self._news.clear()
                await self._news.wait()

    async def ended(self, *tasks: Held) -> None:
        """Return when these have a result on record."""
        await self.until(lambda: all(task.ends for task in tasks))

    async def cancel(self, task: Held) -> None:
        """As `:cancel` does with a task that runs."""
        link = task.link
        self._settle(task, "cancelled")
        if link is not None:
            await link.say("cancel", ids=[task.id])

    async def cut(self) -> None:
        """End all links without a word."""
        for link in self.links:
            transport = link.ws._req.transport if link.ws._req else None
            if transport is not None:
                transport.abort()

    @property
    def frames(self) -> list[Message]:
        """What all workers said, in the order of their links."""
        return [frame for link in self.seen for frame in link.frames]

    # --- tasks ---------------------------------------------------------------------------------------------------

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/tasks` and `:batch`."""
        self._note(request)
        body = msgspec.json.decode(await request.read())
        if self.gate is not None:
            await self.gate.wait()
        items = body if isinstance(body, list) else [body]
        fault = self.faults.popleft()(request) if self.faults else 200
        if fault > 200:
            return _problem(fault)
        results = [self._submit(item, request.headers.get("Idempotency-Key")) for item in items]
        if fault == 0:
            assert request.transport is not None
            request.transport.abort()
        if fault < 0:
            return _problem(-fault)
        if isinstance(body, list):
            return _json({"results": results})
        return _json(self.tasks[results[0]["id"]].shown(), 201)

    def _submit(self, item: Message, header: str | None) -> Message:
        key = item.get("idempotency_key") or header
        if item.get("queue") == "bad":
            return {"problem": {"type": "invalid", "title": "No", "status": 422, "detail": "not a name"}}
        if self.full:
            self.full -= 1
            return {"problem": {"type": "unavailable", "title": "No", "status": 503, "detail": "not now"}}
        assert key is not None, "the client gives each task a key"
        if key not in self.keys:
            body = {name: item[name] for name in ("payload", "labels") if name in item}
            payload = body.pop("payload", None)
            self.keys[key] = self.add(payload, queue=item.get("queue", "default"), **body).id
        return {"id": self.keys[key], "state": "scheduled"}

    async def show(self, request: web.Request) -> web.Response:
        """`GET /v1/tasks/{id}`."""
        self._note(request)
        task = self.tasks.get(request.match_info["id"])
        return _problem(404) if task is None else _json(task.shown())

    async def page(self, request: web.Request) -> web.Response:
        """`GET /v1/tasks`, two a page."""
        after = int(request.query.get("cursor", 0))
        tasks = [task.shown() for task in self.tasks.values()][after:]
        return _json({"tasks": tasks[:2], "next_cursor": str(after + 2) if len(tasks) > 2 else None})

    async def extend(self, request: web.Request) -> web.Response:
        """`POST /v1/tasks:extend`."""
        self._note(request)
        if self.faults and (fault := self.faults.popleft()(request)):
            return _problem(fault)
        asked = msgspec.json.decode(await request.read())["leases"]
        return _json({"results": [self._extend(lease) for lease in asked]})

    def _extend(self, lease: Message) -> Message:
        task = self.tasks.get(lease["id"])
        if self.refusals.get(lease["id"]):
            return {"id": lease["id"], "problem": {"status": self.refusals[lease["id"]].pop(0), "detail": "no"}}
        if task is None or task.lease != lease["lease"]:
            return {"id": lease["id"], "problem": {"status": 409, "detail": "the lease is over"}}
        task.extended += 1
        self._lease_for(task, lease.get("by") or task.lease_s)
        self._news.set()
        return {"id": task.id, "lease": task.lease, "lease_expire_time": NOW + timedelta(hours=task.extended)}

    # --- workers -------------------------------------------------------------------------------------------------

    async def work(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/worker`."""
        self._note(request)
        if self.door is not None and self.door < 1000:
            return _problem(self.door)
        ws = web.WebSocketResponse(protocols=("ringwheel.v1.json",))
        await ws.prepare(request)
        if self.door is not None:
            await ws.close(code=self.door, message=b"no")
            return ws
        link = Link(ws)
        self.links.append(link)
        self.seen.append(link)
        async for message in ws:
            assert message.type is aiohttp.WSMsgType.TEXT
            frame = msgspec.json.decode(message.data)
            link.frames.append(frame)
            await getattr(self, f"_hear_{frame['type']}")(link, frame)
            self._news.set()
        self.links.remove(link)
        for task in self.tasks.values():
            if task.link is link:
                task.link = None
                self._lease_for(task, self.back_s)
        self._news.set()
        return ws

    async def _hear_hello(self, link: Link, frame: Message) -> None:
        own = [lease for lease in frame["leases"] if self._is_own(lease)]
        for lease in own:
            task = self.tasks[lease["id"]]
            task.link = link
            self._lease_for(task, task.lease_s)
        await link.say("hello", worker=frame["worker"], leases=own)

    async def _hear_ready(self, link: Link, frame: Message) -> None:
        if self.credits_refused:
            self.credits_refused -= 1
            await link.say("error", detail="no database", errors=[])
            return
        link.credits[frame["queue"]] += frame["credits"]
        self._work.set()

    async def _hear_stop(self, link: Link, frame: Message) -> None:
        link.credits.clear()
        await link.say("stopped")

    async def _hear_done(self, link: Link, frame: Message) -> None:
        spoilers = [result["id"] for result in frame["results"] if self.spoilers.get(result["id"])]
        if spoilers:
            self.spoilers[spoilers[0]] -= 1
            await link.say("error", detail="what is this", errors=[{"pointer": "/results", "detail": "what is this"}])
            return
        if self.deaf:
            return
        recorded, refused = [], []
        for result in frame["results"]:
            status = self._record(result)
            if status == 200:
                recorded.append(result["id"])
            else:
                named = {"id": result["id"], "lease": result["lease"]}
                refused.append(named | {"problem": {"status": status, "title": "No", "detail": f"because {status}"}})
        if recorded:
            await link.say("recorded", ids=recorded)
        if refused:
            await link.say("refused", results=refused)

    def _record(self, result: Message) -> int:
        task = self.tasks.get(result["id"])
        if task is None:
            return 404
        if planned := self.refusals.get(task.id):
            return planned.pop(0)
        if result in task.ends:
            return 200
        if not self._is_own(result):
            return 409
        task.ends.append(result)
        again_s = result.get("snooze", result.get("retry"))
        if isinstance(again_s, int | float):
            self._settle(task, "scheduled")
            asyncio.get_running_loop().call_later(again_s, self._make_due, task)
        else:
            self._settle(task, "succeeded" if result.get("ok") else "dead")
        return 200

    def _is_own(self, lease: Message) -> bool:
        task = self.tasks.get(lease["id"])
        return task is not None and task.lease == lease["lease"] != ""

    async def deliver(self) -> None:
        """Give what is due to those who have credits, for ever."""
        while True:
            await self._work.wait()
            self._work.clear()
            for queue, due in self.due.items():
                for link in self.links:
                    if count := min(len(due), link.credits[queue]):
                        link.credits[queue] -= count
                        await link.say("tasks", tasks=[self._lease(due.popleft(), link) for _ in range(count)])
            self._news.set()

    def _lease(self, task: Held, link: Link) -> Message:
        task.attempt += 1
        task.state, task.link, task.lease = "running", link, f"{task.id}/{task.attempt}"
        self._lease_for(task, task.lease_s)
        return task.body | {
            "id": task.id,
            "queue": task.queue,
            "attempt": task.attempt,
            "max_attempts": 5,
            "fence": f"{task.attempt:020}",
            "lease": task.lease,
            "lease_expire_time": NOW,
            "lease_seconds": task.lease_s,
            "schedule_time": NOW,
        }

    def _lease_for(self, task: Held, seconds: float) -> None:
        if task.end is not None:
            task.end.cancel()
        task.end = asyncio.get_running_loop().call_later(seconds, self.expire, task)

    def expire(self, task: Held) -> None:
        """The lease is over: whoever has credits gets the task."""
        self.lost.append(task.id)
        self._settle(task, "scheduled")
        self._make_due(task)

    def _settle(self, task: Held, state: str) -> None:
        if task.end is not None:
            task.end.cancel()
        task.state, task.lease, task.link, task.end = state, "", None, None
        self._news.set()

    def _make_due(self, task: Held) -> None:
        self.due.setdefault(task.queue, deque()).append(task)
        self._news.set()
        self._work.set()

    def _note(self, request: web.Request) -> None:
        self.requests[request.path] += 1
        self._news.set()
        self.authorization.add(request.headers.get("Authorization"))


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


def _problem(status: int) -> web.Response:
    body = {"type": "test", "title": "A fault", "status": status, "detail": "as the test wants it", "errors": []}
    return web.json_response(body, status=status, headers={"Retry-After": "0"}, content_type="application/problem+json")


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Fake]:
    """A running service, in the test's loop."""
    fake = Fake(**options)
    app = web.Application()
    app.router.add_post("/v1/tasks", fake.submit)
    app.router.add_post("/v1/tasks:batch", fake.submit)
    app.router.add_post("/v1/tasks:extend", fake.extend)
    app.router.add_get("/v1/tasks", fake.page)
    app.router.add_get("/v1/tasks/{id}", fake.show)
    app.router.add_get("/v1/worker", fake.work)
    async with listening(app) as fake.url, asyncio.TaskGroup() as group:
        delivering = group.create_task(fake.deliver())
        try:
            yield fake
        finally:
            delivering.cancel()


@contextmanager
def elsewhere(**options: Any) -> Iterator[Fake]:
    """A running service in a loop and thread of its own: it goes on while the test's loop is blocked."""
    started, loop = threading.Event(), asyncio.new_event_loop()
    fakes: list[Fake] = []
    stop = asyncio.Event()

    async def serve() -> None:
        async with serving(**options) as fake:
            fakes.append(fake)
            started.set()
            await stop.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(LIMIT_S)
        fakes[0].loop = loop
        yield fakes[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@asynccontextmanager
async def answering(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """The URL of a server that has one answer to everything."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with listening(app) as url:
        yield url


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    """The URL of a running application."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
