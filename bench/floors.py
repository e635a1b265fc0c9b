"""The floors: what the libraries and the database cost for the same work, with nothing of ringwheel in between.

They are fixed so that a ratio means the same next year: the service's own tasks table with its indexes, batches of
1,000, one database connection, and the same loop (uvloop), requests, generator and sink as ours.

`python -m bench.floors` is the bare POST handler as a process of its own; it prints `ready 127.0.0.1:<port>`.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter, time
from typing import Any

import aiohttp
import asyncpg
import msgspec
import uvloop
from aiohttp import web

from bench.work import BATCH, COLUMNS, Row, rfc3339
from storage.pool import INTAKE, LEDGER
from storage.sessions import Session, prepare

AHEAD = 4
"""Batches that may wait for their results in the life of bare SQL."""
DAY_MS = 86_400_000
FINISH = """
WITH gone AS (
    DELETE FROM tasks t USING unnest($1::text::int2[], $2::text::uuid[]) AS e (shard, id)
     WHERE t.shard = e.shard AND t.id = e.id
    RETURNING t.*
)
INSERT INTO finished (schedule_ms, due_ms, accept_us, epoch, finish_ms, last_day, queue_id, rev, attempt, budget, shard,
                      state, id, tenant, spec, labels, key_hash, lateness_ms, last_started_ms, last_duration_ms, trace)
SELECT schedule_ms, due_ms, accept_us, 1, $3::int8, $4::int4, queue_id, rev + 1, 1, budget, shard,
       2, id, tenant, spec, labels, key_hash, 1, $3::int8, 1, trace
  FROM gone"""
"""What the ledger does to tasks that succeeded, without a fence (sql/ledger.sql)."""

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


async def life_rate(dsn: str, rows: Sequence[Row]) -> float:
    """Rows a second through their life in bare SQL: COPY of each batch on one connection; DELETE and INSERT of what has
    been copied on another one, at the same time.
    """
    now_ms = int(time() * 1e3)
    day = now_ms // DAY_MS + 7
    copied: asyncio.Queue[Sequence[Row]] = asyncio.Queue(AHEAD)
    batches = [rows[first : first + BATCH] for first in range(0, len(rows), BATCH)]
    async with _session(dsn, INTAKE) as accepting, _session(dsn, LEDGER) as recording:
        await recording.execute(
            f"CREATE TABLE IF NOT EXISTS finished_{day} PARTITION OF finished FOR VALUES FROM ({day}) TO ({day + 1})"
        )

        async def accept() -> None:
            for batch in batches:
                await accepting.copy_records_to_table("tasks", records=batch, columns=COLUMNS)
                await copied.put(batch)

        async def record() -> None:
            for _ in batches:
                batch = await copied.get()
                shards, ids = (",".join(map(str, column)) for column in zip(*(row[5:7] for row in batch), strict=True))
                done = await recording.execute(FINISH, f"{{{shards}}}", f"{{{ids}}}", now_ms, day)
                assert done == f"INSERT 0 {len(batch)}"

        with collector_as_in_service():
            begin = perf_counter()
            async with asyncio.TaskGroup() as group:
                group.create_task(accept())
                group.create_task(record())
            return len(rows) / (perf_counter() - begin)


@asynccontextmanager
async def _session(dsn: str, session: Session) -> AsyncIterator[Any]:
    """A connection with the settings that the service's own have."""
    connection = await asyncpg.connect(dsn)
    try:
        await prepare(connection, session, "ringwheel:floor")
        yield connection
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
