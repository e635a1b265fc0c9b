"""A TCP relay on a free port of the loopback that can be told to go bad: to be silent, or to refuse.

    async with Relay(lambda: asyncio.open_connection("127.0.0.1", port)) as relay:
        relay.port, relay.mode = ...

Silence loses nothing: what came is sent once it passes again, as a network does that is cut for a while.
"""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from types import TracebackType
from typing import Self

CHUNK = 65_536
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Mode(Enum):
    """What it does with connections."""

    PASS = auto()
    SILENT = auto()
    """They stay, and nothing goes through."""
    REFUSE = auto()
    """They are cut, and new ones are cut at once."""


class Relay:
    """One listening port. `connect` opens the other side."""

    def __init__(self, connect: Callable[[], Awaitable[Streams]]) -> None:
        self._connect = connect
        self._mode = Mode.PASS
        self._passing = asyncio.Event()
        self._passing.set()
        self._open: set[asyncio.StreamWriter] = set()
        self._serving = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.mode = Mode.REFUSE
        await self._idle.wait()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def mode(self) -> Mode:
        """What it does now."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        if mode is Mode.SILENT:
            self._passing.clear()
        else:
            self._passing.set()
        if mode is Mode.REFUSE:
            for writer in self._open:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both ways, until one ends."""
        self._open.add(writer)
        self._serving += 1
        self._idle.clear()
        try:
            await self._passing.wait()
            if self._mode is Mode.REFUSE:
                return
            there, back = await self._connect()
            self._open.add(back)
            try:
                await self.join(reader, writer, there, back)
            finally:
                self._open.discard(back)
                back.transport.abort()
        except OSError:
            return
        finally:
            self._open.discard(writer)
            writer.transport.abort()
            self._serving -= 1
            if not self._serving:
                self._idle.set()

    async def join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:
        """Carry bytes from the client to the other side and back."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.carry(reader, back, writer))
            group.create_task(self.carry(there, writer, back))

    async def carry(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
        look: Callable[[bytes], object] = lambda data: None,
    ) -> None:
        """One way; its end is the end of both. `look` sees what is carried before it goes on."""
        try:
            while data := await source.read(CHUNK):
                await self._passing.wait()
                look(data)
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            return
        finally:
            sink.transport.abort()
            other.transport.abort()
