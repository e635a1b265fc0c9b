"""The ledger's statement: results and commands in one fenced commit (sql/ledger.sql, docs/ownership.md).

Promises: one autocommit statement for everything but a redrive. Missing partitions are made on the spot and are no
reason for a failure. When the values of some record are at fault the batch is halved until that record stands alone;
the others are committed, and it is written without what its target answered.
Refuses: to send again by itself after an outage. The outcome is unknown, and Unavailable says so; what was committed
before is then refused as written already.
"""

from collections.abc import Callable, Sequence

import structlog
from msgspec.structs import replace

from actors.core.errors import Invalid
from actors.core.events import Outcome, Record
from storage.housekeeping import PgHousekeeping
from storage.outages import is_data_fault, kind_of
from storage.pool import Database
from storage.records import Batch, batches_of, days_of
from storage.sessions import Connection

NOT_STORED = "the result can't be stored"
"""The error of an attempt whose own words the tables do not take."""
_log = structlog.get_logger(__name__)


class PgLedgerStore:
    """Implements actors.ports.ledger.LedgerStore. `timeline` answers the server's timeline, for the fence's text."""

    def __init__(self, db: Database, timeline: Callable[[], int]) -> None:
        self._db = db
        self._timeline = timeline
        self._housekeeping = PgHousekeeping(db)

    async def write(self, boot: str, records: Sequence[Record]) -> set[str]:
        """See the port. Raises Invalid, all others being committed, when a record can't be written in any form."""
        if not records:
            return set()
        try:
            return await self._send(boot, records)
        except Exception as error:
            if not is_data_fault(error):
                raise
        # Nothing was committed. Most likely, and only seen once all else is well: no partition for one of the days.
        days = days_of(records)
        await self._housekeeping.make_partitions(min(days), max(days))
        refused: set[str] = set()
        spoiled: list[Invalid] = []
        await self._send_parts(boot, records, refused, spoiled)
        if spoiled:
            raise spoiled[0]
        return refused

    async def _send_parts(
        self, boot: str, records: Sequence[Record], refused: set[str], spoiled: list[Invalid]
    ) -> None:
        """Commit all that can be, at once if it goes."""
        try:
            refused |= await self._send(boot, records)
        except Exception as error:
            if not is_data_fault(error):
                raise
            if len(records) == 1:
                await self._send_bare(boot, records[0], error, refused, spoiled)
                return
        else:
            return
        half = len(records) // 2
        await self._send_parts(boot, records[:half], refused, spoiled)
        await self._send_parts(boot, records[half:], refused, spoiled)

    async def _send_bare(
        self, boot: str, record: Record, why: Exception, refused: set[str], spoiled: list[Invalid]
    ) -> None:
        """A record whose values are at fault, with numbers of our own alone."""
        _log.error(
            "a result can't be stored; its attempt is recorded without it", id=record.task.id, reason=kind_of(why)
        )
        try:
            refused |= await self._send(boot, [replace(record, outcome=_bare(record))])
        except Exception as error:
            if not is_data_fault(error):
                raise
            spoiled.append(Invalid(f"the record of task {record.task.id} can't be stored: {kind_of(error)}"))

    async def _send(self, boot: str, records: Sequence[Record]) -> set[str]:
        batches = batches_of(boot, records, self._timeline())
        async with self._db.ledger.use() as connection:
            if len(batches) == 1:
                return await _refused(connection, batches)
            async with connection.transaction():
                return await _refused(connection, batches)


def _bare(record: Record) -> Outcome | None:
    outcome = record.outcome
    if outcome is None:
        return None
    return replace(outcome, started_ms=record.at_ms, ended_ms=record.at_ms, status=None, error=NOT_STORED, result=None)


async def _refused(connection: Connection, batches: Sequence[Batch]) -> set[str]:
    return {row[0] for statement, arguments in batches for row in await connection.fetch(statement, *arguments)}
