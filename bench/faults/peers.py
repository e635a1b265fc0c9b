"""No node reaches another, at first by silence and then by refusal, while all reach the database."""

import asyncio
from time import time

from bench.faults.rows import at_most, ending, told, zero
from bench.nodes import NAMES
from bench.owners import Owners
from bench.relay import Mode
from bench.report import Options, Row, percentile
from bench.scene import scene
from bench.scripted import WITH_FAULTS

NODES = 3
RATE_HZ = 200.0
SPAN_S = 4.0
LATE_S = 5.0
WORST_S = 8.0


async def run(options: Options) -> list[Row]:
    """Measures it."""
    before_s, half_s, after_s = options.size(5, 2), options.size(30, 4), options.size(8, 6)
    async with scene(NODES, scripts=WITH_FAULTS, span_s=SPAN_S, relayed=True) as here:
        owners = Owners(here.dsn)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(owners.run())
            await owners.placed(NAMES[:NODES])
            load = group.create_task(here.traffic.run(options.rate_hz or RATE_HZ, 1 << 40))
            await asyncio.sleep(before_s)
            epochs = {shard: owned.epoch for shard, owned in owners.shards.items()}
            accepted, begin_ms = len(here.traffic.accepted), time() * 1e3
            with options.steps("peers", 2) as steps:
                for mode in (Mode.SILENT, Mode.REFUSE):
                    steps.begin(mode.name.lower())
                    here.cut(mode)
                    await asyncio.sleep(half_s)
                    steps.done()
            accepted, end_ms = len(here.traffic.accepted) - accepted, time() * 1e3
            refused = here.traffic.refused
            here.cut(Mode.PASS)
            await asyncio.sleep(after_s)
            here.traffic.over = True
            await load
            watching.cancel()
        moved = sum(owners.shards[shard].epoch != epoch for shard, epoch in epochs.items())
        rows = await ending(here, "peers", WORST_S)
        verdict, tables = await here.judged()
        first_ms = {task_id: calls[0].arrived_ms for task_id, calls in here.target.calls.items()}
        late_s = [
            (first_ms[row.task_id] - row.schedule_ms) / 1e3
            for row in tables.ended
            if begin_ms < row.schedule_ms < end_ms and row.task_id in first_ms
        ]
    return [
        told("peers: accepted while cut off", accepted, "tasks"),
        zero("peers: submits refused while cut off", refused, "requests"),
        at_most("peers: lateness of what was due while cut off, p99", percentile(late_s, 99), LATE_S),
        zero("peers: shards that moved", moved, "shards"),
        zero("peers: ran again because of it", verdict.explained, "calls"),
        *rows,
    ]
