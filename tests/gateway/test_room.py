"""Large bodies at the same time, on real sockets: they share one room, and small ones need none."""

import asyncio
from contextlib import AsyncExitStack

import orjson
import pytest

from gateway.room import FREE_BYTES, Room
from tests.gateway.served import served
from tests.gateway.test_connections import answer, connected, rest

PART = 100 * 1024
ROOM = 2 * PART + 100
TASK = orjson.dumps({"delay": "1h", "payload": "x" * (FREE_BYTES - 100)})


def head(size: int | None) -> bytes:
    framing = b"Transfer-Encoding: chunked" if size is None else b"Content-Length: %d" % size
    return b"POST /v1/tasks:batch HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n%b\r\n\r\n" % framing


class Signal(Room):
    """Says when it changes."""

    def __init__(self, size: int) -> None:
        self.changed = asyncio.Event()
        super().__init__(size)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        self.changed.set()

    async def until(self, left: int) -> None:
        async with asyncio.timeout(10):
            while self.left != left:
                self.changed.clear()
                await self.changed.wait()


async def test_one_body_too_many_is_refused_and_its_room_is_free_again() -> None:
    part = b" " * (FREE_BYTES + PART)
    async with served() as world, AsyncExitStack() as stack:
        room = world.gateway.room = Signal(ROOM)
        held = [await stack.enter_async_context(connected(world)) for _ in range(2)]
        for number, (_, writer) in enumerate(held, 1):
            writer.write(head(len(part) + len(b"[{}]")) + part)
            await room.until(ROOM - number * PART)
        for announced in (len(part), None):
            async with connected(world) as (reader, writer):
                writer.write(head(announced) + (b"%x\r\n" % len(part) + part if announced is None else b""))
                status, body = await answer(reader)
                assert (status, orjson.loads(body)["type"]) == (503, "unavailable")
                writer.write_eof()
                assert await rest(reader) == b""
        async with connected(world) as (reader, writer):
            writer.write(head(len(TASK) + 2) + b"[")
            writer.write(TASK + b"]")
            assert (await answer(reader))[0] == 200, "a small one needs no room"
        assert (room.left, room.refused) == (ROOM - 2 * PART, 2)
        reader, writer = held[0]
        writer.write(b"[{}]")
        assert (await answer(reader))[0] == 200
        await room.until(ROOM - PART)
        held[1][1].close()
        await room.until(ROOM)


@pytest.mark.parametrize("size", [FREE_BYTES, FREE_BYTES + 1])
async def test_the_first_bytes_of_each_are_free(size: int) -> None:
    async with served() as world, connected(world) as (reader, writer):
        world.gateway.room = Room(0)
        writer.write(head(size))
        if size == FREE_BYTES:
            writer.write(b"[{}]".rjust(size))
        assert (await answer(reader))[0] == (200 if size == FREE_BYTES else 503)


async def test_what_a_503_says() -> None:
    async with served() as world:
        world.gateway.room = Room(0)
        refused = await world.post("/v1/tasks:batch", b" " * PART * 10)
        assert (refused.status, refused.headers["Retry-After"], refused.headers["Connection"]) == (503, "1", "close")
