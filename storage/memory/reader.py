"""Memory twin of the Reader port."""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from actors.core.queue import Queue, QueueBook
from actors.core.settle import HELD_MS
from actors.core.task import State
from actors.ports.reader import ALL, AttemptRow, Backlog, Narrow, TaskRow
from storage.memory.link import MemoryLink
from storage.memory.rows import Row, attempt_copy, known_queue, task_row_of

MAX_ATTEMPTS = 1_000
"""Attempts in one answer."""
MAX_COUNTED = 10_000


class MemoryReader:
    """Reads of the twin's tables."""

    def __init__(self, link: MemoryLink, book: QueueBook) -> None:
        self._link = link
        self._db = link.database
        self._book = book

    async def get(self, tenant: str, task_id: str, *, payload: bool = False) -> TaskRow | None:
        """See the port."""
        return await self._link.call("get", lambda: self._get(tenant, task_id, payload))

    async def attempts(self, tenant: str, task_id: str) -> list[AttemptRow]:
        """See the port."""
        return await self._link.call("attempts", lambda: self._attempts(tenant, task_id))

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
        return await self._link.call("page", lambda: self._page(tenant, queue, states, after, limit, narrow, backwards))

    async def backlog(self, queue: Queue, now_ms: int) -> Backlog:
        """See the port."""
        return await self._link.call("backlog", lambda: self._backlog(queue.id, now_ms))

    # --- each of these happens at one instant --------------------------------------------------------------------

    def _get(self, tenant: str, task_id: str, payload: bool) -> TaskRow | None:
        row = self._db.row(task_id)
        if row is None or self._db.queues[row.queue_id].tenant != tenant:
            return None
        return self._read(row, payload=payload)

    def _attempts(self, tenant: str, task_id: str) -> list[AttemptRow]:
        entries = [entry for entry in self._db.attempts.get(task_id, []) if entry.tenant == tenant]
        entries.sort(key=lambda entry: entry.row.fence)
        return [attempt_copy(entry) for entry in entries[:MAX_ATTEMPTS]]

    def _page(
        self,
        tenant: str,
        queue: str | None,
        states: Sequence[State],
        after: tuple[int, str] | None,
        limit: int,
        narrow: Narrow,
        backwards: bool,
    ) -> list[TaskRow]:
        rows = sorted(filter(_shown_by(narrow), self._matching(tenant, queue, states)), key=_place, reverse=backwards)
        beyond = [row for row in rows if after is None or (_place(row) < after if backwards else _place(row) > after)]
        return [self._read(row, payload=False) for row in beyond[:limit]]

    def _backlog(self, number: int, now_ms: int) -> Backlog:
        rows = [row for row in self._db.live.all() if row.queue_id == number]
        due = [row for row in rows if row.due_ms <= now_ms]
        held = [row for row in rows if row.due_ms == HELD_MS]
        live, waiting, kept = (min(len(some), MAX_COUNTED) for some in (rows, due, held))
        return Backlog(live, waiting, kept, MAX_COUNTED)

    def _matching(self, tenant: str, queue: str | None, states: Sequence[State]) -> Iterator[Row]:
        for row in [*self._db.live.all(), *self._db.finished.values()]:
            home = self._db.queues[row.queue_id]
            if home.tenant == tenant and queue in (None, home.name) and row.state in states:
                yield row

    def _read(self, row: Row, *, payload: bool) -> TaskRow:
        return task_row_of(row, known_queue(self._book, self._db.queues, row.queue_id), payload=payload)


def _shown_by(narrow: Narrow) -> Callable[[Row], bool]:
    labels = msgspec.json.decode(narrow.labels or "{}").items()

    def shown(row: Row) -> bool:
        in_time = (narrow.first_ms is None or row.schedule_ms >= narrow.first_ms) and (
            narrow.end_ms is None or row.schedule_ms < narrow.end_ms
        )
        return in_time and labels <= msgspec.json.decode(row.labels or "{}").items()

    return shown


def _place(row: Row) -> tuple[int, str]:
    return row.due_ms, row.id
