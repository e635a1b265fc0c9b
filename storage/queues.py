"""The queues table: made on first use, read into the process's book.

Promises: a retry policy that this program can't read harms nothing else; the queue keeps the one that it had, or the
default. Refuses: more than MAX_QUEUES queues a tenant (Invalid).
"""

from collections.abc import Iterable
from typing import Any

import msgspec
import structlog

from actors.core.errors import Invalid, Unavailable
from actors.core.queue import Queue, QueueBook
from actors.core.retry import DEFAULT, RetryPolicy
from storage.pool import Database
from storage.statements import statements

MAX_QUEUES = 10_000
"""Queues that one tenant may have."""
TRIES = 32
"""How often a number is tried that another process takes first."""

NAMED = 5
"""Queues that one line of the log names."""

_SQL = statements("queues")
_retry = msgspec.json.Decoder(RetryPolicy)
_log = structlog.get_logger(__name__)


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
                    return self._learn([row])[0]
                if await connection.fetchval(_SQL["count"], tenant) >= MAX_QUEUES:
                    raise Invalid(f"there are {MAX_QUEUES} queues already: use one of them", "/queue")
        raise Unavailable("too many queues are being made at once")

    async def refresh(self) -> None:
        """See the port."""
        async with self._db.reads.use() as connection:
            rows = await connection.fetch(_SQL["all"])
        self._learn(rows)

    def _learn(self, rows: Iterable[Any]) -> list[Queue]:
        """The book's queues of these rows; one line of the log for all whose policy can't be read."""
        refused: dict[str, str] = {}
        queues = [self._book.put(self._queue_of(row, refused)) for row in rows]
        if refused:
            some = dict(list(refused.items())[:NAMED])
            _log.error("retry policies can't be read; the old ones stay", queues=some, count=len(refused))
        return queues

    def _queue_of(self, row: Any, refused: dict[str, str]) -> Queue:
        try:
            retry = DEFAULT if row["retry"] is None else _policy(row["retry"])
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            refused[f"{row['tenant']}/{row['name']}"] = str(error)
            known = self._book.by_id(row["queue_id"])
            retry = DEFAULT if known is None else known.retry
        return Queue(
            row["queue_id"],
            row["tenant"],
            row["name"],
            paused=row["paused"],
            retry=retry,
            dispatch_deadline_ms=row["dispatch_deadline_ms"],
            version=row["version"],
        )


def _policy(text: str) -> RetryPolicy:
    """Raises MsgspecError or ValueError when it can't be read."""
    policy = _retry.decode(text)
    if policy.max_attempts < 1 or min(policy.min_backoff_ms, policy.max_backoff_ms, policy.max_doublings) < 0:
        raise ValueError("a number of a retry policy is below what it can be")
    return policy
