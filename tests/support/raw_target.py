"""A webhook target on a real socket that does exactly what a test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

Script = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request, and the connection to answer on."""

    head: str
    body: bytes
    writer: asyncio.StreamWriter

    @property
    def lines(self) -> list[str]:
        return self.head.split("\r\n")

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in (line.split(": ", 1) for line in self.lines[1:])}

    async def answer(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


@dataclass
class RawTarget:
    """Where it listens, what it got, and signals for what happens on its connections."""

    port: int = 0
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    """The client closed a connection."""
    got: asyncio.Event = field(default_factory=asyncio.Event)
    """A request arrived."""

    def url(self, path: str = "/hook", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"


def says(data: bytes) -> Script:
    """Answer every request with these bytes."""

    async def script(exchange: Exchange) -> None:
        await exchange.answer(data)

    return script


def answers(status: int, *headers: str, body: bytes = b"") -> Script:
    """Answer every request like this."""
    head = "".join(f"{line}\r\n" for line in headers)
    return says(f"HTTP/1.1 {status} X\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body)


async def hangs(exchange: Exchange) -> None:
    """Never answer."""


@asynccontextmanager
async def raw_target(script: Script) -> AsyncIterator[RawTarget]:
    """A target that runs `script` for each request; all its connections are ended on the way out."""
    target = RawTarget()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target.connections += 1
        writers.append(writer)
        try:
            while True:
                exchange = await _read(reader, writer)
                target.exchanges.append(exchange)
                target.got.set()
                await script(exchange)
        except (asyncio.IncompleteReadError, ConnectionError):
            target.cut.set()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    target.port = server.sockets[0].getsockname()[1]
    async with server:
        yield target
        for writer in writers:
            writer.transport.abort()


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()[:-4]
    exchange = Exchange(head, b"", writer)
    exchange.body = await reader.readexactly(int(exchange.headers.get("content-length", "0")))
    return exchange
