import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from bench import sink
from bench.load import ask, closed_loop, get, open_loop, post

HEADERS = "webhook-id: {}\r\nringwheel-schedule-time: 2026-01-01T00:00:00.000Z\r\n"


@pytest.fixture
async def target() -> AsyncIterator[int]:
    """The sink, on this loop; answers its port."""
    sink.Sink.seen = sink.Seen()
    server = await asyncio.get_running_loop().create_server(sink.Sink, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_closed_loop_sends_every_request_once(target: int) -> None:
    requests = [post("/hook", b"x" * number, HEADERS.format(number)) for number in range(50)]
    run = await closed_loop(target, requests, 4)
    assert run.expect(200) is run
    assert len(run.latencies_ms) == 50
    assert run.rate > 0
    seen = json.loads(await ask(target, get("/seen")))
    assert (seen["count"], seen["distinct"], len(seen["lateness_ms"])) == (50, 50, 50)


async def test_an_open_loop_keeps_to_its_rate_and_counts_from_the_plan(target: int) -> None:
    run = await open_loop(target, (post("/hook", b"{}") for _ in range(40)), 2_000, 2)
    assert len(run.latencies_ms) == 40
    assert run.seconds >= 39 / 2_000


@pytest.mark.parametrize("loop", [closed_loop, lambda port, requests, n: open_loop(port, requests, 100, n)])
async def test_no_requests_no_answers(target: int, loop: object) -> None:
    run = await loop(target, [], 2)  # type: ignore[operator]
    assert run.latencies_ms == []


async def test_an_unexpected_status_is_an_error(target: int) -> None:
    run = await closed_loop(target, [post("/hook", b"{}")], 1)
    with pytest.raises(RuntimeError, match="expected 201 alone"):
        run.expect(201)


async def test_waiting_ends_with_the_count(target: int) -> None:
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(ask(target, get("/wait?count=3")))
        await closed_loop(target, [post("/hook", b"{}", HEADERS.format("same"))] * 3, 1)
    assert json.loads(waiting.result())["distinct"] == 1
    assert json.loads(await ask(target, get("/wait?count=2")))["count"] == 3
    assert json.loads(await ask(target, get("/reset")))["count"] == 0


async def test_answers_in_pieces_and_refusals() -> None:
    """A server that answers one byte at a time, then one that hangs up."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\ncontent-length: 2\r\n\r\nno":
            writer.write(bytes([byte]))
            await writer.drain()
        await reader.read(1)
        writer.close()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RuntimeError, match=r"GET /x.*404.*no"):
            await ask(port, get("/x"))
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionError, match="closed a connection"):
            await ask(port, get("/x"))
