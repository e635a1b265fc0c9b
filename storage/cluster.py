"""The cluster as people look at it (sql/cluster.sql): on the connections of lists, whose time-out bounds the count."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from actors.core.errors import Unavailable
from actors.core.reach import Reach
from actors.ports.cluster import Owned, View
from actors.ports.leases import Peer
from storage.pool import Database
from storage.statements import statements

TURN_S = 2.0
"""How long a count waits for those before it."""
_SQL = statements("cluster")


class PgClusterStore:
    """Implements actors.ports.cluster.ClusterStore."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._turn = asyncio.Lock()
        """One count at a time: the other connection is for lists."""

    async def view(self) -> View:
        """See the port."""
        async with self._db.reads.use() as connection:
            row = await connection.fetchrow(_SQL["view"])
        peers = zip(row["boots"], row["names"], row["addresses"], row["states"], row["beats"], strict=True)
        shards = zip(row["shards"], row["owners"], row["epochs"], strict=True)
        return View([Peer(*peer) for peer in peers], [Owned(*shard) for shard in shards])

    async def count(self, parts: Sequence[Sequence[Reach]], before_us: int, most: int) -> list[int]:
        """See the port."""
        reaches = [(part, one.shard, one.until_ms) for part, some in enumerate(parts) for one in some]
        ends = [
            (part, one.shard, queue_id, *end)
            for part, some in enumerate(parts)
            for one in some
            for queue_id, end in one.ends.items()
        ]
        columns = [*_columns(reaches, 3), *_columns(ends, 5)]
        async with self._counting(), self._db.lists.use() as connection:
            rows = await connection.fetch(_SQL["count"], len(parts), *columns, before_us, most)
        return [row[0] for row in rows]

    async def mark(self, name: str, state: str) -> int:
        """See the port."""
        async with self._db.reads.use() as connection:
            return len(await connection.fetch(_SQL["mark"], name, state))

    @asynccontextmanager
    async def _counting(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(TURN_S):
                await self._turn.acquire()
        except TimeoutError as error:
            raise Unavailable("others are counting") from error
        try:
            yield
        finally:
            self._turn.release()


def _columns(rows: Sequence[tuple[object, ...]], count: int) -> list[list[object]]:
    return [[row[n] for row in rows] for n in range(count)]
