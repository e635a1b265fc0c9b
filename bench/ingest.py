"""Durable accept in batches of 1,000 over HTTP, against bare COPY of the same rows."""

import uvloop

from bench.floors import copy_rate
from bench.load import closed_loop
from bench.report import Options, Pairs, Row
from bench.stage import stage
from bench.work import BATCH, batches, rows

GOAL = 0.4
CONNECTIONS = 8


def run(options: Options) -> list[Row]:
    """Measures it."""
    return uvloop.run(_run(options))


async def rate(port: int, url: str, count: int, queue: str = "bench") -> float:
    """Tasks a second that a service accepts in batches; they are due in an hour. Refuses any other answer than 2xx."""
    requests = list(batches(count, url=url, delay=3600, queue=queue))
    outcome = await closed_loop(port, requests, CONNECTIONS)
    return outcome.expect(200).rate * BATCH


async def _run(options: Options) -> list[Row]:
    count = options.size(200_000, 4_000)
    pairs = Pairs("ingest, batches of 1,000", "tasks/s")
    async with stage() as here:
        floor = await here.database("floor")
        service = await here.service("ours")
        with options.steps("ingest", 2 * options.iterations) as steps:
            await rate(service.port, here.sink.url, count // 10)
            for _ in range(options.iterations):
                steps.begin("COPY")
                await here.checkpoint()
                pairs.floor.append(await copy_rate(floor, rows(count, here.sink.url)))
                steps.done()
                steps.begin("ringwheel")
                await here.checkpoint()
                pairs.ours.append(await rate(service.port, here.sink.url, count))
                steps.done()
    return [pairs.at_least(GOAL)]
