"""`GET /v1/worker`: a worker's link, a websocket of the subprotocol `ringwheel.v1.json` (docs/workers.md).

The worker says how much it takes (`ready`), is sent tasks (`tasks`), and says how they ended (`done`) or that they go
on (`extend`); each is answered when it is committed, or refused. One task writes what the link has to say
(`worker_writer.py`), and another waits for the service to go away; reading never waits for an owner.

Promises: never more tasks than credits. A message that can't be read is answered with `error`, and nothing of it is
done. Bound: while more waits to be written than fits (`worker_writer.py`), what the worker says is not read.
"""

import asyncio
import logging
from functools import partial
from typing import NoReturn, cast

import msgspec
import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from actors.core.errors import Invalid, RingwheelError, Unavailable
from actors.core.keys import Scope
from actors.core.lease import Extension, Kept, Key, Lent, Said, Word
from gateway.context import CALLER, GATEWAY, Gateway
from gateway.farewell import PatientSocket
from gateway.leases_api import queue_of
from gateway.problems import problem_of
from gateway.schema import HeldLease
from gateway.server import Connection
from gateway.session import Limits
from gateway.stream import SUBPROTOCOL, Close, authenticate, check_upgrade
from gateway.times import time_text
from gateway.watcher import LIMITS, Gone, part
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
from gateway.worker_writer import WorkerWriter

MESSAGE_BYTES = 16 * 1024 * 1024
HEARTBEAT_S = 20.0
HELLO_S = 2.0
"""How long a worker that came back waits to hear which leases it has, when their owners say nothing."""
# On 3.11 a member of an enum costs ten times a global.
_RECORDED = int(Said.RECORDED)
_PING, _PONG = WSMsgType.PING, WSMsgType.PONG
_WORDS = frozenset({WSMsgType.TEXT, WSMsgType.BINARY, _PING, _PONG})
_STOPPED = b'{"type":"stopped"}'
_log = logging.getLogger(__name__)


async def worker(request: web.Request) -> web.StreamResponse:
    """Serve one worker until either side ends it."""
    check_upgrade(request)
    limits = request.app.get(LIMITS, Limits())
    ws = PatientSocket(
        cast(Connection, request.protocol),
        protocols=(SUBPROTOCOL,),
        heartbeat=HEARTBEAT_S,
        autoping=False,
        max_msg_size=MESSAGE_BYTES,
        compress=False,
    )
    await ws.prepare(request)
    if CALLER in request or await authenticate(request, ws, limits.authenticate_s, Scope.WORK):
        await WorkerLink(request, ws, limits).run()
    return ws


class WorkerLink:
    """One worker's link. Implements gateway.member.Member and actors.pulling.Speaker."""

    def __init__(self, request: web.Request, ws: PatientSocket, limits: Limits) -> None:
        self._request = request
        self._ws = ws
        self._limits = limits
        self._gateway: Gateway = request.app[GATEWAY]
        self._crew = self._gateway.crew
        self._pulling = self._gateway.node.pulling
        self._caller = request[CALLER]
        self._tenant = self._caller.tenant
        self._name = ""
        self._writer = WorkerWriter(
            request,
            limits.stall_s,
            self._gateway.turn,
            drained=partial(self._crew.drained, self),
            withdrawn=partial(self._crew.withdraw, self),
        )
        self._names: dict[Key, tuple[str, str]] = {}
        """Ends that were said and have no answer yet -> id and lease as the worker wrote them."""
        self._extended: dict[Key, tuple[str, str]] = {}
        """The same of extensions."""
        self._greeting: dict[Key, tuple[str, str]] | None = None
        """Leases that a worker came back with, until all are asked for."""
        self._kept: list[HeldLease] = []
        self._greeted: asyncio.TimerHandle | None = None
        self._first = True
        self._spoke_s = asyncio.get_running_loop().time()
        self._speak_by_s: float | None = None
        """When the first of its leases ends that began since it last spoke. One that is silent for longer hangs."""
        self._asked = False
        """Whether it was asked since for a sign of life."""
        ws.parting = self._stop

    # --- life

    async def run(self) -> None:
        """Serve until either side ends it."""
        with self._gateway.keyring.watching(self._caller) as ended:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._writer.run())
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
                silent = self._writer.silent or isinstance(self._ws.exception(), TimeoutError)
                self._crew.part(self, closed=not silent, unsent=self._writer.withdraw(sealed=True))

    async def _attend(self) -> NoReturn:
        while True:
            message = await self._ws.receive()
            if message.type not in _WORDS:
                raise Gone
            self._spoke()
            if message.type is _PING:
                await self._ws.pong(message.data)
            elif message.type is not _PONG:
                await self.receive(message.data)
            await self._writer.room.wait()

    async def _leave(self) -> NoReturn:
        """The node goes away: the worker is told when that begins, and cut off when it ends."""
        await self._gateway.leaving.wait()
        self._crew.stop(self)
        self._writer.say(b'{"type":"drain"}')
        await self._gateway.hub.closing.wait()
        await part(self._request, self._ws.close(code=WSCloseCode.GOING_AWAY, message=b"the service goes away"))

    async def _end(self, ended: asyncio.Event) -> NoReturn:
        await ended.wait()
        self._stop()
        await part(self._request, self._ws.close(code=Close.UNAUTHENTICATED, message=b"the key is no longer in use"))

    def _stop(self) -> None:
        """It takes nothing any more, and does not hear of what waits for it."""
        self._crew.stop(self)
        self._crew.withdraw(self, self._writer.withdraw(sealed=True))

    # --- the worker says

    def _spoke(self) -> None:
        """It is alive."""
        hung, self._speak_by_s = self._hangs, None
        self._spoke_s = asyncio.get_running_loop().time()
        if hung:
            self._asked = False
            self._crew.drained(self)

    async def receive(self, data: str | bytes) -> None:
        """One message of the worker."""
        try:
            message, refused = read_message(data)
            await self._carry_out(message, refused)
            self._first = False
        except (RingwheelError, RecursionError) as error:
            problem = problem_of(error).body()
            self._writer.say(orjson.dumps({"type": "error", "detail": problem["detail"], "errors": problem["errors"]}))

    async def _carry_out(self, message: Hello | Ready | Done | Extend | Stop, refused: list[Refused]) -> None:
        match message:
            case Done():
                self._end_some(message, refused)
            case Ready(queue, count):
                await self._give_credits(queue, count)
            case Extend(leases):
                extensions, names, _ = taken_apart(leases, extension_of, refused)
                self._extended |= names
                self._pulling.extend(self, self._tenant, extensions)
            case Stop():
                self._crew.stop(self)
                self._writer.seal()  # they used credits up that are gone
                self._writer.say(_STOPPED)
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
        found = await queue_of(self._gateway, self._tenant, queue)
        if not self._gateway.leaving.is_set():
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
        self._writer.say(msgspec.json.encode({"type": "hello", "worker": self._name, "leases": kept}))

    # --- the worker hears

    @property
    def tenant(self) -> str:
        """See Member."""
        return self._tenant

    @property
    def room_bytes(self) -> int:
        """See Member."""
        if not self._hangs:
            return self._writer.room_bytes
        if not self._asked:
            self._asked = True
            self._writer.ping()
        return 0

    @property
    def _hangs(self) -> bool:
        return self._speak_by_s is not None and self._speak_by_s <= asyncio.get_running_loop().time()

    def give(self, queue: str, tasks: list[Lent]) -> None:
        """See Member."""
        if self._speak_by_s is None:
            period_ms = min([task.period_ms for task in tasks])
            self._speak_by_s = asyncio.get_running_loop().time() + period_ms / 1e3
        timeline = self._gateway.node.membership.timeline
        self._writer.say_tasks([task_bytes(task, queue, timeline) for task in tasks], tasks)

    def let_lapse(self, period_ms: int) -> bool:
        """See Member. Silent for half of the period, it may hang; one that is alive answers the ping that follows."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._spoke_s < period_ms / 2e3:
            return False
        self._speak_by_s = now_s
        return True

    def cancel(self, ids: list[str]) -> None:
        """See Member."""
        self._writer.say(orjson.dumps({"type": "cancel", "ids": ids}))

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
            self._writer.say(orjson.dumps({"type": "recorded", "ids": recorded}))
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
            task_id, lease = self._extended.pop(key, (each.id, ""))
            if each.said == Said.RECORDED:
                extended.append({"id": task_id, "lease": lease, "lease_expire_time": time_text(each.until_ms)})
            else:
                refused.append(refusal(task_id, lease, why_refused(each)))
        if extended:
            self._writer.say(orjson.dumps({"type": "extended", "leases": extended}))
        self._refuse(refused)
        if self._greeting is not None and not self._greeting:
            self._greet()

    def _come_back(self, kept: Kept, name: tuple[str, str]) -> None:
        if kept.said in (Said.RECORDED, Said.UNSURE):
            self._kept.append(HeldLease(*name))
        else:
            self._crew.ended(self._tenant, [kept])

    def _refuse(self, refused: list[Refused]) -> None:
        if refused:
            self._writer.say(orjson.dumps({"type": "refused", "results": refused}))


def _extension(held: HeldLease) -> Extension:
    return Extension(*lease_of(held.id, held.lease))
