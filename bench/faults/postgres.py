"""The database is restarted in order, at once, by kill -9; and is away for longer than leases and verdicts take."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import time

from bench.faults.rows import at_most, ending, spread, told, zero
from bench.nodes import NAMES
from bench.owners import Owners
from bench.postgres import WAYS
from bench.report import Options, Row
from bench.scene import Scene, scene
from bench.scripted import WITH_FAULTS
from bench.verdict import history

NODES = 3
RATE_HZ = 200.0
SPAN_S = 4.0
T_STOP_MS = 4_000
SEEN_MS = 50.0
"""What a target may see later than it was sent."""
WINDOW_MS = 1_000.0
BACK_S = 5.0
OWNED_S = 10.0
LATE_S = 20.0
MIB = 64.0
DESCRIPTORS = 24
SHARE = 0.8
"""Throughput is back when so much of what is submitted runs, over WINDOW_MS."""


@dataclass(slots=True)
class Outage:
    """When the database was away, in ms since 1970. `released`: the earliest moment at which it could be back."""

    way: str
    gone_ms: float
    released_ms: float
    back_ms: float


@dataclass(slots=True)
class Seen:
    """What happened."""

    outages: list[Outage] = field(default_factory=list)
    owned_s: list[float] = field(default_factory=list)


async def run(options: Options) -> list[Row]:
    """Measures it."""
    ways = list(WAYS) * options.size(10, 1)
    away_s = options.size(60, 6)
    steady_s = options.size(6, 3)  # between two faults: the keeper restarts a server without delay that lived for 5 s
    rate_hz, seen = options.rate_hz or RATE_HZ, Seen()
    async with scene(NODES, scripts=WITH_FAULTS, span_s=SPAN_S) as here:
        owners = Owners(here.dsn)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(owners.run())
            await owners.placed(NAMES[:NODES])  # what moves from here on moves because of an outage
            load = group.create_task(here.traffic.run(rate_hz, 1 << 40))
            await asyncio.sleep(steady_s)
            before, epochs = here.nodes.held(), _epochs(owners)
            with options.steps("postgres", len(ways) + 1) as steps:
                for way in ways:
                    steps.begin(way)
                    await _outage(here, owners, way, 0.0, seen)
                    await asyncio.sleep(steady_s)
                    steps.done()
                steps.begin(f"away for {away_s} s")
                await _outage(here, owners, "immediate", away_s, seen)
                await asyncio.sleep(steady_s)
                steps.done()
            here.traffic.over = True
            await load
            await here.settled(LATE_S * 4)
            moved = sum(owned != epochs[shard] for shard, owned in _epochs(owners).items())
            watching.cancel()
        rows = await ending(here, "postgres", LATE_S + away_s)
        after = here.nodes.held()
        arrived_ms = [at_ms for at_ms, *_ in history(here.target.calls)]
    return [
        told("postgres: outages", len(seen.outages), ""),
        zero("postgres: calls while no lease could be valid", _stray(seen.outages, arrived_ms), "calls"),
        *_times(seen, arrived_ms, rate_hz),
        *spread("postgres: C9 all shards owned by living nodes", seen.owned_s, {100: OWNED_S}),
        zero("postgres: shards that changed their owner", moved, "shards"),
        at_most("postgres: C10 memory grew by", max(0.0, after[0] - before[0]), MIB, "MiB"),
        at_most("postgres: C10 descriptors grew by", max(0, after[1] - before[1]), DESCRIPTORS, ""),
        *rows,
    ]


def _epochs(owners: Owners) -> dict[int, int]:
    return {shard: owned.epoch for shard, owned in owners.shards.items()}


async def _outage(here: Scene, owners: Owners, way: str, away_s: float, seen: Seen) -> None:
    """One."""
    postgres = here.postgres
    if away_s:
        postgres.hold()
    try:
        postgres.end(way)
        gone_ms = await postgres.gone()
        await asyncio.sleep(away_s)
    finally:
        released_ms = time() * 1e3
        postgres.release()
    back_ms = await postgres.back()
    seen.outages.append(Outage(way if not away_s else "away", gone_ms, released_ms, back_ms))
    seen.owned_s.append((await owners.owned() - back_ms) / 1e3)


def _stray(outages: Sequence[Outage], arrived_ms: Sequence[float]) -> int:
    """Calls later than T_stop after the last moment at which a heartbeat could succeed."""
    return sum(
        outage.gone_ms + T_STOP_MS + SEEN_MS < at_ms < outage.released_ms for outage in outages for at_ms in arrived_ms
    )


def _times(seen: Seen, arrived_ms: Sequence[float], rate_hz: float) -> list[Row]:
    rows = []
    for way in [*WAYS, "away"]:
        some = [outage for outage in seen.outages if outage.way == way]
        down_s = [(outage.back_ms - outage.gone_ms) / 1e3 for outage in some]
        again_s = [_again_s(arrived_ms, outage.back_ms, rate_hz) for outage in some]
        rows += spread(f"postgres: {way}: did not answer", down_s, {50: float("inf")})
        rows += spread(f"postgres: {way}: throughput back", again_s, {50: float("inf"), 100: BACK_S})
    return rows


def _again_s(arrived_ms: Sequence[float], back_ms: float, rate_hz: float) -> float:
    """Seconds until the window begins in which calls come as fast as tasks are submitted."""
    enough = max(1, round(rate_hz * SHARE * WINDOW_MS / 1e3))
    later = [at_ms for at_ms in arrived_ms if at_ms >= back_ms]
    for first, last in zip(later, later[enough - 1 :], strict=False):
        if last - first <= WINDOW_MS:
            return (first - back_ms) / 1e3
    return float("inf")
