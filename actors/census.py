"""What the memories of a cluster's nodes claim to hold, and have: one half of the proof that every near task is armed
(`core/reach.py`; the other half are the rows, `ports/cluster.py`).

Promises: a node that does not answer within CENSUS_LIMIT_S is left unknown; a full memory is looked at in slices, so
that nothing that is due waits for it.
"""

import asyncio
from collections.abc import Collection, Mapping

import structlog

from actors.core.reach import Reach, reach
from actors.hand import ShardActor
from actors.ports.links import Links

CENSUS_LIMIT_S = 0.5
SLICE_TASKS = 2_048
"""Tasks that are looked at before the loop gets a turn, about."""
log = structlog.get_logger("census")


class Census:
    """Asks this node and the others."""

    def __init__(self, actors: Mapping[int, ShardActor], links: Links) -> None:
        self._actors = actors
        self._links = links

    @property
    def shards(self) -> int:
        """How many are here."""
        return len(self._actors)

    async def own(self, before_us: int) -> list[Reach]:
        """The reach of each shard here, as of a moment of its own."""
        found: list[Reach] = []
        looked_at = 0
        for shard, actor in list(self._actors.items()):
            holding = actor.state.holding
            looked_at += len(holding.known)
            if looked_at > SLICE_TASKS:
                looked_at = 0
                await asyncio.sleep(0)
            if self._actors.get(shard) is actor:  # it has not gone meanwhile
                found.append(reach(holding, before_us))
        return found

    async def of(self, mine: str, boots: Collection[str], before_us: int) -> dict[str, list[Reach] | None]:
        """The reaches of these nodes, of which `mine` is this one; None: it did not answer in time."""
        async with asyncio.TaskGroup() as group:
            asked = {boot: group.create_task(self._of(boot, before_us)) for boot in boots if boot != mine}
            found: dict[str, list[Reach] | None] = {mine: await self.own(before_us)} if mine in boots else {}
        return found | {boot: task.result() for boot, task in asked.items()}

    async def _of(self, boot: str, before_us: int) -> list[Reach] | None:
        try:
            async with asyncio.timeout(CENSUS_LIMIT_S):
                return await self._links.measure(boot, before_us)
        except TimeoutError:
            log.debug("a node did not tell in time what it holds", boot=boot)
            return None
