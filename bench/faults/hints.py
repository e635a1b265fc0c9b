"""Every hint is lost: no owner is told of what other nodes accept. The probe finds all of it, and both are counted."""

import asyncio

from actors.core.ids import shard_of
from bench.faults.rows import at_most, ending, some, told, zero
from bench.nodes import NAMES
from bench.owners import Owners
from bench.relay import Mode
from bench.report import Options, Row
from bench.scene import Scene, scene
from bench.work import SHARDS

NODES = 3
RATE_HZ = 200.0
SPAN_S = 1.0
FOUND_S = 6.0


async def run(options: Options) -> list[Row]:
    """Measures it."""
    rate_hz = options.rate_hz or RATE_HZ
    tasks = round(rate_hz * options.size(30, 5))
    async with scene(NODES, scripts={"ok": 100}, span_s=SPAN_S, relayed=True) as here:
        owners = Owners(here.dsn)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(owners.run())
            await owners.placed(NAMES[:NODES])  # a shard that moves is read from the tables: no probe finds its tasks
            before = await here.nodes.counters()
            here.cut(Mode.REFUSE)
            with options.steps("hints", 1) as steps:
                await here.traffic.run(rate_hz, tasks)
                steps.done()
            watching.cancel()
        rows = await ending(here, "hints", FOUND_S)
        counted = await here.nodes.counters()
        counted.subtract(before)
        elsewhere = _elsewhere(here, owners)
        verdict, _ = await here.judged()
    lost, found = counted["ringwheel_lost_hints"], counted["ringwheel_probe_finds"]
    return [
        some("hints: accepted by another than the owner", elsewhere, "tasks"),
        told("hints: lost, as the nodes count", lost, "tasks"),
        told("hints: found by the probe, as the nodes count", found, "tasks"),
        zero("hints: lost or found, and not counted", abs(elsewhere - lost) + abs(elsewhere - found), "tasks"),
        at_most("hints: found within", verdict.late_ms(100) / 1e3, FOUND_S),
        *rows,
    ]


def _elsewhere(here: Scene, owners: Owners) -> int:
    """Tasks that were accepted by a node that does not own them."""
    return sum(
        owners.shards[shard_of(task_id, SHARDS)].name != here.nodes.name_at(port)
        for task_id, port in here.traffic.by_port.items()
    )
