"""The queues table: made on first use, read into the process's book.

Promises: settings that this program can't read harm nothing else; the queue keeps those that it had, or the defaults.
Refuses: more than MAX_QUEUES queues a tenant (Invalid), those counted that were deleted.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from actors.core.errors import Invalid, Unavailable
from actors.core.queue import MAX_RETENTION_MS, RETENTION_MS, Queue, QueueBook, QueueSettings, Unheard, check_new
from actors.core.retry import DEFAULT, RetryPolicy
from actors.core.task import State
from storage.pool import Database
from storage.statements import statements

MAX_QUEUES = 10_000
"""Queues that one tenant may have."""
TRIES = 32
"""How often a number is tried that another process takes first."""

NAMED = 5
"""Queues that one line of the log names."""

_SQL = statements("queues")
_UNHEARD = frozenset(Unheard)
_retry = msgspec.json.Decoder(RetryPolicy)
_retention = msgspec.json.Decoder(dict[State, int])
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
                if row is None:
                    check_new(name)
                row = row or await connection.fetchrow(_SQL["revive"], tenant, name)
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

    async def learn(self, numbers: Collection[int]) -> None:
        """See the port."""
        async with self._db.reads.use() as connection:
            rows = await connection.fetch(_SQL["by_numbers"], list(numbers))
        self._learn(rows)

    async def get(self, tenant: str, name: str) -> Queue | None:
        """See the port."""
        async with self._db.reads.use() as connection:
            rows = await connection.fetch(_SQL["by_name"], tenant, name)
        return self._learn(rows)[0] if rows else None

    async def page(self, tenant: str, after: str, limit: int) -> Sequence[Queue]:
        """See the port."""
        async with self._db.lists.use() as connection:
            rows = await connection.fetch(_SQL["page"], tenant, after, limit)
        return self._learn(rows)

    async def change(self, queue: Queue, version: int, settings: QueueSettings) -> Queue | None:
        """See the port."""
        retry = None if settings.retry == DEFAULT else msgspec.json.encode(settings.retry).decode()
        kept = None if settings.retention_ms == RETENTION_MS else msgspec.json.encode(settings.retention_ms).decode()
        values = settings.paused, retry, settings.dispatch_deadline_ms, kept, settings.unknown.value
        async with self._db.reads.use() as connection:
            rows = await connection.fetch(_SQL["change"], queue.id, version, *values)
        return self._learn(rows)[0] if rows else None

    async def delete(self, queue: Queue) -> bool:
        """See the port."""
        async with self._db.reads.use() as connection:
            rows = await connection.fetch(_SQL["delete"], queue.id)
        return bool(self._learn(rows))

    def _learn(self, rows: Iterable[Any]) -> list[Queue]:
        """The book's queues of these rows; one line of the log for all whose settings can't be read."""
        refused: dict[str, str] = {}
        queues = [self._book.put(self._queue_of(row, refused)) for row in rows]
        if refused:
            some = dict(list(refused.items())[:NAMED])
            _log.error("settings of queues can't be read; the old ones stay", queues=some, count=len(refused))
        return queues

    def _queue_of(self, row: Any, refused: dict[str, str]) -> Queue:
        known = self._book.by_id(row["queue_id"])
        try:
            retry = DEFAULT if row["retry"] is None else _policy(row["retry"])
            retention_ms = RETENTION_MS if row["retention"] is None else _periods(row["retention"])
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            refused[f"{row['tenant']}/{row['name']}"] = str(error)
            retry = DEFAULT if known is None else known.retry
            retention_ms = RETENTION_MS if known is None else known.retention_ms
        return Queue(
            row["queue_id"],
            row["tenant"],
            row["name"],
            paused=row["paused"],
            retry=retry,
            dispatch_deadline_ms=row["dispatch_deadline_ms"],
            retention_ms=retention_ms,
            unknown=_unheard(row["unknown"]),
            version=row["version"],
            deleted=row["deleted"],
        )


def _unheard(text: str) -> Unheard:
    """What a later version may have written is taken for the one that runs nothing twice."""
    return Unheard(text) if text in _UNHEARD else Unheard.HOLD


def _policy(text: str) -> RetryPolicy:
    """Raises MsgspecError or ValueError when it can't be read."""
    policy = _retry.decode(text)
    if policy.max_attempts < 1 or min(policy.min_backoff_ms, policy.max_backoff_ms, policy.max_doublings) < 0:
        raise ValueError("a number of a retry policy is below what it can be")
    return policy


def _periods(text: str) -> Mapping[State, int]:
    """The same for how long finished tasks are kept; what is not there is as by default."""
    periods = RETENTION_MS | _retention.decode(text)
    if (
        periods.keys() != RETENTION_MS.keys()
        or not 0 < min(periods.values()) <= max(periods.values()) <= MAX_RETENTION_MS
    ):
        raise ValueError("not states and times for which finished tasks can be kept")
    return periods
