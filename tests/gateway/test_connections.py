"""Clients that take their time, and too many of them, on real sockets."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest

from gateway.server import Bounds
from tests.gateway.served import Served, served

HEAD = b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
LIVE = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"


@asynccontextmanager
async def connected(world: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    assert world.server.port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", world.server.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of the next answer."""
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        return int(head.split()[1]), await reader.readexactly(int(length.split()[1]))


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the end of the connection."""
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("begun", [b"G", HEAD])
async def test_a_head_that_does_not_come_is_given_up(begun: bytes) -> None:
    async with served(bounds=Bounds(head_s=0.1)) as world, connected(world) as (reader, writer):
        writer.write(begun)
        status, body = await answer(reader)
        assert (status, orjson.loads(body)["type"]) == (408, "too-slow")
        assert await rest(reader) == b""


async def test_a_head_that_drips_is_given_up_all_the_same() -> None:
    async with served(bounds=Bounds(head_s=0.3)) as world, connected(world) as (reader, writer):
        writer.write(LIVE)
        assert (await answer(reader))[0] == 200
        began = time.monotonic()

        async def drip() -> None:
            writer.write(b"GET /")
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            dripping = group.create_task(drip())
            said = await rest(reader)
            assert b" 408 " in said or not said, "a reset may take the answer away: the client is still sending"
            dripping.cancel()
        assert time.monotonic() - began < 5


async def test_the_time_of_a_head_is_its_own() -> None:
    """An idle connection is no slow head, nor are many requests that come one after the other."""
    async with served(bounds=Bounds(head_s=0.2)) as world, connected(world) as (reader, writer):
        for _ in range(4):
            writer.write(LIVE * 3)
            assert [(await answer(reader))[0] for _ in range(3)] == [200] * 3
            await asyncio.sleep(0.15)


async def test_a_connection_that_sends_nothing_or_nothing_more_is_closed() -> None:
    async with served(bounds=Bounds(idle_s=0.2)) as world:
        async with connected(world) as (reader, _):
            assert await rest(reader) == b""
        async with connected(world) as (reader, writer):
            writer.write(LIVE)
            assert (await answer(reader))[0] == 200
            assert await rest(reader) == b""


async def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.bodies.BODY_S", 0.1)
    async with served() as world, connected(world) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 10\r\n\r\n{")
        status, body = await answer(reader)
        assert (status, orjson.loads(body)["type"]) == (408, "too-slow")
        assert world.intake.batches == 0


@pytest.mark.parametrize("bounds", [Bounds(per_address=2), Bounds(connections=2)])
async def test_one_connection_too_many_is_told_so(bounds: Bounds) -> None:
    async with (
        served(bounds=bounds) as world,
        connected(world) as (first, writer),
        connected(world) as (second, other),
    ):
        for reader, some in ((first, writer), (second, other)):
            some.write(LIVE)
            assert (await answer(reader))[0] == 200
        async with connected(world) as (third, _):
            status, body = await answer(third)
            assert (status, orjson.loads(body)["type"]) == (503, "unavailable")
            assert await rest(third) == b""
        writer.write(LIVE)
        assert (await answer(first))[0] == 200, "who is in stays in"
        other.write(LIVE.replace(b"Host", b"Connection: close\r\nHost"))
        assert b" 200 " in await rest(second)
        async with connected(world) as (fourth, again):
            again.write(LIVE)
            assert (await answer(fourth))[0] == 200


async def test_who_asks_and_does_not_read_is_cut_off() -> None:
    async with served(bounds=Bounds(stall_s=0.1)) as world:
        path = f"/v1/tasks/{await world.create(payload='x' * 200_000)}?view=full"
        assert world.server.port is not None
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", world.server.port))
            request = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()

            async def ask() -> None:
                while True:
                    await loop.sock_sendall(client, request)
                    await asyncio.sleep(0.01)

            async with asyncio.timeout(20):
                with pytest.raises(ConnectionError):
                    await ask()


async def test_expectations() -> None:
    async with served() as world, connected(world) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 14\r\nExpect: 100-Continue\r\n\r\n")
        async with asyncio.timeout(10):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'{"delay":"1h"}')
        assert (await answer(reader))[0] == 201
        for path in (b"/livez", b"/nowhere"):
            writer.write(LIVE.replace(b"/livez", path).replace(b"Host", b"Expect: miracles\r\nHost"))
            status, body = await answer(reader)
            assert (status, orjson.loads(body)["type"]) == (400, "unreadable")
