"""What the indexes behind `GET /v1/tasks` cost each task, and what lists gain: docs/decisions/0006-lists.md quotes it.

`python -m bench.lists [--rows N]`. Copies of `tasks` and `finished` on the embedded server, with and without the index;
costs are the CPU time of the server's own backend, which depends least on what else runs.
"""

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import time

import asyncpg
import click
import uvloop

from bench.schema import BATCH, copy, make_table, median_ms, rows, server_cpu_us
from storage.embedded import EmbeddedPostgres
from storage.migrations import migrate

DUE = "(shard, queue_id, due_ms, id)"
LABELS = "USING gin (labels jsonb_path_ops) WHERE labels IS NOT NULL"
SUCCEEDED = "(queue_id, due_ms) WHERE state = 2"
ROUNDS, BATCHES = 7, 20
FILL = """
INSERT INTO {table} (schedule_ms, due_ms, accept_us, queue_id, budget, shard, id, tenant, spec, labels{more})
SELECT n, n, n, 1 + n % 10, 5, n % 256, gen_random_uuid(), 'default', 'x',
       jsonb_build_object('customer', 'c-' || n % ({rows} / 10), 'region', 'r-' || n % 5, 'kind', 'bench'){values}
  FROM generate_series({first}, {last}) AS n"""
DONE = ", epoch, finish_ms, last_day, rev, attempt, state", ", 1, n, 1, 1, 1, 2"
WALK = """
SELECT id FROM generate_series(0, 255) AS s (shard) CROSS JOIN unnest('{1,2,3,4,5,6,7,8,9,10}'::int4[]) AS q (queue_id)
 CROSS JOIN LATERAL (SELECT id, due_ms FROM full_labels t WHERE t.shard = s.shard AND t.queue_id = q.queue_id
                        AND coalesce(labels, '{}') @> $1 ORDER BY due_ms, id LIMIT 100) AS t
 ORDER BY due_ms, id LIMIT 100"""
FOUND = "SELECT id FROM full_labels WHERE labels @> $1 AND labels IS NOT NULL ORDER BY due_ms, id LIMIT 100"
EDGE = """
SELECT id FROM generate_series(0, 255) AS s (shard) CROSS JOIN generate_series(1, 10) AS q (queue_id)
 CROSS JOIN LATERAL (SELECT id, due_ms FROM full_labels t WHERE t.shard = s.shard AND t.queue_id = q.queue_id
                      ORDER BY due_ms {0}, id {0} LIMIT 100) AS t
 ORDER BY due_ms {0}, id {0} LIMIT 100"""
PAGE = "SELECT id FROM {table} WHERE queue_id = 3 AND state = 2 AND due_ms > $1 ORDER BY due_ms, id LIMIT 100"


async def _make_finished(connection: asyncpg.Connection, table: str, *indexes: str) -> None:
    await connection.execute(f"CREATE TABLE {table} (LIKE finished INCLUDING DEFAULTS)")
    for index in ("(id)", "(queue_id, due_ms, id) WHERE state <> 2", *indexes):
        await connection.execute(f"CREATE INDEX ON {table} {index}")


async def _accepting(connection: asyncpg.Connection) -> None:
    await make_table(connection, "plain", DUE)
    await make_table(connection, "labelled", DUE)
    await connection.execute(f"CREATE INDEX ON labelled {LABELS}")
    for kind, labels in (("no labels", None), ("3 labels", '{{"customer":"c-{0}","kind":"bench","region":"r-1"}}')):
        costs: dict[str, list[float]] = {"plain": [], "labelled": []}
        for _ in range(ROUNDS):
            for table, found in costs.items():
                now_ms = int(time() * 1e3)
                values = [
                    (*row[:9], labels and labels.format(n % 1000), *row[10:])
                    for n, row in enumerate(rows(BATCHES * BATCH, 1, now_ms, now_ms))
                ]
                begin = server_cpu_us(connection)
                await copy(connection, table, values)
                found.append((server_cpu_us(connection) - begin) / len(values))
        print(f"accept, {kind}: us/row " + ", ".join(f"{name} {median(found):.2f}" for name, found in costs.items()))


async def _finishing(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "CREATE FUNCTION without(VARIADIC text[]) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN NULL::jsonb"
    )
    await _make_finished(connection, "f_plain")
    await _make_finished(connection, "f_listed", SUCCEEDED)
    await _make_finished(connection, "f_both", SUCCEEDED, LABELS)
    for kind, none in (("no labels", True), ("3 labels", False)):
        costs: dict[str, list[float]] = {"f_plain": [], "f_listed": [], "f_both": []}
        for round_ in range(ROUNDS):
            for table, found in costs.items():
                begin = server_cpu_us(connection)
                for batch in range(BATCHES):
                    first = (round_ * BATCHES + batch) * BATCH
                    fill = FILL.format(
                        table=table, rows=100_000, first=first, last=first + BATCH - 1, more=DONE[0], values=DONE[1]
                    )
                    await connection.execute(fill.replace("jsonb_build_object", "without") if none else fill)
                found.append((server_cpu_us(connection) - begin) / (BATCHES * BATCH))
        print(f"finish, {kind}: us/row " + ", ".join(f"{name} {median(found):.2f}" for name, found in costs.items()))


async def _reading(connection: asyncpg.Connection, count: int) -> None:
    await make_table(connection, "full_labels", DUE)
    await connection.execute(f"CREATE INDEX ON full_labels {LABELS}")
    await connection.execute(FILL.format(table="full_labels", rows=count, first=1, last=count, more="", values=""))
    await connection.execute("VACUUM ANALYZE full_labels")
    for name, label in (("10 rows match", '{"customer":"c-7"}'), ("a fifth matches", '{"region":"r-1"}')):
        walk = await median_ms(connection, WALK, [[label]] * 4)
        found = await median_ms(connection, FOUND, [[label]] * 4)
        print(f"live, {name}: walk {walk:.1f} ms, by labels {found:.1f} ms")
    for order in ("ASC", "DESC"):
        print(f"live, page of 100, {order}: {await median_ms(connection, EDGE.format(order), [[]] * 4):.1f} ms")
    for table, indexes in (("g_plain", ()), ("g_listed", (SUCCEEDED,))):
        await _make_finished(connection, table, *indexes)
        fill = FILL.format(table=table, rows=count, first=1, last=count, more=DONE[0], values=DONE[1])
        await connection.execute(fill)
        await connection.execute(f"VACUUM ANALYZE {table}")
        page = await median_ms(connection, PAGE.format(table=table), [[n] for n in (0, 10, count // 2, 50)])
        turned = PAGE.format(table=table).replace(">", "<").replace("due_ms, id", "due_ms DESC, id DESC")
        back = await median_ms(connection, turned, [[n] for n in (count, count - 10, count // 2, count - 50)])
        print(f"succeeded, page of 100, {table}: ASC {page:.1f} ms, DESC {back:.1f} ms")


async def _run(count: int) -> None:
    with TemporaryDirectory(prefix="ringwheel-bench-") as folder:
        async with EmbeddedPostgres(Path(folder) / "data") as server:
            await migrate(server.dsn)
            connection = await asyncpg.connect(server.dsn)
            try:
                await _accepting(connection)
                await _finishing(connection)
                await _reading(connection, count)
            finally:
                connection.terminate()


@click.command()
@click.option("--rows", "count", default=1_000_000, show_default=True, type=click.IntRange(1_000))
def main(count: int) -> None:
    """Measure the indexes of lists."""
    uvloop.run(_run(count))


if __name__ == "__main__":
    main()
