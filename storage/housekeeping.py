"""Partitions of `finished` and `attempts`: one a day, made ahead, dropped whole.

A partition is made as a table of its own and attached, and detached concurrently before it is dropped: neither locks
its parent against reads or writes. What an interruption leaves half done, the next call ends.
Promises: waits at most the session's lock time-out for a lock; a partition that could not be dropped, whatever the
server says against it, stays for the next call and is not in the way of the others.
"""

import re

import asyncpg
import structlog

from storage.outages import is_outage
from storage.pool import Database
from storage.sessions import Connection
from storage.statements import statements

TABLES = ("finished", "attempts")
_SQL = statements("housekeeping")
_MADE_MEANWHILE = (
    asyncpg.DuplicateTableError,
    asyncpg.DuplicateObjectError,
    asyncpg.UniqueViolationError,
    asyncpg.InvalidObjectDefinitionError,
    asyncpg.WrongObjectTypeError,
)
"""Another process made it at the same moment: IF NOT EXISTS is not atomic, and nothing is attached twice."""
_HELD = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, asyncpg.DeadlockDetectedError)
"""Someone holds it for longer than we wait."""
_OTHERS_ARE_AT_IT = (asyncpg.UndefinedTableError, asyncpg.ObjectNotInPrerequisiteStateError)
"""Another process is removing it, or has done so."""
_DAY = re.compile(r"_(\d+)\Z")
_log = structlog.get_logger(__name__)


class PgHousekeeping:
    """Implements actors.ports.housekeeping.Housekeeping."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def make_partitions(self, first_day: int, last_day: int) -> None:
        """See the port."""
        async with self._db.reads.use() as connection:
            for table in TABLES:
                known = {part["name"] for part in await connection.fetch(_SQL["partitions"], table) if part["attached"]}
                for day in range(first_day, last_day + 1):
                    if f"{table}_{day}" not in known:
                        await _make(connection, table, day)

    async def drop_partitions(self, before_day: int) -> list[str]:
        """See the port."""
        dropped = []
        async with self._db.reads.use() as connection:
            for table in TABLES:
                for part in await connection.fetch(_SQL["partitions"], table):
                    name = part["name"]
                    if _day(name) < before_day and await _drop(connection, table, part):
                        dropped.append(name)
        return dropped


def _day(name: str) -> int:
    found = _DAY.search(name)
    assert found is not None
    return int(found[1])


async def _make(connection: Connection, table: str, day: int) -> None:
    """Also puts to use again what an interrupted removal had detached."""
    name = f"{table}_{day}"
    try:
        async with connection.transaction():
            await connection.execute(f"CREATE TABLE IF NOT EXISTS {name} (LIKE {table} INCLUDING ALL)")
            await connection.execute(
                f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({day}) TO ({day + 1})"
            )
    except _MADE_MEANWHILE:
        return


async def _drop(connection: Connection, table: str, part: asyncpg.Record) -> bool:
    """Whether the partition is gone. Raises what ends the connection, for that is not about this partition."""
    name = part["name"]
    try:
        if part["pending"]:
            await connection.execute(f"ALTER TABLE {table} DETACH PARTITION {name} FINALIZE")
        elif part["attached"]:
            await connection.execute(f"ALTER TABLE {table} DETACH PARTITION {name} CONCURRENTLY")
        await connection.execute(f"DROP TABLE {name}")
    except asyncpg.PostgresError as error:
        if is_outage(error) and not isinstance(error, _HELD):
            raise
        if not isinstance(error, _OTHERS_ARE_AT_IT):
            _log.warning("a partition can't be dropped; it stays for the next round", partition=name, reason=str(error))
        return False
    return True
