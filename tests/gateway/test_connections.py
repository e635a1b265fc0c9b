"""Clients that take their time, and too many of them, on real sockets."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from gateway.server import Bounds, Connection
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


def lines(size: int) -> bytes:
    """Fields of a head, so many bytes."""
    return b"".join(b"X%03d: %b\r\n" % (n, b"y" * 1_017) for n in range(size // 1_024))


@pytest.mark.parametrize("before", [b"", LIVE, LIVE * 2])
async def test_a_head_that_is_too_long_is_refused_while_it_comes(before: bytes) -> None:
    """Here and below: before its end, which never comes."""
    async with served() as world, connected(world) as (reader, writer):
        writer.write(before + LIVE[:-2] + lines(120 * 1_024))
        said = await rest(reader)
        assert said.count(b"HTTP/1.1 200 ") in (0, before.count(b"GET")), "the connection may end before"
        if not before:
            assert orjson.loads(said.partition(b"\r\n\r\n")[2])["type"] == "head-too-large"


async def test_a_head_that_drips_is_measured_as_a_whole() -> None:
    async with served() as world, connected(world) as (reader, writer):
        writer.write(LIVE)
        assert (await answer(reader))[0] == 200
        writer.write(LIVE[:-2])
        for _ in range(40):
            writer.write(lines(1_024))
            await writer.drain()
        status, body = await answer(reader)
        assert (status, orjson.loads(body)["type"]) == (431, "head-too-large")
        assert await rest(reader) == b""


@pytest.mark.parametrize("head", [LIVE, HEAD.replace(b"Host", b"Content-Length: 14\r\nHost") + b"\r\n"])
async def test_a_long_head_that_is_whole_is_taken_and_one_too_long_is_not(head: bytes) -> None:
    body = b'{"delay":"1h"}' if b"POST" in head else b""
    async with served() as world, connected(world) as (reader, writer):
        for _ in range(2):
            writer.write(head[:-2] + lines(30 * 1_024) + b"\r\n" + body)
            assert (await answer(reader))[0] in (200, 201)
        writer.write(head[:-2] + lines(60 * 1_024) + b"\r\n" + body)
        assert (await answer(reader))[0] == 431
        assert len(world.intake.drafts) == (2 if body else 0)


@pytest.mark.parametrize("path", [b"/v1/tasks", b"/v1/tasks:batch"])
@pytest.mark.parametrize("parts", [1, 7])
async def test_a_long_body_is_no_head(path: bytes, parts: int) -> None:
    """Nor is what follows it: the connection stays, without a clock."""
    task = orjson.dumps({"delay": "1h", "payload": "x" * 200_000})
    body = b"[%b]" % task if path.endswith(b"batch") else task
    async with served(bounds=Bounds(head_s=0.2)) as world, connected(world) as (reader, writer):
        for _ in range(3):
            request = HEAD.replace(b"/v1/tasks", path) + b"Content-Length: %d\r\n\r\n" % len(body) + body
            for start in range(0, len(request), -(-len(request) // parts)):
                writer.write(request[start : start + -(-len(request) // parts)])
                await writer.drain()
            assert (await answer(reader))[0] in (200, 201)
        await asyncio.sleep(0.4)
        writer.write(LIVE)
        assert (await answer(reader))[0] == 200


async def test_a_long_head_behind_a_request_that_is_answered_ends_the_connection() -> None:
    async with served(bounds=Bounds(head_s=0.05)) as world, connected(world) as (reader, writer):
        writer.write(LIVE.replace(b"/livez", b"/v1/events?queue=emails"))
        async with asyncio.timeout(10):
            await reader.readuntil(b"snapshot")
            writer.write(LIVE[:-2])
            await asyncio.sleep(0.2)  # it is not late as long as the answer goes on
            writer.write(lines(120 * 1_024))
            while said := await reader.read(65_536):
                assert b"431" not in said, "words would be taken for a part of the answer"


async def test_what_waits_behind_a_request_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that nobody can take yet are not read without end: the rest waits where the client has to keep it."""
    gate, full = asyncio.Event(), asyncio.Event()
    held: list[int] = []
    pause = Connection._pause_reading_for_buffer

    def paused(self: Connection) -> None:
        pause(self)
        held.append(len(self._messages))
        full.set()

    monkeypatch.setattr(Connection, "_pause_reading_for_buffer", paused)
    async with served() as world, connected(world) as (reader, writer):
        read = world.stores.queues.page

        async def slow(*args: Any) -> Any:
            await gate.wait()
            return await read(*args)

        world.stores.queues.page = slow  # type: ignore[assignment, method-assign]
        writer.write(LIVE.replace(b"/livez", b"/v1/queues"))
        many = LIVE[:-2] + lines(30 * 1_024) + b"\r\n"
        async with asyncio.timeout(10):
            writer.write(many * 32)
            await full.wait()
            assert held[0] < 8
            gate.set()
            assert [(await answer(reader))[0] for _ in range(33)] == [200] * 33


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
        writer.write(HEAD + b"Content-Length: 14\r\nExpect: 100-continue\r\n\r\n" + b'{"delay":"2h"}')
        assert (await answer(reader))[0] == 201, "what is there needs no invitation"
        for path in (b"/livez", b"/nowhere"):
            writer.write(LIVE.replace(b"/livez", path).replace(b"Host", b"Expect: miracles\r\nHost"))
            status, body = await answer(reader)
            assert (status, orjson.loads(body)["type"]) == (400, "unreadable")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Content-Length: 99999999", 413),
        (b"Content-Length: 14\r\nAuthorization: Bearer nonsense", 401),
        (b"Content-Length: 14\r\nContent-Encoding: gzip", 415),
        (b"Content-Length: 14\r\nOrigin: http://evil.example", 403),
    ],
)
async def test_nobody_is_asked_for_a_body_that_is_refused_in_any_case(fields: bytes, status: int) -> None:
    async with served() as world, connected(world) as (reader, writer):
        if status == 401:
            world.gateway.keyring.local = False
        writer.write(HEAD + fields + b"\r\nExpect: 100-continue\r\n\r\n")
        assert (await answer(reader))[0] == status
        writer.write_eof()
        assert await rest(reader) == b"", "a next request could not be told from the body"
