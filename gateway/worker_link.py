"""`GET /v1/worker`: a worker's link, a websocket of the subprotocol `ringwheel.v1.json` (docs/workers.md).

The worker says how much it takes (`ready`), is sent tasks (`tasks`), and says how they ended (`done`) or that they go
on (`extend`); each is answered when it is committed, or refused. One task writes what the link has to say, several
messages at once, and another waits for the service to go away; reading never waits for an owner.

Promises: never more tasks than credits. A message that can't be read is answered with `error`, and nothing of it is
done. Bound: while more than OUTBOX_BYTES wait to be written, the worker is given no task, and what it says is not read.
"""

import asyncio
import logging
from collections import deque
from typing import NoReturn, cast

import msgspec
import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from actors.core.errors import Invalid, RingwheelError, Unavailable
from actors.core.keys import Scope
from actors.core.lease import Extension, Kept, Key, Lent, Said, Word
from gateway.context import CALLER, GATEWAY, Gateway
from gateway.leases_api import queue_of
from gateway.problems import problem_of
from gateway.schema import HeldLease
from gateway.server import Connection
from gateway.session import Limits
from gateway.stream import SUBPROTOCOL, Close, authenticate, check_upgrade, whole_frame
from gateway.times import time_text
from gateway.watcher import LIMITS, Gone, cut, part
from gateway.worker_frames import (
    CREDITS,
    Done,
    Extend,
    Hello,
    Ready,
    Refused,
    Stop,
    extension_of,
    lease_of,
    read_message,
    refusal,
    report_of,
    taken_apart,
    task_bytes,
    why_refused,
)

MESSAGE_BYTES = 16 * 1024 * 1024
OUTBOX_BYTES = 4 * 1024 * 1024
HEARTBEAT_S = 20.0
HELLO_S = 2.0
"""How long a worker that came back waits to hear which leases it has, when their owners say nothing."""
_RECORDED = int(Said.RECORDED)  # on 3.11 a member of an enum costs ten times a global
_STOPPED = b'{"type":"stopped"}'
_log = logging.getLogger(__name__)


async def worker(request: web.Request) -> web.StreamResponse:
    """Serve one worker until either side ends it."""
    check_upgrade(request)
    limits = request.app.get(LIMITS, Limits())
    ws = web.WebSocketResponse(
        protocols=(SUBPROTOCOL,), heartbeat=HEARTBEAT_S, max_msg_size=MESSAGE_BYTES, compress=False
    )
    await ws.prepare(request)
    if CALLER in request or await authenticate(request, ws, limits.authenticate_s, Scope.WORK):
        await WorkerLink(request, ws, limits).run()
    return ws


class WorkerLink:
    """One worker's link. Implements gateway.crew.Member and actors.pulling.Speaker."""

    def __init__(self, request: web.Request, ws: web.WebSocketResponse, limits: Limits) -> None:
        self._request = request
        self._ws = ws
        self._limits = limits
        self._gateway: Gateway = request.app[GATEWAY]
        self._crew = self._gateway.crew
        self._pulling = self._gateway.node.pulling
        self._caller = request[CALLER]
        self._tenant = self._caller.tenant
        self._name = ""
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._names: dict[Key, tuple[str, str]] = {}
        """What was said and has no answer yet -> id and lease as the worker wrote them."""
        self._greeting: dict[Key, tuple[str, str]] | None = None
        """Leases that a worker came back with, until all are asked for."""
        self._kept: list[HeldLease] = []
        self._greeted: asyncio.TimerHandle | None = None
        self._first = True
        self._silent = False
        """It took nothing for so long that it was cut off; it may be at work all the same."""

    # --- life

    async def run(self) -> None:
        """Serve until either side ends it."""
        with self._gateway.keyring.watching(self._caller) as ended:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._write())
                    group.create_task(self._leave())
                    group.create_task(self._end(ended))
                    await self._attend()
            except* Gone:
                pass  # the one way a link ends
            except* Exception as errors:  # noqa: BLE001 - the socket is ours: no HTTP answer can follow
                _log.exception("a worker's link broke", exc_info=errors)
                await self._ws.close(code=WSCloseCode.INTERNAL_ERROR)
            finally:
                if self._greeted is not None:
                    self._greeted.cancel()
                self._pulling.forget(self)
                self._crew.part(self, closed=not (self._silent or isinstance(self._ws.exception(), TimeoutError)))

    async def _attend(self) -> NoReturn:
        while True:
            message = await self._ws.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                raise Gone
            await self.receive(message.data)
            await self._room.wait()

    async def _leave(self) -> NoReturn:
        """The node goes away: the worker is told when that begins, and cut off when it ends."""
        await self._gateway.leaving.wait()
        self._crew.stop(self)
        self._say(b'{"type":"drain"}')
        await self._gateway.hub.closing.wait()
        await part(self._request, self._ws.close(code=WSCloseCode.GOING_AWAY, message=b"the service goes away"))

    async def _end(self, ended: asyncio.Event) -> NoReturn:
        await ended.wait()
        await part(self._request, self._ws.close(code=Close.UNAUTHENTICATED, message=b"the key is no longer in use"))

    # --- the worker says

    async def receive(self, data: str | bytes) -> None:
        """One message of the worker."""
        try:
            message, refused = read_message(data)
            await self._carry_out(message, refused)
            self._first = False
        except (RingwheelError, RecursionError) as error:
            problem = problem_of(error).body()
            self._say(orjson.dumps({"type": "error", "detail": problem["detail"], "errors": problem["errors"]}))

    async def _carry_out(self, message: Hello | Ready | Done | Extend | Stop, refused: list[Refused]) -> None:
        match message:
            case Done():
                self._end_some(message, refused)
            case Ready(queue, count):
                await self._give_credits(queue, count)
            case Extend(leases):
                extensions, names, _ = taken_apart(leases, extension_of, refused)
                self._names |= names
                self._pulling.extend(self, self._tenant, extensions)
            case Stop():
                self._crew.stop(self)
                self._say(_STOPPED)
            case Hello():
                self._hello(message)
        self._refuse(refused)

    def _end_some(self, done: Done, refused: list[Refused]) -> None:
        if self._pulling.full:
            why = Unavailable("too many results wait to be recorded; say it again")
            refused += [refusal(result.id, result.lease, why) for result in done.results]
            return
        reports, names, _ = taken_apart(done.results, report_of, refused)
        self._names |= names
        self._crew.ended(self._tenant, reports)
        self._pulling.report(self, self._tenant, reports)

    async def _give_credits(self, queue: str, count: int) -> None:
        if not self._gateway.leaving.is_set():
            found = await queue_of(self._gateway, self._tenant, queue)
            self._crew.credit(self, found.id, count, CREDITS)

    def _hello(self, hello: Hello) -> None:
        if not self._first:
            raise Invalid("hello is the first message, or none", "/type")
        self._name = hello.worker
        extensions, self._greeting, _ = taken_apart(hello.leases, _extension, [])
        self._crew.come_back(self, extensions)  # now: the time to give them back may be over in a moment
        if extensions:
            self._greeted = asyncio.get_running_loop().call_later(HELLO_S, self._greet)
            self._pulling.extend(self, self._tenant, extensions)
        else:
            self._greet()

    def _greet(self) -> None:
        """Say which leases it has; one whose owner says nothing may well be its own."""
        if self._greeting is None:
            return
        kept = [*self._kept, *(HeldLease(*name) for name in self._greeting.values())]
        self._greeting = None
        if self._greeted is not None:
            self._greeted.cancel()
        self._say(msgspec.json.encode({"type": "hello", "worker": self._name, "leases": kept}))

    # --- the worker hears

    @property
    def tenant(self) -> str:
        """See Member."""
        return self._tenant

    @property
    def open(self) -> bool:
        """See Member."""
        return self._room.is_set()

    def give(self, queue: str, tasks: list[Lent]) -> None:
        """See Member."""
        timeline = self._gateway.node.membership.timeline
        body = b",".join([task_bytes(task, queue, timeline) for task in tasks])
        self._say(b'{"type":"tasks","tasks":[' + body + b"]}")

    def cancel(self, ids: list[str]) -> None:
        """See Member."""
        self._say(orjson.dumps({"type": "cancel", "ids": ids}))

    def answer(self, words: list[Word]) -> None:
        """See Speaker."""
        recorded: list[str] = []
        refused: list[Refused] = []
        names = self._names
        for word in words:
            task_id, lease = names.pop((word.id, word.epoch, word.attempt), (word.id, ""))
            if word.said == _RECORDED:
                recorded.append(task_id)
            else:
                refused.append(refusal(task_id, lease, why_refused(word)))
        if recorded:
            self._say(orjson.dumps({"type": "recorded", "ids": recorded}))
        self._refuse(refused)

    def keep(self, kept: list[Kept]) -> None:
        """See Speaker."""
        extended: list[dict[str, str]] = []
        refused: list[Refused] = []
        for each in kept:
            key = each.id, each.epoch, each.attempt
            if self._greeting is not None and key in self._greeting:
                self._come_back(each, self._greeting.pop(key))
                continue
            task_id, lease = self._names.pop(key, (each.id, ""))
            if each.said == Said.RECORDED:
                extended.append({"id": task_id, "lease": lease, "lease_expire_time": time_text(each.until_ms)})
            else:
                refused.append(refusal(task_id, lease, why_refused(each)))
        if extended:
            self._say(orjson.dumps({"type": "extended", "leases": extended}))
        self._refuse(refused)
        if self._greeting is not None and not self._greeting:
            self._greet()

    def _come_back(self, kept: Kept, name: tuple[str, str]) -> None:
        if kept.said in (Said.RECORDED, Said.UNSURE):
            self._kept.append(HeldLease(*name))
        else:
            self._crew.ended(self._tenant, [kept])

    # --- writing

    def _refuse(self, refused: list[Refused]) -> None:
        if refused:
            self._say(orjson.dumps({"type": "refused", "results": refused}))

    def _say(self, message: bytes) -> None:
        self._outbox.append(message)
        self._outbox_bytes += len(message)
        self._news.set()
        if self._outbox_bytes > OUTBOX_BYTES:
            self._room.clear()

    async def _write(self) -> NoReturn:
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                await self._write_some()
        except (ConnectionError, TimeoutError) as error:
            self._silent = isinstance(error, TimeoutError)
            cut(self._request)
            raise Gone from None

    async def _write_some(self) -> None:
        """All that waits, as one."""
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        transport.write(b"".join(map(whole_frame, self._outbox)))
        self._outbox.clear()
        self._outbox_bytes = 0
        async with asyncio.timeout(self._limits.stall_s):
            await cast(Connection, self._request.protocol).drained()
        if not self._room.is_set():
            self._room.set()
            self._crew.opened(self)


def _extension(held: HeldLease) -> Extension:
    return Extension(*lease_of(held.id, held.lease))
