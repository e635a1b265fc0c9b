"""Memory twin of the LeaseStore port."""

from collections.abc import Mapping, Sequence

from actors.ports.leases import Beat, Holder, Joined, Peer
from storage.memory.database import NodeRow
from storage.memory.link import MemoryLink


class MemoryLeaseStore:
    """Membership and ownership in the twin's tables."""

    def __init__(self, link: MemoryLink) -> None:
        self._link = link
        self._db = link.database
        self._boot = ""
        """Whose sessions this process has."""

    async def join(self, boot: str, name: str, address: str) -> Joined:
        """See the port."""
        return await self._link.call("join", lambda: self._join(boot, name, address))

    async def beat(self, boot: str) -> Beat | None:
        """See the port."""
        return await self._link.call("beat", lambda: self._beat(boot))

    async def condemn(self, boot: str, beats: int, *, gone: bool = False) -> bool:
        """See the port."""
        return await self._link.call("condemn", lambda: self._condemn(boot, beats, gone=gone))

    async def sweep(self, boot: str, orphans: dict[int, int]) -> dict[int, int]:
        """See the port."""
        return await self._link.call("sweep", lambda: self._sweep(boot, orphans))

    async def end_sessions(self, boots: Sequence[str]) -> int:
        """See the port."""
        return await self._link.call("end_sessions", lambda: self._end_sessions(boots))

    async def depart(self, boot: str) -> None:
        """See the port."""
        await self._link.call("depart", lambda: self._depart(boot))

    async def give(self, boot: str, shards: Mapping[int, tuple[int, str]]) -> set[int]:
        """See the port."""
        return await self._link.call("give", lambda: self._give(boot, shards))

    async def leave(self, boot: str) -> None:
        """See the port."""
        await self._link.call("leave", lambda: self._leave(boot))

    # --- each of these happens at one instant --------------------------------------------------------------------

    def _join(self, boot: str, name: str, address: str) -> Joined:
        self._db.sessions.discard(self._boot)
        self._db.sessions.add(boot)
        self._boot = boot
        self._db.nodes.setdefault(boot, NodeRow(boot, name, address))
        return Joined(len(self._db.shards), self._db.secret)

    def _beat(self, boot: str) -> Beat | None:
        if not self._db.is_up(boot):
            return None
        self._db.nodes[boot].beats += 1
        shards = self._db.shards.items()
        return Beat(
            owned={shard: row.epoch for shard, row in shards if row.owner == boot},
            orphans={shard: row.epoch for shard, row in shards if not self._db.is_up(row.owner)},
            peers=[peer_of(node) for node in self._db.nodes.values() if node.up],
            holders={
                shard: Holder(row.owner, row.epoch)
                for shard, row in shards
                if row.owner not in (None, boot) and self._db.is_up(row.owner)
            },
            settings_version=self._db.settings_version,
            clock_ms=self._db.clock_ms(),
            timeline=self._db.timeline,
        )

    def _condemn(self, boot: str, beats: int, *, gone: bool) -> bool:
        node = self._db.nodes.get(boot)
        if node is not None and node.up and node.beats == beats and not (gone and boot in self._db.sessions):
            node.up = False
        return not self._db.is_up(boot)

    def _end_sessions(self, boots: Sequence[str]) -> int:
        ended = self._db.sessions & set(boots)
        self._db.sessions -= ended
        return len(ended)

    def _sweep(self, boot: str, orphans: dict[int, int]) -> dict[int, int]:
        return {shard: self._take(boot, shard) for shard, epoch in orphans.items() if self._is_free(boot, shard, epoch)}

    def _is_free(self, boot: str, shard: int, epoch: int) -> bool:
        row = self._db.shards.get(shard)
        return row is not None and row.epoch == epoch and not self._db.is_up(row.owner) and self._db.is_up(boot)

    def _take(self, boot: str, shard: int) -> int:
        row = self._db.shards[shard]
        row.owner = boot
        row.epoch += 1
        return row.epoch

    def _depart(self, boot: str) -> None:
        if self._db.is_up(boot):
            self._db.nodes[boot].leaving = True

    def _give(self, boot: str, shards: Mapping[int, tuple[int, str]]) -> set[int]:
        given = {
            shard
            for shard, (epoch, heir) in shards.items()
            if self._db.owns(boot, shard, epoch)
            and self._db.is_up(heir)
            and (heir == boot or not self._db.nodes[heir].leaving)
        }
        for shard in given:
            self._take(shards[shard][1], shard)
        return given

    def _leave(self, boot: str) -> None:
        node = self._db.nodes.get(boot)
        if node is not None:
            node.up = False
        for row in self._db.shards.values():
            if row.owner == boot:
                row.owner = None
                row.epoch += 1


def peer_of(node: NodeRow) -> Peer:
    """The node as the port shows it."""
    return Peer(node.boot, node.name, node.address, "leaving" if node.leaving else "up", node.beats)
