"""SIGSTOP of a node under load, then SIGCONT: for less than its lease nothing moves; for longer its shards are taken
over, what it writes when it goes on is refused, and it joins again.
"""

import asyncio
import signal
from dataclasses import dataclass, field
from time import time

from bench.faults.rows import at_most, ending, several, some, spread, told, zero
from bench.nodes import NAMES
from bench.owners import Owners
from bench.report import Options, Row
from bench.scene import Scene, scene
from bench.scripted import WITH_FAULTS

NODES = 3
RATE_HZ = 200.0
SPAN_S = 4.0
SHORT_S = 2.0
TAKEN_S = 8.0
BACK_S = 5.0
OWNED_S = 10.0
MIB = 64.0
DESCRIPTORS = 24
LOOK_S = 0.05
LATE_S = 12.0


@dataclass(slots=True)
class Seen:
    """What was measured, in seconds."""

    taken_s: list[float] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)
    owned_s: list[float] = field(default_factory=list)
    moved: int = 0
    """Shards that changed their owner because of a short stop."""


async def run(options: Options) -> list[Row]:
    """Measures it."""
    longs = options.size(30, 0) * [10.0] + options.size(3, 0) * [30.0] or [8.0]
    shorts, rest_s = options.size(3, 1), options.size(4, 2)
    seen = Seen()
    async with scene(NODES, scripts=WITH_FAULTS, span_s=SPAN_S) as here:
        owners = Owners(here.dsn)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(owners.run())
            await owners.placed(NAMES[:NODES])
            load = group.create_task(here.traffic.run(options.rate_hz or RATE_HZ, 1 << 40))
            await asyncio.sleep(SPAN_S)
            before = here.nodes.held()
            with options.steps("stops", shorts + len(longs)) as steps:
                for number in range(shorts):
                    steps.begin(f"{SHORT_S:g} s")
                    await _short(here, owners, number, rest_s, seen)
                    steps.done()
                for number, stop_s in enumerate(longs):
                    steps.begin(f"{stop_s:g} s")
                    await _long(here, owners, number, stop_s, seen)
                    await asyncio.sleep(rest_s)
                    steps.done()
            here.traffic.over = True
            await load
            await here.settled(LATE_S * 4)
            watching.cancel()
        rows = await ending(here, "stops", LATE_S)
        counted, after = await here.nodes.counters(), here.nodes.held()
    return [
        zero(f"stops: shards that moved because of {SHORT_S:g} s", seen.moved, "shards"),
        *spread("stops: taken over", seen.taken_s, {50: float("inf"), 100: TAKEN_S}),
        *spread("stops: joined again", seen.back_s, {50: float("inf"), 100: BACK_S}),
        *spread("stops: C9 all shards owned by living nodes", seen.owned_s, {100: OWNED_S}),
        some("stops: boots that found themselves dead", counted["ringwheel_rejoins"], "boots"),
        several("stops: stale writes refused", counted["ringwheel_stale_writes"], "records"),
        told("stops: ends of attempts under an old fence", counted["ringwheel_stale_outcomes"], "attempts"),
        at_most("stops: C10 memory grew by", max(0.0, after[0] - before[0]), MIB, "MiB"),
        at_most("stops: C10 descriptors grew by", max(0, after[1] - before[1]), DESCRIPTORS, ""),
        *rows,
    ]


async def _short(here: Scene, owners: Owners, number: int, rest_s: float, seen: Seen) -> None:
    name = owners.pick(list(here.nodes.children), 1, number)[0]
    before = {shard: owned.epoch for shard, owned in owners.shards.items()}
    await _stop(here, name, SHORT_S)
    await asyncio.sleep(rest_s)
    seen.moved += sum(owners.shards[shard].epoch != epoch for shard, epoch in before.items())


async def _long(here: Scene, owners: Owners, number: int, stop_s: float, seen: Seen) -> None:
    """One node; its boot is dead when it goes on."""
    name = owners.pick(list(here.nodes.children), 1, number)[0]
    boot = owners.boots()[name]
    async with asyncio.TaskGroup() as group:
        begin_ms = time() * 1e3
        stopped = group.create_task(_stop(here, name, stop_s))
        seen.taken_s.append((await owners.owned({boot}) - begin_ms) / 1e3)
        await stopped
        begin_ms = time() * 1e3
        seen.back_s.append((await _joined(here, name, boot) - begin_ms) / 1e3)
        seen.owned_s.append((await owners.owned({boot}) - begin_ms) / 1e3)


async def _stop(here: Scene, name: str, seconds: float) -> None:
    here.nodes.signal(name, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        here.nodes.signal(name, signal.SIGCONT)


async def _joined(here: Scene, name: str, former: str) -> float:
    """Wait until another boot of this name beats; when that was, in ms since 1970. Raises TimeoutError."""
    async with asyncio.timeout(60):
        while True:
            rows = await here.ask("SELECT boot, name FROM nodes WHERE state <> 'dead' AND hb_seq > 0")
            if any(row[0] != former and row[1] == name for row in rows):
                return time() * 1e3
            await asyncio.sleep(LOOK_S)
