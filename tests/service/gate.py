"""A door before the database: a TCP port whose connections lead to the server, and that a test shuts and opens."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit


class Gate:
    """Shut at first: whoever knocks is refused. Shutting cuts every connection."""

    def __init__(self, dsn: str) -> None:
        parts = urlsplit(dsn)
        query = parse_qs(parts.query)
        self._server_socket = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
        self._reserve(0)
        self.dsn = f"postgresql://ringwheel@127.0.0.1:{self._port}{parts.path}?sslmode=disable"
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    def _reserve(self, port: int) -> None:
        """Bound, but not listening: nobody else gets the port, and connections are refused."""
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self._port: int = self._socket.getsockname()[1]

    async def open(self) -> None:
        """Let everybody through."""
        self._server = await asyncio.start_server(self._lead, sock=self._socket)

    def shut(self) -> None:
        """Cut everybody off."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._reserve(self._port)
        self.cut()

    def freeze(self) -> None:
        """Take everything, connections too, and let nothing through: as a server whose processes are stopped."""
        self._flows.clear()

    def thaw(self) -> None:
        """Let through what was taken."""
        self._flows.set()

    def cut(self) -> None:
        """End the connections that there are."""
        for writer in self._writers:
            writer.transport.abort()

    def close(self) -> None:
        """Give the port back."""
        self.shut()
        self._socket.close()

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_unix_connection(self._server_socket)
        ends = {writer, to_writer}
        self._writers |= ends
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, to_writer))
                group.create_task(self._pump(to_reader, writer))
        finally:
            self._writers -= ends

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65_536):
                await self._flows.wait()
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            pass  # cut: the other end is told below
        finally:
            writer.close()


@asynccontextmanager
async def gate_before(dsn: str) -> AsyncIterator[Gate]:
    """A shut door before this database."""
    gate = Gate(dsn)
    try:
        yield gate
    finally:
        gate.close()
