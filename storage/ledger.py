"""The ledger's statement: results and commands in one fenced commit (sql/ledger.sql, docs/ownership.md).

Promises: one autocommit statement for everything but a redrive. Missing partitions are made on the spot and are no
reason for a failure. Refuses: to send again by itself.
"""

from collections.abc import Callable, Sequence

import asyncpg

from actors.core.events import Record
from storage.housekeeping import PgHousekeeping
from storage.pool import Database
from storage.records import Batch, batches_of, days_of
from storage.sessions import Connection


class PgLedgerStore:
    """Implements actors.ports.ledger.LedgerStore. `timeline` answers the server's timeline, for the fence's text."""

    def __init__(self, db: Database, timeline: Callable[[], int]) -> None:
        self._db = db
        self._timeline = timeline
        self._housekeeping = PgHousekeeping(db)

    async def write(self, boot: str, records: Sequence[Record]) -> set[str]:
        """See the port."""
        batches = batches_of(boot, records, self._timeline())
        if not batches:
            return set()
        try:
            return await self._send(batches)
        except asyncpg.CheckViolationError:
            # No partition for one of the days: nothing was committed.
            days = days_of(records)
            await self._housekeeping.make_partitions(min(days), max(days))
            return await self._send(batches)

    async def _send(self, batches: Sequence[Batch]) -> set[str]:
        async with self._db.ledger.use() as connection:
            if len(batches) == 1:
                return await _refused(connection, batches)
            async with connection.transaction():
                return await _refused(connection, batches)


async def _refused(connection: Connection, batches: Sequence[Batch]) -> set[str]:
    return {row[0] for statement, arguments in batches for row in await connection.fetch(statement, *arguments)}
