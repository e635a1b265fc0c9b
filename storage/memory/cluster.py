"""Memory twin of the ClusterStore port."""

from collections.abc import Sequence

from actors.core.events import LAST_ID
from actors.core.reach import Reach
from actors.ports.cluster import Owned, View
from storage.memory.leases import peer_of
from storage.memory.link import MemoryLink


class MemoryClusterStore:
    """Looks at the twin's tables."""

    def __init__(self, link: MemoryLink) -> None:
        self._link = link
        self._db = link.database

    async def view(self) -> View:
        """See the port."""
        return await self._link.call("view", self._view)

    async def count(self, parts: Sequence[Sequence[Reach]], before_us: int, most: int) -> list[int]:
        """See the port."""
        return await self._link.call("count", lambda: self._count(parts, before_us, most))

    async def mark(self, name: str, state: str) -> int:
        """See the port."""
        return await self._link.call("mark", lambda: self._mark(name, state))

    # --- each of these happens at one instant --------------------------------------------------------------------

    def _view(self) -> View:
        nodes = sorted((node for node in self._db.nodes.values() if node.up), key=lambda node: (node.name, node.boot))
        shards = sorted(self._db.shards.items())
        owned = [Owned(n, row.owner if self._db.is_up(row.owner) else None, row.epoch) for n, row in shards]
        return View([peer_of(node) for node in nodes], owned)

    def _mark(self, name: str, state: str) -> int:
        nodes = [node for node in self._db.nodes.values() if node.up and node.name == name]
        for node in nodes:
            node.leaving = state == "leaving"
        return len(nodes)

    def _count(self, parts: Sequence[Sequence[Reach]], before_us: int, most: int) -> list[int]:
        return [min(sum(self._within(reach, before_us) for reach in part), most) for part in parts]

    def _within(self, reach: Reach, before_us: int) -> int:
        last = (reach.until_ms, LAST_ID)
        return sum(
            row.accept_us <= before_us and (row.due_ms, row.id) <= reach.ends.get(row.queue_id, last)
            for row in self._db.live.of(reach.shard)
        )
