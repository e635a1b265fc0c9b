"""PostgreSQL as a world for the contract suites."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg

from actors.core.codec import SpecCodec
from actors.core.queue import Queue, QueueBook
from storage.cluster import PgClusterStore
from storage.housekeeping import PgHousekeeping
from storage.keys import PgKeyStore
from storage.leases import PgLeaseStore
from storage.ledger import PgLedgerStore
from storage.pool import Database
from storage.queues import PgQueueStore
from storage.reader import PgReader
from storage.signing import PgSigningStore
from storage.tasks import PgTaskStore
from tests.actors.ports.worlds import Stores

_CLEAR = """
DELETE FROM tasks;
DELETE FROM finished;
DELETE FROM attempts;
DELETE FROM nodes;
DELETE FROM queues;
DELETE FROM signing_secrets;
DELETE FROM api_keys;
UPDATE shards SET owner_boot = NULL, epoch = 0 WHERE epoch > 0;
UPDATE cluster SET settings_version = 0, keys_version = 0;
"""


class PgStores:
    """Every port of one process, on its own connections."""

    def __init__(self, db: Database) -> None:
        codec = SpecCodec()
        self.book = QueueBook()
        self.tasks = PgTaskStore(db, self.book, codec)
        self.leases = leases = PgLeaseStore(db)
        self.ledger = PgLedgerStore(db, lambda: leases.timeline)
        self.queues = PgQueueStore(db, self.book)
        self.reader = PgReader(db, self.book, codec)
        self.signing = PgSigningStore(db)
        self.housekeeping = PgHousekeeping(db)
        self.keys = PgKeyStore(db)
        self.cluster = PgClusterStore(db)


class PostgresWorld:
    """One database of a real server."""

    def __init__(self, dsn: str, stack: AsyncExitStack) -> None:
        self._dsn = dsn
        self._stack = stack

    async def process(self, boot: str) -> Stores:
        return PgStores(await self._stack.enter_async_context(Database(self._dsn, boot)))

    async def set_paused(self, queue: Queue, paused: bool) -> None:
        async with self._direct() as connection, connection.transaction():
            await connection.execute(
                "UPDATE queues SET paused = $1, version = version + 1 WHERE queue_id = $2", paused, queue.id
            )
            await connection.execute("UPDATE cluster SET settings_version = settings_version + 1")

    async def clear(self) -> None:
        """As new, but for partitions. Deleting a few rows is ten times faster than a fresh database, or TRUNCATE."""
        async with self._direct() as connection:
            await connection.execute(_CLEAR)

    @asynccontextmanager
    async def _direct(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self._dsn)
        try:
            yield connection
        finally:
            await connection.close()


@asynccontextmanager
async def open_postgres_world(dsn: str) -> AsyncIterator[PostgresWorld]:
    """A world without tasks, queues and nodes, whose processes are disconnected at its end."""
    async with AsyncExitStack() as stack:
        world = PostgresWorld(dsn, stack)
        await world.clear()
        yield world
