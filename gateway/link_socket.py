"""The socket under a link: a websocket (RFC 6455) whose messages are heard in the call that reads them.

No message waits in a queue for a task that has to be woken: on a busy loop that costs a turn, and in it all else that
was ready comes first (docs/decisions/0013-links-that-hear-at-once.md). `websockets` speaks the protocol, without I/O.

Promises: while nobody listens, no more is read than what came with the first message that is kept. A peer that says
nothing for half of HEARTBEAT_S after a ping is cut off. `send` returns when the peer takes more. The end of a
connection takes CLOSE_S at most; what was sent before is on its way then, as far as the peer took it.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import NoReturn, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidState, InvalidURI
from websockets.frames import Frame, Opcode
from websockets.typing import BytesLike
from websockets.uri import parse_uri

from gateway.turn import Turn

OPEN_S = 3.0
CLOSE_S = 0.2
"""A node that goes away does not answer any more, and waits for this end to be gone."""
HEARTBEAT_S = 5.0
UNSENT_BYTES = 64 * 1024 * 1024
"""A peer that takes nothing, and asks for signs of life until so much waits for it, is cut off."""
# On 3.11 a member of an enum costs ten times a global.
_TEXT, _BINARY, _CONTINUATION = Opcode.TEXT, Opcode.BINARY, Opcode.CONT


@asynccontextmanager
async def open_socket(
    url: str, trust: ssl.SSLContext, headers: Mapping[str, str], longest: int, turn: Turn
) -> AsyncIterator["LinkSocket"]:
    """A connection to `url` (`ws:` or `wss:`), within OPEN_S; it is closed at the end of the context.

    `longest`: of a message, in bytes. Raises OSError, TimeoutError, and WebSocketException: no URL, or no answer of a
    websocket.
    """
    try:
        uri = parse_uri(url)
        uri.host.encode("idna")
    except ValueError as error:
        raise InvalidURI(url, str(error)) from error
    protocol = ClientProtocol(uri, max_size=longest)
    request = protocol.connect()
    request.headers.update(headers)
    protocol.send_request(request)
    socket = LinkSocket(protocol, turn)
    try:
        async with asyncio.timeout(OPEN_S):
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: socket, uri.host, uri.port, ssl=trust if uri.secure else None)
            await socket.opened()
        yield socket
    finally:
        await socket.close()


class LinkSocket(asyncio.Protocol):
    """One connection, which ends once."""

    def __init__(self, protocol: ClientProtocol, turn: Turn) -> None:
        self._protocol = protocol
        self._turn = turn
        self._transport: asyncio.Transport | None = None
        self._kept: deque[bytes] = deque()
        """Messages that nobody has asked for yet."""
        self._begun: bytearray | None = None
        """Of a message that comes in several frames."""
        self._hear: Callable[[BytesLike], None] | None = None
        self._spoke = False
        """The peer did, since this was looked at."""
        self._open = False
        self._error: Exception | None = None
        self.over = False
        """Nothing is heard any more."""
        self._news = asyncio.Event()
        """Set when one of these has changed, but for `_spoke`."""
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()

    # --- for whoever has the link

    async def opened(self) -> None:
        """Return when the server has agreed. Raises what it said instead, or ConnectionResetError."""
        while not self._open:
            self._check()
            await self._next()

    async def receive(self) -> bytes:
        """The next message. Raises what ended the connection, or ConnectionResetError. Not once somebody listens."""
        while not self._kept:
            self._check()
            self._read_on()
            await self._next()
        return self._kept.popleft()

    async def listen(self, hear: Callable[[BytesLike], None]) -> None:
        """Each message that was not received is heard: those that came now, others when they are read.

        Returns when none comes any more. Raises what `hear` raised, which ended it.
        """
        with self._turn:
            self._hear = hear
            while self._kept and self._error is None:
                self._say(self._kept.popleft())
        self._read_on()
        while not self.over:
            await self._next()
        if self._error is not None:
            raise self._error

    async def send(self, data: bytes) -> None:
        """Put a message on its way; returns when the peer takes more. Raises ConnectionError."""
        if self.over:
            raise ConnectionResetError
        try:
            self._protocol.send_binary(data)
        except InvalidState:
            raise ConnectionResetError from None
        self._write()
        await self._writable.wait()
        if self._lost.is_set():
            raise ConnectionResetError

    async def beat(self) -> NoReturn:
        """Ask for a sign of life now and then. Raises TimeoutError when there is none."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            self._spoke = False
            with suppress(InvalidState):
                self._protocol.send_ping(b"")
            self._write()
            await asyncio.sleep(HEARTBEAT_S / 2)
            if not self._spoke:
                raise TimeoutError

    async def close(self) -> None:
        """Say that it is over, and see it end."""
        self._end()
        with suppress(InvalidState):  # it was not open yet, or the last words were said
            self._protocol.send_close()
            self._write()
        self._read_on()
        late = asyncio.get_running_loop().call_later(CLOSE_S if self._open else 0.0, self._cut)
        try:
            if self._transport is not None:
                await self._lost.wait()
        finally:
            late.cancel()
            self._cut()

    # --- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The request for the upgrade goes out."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._write()

    def data_received(self, data: bytes) -> None:
        """All that it brings is heard now."""
        self._spoke = True
        self._protocol.receive_data(data)
        self._write()
        if self._transport is not None and self._transport.get_write_buffer_size() > UNSENT_BYTES:
            self._transport.abort()
        with self._turn:
            for event in self._protocol.events_received():
                if self.over:
                    break
                if isinstance(event, Frame):
                    self._take(event)
                else:
                    self._open = self._protocol.handshake_exc is None
                    self._news.set()
        if self._protocol.handshake_exc is not None or self._protocol.close_expected():
            self._end(self._protocol.handshake_exc)

    def eof_received(self) -> None:
        """The peer says nothing more."""
        self._protocol.receive_eof()
        self._write()
        self._end(self._protocol.handshake_exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._transport = None
        self._writable.set()
        self._lost.set()
        self._end(self._protocol.handshake_exc)

    def pause_writing(self) -> None:
        """The peer takes no more for now."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable.set()

    # --- inside

    def _take(self, frame: Frame) -> None:
        if frame.opcode is _BINARY and frame.fin:
            self._say(frame.data)
        elif frame.opcode is _BINARY:
            self._begun = bytearray(frame.data)
        elif frame.opcode is _CONTINUATION and self._begun is not None:
            self._begun += frame.data
            if frame.fin:
                whole, self._begun = self._begun, None
                self._say(whole)
        elif frame.opcode is _TEXT:
            self._end()  # no peer says any

    def _say(self, message: BytesLike) -> None:
        if self._hear is None:
            self._kept.append(bytes(message))
            if self._transport is not None and not self._transport.is_closing():
                self._transport.pause_reading()
            self._news.set()
            return
        try:
            self._hear(message)
        except Exception as error:  # noqa: BLE001 - whoever listens raises it
            self._end(error)

    def _write(self) -> None:
        """What the protocol has to say; nothing: that it says nothing more."""
        for data in self._protocol.data_to_send():
            if self._transport is None:
                break
            if data:
                self._transport.write(data)
            else:
                self._transport.close()

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _end(self, error: Exception | None = None) -> None:
        if not self.over:
            self.over = True
            self._news.set()
        self._error = self._error or error

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _check(self) -> None:
        if self.over:
            raise self._error or ConnectionResetError()

    async def _next(self) -> None:
        self._news.clear()
        await self._news.wait()
