"""`GET /v1/stream`: live status over a websocket, subprotocol `ringwheel.v1.json`.

Messages of the client: `subscribe {sub, filter: {id} or {queue}, from?}`, `unsubscribe {sub}`. Of the service:
`snapshot`, `resumed`, `event`, `gap {reason, snapshot}` (`snapshot` says whether one follows), `unsubscribed`, `error`.
Refuses browsers that come from another origin.
"""

from typing import NoReturn

from aiohttp import WSCloseCode, WSMsgType, web

from gateway.problems import Problem
from gateway.watcher import Gone, Watcher, check_origin

SUBPROTOCOL = "ringwheel.v1.json"


async def stream(request: web.Request) -> web.StreamResponse:
    """Serve one watcher until either side ends it."""
    _check(request)
    connection = _Connection(request)
    await connection.ws.prepare(request)
    await connection.run()
    return connection.ws


def _check(request: web.Request) -> None:
    offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", SUBPROTOCOL).split(",")]
    if SUBPROTOCOL not in offered:
        raise Problem("unreadable", f"the subprotocol spoken here is {SUBPROTOCOL}")
    if not web.WebSocketResponse(protocols=(SUBPROTOCOL,)).can_prepare(request):
        raise Problem("unreadable", "this is a websocket: ask for an upgrade", headers={"Upgrade": "websocket"})
    check_origin(request)


class _Connection(Watcher):
    """A watcher's websocket: any number of subscriptions."""

    def __init__(self, request: web.Request) -> None:
        super().__init__(request)
        self.ws = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            heartbeat=self.limits.heartbeat_s,
            max_msg_size=self.limits.message_bytes,
            compress=False,
        )

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
        """A whole text message in one frame, unmasked as a server's are (RFC 6455, 5.2)."""
        size = len(message)
        if size < 126:
            return bytes((0x81, size)) + message
        if size < 65_536:
            return b"\x81\x7e" + size.to_bytes(2, "big") + message
        return b"\x81\x7f" + size.to_bytes(8, "big") + message

    async def bid_farewell(self) -> None:
        """By a close code."""
        await self.ws.close(code=WSCloseCode.GOING_AWAY, message=b"the service goes away")

    async def fail(self) -> None:
        """By a close code."""
        await self.ws.close(code=WSCloseCode.INTERNAL_ERROR)
