"""A websocket client that costs little: whole frames of text over one connection of asyncio (RFC 6455), no library.

Its frames are masked with a key of zeros: the server does the same work, and the client none.

Promises: messages come whole and in order; pings are answered; `lost` is called once, however it ends.
Refuses: messages in several frames, which no service here sends, and an answer other than 101 with the subprotocol.
"""

import asyncio
import os
from base64 import b64encode
from collections.abc import Callable
from typing import cast

SUBPROTOCOL = "ringwheel.v1.json"
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
FINAL = 0x80
MASKED = 0x80
NO_KEY = bytes(4)
SHORT, LONG = 126, 127
"""Instead of a length: it follows, in two bytes, or in eight."""


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One frame of a client."""
    size = len(payload)
    if size < SHORT:
        head = bytes((FINAL | opcode, MASKED | size))
    elif size < 1 << 16:
        head = bytes((FINAL | opcode, MASKED | SHORT)) + size.to_bytes(2, "big")
    else:
        head = bytes((FINAL | opcode, MASKED | LONG)) + size.to_bytes(8, "big")
    return b"%b%b%b" % (head, NO_KEY, payload)


class Frames:
    """What a server sends, cut anywhere, as frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._need = 2

    def feed(self, data: bytes) -> list[tuple[int, bytearray]]:
        """The frames that are complete now: opcode and payload. Raises ValueError."""
        self._buffer += data
        found = []
        while len(self._buffer) >= self._need:
            begin, end = _bounds(self._buffer)
            if len(self._buffer) < end:
                self._need = end
                break
            if not self._buffer[0] & FINAL:
                raise ValueError("a message in several frames")
            found.append((self._buffer[0] & 0xF, self._buffer[begin:end]))
            del self._buffer[:end]
            self._need = 2
        return found


def _bounds(buffer: bytearray) -> tuple[int, int]:
    """Where the payload of the first frame begins and ends; of a head that is not complete, where the head ends."""
    size = buffer[1]
    if size & MASKED:
        raise ValueError("a server masks nothing")
    begin = {SHORT: 4, LONG: 10}.get(size, 2)
    if len(buffer) < begin:
        return begin, begin
    return begin, begin + (size if begin == 2 else int.from_bytes(buffer[2:begin], "big"))


class Socket(asyncio.Protocol):
    """One connection. `heard` gets each message; `lost` is told why there will be no more."""

    def __init__(self, path: str, heard: Callable[[bytearray], None], lost: Callable[[str], None]) -> None:
        self._path = path
        self._heard = heard
        self._lost = lost
        self._head = b""
        self._frames = Frames()
        self._why = "the connection ended"
        self._transport: asyncio.Transport | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Raises ConnectionError when the service does not want it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks for the upgrade."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        key = b64encode(os.urandom(16)).decode()
        self._transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells its owner."""
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(self._why))
        self._lost(self._why)

    def data_received(self, data: bytes) -> None:
        """Hands on what is complete."""
        if self.opened.done():
            self._take(data)
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if end and self._is_upgrade(head):
            self.opened.set_result(None)
            self._take(rest)

    def _is_upgrade(self, head: bytes) -> bool:
        if head.startswith(b"HTTP/1.1 101 ") and SUBPROTOCOL.encode() in head:
            return True
        self._end(f"no websocket: {head[:200].decode(errors='replace')}")
        return False

    def _take(self, data: bytes) -> None:
        for opcode, payload in self._frames.feed(data):
            if opcode == TEXT:
                self._heard(payload)
            elif opcode == PING:
                self._write(frame(bytes(payload), PONG))
            elif opcode == CLOSE:
                code = int.from_bytes(payload[:2], "big")
                self._end(f"closed with {code}: {payload[2:].decode(errors='replace')}")

    def send(self, message: bytes) -> None:
        """One message; nothing happens to it when the connection has ended."""
        self._write(frame(message))

    def close(self) -> None:
        """End it in good order, without waiting for the other side."""
        self._write(frame((1000).to_bytes(2, "big"), CLOSE))
        self._end("closed")

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _end(self, why: str) -> None:
        self._why = why
        if self._transport is not None:
            self._transport.close()


async def connect(port: int, path: str, heard: Callable[[bytearray], None], lost: Callable[[str], None]) -> Socket:
    """A socket that is open. Raises OSError (ConnectionError, too); then `lost` was called, if it came that far."""
    _, socket = await asyncio.get_running_loop().create_connection(lambda: Socket(path, heard, lost), "127.0.0.1", port)
    await socket.opened
    return socket
