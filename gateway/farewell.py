"""A websocket whose client hears the close code also when its message was too long.

aiohttp says 1009 and closes the socket in the same moment. What has come of the message lies there unread, and more is
on its way, so the client's system is told of a reset, and throws the close code away that it has got.

Promises: the socket is closed when the client has closed, or LINGER_S later; what comes until then is thrown away.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from gateway.server import Connection

LINGER_S = 2.0


class PatientSocket(web.WebSocketResponse):
    """One connection."""

    def __init__(self, connection: Connection, **options: Any) -> None:
        super().__init__(**options)
        self._connection = connection
        self.parting: Callable[[], None] = lambda: None
        """Called when it is about to end for that reason."""

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        """Say the last words. False: they were said before."""
        if code == WSCloseCode.MESSAGE_TOO_BIG and not self.closed:
            self.parting()
            with suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await self.send_frame(code.to_bytes(2, "big") + message, WSMsgType.CLOSE)
                    await self._connection.lost()
        return await super().close(code=code, message=message, drain=drain)
