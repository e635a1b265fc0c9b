"""The queues table: made on first use, read into the process's book.

Refuses: more than MAX_QUEUES queues a tenant (Overloaded).
"""

from typing import Any

import msgspec

from actors.core.errors import Overloaded, Unavailable
from actors.core.queue import Queue, QueueBook
from actors.core.retry import DEFAULT, RetryPolicy
from storage.pool import Database
from storage.statements import statements

MAX_QUEUES = 10_000
"""Queues that one tenant may have."""
TRIES = 32
"""How often a number is tried that another process takes first."""

_SQL = statements("queues")
_retry = msgspec.json.Decoder(RetryPolicy)


class PgQueueStore:
    """Implements actors.ports.queues.QueueStore."""

    def __init__(self, db: Database, book: QueueBook) -> None:
        self._db = db
        self._book = book

    async def ensure(self, tenant: str, name: str) -> Queue:
        """See the port."""
        return self._book.by_name(tenant, name) or await self._find_or_make(tenant, name)

    async def _find_or_make(self, tenant: str, name: str) -> Queue:
        async with self._db.reads.use() as connection:
            for _ in range(TRIES):
                row = await connection.fetchrow(_SQL["by_name"], tenant, name)
                row = row or await connection.fetchrow(_SQL["insert"], tenant, name, MAX_QUEUES)
                if row is not None:
                    return self._book.put(_queue_of(row))
                if await connection.fetchval(_SQL["count"], tenant) >= MAX_QUEUES:
                    raise Overloaded(f"tenant {tenant} has {MAX_QUEUES} queues already")
        raise Unavailable("too many queues are being made at once")

    async def refresh(self) -> None:
        """See the port."""
        async with self._db.reads.use() as connection:
            rows = await connection.fetch(_SQL["all"])
        for row in rows:
            self._book.put(_queue_of(row))


def _queue_of(row: Any) -> Queue:
    return Queue(
        row["queue_id"],
        row["tenant"],
        row["name"],
        paused=row["paused"],
        retry=DEFAULT if row["retry"] is None else _retry.decode(row["retry"]),
        dispatch_deadline_ms=row["dispatch_deadline_ms"],
        version=row["version"],
    )
