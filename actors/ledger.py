"""Results and commands: one fenced group commit for all shards of a node.

Records come from the shards, at most one a task under way. A flush whose outcome is unknown is sent again until it is
known; what was committed the first time is then refused and found to be our own (`shard.py`, `_is_mine`). Records of a
shard that this node no longer owns under that epoch are let go: the fence would refuse them.

Promises: a shard hears of each of its records once, Recorded or Refused. Bound: while WAITING_RECORDS or WAITING_BYTES
of results wait, it is `full`, and nothing more is started; what was started before, and commands, still fit.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable

import structlog

from actors.core.errors import Invalid, Unavailable
from actors.core.events import Event, Found, Op, Record, Recorded, Refused
from actors.gather import Gather
from actors.ports.ledger import LedgerStore
from actors.ports.tasks import TaskStore

FLUSH_RECORDS = 2_000
FLUSH_INTERVAL_S = 0.02
"""A statement costs more than the record it carries: work that comes evenly is written in so many a second at most."""
LONGEST_S = 0.06
"""The same of ends alone, for which nobody waits but a worker's words, where statements take long: that gave two full
cores 3 % of their time back (`bench pull`)."""
RESEND_S = 0.25
WAITING_RECORDS = 2 * FLUSH_RECORDS
"""What is on its way, and what is next. With more, results wait where all comes at once and the database is slow: with
four times as many for over 8 s, so that workers were told that nobody knows.
"""
WAITING_BYTES = 32 * 1024 * 1024
_FINISH = Op.FINISH  # on 3.11 a member of an enum costs ten times a global
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
        vacant: Callable[[], None],
        dropped: Callable[[list[Record]], None],
    ) -> None:
        """`vacant` is called when it is no longer full; `dropped` with what is let go."""
        self._store = store
        self._tasks = tasks
        self._boot = boot
        self._owns = owns
        self._post = post
        self._count_refused = refused
        self._vacant = vacant
        self._dropped = dropped
        self._waiting = 0
        """Records that are not settled, those on their way included."""
        self._waiting_bytes = 0
        self._records: Gather[Record] = Gather(self._settle, FLUSH_RECORDS, FLUSH_INTERVAL_S, LONGEST_S)

    def put(self, records: list[Record]) -> None:
        """Records of any shards, to be committed."""
        self._waiting += len(records)
        self._waiting_bytes += _result_bytes(records)
        self._records.put(records, urgent=any(record.op is not _FINISH or record.outcome is None for record in records))

    def __len__(self) -> int:
        return self._waiting

    @property
    def full(self) -> bool:
        """Results come faster than they can be written: start nothing more."""
        return self._waiting >= WAITING_RECORDS or self._waiting_bytes >= WAITING_BYTES

    async def idle(self) -> None:
        """Return when every record so far is settled."""
        await self._records.idle()

    async def run(self) -> None:
        """Flush until cancelled."""
        await self._records.run()

    async def _settle(self, batch: list[Record]) -> None:
        size = _result_bytes(batch)
        await self._flush(batch)
        was_full = self.full
        self._waiting -= len(batch)
        self._waiting_bytes -= size
        if was_full and not self.full:
            self._vacant()

    async def _flush(self, batch: list[Record]) -> None:
        while records := self._mine(batch):
            try:
                refused = await self._store.write(self._boot(), records)
                found = await self._tasks.find(None, sorted(refused)) if refused else []
            except Unavailable as error:
                log.debug("ledger flush not known to be committed; sending it again", detail=error.detail)
                await asyncio.sleep(RESEND_S)
                batch = records
                continue
            except Invalid as error:
                await self._one_by_one(records, error)
                return
            self._tell(records, {truth.id: truth for truth in found})
            return

    def _mine(self, batch: list[Record]) -> list[Record]:
        """Those of shards that are still here."""
        mine = [record for record in batch if self._owns(record.task.shard, record.epoch)]
        if len(mine) < len(batch):
            self._dropped([record for record in batch if not self._owns(record.task.shard, record.epoch)])
        return mine

    async def _one_by_one(self, records: list[Record], error: Invalid) -> None:
        """Some record is one that no table takes. Its task rests as it is until its shard changes hands."""
        if len(records) == 1:
            log.error("a record can't be stored; its task is left alone", id=records[0].task.id, detail=error.detail)
            return
        for record in records:
            await self._flush([record])

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


def _result_bytes(records: list[Record]) -> int:
    return sum(len(r.outcome.result) for r in records if r.outcome is not None and r.outcome.result is not None)
