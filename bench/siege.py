"""Good requests while others attack: their p99 and the service's memory, against the same without the attack.

The attack is all at once: connections that send a byte a second, gzip bombs, webhook targets that answer a gigabyte or
drip for ever, and watchers of a busy queue that never read. It comes from a process of its own, `python -m bench.siege
PORT`, on the loopback.
"""

import asyncio
import gzip
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import uvloop

from bench.load import open_loop, post
from bench.processes import Child, process
from bench.report import Options, Row, percentile
from bench.stage import stage
from bench.work import batch_of, item, single

RATE_HZ = 200.0
CONNECTIONS = 32
DRIPPING = 500
WATCHING = 200
BOMB_BYTES = 50_000_000
ANSWER_BYTES = 1_000_000_000
ALLOWED_MS = 50.0
ALLOWED_MIB = 64.0
HEAD = b"POST /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nX-Slow: "


def run(options: Options) -> list[Row]:
    """Measures it."""
    return uvloop.run(_run(options))


async def _run(options: Options) -> list[Row]:
    seconds = options.size(20, 2)
    async with stage() as here:
        service = await here.service("ours")
        with options.steps("siege", 3) as steps:
            steps.begin("warm")
            await _good(service, here.sink.url, 2)
            steps.done()
            steps.begin("at peace")
            calm_ms = await _good(service, here.sink.url, seconds)
            calm_mib = service.rss_mib()
            steps.done()
            steps.begin("under siege")
            async with process("-m", "bench.siege", str(service.port), ready="attacking"):
                siege_ms = await _good(service, here.sink.url, seconds)
                siege_mib = service.rss_mib()
            steps.done()
    goal, held = "<= 2 x, or 50 ms", siege_ms <= max(2 * calm_ms, ALLOWED_MS)
    more, most_mib = f"< floor + {ALLOWED_MIB:g}", calm_mib + ALLOWED_MIB
    return [
        Row("good requests, p99", siege_ms, "ms", calm_ms, siege_ms / calm_ms, goal, held),
        Row("memory under siege", siege_mib, "MiB", calm_mib, siege_mib / calm_mib, more, siege_mib < most_mib),
    ]


async def _good(service: Child, url: str, seconds: float) -> float:
    requests = (single(number, url=url, queue="busy") for number in range(round(RATE_HZ * seconds)))
    return percentile((await open_loop(service.port, requests, RATE_HZ, CONNECTIONS)).expect(201).latencies_ms, 99)


async def attack(port: int) -> None:
    """All attacks at once, until the process is ended."""
    bomb = post("/v1/tasks", gzip.compress(bytes(BOMB_BYTES), 9), "Content-Encoding: gzip\r\n")
    async with _bad_target() as bad, asyncio.TaskGroup() as group:
        for _ in range(DRIPPING):
            group.create_task(_drip(port))
        for _ in range(WATCHING):
            group.create_task(_watch(port))
        group.create_task(_bombs(port, bomb))
        group.create_task(_feed(port, bad))
        await asyncio.sleep(2)
        print("attacking", flush=True)


async def _drip(port: int) -> None:
    """A byte a second; once cut off, again."""
    while True:
        with suppress(ConnectionError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                for byte in HEAD + b"x" * 1_000:
                    writer.write(bytes((byte,)))
                    await writer.drain()
                    await asyncio.sleep(1)
            finally:
                writer.close()


async def _watch(port: int) -> None:
    """Subscribe to the busy queue, and read nothing but the handshake."""
    async with aiohttp.ClientSession(read_bufsize=1_024) as session:
        while True:
            with suppress(aiohttp.ClientError, ConnectionError):
                async with session.ws_connect(f"http://127.0.0.1:{port}/v1/stream", autoping=False) as ws:
                    await ws.send_str('{"type":"subscribe","sub":"s","filter":{"queue":"busy"}}')
                    await asyncio.sleep(60)


async def _bombs(port: int, bomb: bytes) -> None:
    """Ten a second, each on a connection of its own."""
    while True:
        with suppress(ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(bomb)
                await reader.read(12)
            finally:
                writer.close()
        await asyncio.sleep(0.1)


async def _feed(port: int, bad: str) -> None:
    """Tasks for the bad target, 40 at once every two seconds."""
    while True:
        items = (
            item(number, url=f"{bad}/{'large' if number % 2 else 'drip'}", queue="bad", dispatch_deadline=10)
            for number in range(40)
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(batch_of(items))
            await reader.read(12)
        finally:
            writer.close()
        await asyncio.sleep(2)


@asynccontextmanager
async def _bad_target() -> AsyncIterator[str]:
    """Answers a gigabyte, or a byte a second for ever."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % ANSWER_BYTES)
                chunk, pause_s = (bytes(65_536), 0.0) if b" /large " in head else (b"x", 1.0)
                while True:
                    writer.write(chunk)
                    await writer.drain()
                    await asyncio.sleep(pause_s)
            finally:
                writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


if __name__ == "__main__":
    uvloop.run(attack(int(sys.argv[1])))
