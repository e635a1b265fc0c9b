"""The floors: what the libraries and the database cost for the same work, with nothing of ringwheel in between.

They are fixed so that a ratio means the same next year: the service's own tasks table with its indexes, batches of
1,000, one database connection, and the same loop (uvloop), requests, generator and sink as ours.

`python -m bench.floors` is the bare POST handler as a process of its own; it prints `ready 127.0.0.1:<port>`.
"""

import asyncio
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter, time

import aiohttp
import asyncpg
import msgspec
import uvloop
from aiohttp import web

from bench.work import BATCH, COLUMNS, Row, rfc3339

CREATED = b'{"id":"019b76da-a87b-7001-8203-040506070809","state":"scheduled"}'


class Submitted(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a POST, decoded as far as any server has to."""

    queue: str = "default"
    schedule_time: str | None = None
    delay: int | float | str | None = None
    http: msgspec.Raw = msgspec.Raw()
    payload: msgspec.Raw = msgspec.Raw()


async def copy_rate(dsn: str, rows: Sequence[Row]) -> float:
    """Rows a second by bare COPY into `tasks`, one commit a batch."""
    connection = await asyncpg.connect(dsn)
    try:
        begin = perf_counter()
        for first in range(0, len(rows), BATCH):
            await connection.copy_records_to_table("tasks", records=rows[first : first + BATCH], columns=COLUMNS)
        return len(rows) / (perf_counter() - begin)
    finally:
        await connection.close()


async def client_rate(url: str, bodies: Sequence[bytes], callers: int) -> float:
    """POSTs a second by a bare aiohttp client, with the headers that a webhook needs, `callers` at a time."""
    due = rfc3339(time() * 1e3)

    async def call(session: aiohttp.ClientSession, waiting: Iterator[tuple[int, bytes]]) -> None:
        for number, body in waiting:
            headers = {
                "content-type": "application/json",
                "webhook-id": f"019b76da-a87b-7001-8203-{number:012x}",
                "webhook-timestamp": "1767225600",
                "ringwheel-attempt": "1",
                "ringwheel-fence": "00000001.0000000001.000001",
                "ringwheel-queue": "bench",
                "ringwheel-schedule-time": due,
            }
            async with session.post(url, data=body, headers=headers) as answer:
                await answer.read()
                answer.raise_for_status()

    async def call_all(session: aiohttp.ClientSession, some: Sequence[bytes]) -> None:
        waiting = iter(enumerate(some))
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(call(session, waiting))

    connector = aiohttp.TCPConnector(limit=callers)
    with collector_as_in_service():
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            await call_all(session, bodies[: 2 * callers])  # the connections of a service are up already, too
            begin = perf_counter()
            await call_all(session, bodies)
            return len(bodies) / (perf_counter() - begin)


@contextmanager
def collector_as_in_service() -> Iterator[None]:
    """The garbage collector as the service sets its own: a floor must not lose by what is no work."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


async def timer_lateness_ms(dsn: str, rows: Sequence[Row], rate_hz: float) -> list[float]:
    """How late each of `rows` was safe on disk when they come due at `rate_hz`: a timer, and one commit at a time.

    What comes due while a commit is on its way goes with the next one.
    """
    connection = await asyncpg.connect(dsn)
    late_ms: list[float] = []
    try:
        begin = perf_counter()
        while len(late_ms) < len(rows):
            done = len(late_ms)
            await asyncio.sleep(max(0.0, begin + done / rate_hz - perf_counter()))
            due = min(len(rows), int((perf_counter() - begin) * rate_hz) + 1)
            await connection.copy_records_to_table("tasks", records=rows[done:due], columns=COLUMNS)
            now = perf_counter()
            late_ms += [(now - begin - number / rate_hz) * 1e3 for number in range(done, due)]
        return late_ms
    finally:
        await connection.close()


def handler() -> web.Application:
    """POST /v1/tasks: decode, answer 201."""
    decoder = msgspec.json.Decoder(Submitted)

    async def submit(request: web.Request) -> web.Response:
        decoder.decode(await request.read())
        return web.Response(body=CREATED, status=201, content_type="application/json")

    app = web.Application(client_max_size=2**20)
    app.router.add_post("/v1/tasks", submit)
    return app


async def serve() -> None:
    """Runs the bare handler until the process is ended."""
    runner = web.AppRunner(handler(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    with collector_as_in_service():
        print(f"ready 127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(serve())
