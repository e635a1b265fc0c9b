"""The wall clock of a node is set, an hour forward and an hour back, under load: nothing may come of it."""

import asyncio
from email.utils import parsedate_to_datetime
from time import time
from urllib.request import urlopen

from bench.faults.rows import at_most, ending, told, zero
from bench.nodes import NAMES
from bench.owners import Owners
from bench.report import Options, Row
from bench.scene import Scene, scene
from bench.scripted import WITH_FAULTS
from bench.seam import set_offset

NODES = 3
RATE_HZ = 200.0
SPAN_S = 4.0
WRONG = NAMES[1]
HOUR_S = 3_600.0
OFFSETS_S = (HOUR_S, -HOUR_S, 0.0)
SLACK_S = 30.0
LATE_S = 5.0


async def run(options: Options) -> list[Row]:
    """Measures it."""
    hold_s, offsets_s = options.size(10, 2), OFFSETS_S * options.size(3, 1)
    unmoved = 0
    async with scene(NODES, scripts=WITH_FAULTS, span_s=SPAN_S, clocks=WRONG) as here:
        owners = Owners(here.dsn)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(owners.run())
            await owners.placed(NAMES[:NODES])
            before = {shard: owned.epoch for shard, owned in owners.shards.items()}
            load = group.create_task(here.traffic.run(options.rate_hz or RATE_HZ, 1 << 40))
            with options.steps("clocks", len(offsets_s)) as steps:
                for offset_s in offsets_s:
                    steps.begin(f"{offset_s / HOUR_S:+g} h")
                    set_offset(here.nodes.clocks[WRONG], offset_s)
                    await asyncio.sleep(hold_s)
                    unmoved += abs(await _wrong_s(here) - offset_s) > SLACK_S
                    steps.done()
            here.traffic.over = True
            await load
            await here.settled(LATE_S * 4)
            moved = sum(owned.epoch != before[shard] for shard, owned in owners.shards.items())
            watching.cancel()
        rows = await ending(here, "clocks", LATE_S)
        verdict, _ = await here.judged()
        counted = await here.nodes.counters()
    return [
        told("clocks: times that it was set", len(offsets_s), "times"),
        zero("clocks: of those, that its answers did not show", unmoved, "times"),
        zero("clocks: shards that changed their owner", moved, "shards"),
        zero("clocks: boots that found themselves dead", counted["ringwheel_rejoins"], "boots"),
        zero("clocks: extra runs", verdict.explained, "calls"),
        at_most("clocks: lateness p99", verdict.late_ms(99) / 1e3, 1.0),
        *rows,
    ]


async def _wrong_s(here: Scene) -> float:
    """By how much the node's clock is wrong, as the Date of its answers shows."""
    port = here.nodes.children[WRONG].port
    shown = await asyncio.to_thread(_date_of, f"http://127.0.0.1:{port}/livez")
    return parsedate_to_datetime(shown).timestamp() - time()


def _date_of(url: str) -> str:
    with urlopen(url, timeout=LATE_S) as answer:
        return str(answer.headers["Date"])
