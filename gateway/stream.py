"""`GET /v1/stream`: live status over a websocket, subprotocol `ringwheel.v1.json`.

Who brings no key in a header says it in the first message, `authenticate {key}`, and hears `authenticated`. Close
codes: 4401 the key is not (or no longer) in use, 4403 it may not read, 4408 no key came in time.
Messages of the client: `subscribe {sub, filter: {id} or {queue, labels}, from?}`, `unsubscribe {sub}`. Of the service:
`snapshot`, `resumed`, `event`, `gap {reason, snapshot}` (`snapshot` says whether one follows), `unsubscribed`, `error`.
Refuses browsers that come from another origin.
"""

import asyncio
from enum import IntEnum
from typing import NoReturn

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from actors.core.errors import Unavailable
from actors.core.keys import Scope
from gateway.context import CALLER, GATEWAY
from gateway.problems import Problem
from gateway.session import Limits
from gateway.watch import read_key
from gateway.watcher import LEAVE_S, LIMITS, Gone, Watcher, check_origin
from gateway.whole_frame import whole_frame

SUBPROTOCOL = "ringwheel.v1.json"
_AUTHENTICATED = b'{"type":"authenticated"}'


class Close(IntEnum):
    """Close codes of our own (RFC 6455, 7.4.2)."""

    UNAUTHENTICATED = 4401
    FORBIDDEN = 4403
    TOO_LATE = 4408


async def stream(request: web.Request) -> web.StreamResponse:
    """Serve one watcher until either side ends it."""
    check_upgrade(request)
    limits = request.app.get(LIMITS, Limits())
    ws = web.WebSocketResponse(
        protocols=(SUBPROTOCOL,),
        heartbeat=limits.heartbeat_s,
        max_msg_size=limits.message_bytes,
        compress=False,
    )
    await ws.prepare(request)
    if CALLER in request or await authenticate(request, ws, limits.authenticate_s, Scope.READ):
        await _Connection(request, ws).run()
    return ws


def check_upgrade(request: web.Request) -> None:
    """Raises Problem for what is no websocket of this subprotocol, or comes from a page of another origin."""
    offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", SUBPROTOCOL).split(",")]
    if SUBPROTOCOL not in offered:
        raise Problem("unreadable", f"the subprotocol spoken here is {SUBPROTOCOL}")
    if not web.WebSocketResponse(protocols=(SUBPROTOCOL,)).can_prepare(request):
        raise Problem("unreadable", "this is a websocket: ask for an upgrade", headers={"Upgrade": "websocket"})
    check_origin(request)


async def authenticate(request: web.Request, ws: web.WebSocketResponse, limit_s: float, scope: Scope) -> bool:
    """Take the first message for a key, and put its holder on the request. False: the connection is over."""
    try:
        async with asyncio.timeout(limit_s):
            while (message := await ws.receive()).type in (WSMsgType.PING, WSMsgType.PONG):
                if message.type is WSMsgType.PING:  # where the socket does not answer it by itself
                    await ws.pong(message.data)
    except TimeoutError:
        return await _refuse(request, ws, Close.TOO_LATE, "no key came in time")
    if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
        return False
    try:
        request[CALLER] = request.app[GATEWAY].keyring.holder(read_key(message.data), scope)
        await ws.send_frame(_AUTHENTICATED, WSMsgType.TEXT)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return await _refuse(request, ws, Close.UNAUTHENTICATED, "the first message must authenticate")
    except Unavailable as error:
        return await _refuse(request, ws, WSCloseCode.TRY_AGAIN_LATER, error.detail)
    except Problem as problem:
        code = Close.FORBIDDEN if problem.kind == "forbidden" else Close.UNAUTHENTICATED
        return await _refuse(request, ws, code, problem.detail)
    except ConnectionError:
        return False
    return True


async def _refuse(request: web.Request, ws: web.WebSocketResponse, code: int, words: str) -> bool:
    try:
        async with asyncio.timeout(LEAVE_S):
            await ws.close(code=code, message=words.encode())
    except (ConnectionError, TimeoutError):
        if request.transport is not None:
            request.transport.abort()
    return False


class _Connection(Watcher):
    """A watcher's websocket: any number of subscriptions."""

    def __init__(self, request: web.Request, ws: web.WebSocketResponse) -> None:
        super().__init__(request)
        self.ws = ws

    async def attend(self) -> NoReturn:
        """Carry out the client's messages."""
        while True:
            await self.room()
            message = await self.ws.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                raise Gone
            self.session.receive(message.data)

    @staticmethod
    def frame(message: bytes) -> bytes:
        """One message."""
        return whole_frame(message)

    async def bid_farewell(self) -> None:
        """By a close code."""
        await self.ws.close(code=WSCloseCode.GOING_AWAY, message=b"the service goes away")

    async def dismiss(self) -> None:
        """By a close code."""
        await self.ws.close(code=Close.UNAUTHENTICATED, message=b"the key is no longer in use")

    async def fail(self) -> None:
        """By a close code."""
        await self.ws.close(code=WSCloseCode.INTERNAL_ERROR)
