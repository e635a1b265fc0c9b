"""Schema changes: plain SQL files, applied once, in order, each in a transaction of its own, under a table lock.

Expand/contract: a migration may add what the programs before it can ignore; what they still use is taken away one
release later. So the last program and this one run together. A migration that ends that for older programs raises
`cluster.needs_program`; a program older than that refuses to start.

Promises: two processes that migrate at once do no harm; a failed migration leaves nothing behind.
Refuses, before anything is changed: a server that the service would refuse (`sessions.check_server`); and another
number of shards than the cluster has, for it has them for its whole life (a task's shard follows from its id).
"""

from dataclasses import dataclass
from pathlib import Path

import asyncpg

from actors.core.errors import Misconfigured
from storage.outages import as_refusal, as_unavailable, is_outage
from storage.rights import refused
from storage.sessions import Connection, check_server

_FOLDER = Path(__file__).with_name("migrations")
_LEDGER = """
CREATE TABLE IF NOT EXISTS migrations (
    version int4 PRIMARY KEY,
    name text NOT NULL,
    applied timestamptz NOT NULL DEFAULT clock_timestamp()
)"""
SHARDS = 256
"""Of a new cluster, unless it is told otherwise: for 25 nodes (docs/cluster.md)."""
CONNECT_S = 10.0
LOCK_WAIT = "60s"
"""How long a second process waits for the first one to migrate."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `0001_tables.sql` has version 1 and name `tables`."""

    version: int
    name: str
    sql: str


def known() -> list[Migration]:
    """The migrations that this program has, in order."""
    return [_read(path) for path in sorted(_FOLDER.glob("*.sql"))]


def _read(path: Path) -> Migration:
    number, _, name = path.stem.partition("_")
    return Migration(int(number), name, path.read_text(encoding="utf-8"))


VERSION = known()[-1].version
"""The schema that this program was written for."""


async def migrate(dsn: str, shards: int | None = None) -> list[str]:
    """Bring the schema up to this program's; answers the names of what was applied. `shards`: of a new cluster.

    Raises Misconfigured when the server can't keep the service's promises, the schema is newer than this program can
    work with, or the cluster has another number of shards; Unavailable when the server can't be reached.
    """
    try:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_S)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise as_refusal(error) from error
    try:
        return await _apply_missing(connection, shards)
    except asyncpg.InsufficientPrivilegeError as error:
        raise await refused(connection, error) from error
    except Exception as error:
        if is_outage(error):
            raise as_unavailable(error) from error
        raise
    finally:
        connection.terminate()


async def _apply_missing(connection: Connection, shards: int | None) -> list[str]:
    await check_server(connection)
    await connection.execute(f"SET lock_timeout = '{LOCK_WAIT}'")
    await _make_ledger(connection)
    applied = []
    for migration in known():
        async with connection.transaction():
            await connection.execute("LOCK TABLE migrations IN SHARE ROW EXCLUSIVE MODE")
            if await _is_missing(connection, migration):
                await _apply(connection, migration, shards or SHARDS)
                applied.append(migration.name)
            elif migration.version == 1 and shards is not None:
                await _check_shards(connection, shards)
    await check_version(connection)
    return applied


async def _check_shards(connection: Connection, shards: int) -> None:
    found = await connection.fetchval("SELECT shards FROM cluster")
    if found not in (None, shards):
        raise Misconfigured(
            f"this cluster has {found} shards, and keeps them for its whole life: "
            f"to have {shards}, begin a new one in a database of its own"
        )


async def _make_ledger(connection: Connection) -> None:
    try:
        await connection.execute(_LEDGER)
    except (asyncpg.UniqueViolationError, asyncpg.DuplicateTableError, asyncpg.DuplicateObjectError):
        # Another process made it between the look and the making: IF NOT EXISTS is not atomic.
        await connection.execute(_LEDGER)


async def _is_missing(connection: Connection, migration: Migration) -> bool:
    return not await connection.fetchval("SELECT EXISTS (SELECT FROM migrations WHERE version = $1)", migration.version)


async def _apply(connection: Connection, migration: Migration, shards: int) -> None:
    await connection.execute("SELECT set_config('ringwheel.shards', $1, true)", str(shards))
    await connection.execute(migration.sql)
    await connection.execute("UPDATE cluster SET schema_version = $1", migration.version)
    await connection.execute(
        "INSERT INTO migrations (version, name) VALUES ($1, $2)", migration.version, migration.name
    )


async def check_version(connection: Connection) -> int:
    """The cluster's number of shards; raises Misconfigured when this program can't work with the schema."""
    try:
        row = await connection.fetchrow("SELECT shards, schema_version, needs_program FROM cluster")
    except asyncpg.UndefinedTableError:
        raise Misconfigured("the database has no ringwheel schema: run `ringwheel migrate`") from None
    if row is None:
        raise Misconfigured("the table `cluster` is empty: restore its row from a backup")
    if row["schema_version"] < VERSION:
        raise Misconfigured(
            f"the schema has version {row['schema_version']}, this program needs {VERSION}: run `ringwheel migrate`"
        )
    if row["needs_program"] > VERSION:
        raise Misconfigured(
            f"the schema is newer than this program (it needs a program of version {row['needs_program']}, "
            f"this one is {VERSION}): upgrade ringwheel"
        )
    return int(row["shards"])
