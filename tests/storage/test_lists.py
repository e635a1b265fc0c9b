"""Lists on a real server: which index serves them, and what a list does that can't be read in time."""

import asyncpg
import pytest

from actors.core.codec import SpecCodec
from actors.core.errors import Unavailable
from actors.core.events import NO_ID
from actors.core.queue import QueueBook
from actors.core.task import State
from storage import reader
from storage.pool import Database
from storage.queues import PgQueueStore
from storage.reader import PgReader
from storage.statements import statements

LABELS = '{"team":"red"}'


async def test_a_list_that_takes_too_long_is_told_so_and_ends(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = QueueBook()
    async with Database(database_url, "boot-a") as db:
        await PgQueueStore(db, book).ensure("default", "emails")
        sleepy = statements("reader")["page"].replace("WITH RECURSIVE", "WITH RECURSIVE s AS (SELECT pg_sleep(60)),")
        sleepy = sleepy.replace("SELECT * FROM (", "SELECT found.* FROM s LEFT JOIN (")
        sleepy = sleepy.replace(") AS found", ") AS found ON true")
        monkeypatch.setitem(reader._SQL, "page", sleepy)
        async with db.lists.use() as connection:
            await connection.execute("SET statement_timeout = 20")
        with pytest.raises(Unavailable, match="took too long"):
            await PgReader(db, book, SpecCodec()).page("default", None, list(State), None, 10)


async def test_rare_labels_are_found_by_their_index(session: asyncpg.Connection) -> None:
    async with session.transaction():
        await session.execute(statements("reader")["labels_first"])
        plan = await _plan(session, statements("reader")["few"], (f"'{LABELS}'", "5"))
    assert "tasks_labels" in plan
    assert "Seq Scan" not in plan


@pytest.mark.parametrize(("name", "scan"), [("page", "Index Scan"), ("page_backwards", "Index Scan Backward")])
async def test_both_orders_go_along_the_same_indexes(session: asyncpg.Connection, name: str, scan: str) -> None:
    await session.execute("CREATE TABLE finished_1 PARTITION OF finished FOR VALUES FROM (1) TO (2)")
    await session.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")  # the tables are empty
    arguments = ("'{1}'", "true", "'{2,3}'", "0", f"'{NO_ID}'", "10", "NULL", "NULL", "NULL")
    plan = await _plan(session, reader._SQL[name], arguments)
    for index in ("tasks_due", "finished_1_queue_id_due_ms_id_idx", "finished_1_queue_id_due_ms_idx"):
        assert f" {scan} using {index} " in plan


async def test_common_labels_are_read_in_order_and_not_by_their_index(session: asyncpg.Connection) -> None:
    arguments = (
        "'{1}'",
        "true",
        "'{2,3}'",
        "0",
        "'00000000-0000-0000-0000-000000000000'",
        "10",
        f"'{LABELS}'",
        "NULL",
        "NULL",
    )
    async with session.transaction():
        await session.execute(statements("reader")["labels_first"])
        plan = await _plan(session, statements("reader")["page"], arguments)
    assert "tasks_due" in plan
    assert "_labels" not in plan


async def _plan(session: asyncpg.Connection, statement: str, arguments: tuple[str, ...]) -> str:
    for number in reversed(range(len(arguments))):
        statement = statement.replace(f"${number + 1}", arguments[number])
    rows = await session.fetch("EXPLAIN " + statement)
    return "\n".join(row[0] for row in rows)
