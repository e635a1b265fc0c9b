"""Memory twin of the Housekeeping port."""

from storage.memory.link import MemoryLink


class MemoryHousekeeping:
    """Partitions by day, as a set of days."""

    def __init__(self, link: MemoryLink) -> None:
        self._link = link
        self._db = link.database

    async def make_partitions(self, first_day: int, last_day: int) -> None:
        """See the port."""
        await self._link.call("make_partitions", lambda: self._make(first_day, last_day))

    async def drop_partitions(self, before_day: int) -> list[str]:
        """See the port."""
        return await self._link.call("drop_partitions", lambda: self._drop(before_day))

    def _make(self, first_day: int, last_day: int) -> None:
        self._db.partitions.update(range(first_day, last_day + 1))

    def _drop(self, before_day: int) -> list[str]:
        days = sorted(day for day in self._db.partitions if day < before_day)
        self._db.partitions.difference_update(days)
        gone = set(days)
        for row in [row for row in self._db.finished.values() if row.day in gone]:
            del self._db.finished[row.id]
        for entries in self._db.attempts.values():
            entries[:] = [entry for entry in entries if entry.day not in gone]
        return [f"{table}_{day}" for day in days for table in ("finished", "attempts")]
