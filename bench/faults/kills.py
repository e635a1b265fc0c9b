"""kill -9 of one, two, most of the nodes at a time, under a quarter of the load that they carry; they start again.

The gap is the time from a kill to the first call for one of the dead node's shards by its successor.
"""

import asyncio
import signal
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from time import time

from bench.faults.rows import at_most, ending, some, spread, told
from bench.nodes import NAMES
from bench.owners import Owners
from bench.report import Options, Row
from bench.scene import Scene, scene
from bench.scripted import WITH_FAULTS
from bench.verdict import history

RESTART_S = 3.0
SPAN_S = 6.0
QUARTER = 0.25
LATE_S = 15.0
NO_GOAL = float("inf")


@dataclass(slots=True)
class Kill:
    """One node that was killed while it owned something."""

    event: int
    at_once: int
    name: str
    at_ms: float
    shards: dict[int, int]
    """With their epochs."""


async def run(options: Options) -> list[Row]:
    """Measures it."""
    nodes, events, period_s = options.size(5, 3), options.size(40, 2), options.size(12, 8)
    rate_hz = options.rate_hz or QUARTER * await _capacity(nodes, options.size(20_000, 1_000))
    async with scene(nodes, scripts=WITH_FAULTS, span_s=SPAN_S) as here:
        with options.steps("kills", events) as steps:
            owners = Owners(here.dsn)
            kills: list[Kill] = []
            owned_s: list[float] = []
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(owners.run())
                await owners.placed(NAMES[:nodes])
                load = group.create_task(here.traffic.run(rate_hz, 1 << 40))
                await asyncio.sleep(SPAN_S)
                for event in range(events):
                    at_once = (1, 2, nodes - 1)[event % 3]
                    steps.begin(f"{at_once} at once")
                    owned_s.append(await _event(here, owners, event, at_once, period_s, kills))
                    steps.done()
                here.traffic.over = True
                await load
                await here.settled(LATE_S * 4)
                watching.cancel()
        rows = [
            told("kills: load", rate_hz, "tasks/s"),
            told("kills: nodes killed", sum((1, 2, nodes - 1)[event % 3] for event in range(events)), "nodes"),
            some("kills: of those that owned shards", len(kills), "nodes"),
            *_gaps(here, owners, kills),
            at_most("kills: C9 all shards owned again after the restart, worst", max(owned_s), 10.0),
        ]
        return rows + await ending(here, "kills", LATE_S)


async def _capacity(nodes: int, tasks: int) -> float:
    """Tasks a second through their whole life, all due at once; without the first and the last tenth of their calls.

    In a scene of its own: how late the last of them is says nothing of kills.
    """
    async with scene(nodes, scripts={"ok": 1}, span_s=0.0) as here:
        await here.traffic.run(1e9, tasks)
        await here.settled(60.0)
        arrived = sorted(call.arrived_ms for calls in here.target.calls.values() for call in calls)
    first, last = len(arrived) // 10, len(arrived) * 9 // 10
    return (last - first) / (arrived[last] - arrived[first]) * 1e3


async def _event(here: Scene, owners: Owners, event: int, at_once: int, period_s: float, kills: list[Kill]) -> float:
    """Kill so many nodes, and start them again; the seconds from then until all shards had a living owner."""
    begin = asyncio.get_running_loop().time()
    names = owners.pick(list(here.nodes.children), at_once, event)
    boots = owners.boots()
    dead = {boots[name] for name in names if name in boots}
    for name in names:
        at_ms = time() * 1e3
        here.nodes.signal(name, signal.SIGKILL)
        if name in boots:
            kills.append(Kill(event, at_once, name, at_ms, owners.of(boots[name])))
    await asyncio.sleep(RESTART_S)
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(here.nodes.start(name))
    healed_ms = time() * 1e3
    owned_ms = await owners.owned(dead)
    await asyncio.sleep(max(0.0, begin + period_s - asyncio.get_running_loop().time()))
    return (owned_ms - healed_ms) / 1e3


def _gaps(here: Scene, owners: Owners, kills: list[Kill]) -> list[Row]:
    """How long nothing of a dead node's was fired, and where that time went."""
    by_shard: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for at_ms, shard, epoch, _ in history(here.target.calls):
        by_shard[shard].append((at_ms, epoch))
    first_s: list[tuple[float, Kill]] = []
    each_s: list[float] = []
    owner_s: list[float] = []
    for kill in kills:
        fired = [_fired_ms(by_shard[shard], kill.at_ms, epoch) for shard, epoch in kill.shards.items()]
        gaps_s = [(at_ms - kill.at_ms) / 1e3 for at_ms in fired if at_ms is not None]
        changed = [owners.changed_ms(shard, epoch) for shard, epoch in kill.shards.items()]
        owner_s += [(at_ms - kill.at_ms) / 1e3 for at_ms in changed if at_ms is not None][:1]
        each_s += gaps_s
        if gaps_s:
            first_s.append((min(gaps_s), kill))
    rows = spread("kills: gap to the successor's first call", [gap for gap, _ in first_s], {50: 1.5, 95: 2.5})
    rows += [_worst(owners, *max(first_s, key=lambda pair: pair[0]))] if first_s else []
    rows += spread("kills: gap of each shard", each_s, {50: NO_GOAL, 95: NO_GOAL, 100: NO_GOAL})
    return rows + spread("kills: until the owner changed", owner_s, {50: NO_GOAL, 95: NO_GOAL, 100: NO_GOAL})


def _fired_ms(calls: list[tuple[float, int]], after_ms: float, epoch: int) -> float | None:
    first = bisect_right(calls, (after_ms, 1 << 62))
    return next((at_ms for at_ms, other in calls[first:] if other > epoch), None)


def _worst(owners: Owners, gap_s: float, kill: Kill) -> Row:
    """Its gap, with when its first and its last shard got an owner."""
    changed = [owners.changed_ms(shard, epoch) for shard, epoch in kill.shards.items()]
    taken_s = sorted((at_ms - kill.at_ms) / 1e3 for at_ms in changed if at_ms is not None) or [0.0]
    words = (
        f"event {kill.event}, {kill.name}, {kill.at_once} at once; owners after {taken_s[0]:.1f}-{taken_s[-1]:.1f} s"
    )
    return told(f"kills: worst gap ({words})", gap_s, "s")
