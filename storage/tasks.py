"""The tasks table, for accepting and loading.

Unkeyed tasks go in by COPY; keyed ones by one short transaction of two statements (sql/tasks.sql). When the values of
some row are at fault the batch is halved until that row stands alone; the others are committed.
Refuses: to send anything again by itself after an outage. The outcome is unknown, and Unavailable says so.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from actors.core.codec import SpecCodec
from actors.core.errors import Invalid, Unavailable
from actors.core.events import Found, Loaded, Page
from actors.core.ids import shard_of
from actors.core.queue import QueueBook
from actors.core.task import State, Task
from actors.ports.tasks import Accepted
from storage.outages import is_data_fault, kind_of
from storage.pool import Database
from storage.queues import PgQueueStore
from storage.rows import COLUMNS, STATES, TASK_WIDTH, Queues, Row, rows_of, tasks_of
from storage.sessions import Connection
from storage.statements import statements

_SQL = statements("tasks")
SLICE = 16
"""Rows of a page that are taken apart before the loop gets a turn: a fifth of a millisecond."""
_QUEUE, _DUE = 2, 4
"""Places of the queue's number and the due time among the columns of a task."""
_PAGE_COLUMNS = 2
"""Columns before those of a task: the page's number, and whether its queue has more."""


class _Standing(NamedTuple):
    """What stands under an id after a keyed accept."""

    new: bool
    key_hash: bytes | None
    state: State


_Stands = dict[str, "_Standing | Exception"]


class PgTaskStore:
    """Implements actors.ports.tasks.TaskStore."""

    def __init__(self, db: Database, book: QueueBook, codec: SpecCodec) -> None:
        self._db = db
        self._codec = codec
        self._queues = Queues(book, PgQueueStore(db, book).learn)

    async def accept(self, tasks: Sequence[Task]) -> dict[int, Exception]:
        """See the port."""
        if not tasks:
            return {}
        errors: dict[int, Exception] = {}
        async with self._db.intake.use() as connection:
            await self._copy(connection, tasks, 0, errors)
        return errors

    async def _copy(
        self, connection: Connection, tasks: Sequence[Task], first: int, errors: dict[int, Exception]
    ) -> None:
        """Commit all that can be; `first` is the index of tasks[0] in the whole batch."""
        try:
            await connection.copy_records_to_table("tasks", records=rows_of(tasks, self._codec), columns=COLUMNS)
        except Exception as error:
            if not is_data_fault(error):
                raise
            if len(tasks) == 1:
                errors[first] = Invalid(f"the task can't be stored: {kind_of(error)}")
                return
        else:
            return
        half = len(tasks) // 2
        await self._copy(connection, tasks[:half], first, errors)
        await self._copy(connection, tasks[half:], first + half, errors)

    async def accept_keyed(self, tasks: Sequence[Task]) -> list[Accepted | Exception]:
        """See the port."""
        if not tasks:
            return []
        firsts: dict[str, Task] = {}
        for task in tasks:
            firsts.setdefault(task.id, task)
        # In primary key order: two batches with the same keys wait for each other, but never in a ring.
        batch = sorted(firsts.values(), key=lambda task: (task.shard, task.id))
        stands: _Stands = {}
        async with self._db.keyed.use() as connection:
            await self._insert(connection, batch, stands)
        return [_answer(task, task is firsts[task.id], stands.get(task.id)) for task in tasks]

    async def _insert(self, connection: Connection, batch: Sequence[Task], stands: _Stands) -> None:
        try:
            stands.update(await self._settle(connection, batch))
        except Exception as error:
            if not is_data_fault(error):
                raise
            if len(batch) == 1:
                stands[batch[0].id] = Invalid(f"the task can't be stored: {kind_of(error)}")
                return
        else:
            return
        half = len(batch) // 2
        await self._insert(connection, batch[:half], stands)
        await self._insert(connection, batch[half:], stands)

    async def _settle(self, connection: Connection, batch: Sequence[Task]) -> dict[str, _Standing]:
        """What stands under each id after the commit."""
        columns = list(zip(*rows_of(batch, self._codec), strict=True))
        ids = [task.id for task in batch]
        async with connection.transaction():
            made = {row[0] for row in await connection.fetch(_SQL["insert_keyed"], *columns)}
            shards = [task.shard for task in batch]
            old = await connection.fetch(_SQL["settle_keyed"], shards, ids, [task_id in made for task_id in ids])
        stands = {
            task.id: _Standing(new=True, key_hash=task.key_hash, state=State.SCHEDULED)
            for task in batch
            if task.id in made
        }
        stands.update({row[0]: _Standing(new=False, key_hash=row[1], state=STATES[row[2]]) for row in old})
        return stands

    async def load(self, pages: Sequence[Page]) -> list[Loaded]:
        """See the port."""
        if not pages:
            return []
        rows = await self._fetch(
            "load",
            [page.shard for page in pages],
            [page.queue_id for page in pages],
            [page.after_due_ms for page in pages],
            [page.after_id for page in pages],
            [page.until_ms for page in pages],
            [page.limit for page in pages],
            [page.total for page in pages],
            [orjson.dumps(page.caps, option=orjson.OPT_NON_STR_KEYS).decode() for page in pages],
        )
        loads = [Loaded(page, [], {}) for page in pages]
        for at in range(0, len(rows), SLICE):
            await asyncio.sleep(0)
            some = rows[at : at + SLICE]
            tasks = await self._tasks([row[_PAGE_COLUMNS:] for row in some])
            for row, task in zip(some, tasks, strict=True):
                loaded = loads[row[0] - 1]
                if row[1]:
                    loaded.full[row[_PAGE_COLUMNS + _QUEUE]] = row[_PAGE_COLUMNS + _DUE], str(row[_PAGE_COLUMNS])
                if task is not None:
                    loaded.tasks.append(task)
        return loads

    async def payloads(self, tasks: Sequence[Task]) -> None:
        """See the port."""
        wanted = [task for task in tasks if task.payload_bytes]
        if not wanted:
            return
        rows = await self._fetch("payloads", [task.shard for task in wanted], [task.id for task in wanted])
        for place, payload in rows:
            wanted[place - 1].payload = payload

    async def find(self, tenant: str | None, ids: Sequence[str]) -> list[Found]:
        """See the port."""
        if not ids:
            return []
        unique = list(dict.fromkeys(ids))
        rows = await self._fetch("find", [shard_of(task_id, self._db.shards) for task_id in unique], unique, tenant)
        tasks = await self._tasks(rows)
        found = {task.id: _found(task, row) for task, row in zip(tasks, rows, strict=True) if task is not None}
        return [found.get(task_id) or Found(task_id, None, None) for task_id in ids]

    async def _fetch(self, statement: str, *arguments: Any) -> list[Row]:
        async with self._db.loads.use() as connection:
            rows: list[Row] = await connection.fetch(_SQL[statement], *arguments)
        return rows

    async def _tasks(self, rows: Sequence[Row]) -> list[Task | None]:
        return await tasks_of(rows, self._queues, self._codec, self._db.unreadable)


def _answer(task: Task, first: bool, stands: "_Standing | Exception | None") -> Accepted | Exception:
    if stands is None:
        return Unavailable("the task under this key was just dropped with its day")
    if isinstance(stands, Exception):
        return stands
    return Accepted(new=stands.new and first, same_request=stands.key_hash == task.key_hash, state=stands.state)


def _found(task: Task, row: Row) -> Found:
    number, payload = row[TASK_WIDTH:]
    task.payload = payload
    return Found(task.id, task, STATES[number] if number else None, task.epoch)
