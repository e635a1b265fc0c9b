"""Who owns the shards, as the tables say, looked up again and again; and when that changed."""

import asyncio
import random
from collections.abc import Collection, Iterable, Sequence
from time import monotonic, time
from typing import Any, NamedTuple

import asyncpg

from actors.core.ring import Ring
from bench.postgres import AWAY

LOOK_S = 0.05
LIMIT_S = 60.0
_SHARDS = """
    SELECT s.shard, s.epoch, n.boot, n.name
      FROM shards s LEFT JOIN nodes n ON n.boot = s.owner_boot AND n.state <> 'dead'
"""


class Owned(NamedTuple):
    """A shard as it was last seen. `boot` and `name` are None while it has no living owner."""

    epoch: int
    boot: str | None
    name: str | None


class Owners:
    """All shards, once `run` runs."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.shards: dict[int, Owned] = {}
        self.changes: dict[int, list[tuple[float, int]]] = {}
        """Shard -> (when, epoch); ms since 1970."""
        self.unowned: set[int] = set()
        """Shards that were seen without a living owner; whoever looks may clear it."""

    async def run(self) -> None:
        """Look until cancelled, also while the database is away now and then."""
        while True:
            try:
                connection = await asyncpg.connect(self._dsn, timeout=5)
                try:
                    while True:
                        self.see(await connection.fetch(_SHARDS))
                        await asyncio.sleep(LOOK_S)
                finally:
                    connection.terminate()
            except AWAY:
                await asyncio.sleep(LOOK_S)

    def see(self, rows: Iterable[Sequence[Any]]) -> None:
        """What the tables say now: shard, epoch, boot and name of each."""
        now_ms = time() * 1e3
        for shard, epoch, boot, name in rows:
            known = self.shards.get(shard)
            if known is None or known.epoch != epoch:
                self.changes.setdefault(shard, []).append((now_ms, epoch))
            self.shards[shard] = Owned(epoch, boot, name)
            if boot is None:
                self.unowned.add(shard)

    def boots(self) -> dict[str, str]:
        """Name -> boot of those that own some."""
        return {owned.name: owned.boot for owned in self.shards.values() if owned.name and owned.boot}

    def pick(self, names: Sequence[str], count: int, seed: int) -> list[str]:
        """Victims: those that own some come first."""
        mixed = random.Random(seed).sample(names, len(names))
        return sorted(mixed, key=lambda name: name not in self.boots())[:count]

    def of(self, boot: str) -> dict[int, int]:
        """Its shards, with their epochs."""
        return {shard: owned.epoch for shard, owned in self.shards.items() if owned.boot == boot}

    def moved(self, from_ms: float, to_ms: float) -> int:
        """How many shards got another owner in this time; one that did so twice counts twice."""
        return sum(from_ms <= at_ms < to_ms for changes in self.changes.values() for at_ms, _ in changes)

    def changed_ms(self, shard: int, epoch: int) -> float | None:
        """When it got an owner under a later epoch."""
        return next((at_ms for at_ms, later in self.changes[shard] if later > epoch), None)

    async def owned(self, without: Collection[str] = ()) -> float:
        """Wait until each shard has a living owner that is none of these boots; when that was, in ms since 1970.

        Raises TimeoutError.
        """
        deadline = monotonic() + LIMIT_S
        while not self.shards or any(o.boot is None or o.boot in without for o in self.shards.values()):
            if monotonic() > deadline:
                raise TimeoutError(f"shards had no owner for {LIMIT_S} s")
            await asyncio.sleep(LOOK_S)
        return time() * 1e3

    async def placed(self, names: Collection[str]) -> float:
        """Wait until each shard is where a ring of these nodes wants it; when that was. Raises TimeoutError."""
        async with asyncio.timeout(LIMIT_S):
            while not self._as(Ring(names, len(self.shards))):  # noqa: ASYNC110 - other processes move them
                await asyncio.sleep(LOOK_S)
        return time() * 1e3

    def _as(self, ring: Ring) -> bool:
        return bool(self.shards) and all(owned.name == ring.owner(shard) for shard, owned in self.shards.items())
