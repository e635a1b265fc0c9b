"""Results and commands: one fenced group commit for all shards of a node.

Records come from the shards, at most one a task under way. A flush whose outcome is unknown is sent again until it is
known; what was committed the first time is then refused and found to be our own (`shard.py`, `_is_mine`). Records of a
shard that this node no longer owns under that epoch are let go: the fence would refuse them.

Promises: a shard hears of each of its records once, Recorded or Refused. Bound: attempts under way plus commands.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable

import structlog

from actors.core.errors import Unavailable
from actors.core.events import Event, Found, Record, Recorded, Refused
from actors.gather import Gather
from actors.ports.ledger import LedgerStore
from actors.ports.tasks import TaskStore

FLUSH_RECORDS = 2_000
FLUSH_INTERVAL_S = 0.005
"""A statement costs more than the record it carries: work that comes evenly is written in so many a second at most."""
RESEND_S = 0.25
log = structlog.get_logger("ledger")


class Ledger:
    """One a node and database."""

    def __init__(
        self,
        store: LedgerStore,
        tasks: TaskStore,
        *,
        boot: Callable[[], str],
        owns: Callable[[int, int], bool],
        post: Callable[[int, Event], object],
        refused: Callable[[int], None],
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._boot = boot
        self._owns = owns
        self._post = post
        self._count_refused = refused
        self._records: Gather[Record] = Gather(self._flush, FLUSH_RECORDS, FLUSH_INTERVAL_S)

    def put(self, records: list[Record]) -> None:
        """Records of one shard, to be committed."""
        self._records.put(records)

    def __len__(self) -> int:
        return len(self._records)

    async def idle(self) -> None:
        """Return when every record so far is settled."""
        await self._records.idle()

    async def run(self) -> None:
        """Flush until cancelled."""
        await self._records.run()

    async def _flush(self, batch: list[Record]) -> None:
        while records := [r for r in batch if self._owns(r.task.shard, r.epoch)]:
            try:
                refused = await self._store.write(self._boot(), records)
                found = await self._tasks.find(None, sorted(refused)) if refused else []
            except Unavailable as error:
                log.warning("ledger flush not known to be committed; sending it again", detail=error.detail)
                await asyncio.sleep(RESEND_S)
                batch = records
                continue
            self._tell(records, {truth.id: truth for truth in found})
            return

    def _tell(self, records: list[Record], found: dict[str, Found]) -> None:
        recorded: dict[int, list[Record]] = defaultdict(list)
        refused: dict[int, list[Record]] = defaultdict(list)
        for record in records:
            (refused if found and record.task.id in found else recorded)[record.task.shard].append(record)
        for shard, some in recorded.items():
            self._post(shard, Recorded(some))
        for shard, some in refused.items():
            self._count_refused(len(some))
            self._post(shard, Refused(some, [found[record.task.id] for record in some]))
