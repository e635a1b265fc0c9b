"""Lateness at half load: how late webhooks arrive at the sink while others are accepted, against timer + one commit.

Load is an open loop of small batches, each due two seconds after it leaves. Full load is what the service carries
through the whole life when tasks are due at once; it is measured first.
"""

from collections.abc import Iterator
from time import time

import uvloop

from bench.floors import timer_lateness_ms
from bench.ingest import CONNECTIONS
from bench.load import closed_loop, open_loop
from bench.report import Options, Pairs, Row, percentile
from bench.stage import Seen, Stage, stage
from bench.work import batch_of, batches, item, rfc3339, rows

ALLOWANCE_MS = 10.0
LEAD_MS = 2_000.0
BATCHES_HZ = 50.0


def run(options: Options) -> list[Row]:
    """Measures it."""
    return uvloop.run(_run(options))


async def life_rate(here: Stage, port: int, count: int) -> float:
    """Tasks a second through their whole life: from the first POST to the last arrival."""
    await here.sink.reset()
    begin_ms = time() * 1e3
    (await closed_loop(port, batches(count, url=here.sink.url), CONNECTIONS)).expect(200)
    seen = await here.sink.wait(count)
    return count / (seen.last_ms - begin_ms) * 1e3


def due_batches(url: str | None, size: int, count: int, queue: str, begin_ms: float) -> Iterator[bytes]:
    """Batches whose tasks come due one by one, evenly spread, from `begin_ms` on."""
    gap_ms = 1e3 / BATCHES_HZ / size
    for first in range(0, count * size, size):
        numbers = range(first, first + size)
        yield batch_of(
            item(number, url=url, queue=queue, schedule_time=rfc3339(begin_ms + number * gap_ms)) for number in numbers
        )


async def observe(here: Stage, port: int, rate_hz: float, seconds: float, queue: str = "bench") -> Seen:
    """What the sink sees of an open loop of webhook tasks at `rate_hz`. Raises RuntimeError when one came early."""
    await here.sink.reset()
    size = max(1, round(rate_hz / BATCHES_HZ))
    count = round(seconds * BATCHES_HZ)
    requests = due_batches(here.sink.url, size, count, queue, time() * 1e3 + LEAD_MS)
    (await open_loop(port, requests, BATCHES_HZ, CONNECTIONS)).expect(200)
    seen = await here.sink.wait(size * count)
    if min(seen.lateness_ms) < 0:
        raise RuntimeError(f"a task was fired {-min(seen.lateness_ms):.3f} ms early")
    return seen


async def _run(options: Options) -> list[Row]:
    seconds = options.size(15, 2)
    p50 = Pairs("lateness at half load, p50", "ms")
    p99 = Pairs("lateness at half load, p99", "ms")
    async with stage() as here:
        floor = await here.database("floor")
        service = await here.service("ours")
        with options.steps("lateness", 2 * options.iterations) as steps:
            steps.begin("full load")
            await life_rate(here, service.port, options.size(5_000, 500))
            full_hz = await life_rate(here, service.port, options.size(30_000, 1_000))
            rate_hz = full_hz / 2
            for _ in range(options.iterations):
                steps.begin("timer + commit")
                late_ms = await timer_lateness_ms(floor, rows(round(rate_hz * seconds), here.sink.url), rate_hz)
                steps.done()
                steps.begin("ringwheel")
                await here.checkpoint()
                seen = await observe(here, service.port, rate_hz, seconds)
                steps.done()
                for pairs, percent in ((p50, 50), (p99, 99)):
                    pairs.floor.append(percentile(late_ms, percent))
                    pairs.ours.append(percentile(seen.lateness_ms, percent))
    return [
        Row("full load, whole life", full_hz, "tasks/s"),
        p50.plain(),
        p99.above_floor(ALLOWANCE_MS),
    ]
