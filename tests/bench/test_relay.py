import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bench.relay import Mode, Relay


@asynccontextmanager
async def relayed() -> AsyncIterator[Relay]:
    """A relay before a server that says back what it hears."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(100):
                writer.write(data)
        except ConnectionResetError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Relay(lambda: asyncio.open_connection("127.0.0.1", port)) as relay:
            yield relay


async def test_it_passes_until_it_is_silent_and_loses_nothing() -> None:
    async with relayed() as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        relay.mode = Mode.SILENT
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.readexactly(3)
        relay.mode = Mode.PASS
        assert await reader.readexactly(3) == b"two"
        writer.close()


async def test_it_refuses_who_is_there_and_who_comes() -> None:
    async with relayed() as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(b"one")
        await reader.readexactly(3)
        relay.mode = Mode.REFUSE
        assert await over(reader)
        reader, other = await asyncio.open_connection("127.0.0.1", relay.port)
        assert await over(reader)
        for each in (writer, other):
            each.close()


async def over(reader: asyncio.StreamReader) -> bool:
    """The connection ended, in whatever way."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def test_nobody_on_the_other_side() -> None:
    async with Relay(lambda: asyncio.open_unix_connection("/nowhere")) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        assert await over(reader)
        writer.close()
