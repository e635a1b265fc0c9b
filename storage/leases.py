"""Membership and shard ownership (sql/leases.sql, docs/ownership.md).

Promises: a heartbeat is one statement, and another one that asks for the clock; a sweep waits for open fenced writes,
at most the lock time-out of a session (500 ms), then ends the dead owners' sessions and takes what is not locked: one
stuck write keeps no other shard.
"""

import asyncio
from collections.abc import Mapping, Sequence

import asyncpg

from actors.ports.leases import Beat, Holder, Joined, Peer
from storage.pool import Database
from storage.sessions import NAME_PREFIX
from storage.statements import statements

END_S = 0.5
END_STEPS = 50
_SQL = statements("leases")
_SWEEP_UNLOCKED = _SQL["sweep"].replace("FOR NO KEY UPDATE OF s", "FOR NO KEY UPDATE OF s SKIP LOCKED")


class PgLeaseStore:
    """Implements actors.ports.leases.LeaseStore. `timeline` is the server's, as of the last beat (1 before it)."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.timeline = 1

    async def join(self, boot: str, name: str, address: str) -> Joined:
        """See the port. From now on sessions bear this boot's name: those of a dead boot are ended by its heirs."""
        if boot != self._db.boot:
            await self._db.rename(boot)
        async with self._db.leases.use() as connection:
            row = await connection.fetchrow(_SQL["join"], boot, name, address)
        return Joined(row["shards"], row["secret"])

    async def beat(self, boot: str) -> Beat | None:
        """See the port."""
        async with self._db.leases.use() as connection:
            row = await connection.fetchrow(_SQL["beat"], boot)
            clock_ms = await connection.fetchval(_SQL["clock"])
        if not row["alive"]:
            return None
        self.timeline = int(row["timeline"], 16)
        peers = zip(row["boots"], row["names"], row["addresses"], row["states"], row["beats"], strict=True)
        return Beat(
            owned=dict(zip(row["owned"], row["owned_epochs"], strict=True)),
            orphans=dict(zip(row["orphans"], row["orphan_epochs"], strict=True)),
            peers=[Peer(*peer) for peer in peers],
            holders=dict(zip(row["held"], map(Holder, row["holders"], row["held_epochs"]), strict=True)),
            settings_version=row["settings_version"],
            clock_ms=clock_ms,
            timeline=self.timeline,
        )

    async def condemn(self, boot: str, beats: int, *, gone: bool = False) -> bool:
        """See the port."""
        async with self._db.leases.use() as connection:
            if await connection.fetchval(_SQL["condemn"], boot, beats, gone, NAME_PREFIX + boot) is not None:
                return True
            return not await connection.fetchval(_SQL["is_alive"], boot)

    async def sweep(self, boot: str, orphans: dict[int, int]) -> dict[int, int]:
        """See the port."""
        wanted = boot, list(orphans), list(orphans.values())
        async with self._db.leases.use() as connection:
            try:
                rows = await connection.fetch(_SQL["sweep"], *wanted)
            except asyncpg.LockNotAvailableError:
                await connection.execute(_SQL["end_sessions_of_owners"], list(orphans), NAME_PREFIX)
                rows = await connection.fetch(_SWEEP_UNLOCKED, *wanted)
        return {row["shard"]: row["epoch"] for row in rows}

    async def end_sessions(self, boots: Sequence[str]) -> int:
        """See the port. Waits for their end, at most END_S."""
        names = [NAME_PREFIX + boot for boot in boots]
        async with self._db.leases.use() as connection:
            ended = int(await connection.fetchval(_SQL["end_sessions"], names))
            # Asked in short steps: the server's own wait (pg_terminate_backend with a time-out) takes 100 ms a session.
            for _ in range(END_STEPS):
                if not await connection.fetchval(_SQL["has_sessions"], names):
                    break
                await asyncio.sleep(END_S / END_STEPS)
        return ended

    async def depart(self, boot: str) -> None:
        """See the port."""
        async with self._db.leases.use() as connection:
            await connection.execute(_SQL["depart"], boot)

    async def give(self, boot: str, shards: Mapping[int, tuple[int, str]]) -> set[int]:
        """See the port."""
        epochs, heirs = [epoch for epoch, _ in shards.values()], [heir for _, heir in shards.values()]
        async with self._db.leases.use() as connection:
            rows = await connection.fetch(_SQL["give"], boot, list(shards), epochs, heirs)
        return {row["shard"] for row in rows}

    async def leave(self, boot: str) -> None:
        """See the port."""
        async with self._db.leases.use() as connection, connection.transaction():
            await connection.execute(_SQL["release"], boot)
            await connection.execute(_SQL["bury"], boot)
