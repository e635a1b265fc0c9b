"""What people and programs read: one task, its attempts, lists. Never on the hot path, on connections of its own.

Lists have theirs apart: however long they take, a single task can be read.
"""

import re
from collections.abc import Sequence

import asyncpg

from actors.core.codec import SpecCodec
from actors.core.errors import Invalid, Unavailable
from actors.core.events import LAST_ID, NO_ID
from actors.core.ids import shard_of
from actors.core.queue import Queue, QueueBook
from actors.core.settle import HELD_MS
from actors.core.task import TERMINAL, State
from actors.ports.reader import ALL, AttemptRow, Backlog, Narrow, TaskRow
from storage.pool import Database
from storage.queues import PgQueueStore
from storage.rows import NUMBERS, STATES, Queues, Row, compact
from storage.sessions import Connection
from storage.statements import statements

MAX_ATTEMPTS = 1_000
"""Attempts in one answer."""
MAX_COUNTED = 10_000
"""Where counting a queue's tasks ends."""
FEW = 50_000
"""Rows with some labels that are read and sorted for each page; where there are more, pages are read in order."""
_BEGINNING = (-(1 << 62), NO_ID)
_END = (1 << 62, LAST_ID)
_QUEUE, _DUE = 2, 5
UNREADABLE_MS = 60_000
"""When to ask again for a task that only a newer program can read."""
_SQL = statements("reader")
_ORDER = re.compile(r"ORDER BY ((?:\w\.)?due_ms), ((?:\w\.)?id)\b")


def _backwards(statement: str) -> str:
    """The page in the other order, along the same indexes."""
    return _ORDER.sub(r"ORDER BY \1 DESC, \2 DESC", statement).replace("id) > ($4", "id) < ($4")


_SQL |= {f"{name}_backwards": _backwards(_SQL[name]) for name in ("page", "labelled")}


class PgReader:
    """Implements actors.ports.reader.Reader."""

    def __init__(self, db: Database, book: QueueBook, codec: SpecCodec) -> None:
        self._db = db
        self._codec = codec
        self._queues = Queues(book, PgQueueStore(db, book).learn)

    async def get(self, tenant: str, task_id: str, *, payload: bool = False) -> TaskRow | None:
        """See the port."""
        shard = shard_of(task_id, self._db.shards)
        async with self._db.reads.use() as connection:
            rows = await connection.fetch(_SQL["get"], shard, task_id, tenant, payload)
        await self._queues.seek(row[_QUEUE] for row in rows)
        try:
            return self._task_row(rows[0]) if rows else None
        except Invalid as error:
            self._db.unreadable.note(task_id, error.detail)
            raise Unavailable(f"this node can't read the task: {error.detail}", UNREADABLE_MS) from error

    async def attempts(self, tenant: str, task_id: str) -> list[AttemptRow]:
        """See the port."""
        async with self._db.reads.use() as connection:
            rows = await connection.fetch(_SQL["attempts"], task_id, tenant, MAX_ATTEMPTS)
        return [AttemptRow(*row) for row in rows]

    async def page(
        self,
        tenant: str,
        queue: str | None,
        states: Sequence[State],
        after: tuple[int, str] | None,
        limit: int,
        narrow: Narrow = ALL,
        *,
        backwards: bool = False,
    ) -> list[TaskRow]:
        """See the port."""
        start = after or (_END if backwards else _BEGINNING)
        try:
            async with self._db.lists.use() as connection, connection.transaction(readonly=True):
                numbers = [row[0] for row in await connection.fetch(_SQL["queue_numbers"], tenant, queue)]
                statement = _SQL[await _statement(connection, narrow) + ("_backwards" if backwards else "")]
                return await self._walk(connection, statement, numbers, states, start, limit, narrow)
        except Unavailable as error:
            if isinstance(error.__cause__, asyncpg.QueryCanceledError):
                raise Unavailable("the list took too long: ask for one queue, fewer states or more labels") from error
            raise

    async def _walk(
        self,
        connection: Connection,
        statement: str,
        numbers: Sequence[int],
        states: Sequence[State],
        after: tuple[int, str],
        limit: int,
        narrow: Narrow,
    ) -> list[TaskRow]:
        over = [NUMBERS[state] for state in states if state in TERMINAL]
        wanted = numbers, State.SCHEDULED in states, over
        more = narrow.labels, narrow.first_ms, narrow.end_ms
        found: list[TaskRow] = []
        while True:
            rows = await connection.fetch(statement, *wanted, *after, limit, *more)
            found += await self._readable(rows)
            if len(rows) < limit or len(found) >= limit:
                return found[:limit]
            # Rows that can't be read are passed over: the page goes on behind them.
            after = rows[-1][_DUE], rows[-1][0]

    async def backlog(self, queue: Queue, now_ms: int) -> Backlog:
        """See the port."""
        async with self._db.lists.use() as connection:
            row = await connection.fetchrow(_SQL["backlog"], queue.id, now_ms, MAX_COUNTED, HELD_MS)
        return Backlog(row["live"], row["due"], row["held"], MAX_COUNTED)

    async def _readable(self, rows: Sequence[Row]) -> list[TaskRow]:
        await self._queues.seek(row[_QUEUE] for row in rows)
        found: list[TaskRow] = []
        for row in rows:
            try:
                found.append(self._task_row(row))
            except Invalid as error:
                self._db.unreadable.note(str(row[0]), error.detail)
        return found

    def _task_row(self, row: Row) -> TaskRow:
        task_id, shard, queue_id, state, *plain, spec, labels = row[:13]
        queue = self._queues.get(queue_id)
        head = (str(task_id), shard, queue, STATES[state], *plain, self._codec.decode(spec), compact(labels))
        return TaskRow(*head, *row[13:])


async def _statement(connection: Connection, narrow: Narrow) -> str:
    """How to read the page: what few tasks have is looked up, what many have is met soon on the way."""
    if narrow.labels is None:
        return "page"
    await connection.execute(_SQL["labels_first"])
    few = await connection.fetchval(_SQL["few"], narrow.labels, FEW)
    return "labelled" if few else "page"
