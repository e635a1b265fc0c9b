"""A proxy between nodes and PostgreSQL that cuts a connection after a commit and before its reply.

It understands just enough of the protocol (PostgreSQL documentation, "Message Formats"): where a message of the client
ends, whether it commits, and when the server is ready for the next. What commits is `COMMIT`, or a statement that
commits by itself and whose text holds a mark that the proxy was told of.

Promises: what it cuts was committed. The server's reply was there, and no error.
"""

import asyncio
from collections import Counter
from pathlib import Path

from bench.relay import CHUNK, Relay

COMMIT = "COMMIT"
READY = b"Z\x00\x00\x00\x05I"
"""ReadyForQuery, outside of a transaction."""


class Client:
    """What one connection's client says, message by message."""

    def __init__(self, marks: dict[str, bytes]) -> None:
        self._marks = marks
        self._buffer = b""
        self._started = False
        self._kinds: dict[bytes, str | None] = {}
        """Name of a prepared statement -> what it is, if it commits."""
        self._bound: str | None = None

    def feed(self, data: bytes) -> list[str]:
        """What these bytes complete that commits: kinds of it."""
        self._buffer += data
        found = []
        head = 1 if self._started else 0
        while len(self._buffer) >= head + 4:
            end = head + int.from_bytes(self._buffer[head : head + 4], "big")
            if len(self._buffer) < end:
                break
            kind = self._take(self._buffer[:head], self._buffer[head + 4 : end])
            if kind is not None:
                found.append(kind)
            self._buffer = self._buffer[end:]
            self._started, head = True, 1
        return found

    def _take(self, letter: bytes, body: bytes) -> str | None:
        if letter == b"Q":
            return COMMIT if body[:6].upper() == b"COMMIT" else None
        if letter == b"P":
            name, text, *_ = body.split(b"\0", 2)
            self._kinds[name] = next((kind for kind, mark in self._marks.items() if mark in text), None)
        elif letter == b"B":
            self._bound = self._kinds.get(body.split(b"\0", 2)[1])
        elif letter == b"S":
            kind, self._bound = self._bound, None
            return kind
        return None


class Proxy(Relay):
    """In front of the server at a unix socket. `marks`: kind -> words in the text of statements of that kind."""

    def __init__(self, socket: Path, marks: dict[str, bytes]) -> None:
        super().__init__(lambda: asyncio.open_unix_connection(socket))
        self._marks = marks
        self.wanted = Counter[str]()
        """Kind -> how many are to be cut: every second that comes."""
        self.cut = Counter[str]()
        self.passed = Counter[str]()
        self._turn = Counter[str]()
        self.changed = asyncio.Event()
        """Set with each cut."""

    def dsn(self, user: str, database: str) -> str:
        """For clients."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    async def join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:
        """Carry bytes, and look at them."""
        client = Client(self._marks)
        cutting: list[str] = []

        def ask(data: bytes) -> None:
            cutting.extend(kind for kind in client.feed(data) if self._is_due(kind))

        async with asyncio.TaskGroup() as group:
            group.create_task(self.carry(reader, back, writer, ask))
            group.create_task(self._reply(there, writer, back, cutting))

    async def _reply(
        self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter, cutting: list[str]
    ) -> None:
        held = b""
        try:
            while data := await there.read(CHUNK):
                if cutting:
                    held += data
                    if not held.endswith(READY):
                        continue
                    kind = cutting.pop()
                    if not _failed(held):
                        self.cut[kind] += 1
                        self.changed.set()
                        return
                    data, held = held, b""
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.transport.abort()
            back.transport.abort()

    def _is_due(self, kind: str) -> bool:
        self._turn[kind] += 1
        if self.wanted[kind] and self._turn[kind] % 2:
            self.wanted[kind] -= 1
            return True
        self.passed[kind] += 1
        return False


def _failed(reply: bytes) -> bool:
    """Whether there is an ErrorResponse among these whole messages."""
    at = 0
    while at < len(reply):
        if reply[at : at + 1] == b"E":
            return True
        at += 1 + int.from_bytes(reply[at + 1 : at + 5], "big")
    return False
