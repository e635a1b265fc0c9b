"""The choices of the schema, each beside what it was chosen over: docs/decisions/ quotes these figures.

`python -m bench.schema [--smoke]`. Every variant is a copy of `tasks` in one database on the embedded server, measured
in turn within each round. Floors: COPY with the primary key alone; `bytea` for the columns; results without a fence.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, time
from typing import Any

import asyncpg
import click
import uvloop
from rich.console import Console

from actors.core.codec import SpecCodec
from actors.core.events import Op, Outcome, Record, Verdict
from actors.core.ids import ENTROPY_BYTES, new_ids, shard_of
from actors.core.queue import Queue
from actors.core.spec import HttpTarget, Spec
from actors.core.task import State, Task
from bench.report import Options, Pairs, Row, progress, show
from storage.embedded import EmbeddedPostgres
from storage.migrations import migrate
from storage.pool import LOADS
from storage.records import batches_of
from storage.rows import COLUMNS
from storage.sessions import prepare
from storage.statements import statements

SHARDS = 256
BATCH = 1_000
BACKLOG, OTHER = 1, 2
"""Numbers of the queue whose tasks are all due, and of its neighbour."""
INDEXES = {
    "shard, due": "(shard, due_ms)",
    "shard, queue, due": "(shard, queue_id, due_ms)",
    "shard, queue, due, id": "(shard, queue_id, due_ms, id)",
}
FLOOR = "primary key only"
TYPES = ("bytea", "json", "jsonb")
SPEC = SpecCodec().encode(Spec(http=HttpTarget("https://example.test/hooks/orders", headers={"x-source": "bench"})))
PAYLOAD = b'{"order": 4711, "customer": "c-0815", "items": [{"sku": "a-1", "count": 2}, {"sku": "b-7", "count": 1}]}'
DAY_MS = 86_400_000

BARE = """
WITH gone AS (
    DELETE FROM tasks t USING unnest($1::int2[], $2::uuid[]) AS e (shard, id)
     WHERE t.shard = e.shard AND t.id = e.id
    RETURNING t.*
)
INSERT INTO finished (schedule_ms, due_ms, accept_us, epoch, finish_ms, last_day, queue_id, rev, attempt, budget, shard,
                      state, id, tenant, spec)
SELECT schedule_ms, due_ms, accept_us, epoch, due_ms, accept_us / 86400000000 + 1, queue_id, rev, attempt, budget,
       shard, 2, id, tenant, spec
  FROM gone"""

Values = tuple[Any, ...]


def rows(count: int, queue_id: int, due_ms: int, now_ms: int) -> list[Values]:
    """Rows for COLUMNS, spread over all shards, due a millisecond apart."""
    ids = new_ids(now_ms, os.urandom(count * ENTROPY_BYTES), count)
    return [
        (
            due_ms + n, due_ms + n, now_ms * 1000 + n, queue_id, 5, shard_of(id_, SHARDS), id_, "default", SPEC, None,
            None, PAYLOAD, None,
        )
        for n, id_ in enumerate(ids)
    ]  # fmt: skip


def _result(row: Values, now_ms: int) -> Record:
    """The success of the task that `row` is."""
    queue = Queue(row[3], "default", "bench")
    task = Task(row[6], row[5], queue, row[0], row[1], row[2], Spec())
    outcome = Outcome(task, 1, 1, Verdict.SUCCEEDED, now_ms, now_ms + 20, 200)
    return Record(Op.FINISH, task, 1, 0, State.SUCCEEDED, now_ms, row[0], row[1], 1, 5, 3, None, outcome)


async def copy(connection: asyncpg.Connection, table: str, values: Sequence[Values]) -> float:
    """Rows a second, one commit a batch."""
    begin = perf_counter()
    for first in range(0, len(values), BATCH):
        await connection.copy_records_to_table(table, records=values[first : first + BATCH], columns=COLUMNS)
    return len(values) / (perf_counter() - begin)


def server_cpu_us(connection: asyncpg.Connection) -> float:
    """CPU time that the connection's own backend has used: hardly touched by what else the machine does. Linux only."""
    return int(Path(f"/proc/{connection.get_server_pid()}/schedstat").read_text().split()[0]) / 1e3


async def median_ms(connection: asyncpg.Connection, statement: str, calls: Sequence[Sequence[Any]]) -> float:
    """Time of one call, the first left out: it plans."""
    await connection.fetch(statement, *calls[0])
    times = []
    for arguments in calls:
        begin = perf_counter()
        await connection.fetch(statement, *arguments)
        times.append((perf_counter() - begin) * 1e3)
    return sorted(times)[len(times) // 2]


async def make_table(connection: asyncpg.Connection, table: str, index: str | None, kind: str = "bytea") -> None:
    """A copy of `tasks` with its primary key and this index."""
    await connection.execute(f"CREATE TABLE {table} (LIKE tasks INCLUDING DEFAULTS) WITH (fillfactor = 90)")
    await connection.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (shard, id)")
    if index:
        await connection.execute(f"CREATE INDEX {table}_due ON {table} {index}")
    if kind != "bytea":
        for column in ("spec", "payload"):
            await connection.execute(
                f"ALTER TABLE {table} ALTER {column} TYPE {kind} USING convert_from({column}, 'UTF8')::{kind}"
            )


def _add(pairs: Mapping[str, Pairs], round_: Mapping[str, float], floor: str) -> None:
    """One round's figures, each beside that of the floor."""
    for name, pair in pairs.items():
        pair.ours.append(round_[name])
        pair.floor.append(round_[floor])


class Schema:
    """One run: a database, and how large its loads are."""

    def __init__(self, connection: asyncpg.Connection, options: Options) -> None:
        self._connection = connection
        self._options = options
        self._now_ms = int(time() * 1000)

    async def indexes(self) -> list[Row]:
        """COPY and size of each index, beside the primary key alone."""
        tables = {FLOOR: "copy_floor"} | {name: f"copy_{n}" for n, name in enumerate(INDEXES)}
        for name, table in tables.items():
            await make_table(self._connection, table, INDEXES.get(name))
        pairs = {name: Pairs(f"COPY, index ({name})", "rows/s") for name in INDEXES}
        costs = {name: Pairs(f"COPY, server CPU, index ({name})", "us/row") for name in INDEXES}
        count = self._options.size(50_000, 2_000)
        for _ in range(self._options.iterations):
            rates, cpu = {}, {}
            for name, table in tables.items():
                values = rows(count, OTHER, self._now_ms + DAY_MS, self._now_ms)
                rates[name], cpu[name] = await self._copy(table, values)
            _add(pairs, rates, FLOOR)
            _add(costs, cpu, FLOOR)
        found = [pair.plain() for pair in (*pairs.values(), *costs.values())]
        return found + [await self._size(name, tables[name]) for name in INDEXES]

    async def _copy(self, table: str, values: Sequence[Values]) -> tuple[float, float]:
        """Rows a second, and the server's CPU time for one in microseconds."""
        await self._connection.execute("CHECKPOINT")
        before_us = server_cpu_us(self._connection)
        rate = await copy(self._connection, table, values)
        return rate, (server_cpu_us(self._connection) - before_us) / len(values)

    async def _size(self, name: str, table: str) -> Row:
        entry = "SELECT pg_relation_size($1::text::regclass)::float8 / (SELECT count(*) FROM "
        return Row(
            f"size, index ({name})", await self._connection.fetchval(f"{entry}{table})", f"{table}_due"), "bytes/row"
        )

    async def backlog(self) -> list[Row]:
        """Loads and probes while one queue has a million rows that are due, and another one a few thousand."""
        many, few = self._options.size(1_000_000, 10_000), self._options.size(50_000, 1_000)
        await self._connection.execute(
            "INSERT INTO queues (queue_id, tenant, name) VALUES (1, 'default', 'backlog'), (2, 'default', 'other')"
        )
        found = []
        for n, (name, index) in enumerate(INDEXES.items()):
            table = f"backlog_{n}"
            await make_table(self._connection, table, index)
            due_ms = self._now_ms - 2 * many
            for first in range(0, many, 50_000):
                values = rows(min(50_000, many), BACKLOG, due_ms + first, self._now_ms)
                await copy(self._connection, table, values)
            await copy(self._connection, table, rows(few, OTHER, self._now_ms - few, self._now_ms))
            await self._connection.execute(f"VACUUM ANALYZE {table}")
            found += await self._reads(name, table, due_ms)
        return found

    async def _reads(self, name: str, table: str, due_ms: int) -> list[Row]:
        sql = {key: text.replace("FROM tasks t", f"FROM {table} t") for key, text in statements("tasks").items()}
        until, low, middle = self._now_ms, "00000000-0000-0000-0000-000000000000", due_ms + (self._now_ms - due_ms) // 4

        def pages(queue: int | None, after_ms: int, limit: int) -> list[list[Any]]:
            terms = [[value] * 32 for value in (queue, after_ms, low, until, limit)]
            return [[list(range(first, first + 32)), *terms] for first in range(0, SHARDS, 32)]

        def spans(skip: str) -> list[list[Any]]:
            terms = [[value] * 16 for value in (-1, until, 64, skip)]
            return [[list(range(first, first + 16)), *terms] for first in range(0, SHARDS, 32)]

        calls: dict[str, tuple[str, list[list[Any]]]] = {
            "load, 32 pages of the backlog, 1,000 rows each": ("load", pages(BACKLOG, middle, 1_000)),
            "load, 32 pages of the other queue": ("load", pages(OTHER, 0, 100)),
            "load, 32 pages of every queue, 100 rows each": ("load", pages(None, 0, 100)),
            "probe, 16 shards, from the beginning": ("probe", spans("")),
            "probe, 16 shards, backlog skipped": ("probe", spans(str(BACKLOG))),
        }
        return [
            Row(f"{what}; index ({name})", await median_ms(self._connection, sql[key], arguments), "ms")
            for what, (key, arguments) in calls.items()
        ]

    async def types(self) -> list[Row]:
        """COPY and read of specs and payloads by column type, beside bytea."""
        for kind in TYPES:
            await make_table(self._connection, f"type_{kind}", INDEXES["shard, queue, due, id"], kind)
        writes = {kind: Pairs(f"COPY, spec and payload {kind}", "rows/s") for kind in TYPES[1:]}
        costs = {kind: Pairs(f"COPY, server CPU, spec and payload {kind}", "us/row") for kind in TYPES[1:]}
        reads = {kind: Pairs(f"read of 1,000 rows, spec and payload {kind}", "ms") for kind in TYPES[1:]}
        count = self._options.size(50_000, 2_000)
        for _ in range(self._options.iterations):
            rates, cpu, times = {}, {}, {}
            for kind in TYPES:
                values = rows(count, OTHER, self._now_ms + DAY_MS, self._now_ms)
                if kind != "bytea":
                    values = [(*row[:8], row[8].decode(), *row[9:11], row[11].decode()) for row in values]
                rates[kind], cpu[kind] = await self._copy(f"type_{kind}", values)
                select = f"SELECT spec, payload FROM type_{kind} WHERE shard = ANY ($1) LIMIT 1000"
                times[kind] = await median_ms(self._connection, select, [[list(range(n, n + 16))] for n in range(20)])
            _add(writes, rates, "bytea")
            _add(costs, cpu, "bytea")
            _add(reads, times, "bytea")
        return [pair.plain() for pair in (*writes.values(), *costs.values(), *reads.values())]

    async def results(self) -> list[Row]:
        """1,000 results in one statement, beside the same DELETE and INSERT without a fence."""
        connection = self._connection
        today = self._now_ms // DAY_MS
        await connection.execute(f"CREATE TABLE today PARTITION OF finished FOR VALUES FROM ({today}) TO ({today + 8})")
        await connection.execute("UPDATE shards SET owner_boot = 'bench', epoch = 1")
        write = statements("ledger")["write"]
        pairs = {shards: Pairs(f"1,000 results, {shards} shards", "ms") for shards in (64, 256)}
        for _ in range(self._options.iterations * self._options.size(10, 1)):
            for shards, pair in pairs.items():
                pair.floor.append(await self._finish(shards, BARE, fenced=False))
                pair.ours.append(await self._finish(shards, write, fenced=True))
        return [pair.plain() for pair in pairs.values()]

    async def _finish(self, shards: int, statement: str, *, fenced: bool) -> float:
        """Milliseconds to finish 1,000 tasks of this many shards, right after they were copied in."""
        values = [
            (*row[:5], row[5] % shards, *row[6:]) for row in rows(BATCH, OTHER, self._now_ms + DAY_MS, self._now_ms)
        ]
        await copy(self._connection, "tasks", values)
        records = [_result(row, self._now_ms) for row in values]
        [(_, arguments)] = batches_of("bench", records, 1)
        if not fenced:
            arguments = [[record.task.shard for record in records], [record.task.id for record in records]]
        begin = perf_counter()
        refused = await self._connection.fetch(statement, *arguments)
        assert not refused
        return (perf_counter() - begin) * 1e3


def run(options: Options) -> list[Row]:
    """Measures all."""
    return uvloop.run(_run(options))


async def _run(options: Options) -> list[Row]:
    with TemporaryDirectory(prefix="ringwheel-bench-") as folder:
        async with EmbeddedPostgres(Path(folder) / "data") as server:
            await migrate(server.dsn)
            connection = await asyncpg.connect(server.dsn)
            try:
                await prepare(connection, LOADS, "ringwheel:bench")
                await connection.execute("SET statement_timeout = '5min'")
                schema = Schema(connection, options)
                found = []
                parts = {
                    "indexes": schema.indexes,
                    "types": schema.types,
                    "results": schema.results,
                    "backlog": schema.backlog,
                }
                with options.steps("schema", len(parts)) as steps:
                    for name, part in parts.items():
                        steps.begin(name)
                        found += await part()
                        steps.done()
                return found
            finally:
                connection.terminate()


@click.command()
@click.option("--iterations", default=5, show_default=True, type=click.IntRange(1))
@click.option("--smoke", is_flag=True)
def main(iterations: int, *, smoke: bool) -> None:
    """Measure the choices of the schema."""
    with progress(Console(stderr=True)) as bars:
        found = run(Options(iterations, smoke=smoke, progress=bars))
    show(found, Console(width=140))


if __name__ == "__main__":
    main()
