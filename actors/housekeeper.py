"""Daily care of history: partitions are made ahead and dropped whole, by the service itself.

Every node does it: making one twice or dropping one twice does no harm.
"""

import asyncio

import structlog

from actors.clock import Clock
from actors.core.errors import Unavailable
from actors.core.queue import DAY_MS, MAX_RETENTION_MS
from actors.ports.housekeeping import Housekeeping

ROUND_S = 3_600.0
RETRY_S = 1.0
AHEAD_DAYS = MAX_RETENTION_MS // DAY_MS + 3
"""The longest retention, the day that is rounded up to, and a day or two in which nobody may get to it."""
log = structlog.get_logger("housekeeper")


class Housekeeper:
    """Looks after `finished` and `attempts`."""

    def __init__(self, store: Housekeeping, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.prepared = False
        """Today's partitions were there once: tasks can finish."""

    async def prepare(self) -> None:
        """Return when today's partitions are there: nothing can finish before."""
        while True:
            try:
                await self.tidy()
            except Unavailable as error:
                log.debug("making partitions failed", detail=error.detail)
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def run(self) -> None:
        """Tidy up every hour until cancelled."""
        while True:
            await asyncio.sleep(ROUND_S)
            await self.prepare()

    async def tidy(self) -> None:
        """Make what will be needed, drop what may go. Raises Unavailable."""
        today = self._clock.now_ms() // DAY_MS
        await self._store.make_partitions(today, today + AHEAD_DAYS)
        for name in await self._store.drop_partitions(today):
            log.info("dropped a partition of history", partition=name)
        self.prepared = True
