"""Every Postgres store of one process, and what a test needs to see of the server."""

import asyncio
from types import TracebackType
from typing import Self

import asyncpg

from actors.core.codec import SpecCodec
from actors.core.events import Record
from actors.core.queue import Queue, QueueBook
from actors.core.task import Task
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

LIMIT_S = 20.0


class Home:
    """The stores of one process start."""

    def __init__(self, dsn: str, boot: str) -> None:
        self.dsn = dsn
        self.boot = boot
        self.db = Database(dsn, boot)
        self.book = QueueBook()
        codec = SpecCodec()
        self.leases = PgLeaseStore(self.db)
        self.tasks = PgTaskStore(self.db, self.book, codec)
        self.ledger = PgLedgerStore(self.db, lambda: self.leases.timeline)
        self.queues = PgQueueStore(self.db, self.book)
        self.reader = PgReader(self.db, self.book, codec)
        self.signing = PgSigningStore(self.db)
        self.housekeeping = PgHousekeeping(self.db)
        self.keys = PgKeyStore(self.db)
        self.cluster = PgClusterStore(self.db)

    async def __aenter__(self) -> Self:
        await self.db.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.db.__aexit__(kind, error, trace)

    async def own_all(self) -> dict[int, int]:
        """Join and take what is free."""
        await self.leases.join(self.boot, self.boot, f"{self.boot}:7070")
        beat = await self.leases.beat(self.boot)
        assert beat is not None
        return await self.leases.sweep(self.boot, beat.orphans)

    async def queue(self, name: str = "emails") -> Queue:
        """A queue of the default tenant."""
        return await self.queues.ensure("default", name)

    async def write(self, *records: Record) -> set[str]:
        """Write as this boot."""
        return await self.ledger.write(self.boot, records)

    async def live(self, task: Task) -> bool:
        """Whether the task's row is in `tasks`."""
        [found] = await self.tasks.find(None, [task.id])
        return (found.task is not None and found.state is None) or found.state == "scheduled"


class Watch:
    """Looks at the server's sessions from outside."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def waiting_for(self, blocker: asyncpg.Connection) -> None:
        """Return once some session waits for a lock that `blocker` holds."""
        pid = blocker.get_server_pid()
        async with asyncio.timeout(LIMIT_S):
            while not await self._connection.fetchval(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid)))", pid
            ):
                pass

    async def value(self, query: str, *arguments: object) -> object:
        """One value of a query."""
        return await self._connection.fetchval(query, *arguments)
