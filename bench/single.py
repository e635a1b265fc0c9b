"""Durable accept of one task a request, against a bare aiohttp POST handler that stores nothing."""

import uvloop

from bench.load import closed_loop
from bench.report import Options, Pairs, Row, percentile
from bench.stage import stage
from bench.work import single

GOAL = 0.7
CONNECTIONS = 256
"""A commit takes about as long as 30 bare answers: fewer callers than this leave a closed loop waiting for the disk."""


def run(options: Options) -> list[Row]:
    """Measures it."""
    return uvloop.run(_run(options))


async def _run(options: Options) -> list[Row]:
    count = options.size(40_000, 1_000)
    pairs = Pairs(f"single POST, {CONNECTIONS} connections", "tasks/s")
    alone = Pairs("single POST, 1 connection, p50", "ms")
    async with stage() as here:
        floor = await here.bare_handler()
        service = await here.service("ours")
        requests = [single(number, url=here.sink.url, delay=3600) for number in range(count)]
        sides = ((floor.port, pairs.floor, alone.floor, "aiohttp"), (service.port, pairs.ours, alone.ours, "ringwheel"))
        with options.steps("single", 2 * options.iterations) as steps:
            for port, _, _, _ in sides:
                (await closed_loop(port, requests[: count // 10], CONNECTIONS)).expect(201)
            for _ in range(options.iterations):
                for port, rates, latencies, name in sides:
                    steps.begin(name)
                    await here.checkpoint()
                    rates.append((await closed_loop(port, requests, CONNECTIONS)).expect(201).rate)
                    lone = (await closed_loop(port, requests[: count // 20], 1)).expect(201)
                    latencies.append(percentile(lone.latencies_ms, 50))
                    steps.done()
    return [pairs.at_least(GOAL), alone.plain()]
