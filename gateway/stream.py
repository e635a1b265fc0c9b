"""`GET /v1/stream`: live status over a websocket, subprotocol `ringwheel.v1.json`.

One connection is three children: the reader carries out the client's messages, the opener reads snapshots (one at a
time), the writer writes what the session has to say in chunks. The first that ends, ends the connection; the writer
ends it when the client takes nothing for `stall_s`.

Messages of the client: `subscribe {sub, filter: {id} or {queue}, from?}`, `unsubscribe {sub}`. Of the service:
`snapshot`, `resumed`, `event`, `gap {reason, snapshot}` (`snapshot` says whether one follows), `unsubscribed`, `error`.
Refuses browsers that come from another origin: a page must not read a developer's local service.
"""

import asyncio
import logging
from typing import NoReturn
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMsgType, web

from actors.core.errors import RingwheelError
from gateway.context import GATEWAY, Gateway, tenant_of
from gateway.problems import Problem
from gateway.session import Limits, Session
from gateway.snapshot import read_snapshot
from gateway.subscription import Subscription

SUBPROTOCOL = "ringwheel.v1.json"
LIMITS: web.AppKey[Limits] = web.AppKey("stream_limits", Limits)
"""Set on an application to have other limits than the default ones."""
_log = logging.getLogger(__name__)
LEAVE_S = 2.0
"""How long a farewell may take."""


async def stream(request: web.Request) -> web.StreamResponse:
    """Serve one watcher until either side ends it."""
    _check(request)
    connection = _Connection(request)
    return await connection.serve()


def _check(request: web.Request) -> None:
    offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", SUBPROTOCOL).split(",")]
    if SUBPROTOCOL not in offered:
        raise Problem("unreadable", f"the subprotocol spoken here is {SUBPROTOCOL}")
    if not web.WebSocketResponse(protocols=(SUBPROTOCOL,)).can_prepare(request):
        raise Problem("unreadable", "this is a websocket: ask for an upgrade", headers={"Upgrade": "websocket"})
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.host.lower():
        raise Problem("unreadable", "a page of another origin may not watch")


class _Gone(Exception):
    """The connection has ended."""


class _Connection:
    """A watcher's websocket and its session."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._gateway: Gateway = request.app[GATEWAY]
        self._limits = request.app.get(LIMITS, Limits())
        self._tenant = tenant_of(request)
        self._session = Session(self._gateway.hub, self._tenant, self._limits)
        self._written = asyncio.Event()
        self._ws = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            heartbeat=self._limits.heartbeat_s,
            max_msg_size=self._limits.message_bytes,
            compress=False,
            writer_limit=self._limits.chunk_bytes,
        )

    async def serve(self) -> web.StreamResponse:
        await self._ws.prepare(self._request)
        with self._gateway.hub.watching():
            try:
                async with asyncio.TaskGroup() as group:
                    for child in (self._open, self._write, self._leave):
                        group.create_task(child())
                    await self._read()
            except* _Gone:
                pass  # the one way a connection ends
            except* Exception as errors:  # noqa: BLE001 - the socket is ours: no HTTP answer can follow
                _log.exception("a stream broke", exc_info=errors)
                await self._ws.close(code=WSCloseCode.INTERNAL_ERROR)
            finally:
                self._session.close()
        return self._ws

    async def _read(self) -> NoReturn:
        while True:
            await self._room()
            message = await self._ws.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                raise _Gone
            self._session.receive(message.data)

    async def _room(self) -> None:
        while self._session.crowded:
            self._written.clear()
            await self._written.wait()

    async def _write(self) -> NoReturn:
        session = self._session
        try:
            while True:
                await session.news.wait()
                session.news.clear()
                while session.busy:
                    await self._send(session.take())
        except (ConnectionError, TimeoutError):
            self._cut()
            raise _Gone from None

    async def _send(self, messages: list[bytes]) -> None:
        async with asyncio.timeout(self._limits.stall_s):
            for message in messages:
                await self._ws.send_frame(message, WSMsgType.TEXT)
        self._written.set()
        await asyncio.sleep(0)  # one chunk a turn of the loop, written as one

    def _cut(self) -> None:
        """The client takes nothing: no farewell can reach it."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _open(self) -> NoReturn:
        session = self._session
        while True:
            sub = session.next_opening()
            if sub is None:
                session.wanted.clear()
                await session.wanted.wait()
                continue
            if sub.reopened:
                await asyncio.sleep(self._limits.reopen_s)
                session.paused()
            await self._room()
            await self._show(sub)

    async def _show(self, sub: Subscription) -> None:
        limits, session = self._limits, self._session
        try:
            found = await read_snapshot(self._gateway, sub.topic, self._tenant, limits.snapshot_tasks, limits.scan)
        except RingwheelError as error:
            session.not_opened(sub, error)
            return
        if found is None:
            session.overrun(sub)
            return
        now_ms = self._gateway.clock.now_ms()
        session.opened(sub, found.tasks.values(), seq=found.seq, truncated=found.truncated, now_ms=now_ms)

    async def _leave(self) -> NoReturn:
        await self._gateway.hub.closing.wait()
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._ws.close(code=WSCloseCode.GOING_AWAY, message=b"the service goes away")
        except TimeoutError:
            self._cut()
        raise _Gone
