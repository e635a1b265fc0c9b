"""Webhook delivery of a crowd of tasks that are due at once, against a bare aiohttp client loop to the same sink.

Ours starts when the tasks come due, with all of them on disk already, and ends when the last one has arrived.
"""

import asyncio
from collections.abc import Callable, Sequence
from time import time

import msgspec
import uvloop

from bench.floors import client_rate
from bench.ingest import CONNECTIONS
from bench.load import closed_loops
from bench.report import Options, Pairs, Row
from bench.stage import Stage, stage
from bench.work import batches, payload, rfc3339
from gateway.deliver import CALLERS

GOAL = 0.6
AT_A_TIME = CALLERS // 2
"""What a service has under way to one host at most (`gateway/hosts.py`)."""
LEAST_RATE = 10_000
"""Tasks a second that a service accepts at least: so far ahead lies the moment at which they are due."""


def run(options: Options) -> list[Row]:
    """Measures it."""
    return uvloop.run(_run(options))


async def rate(here: Stage, ports: Sequence[int], count: int, due: Callable[[], object] = lambda: None) -> float:
    """Tasks a second that arrive at the sink, from the moment at which `count` of them are due; `due` is told of it."""
    await here.sink.reset()
    due_ms = (time() + 2 + count / LEAST_RATE) * 1e3
    requests = batches(count, url=here.sink.url, schedule_time=rfc3339(due_ms))
    (await closed_loops(ports, requests, CONNECTIONS)).expect(200)
    left_s = due_ms / 1e3 - time()
    if left_s < 0:
        raise RuntimeError("the service took longer to accept the tasks than the benchmark allows for")
    await asyncio.sleep(left_s)
    due()
    seen = await here.sink.wait(count)
    if seen.distinct != count:
        raise RuntimeError(f"{count} tasks arrived as {seen.distinct}")
    return count / (seen.last_ms - due_ms) * 1e3


async def _run(options: Options) -> list[Row]:
    count = options.size(30_000, 1_000)
    pairs = Pairs(f"webhooks, {AT_A_TIME} at a time", "tasks/s")
    bodies = [msgspec.json.encode(payload(number)) for number in range(count)]
    async with stage() as here:
        service = await here.service("ours")
        with options.steps("webhook", 2 * options.iterations) as steps:
            await rate(here, [service.port], count // 10)
            for _ in range(options.iterations):
                steps.begin("aiohttp")
                await here.sink.reset()
                pairs.floor.append(await client_rate(here.sink.url, bodies, AT_A_TIME))
                steps.done()
                steps.begin("ringwheel")
                await here.checkpoint()
                pairs.ours.append(await rate(here, [service.port], count))
                steps.done()
    return [pairs.at_least(GOAL)]
