"""The whole life of no-op tasks that workers pull: accepted in batches, handed to two workers over their links, done,
recorded; against the same life in bare SQL (`floors.life_rate`).

Ours starts with the first submit and ends when a worker hears of the last record. Submitting goes on as fast as it is
answered, so what workers do not take at once waits, as far as it has to in the tables. Half of the floor is measured
before it and half after it, since a machine that others use is not the same for half a minute.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import harmonic_mean, median
from time import process_time, time

import asyncpg
import uvloop

from bench.cpu import Cores, machine_s
from bench.crew import Crew, crew
from bench.floors import life_rate
from bench.load import closed_loops
from bench.processes import Child
from bench.report import Options, Pairs, Row
from bench.stage import Stage, stage
from bench.work import BATCH, batches, rows
from bench.worker import Seen

GOAL = 0.4
CONNECTIONS = 16
"""That submit, one batch each at a time. With half of them the service waits for the next one now and then."""
WORKERS = 2
CREDITS = 4_000
QUEUE = "bench"


def run(options: Options) -> list[Row]:
    """Measures it."""
    return uvloop.run(_run(options))


async def through(ports: Sequence[int], workers: Crew, requests: Sequence[bytes], count: int) -> tuple[float, Seen]:
    """Tasks a second from the first submit of these `requests` to the last record of their `count` tasks, and what the
    workers saw of them.
    """
    await workers.reset()
    begin_ms = time() * 1e3
    (await closed_loops(ports, requests, CONNECTIONS)).expect(200)
    seen = await workers.recorded(count)
    return count / (seen.last_ms - begin_ms) * 1e3, seen


async def rate(port: int, workers: Crew, requests: Sequence[bytes], count: int) -> float:
    """The rate alone. Raises RuntimeError when a task was handed out twice, or above the credits of a worker."""
    per_s, seen = await through([port], workers, requests, count)
    if (seen.tasks, seen.above) != (count, 0):
        raise RuntimeError(f"{count} tasks were handed out as {seen.tasks}, {seen.above} of them above the credits")
    return per_s


async def finished(dsn: str) -> tuple[int, int]:
    """Tasks that are over and recorded as they should be, and all others that the tables have."""
    connection = await asyncpg.connect(dsn)
    try:
        good = await connection.fetchval("SELECT count(*) FROM finished WHERE state = 2 AND attempt = 1")
        total = await connection.fetchval("SELECT (SELECT count(*) FROM finished) + (SELECT count(*) FROM tasks)")
        return good, total - good
    finally:
        await connection.close()


async def _run(options: Options) -> list[Row]:
    count = options.size(500_000, 4_000)
    pairs, costs_us = Pairs("life through worker links", "tasks/s"), list[dict[str, float]]()
    requests, bare = list(batches(count, url=None, queue=QUEUE)), rows(count, None)
    warm = requests[: len(requests) // 4]
    async with stage() as here:
        floor, dsn = await here.database("floor"), await here.database("ours")
        service = await here.node(dsn)
        async with crew([service.port] * WORKERS, QUEUE, CREDITS) as workers:
            cores = Cores(_parties(here, service, workers))
            with options.steps("life", 3 * options.iterations) as steps:
                await rate(service.port, workers, warm, len(warm) * BATCH)
                for _ in range(options.iterations):
                    steps.begin("bare SQL, half")
                    await here.checkpoint()
                    before = await life_rate(floor, bare[: count // 2])
                    steps.done()
                    steps.begin("ringwheel")
                    await here.checkpoint()
                    cores.begin()
                    pairs.ours.append(await rate(service.port, workers, requests, count))
                    cores.end()
                    costs_us.append({name: spent_s / count * 1e6 for name, spent_s in cores.spent_s.items()})
                    steps.done()
                    steps.begin("bare SQL, other half")
                    await here.checkpoint()
                    pairs.floor.append(harmonic_mean((before, await life_rate(floor, bare[count // 2 :]))))
                    steps.done()
        await _check(dsn, len(warm) * BATCH + options.iterations * count)
    return [pairs.at_least(GOAL), *costs(costs_us)]


def _parties(here: Stage, service: Child, workers: Crew) -> dict[str, Callable[[], float]]:
    """Who has a part in it; the generator is this process."""
    return {
        "service": service.cpu_s,
        **workers.parties,
        "generator": process_time,
        "PostgreSQL": here.server.cpu_s,
        "all processes": machine_s,
    }


async def _check(dsn: str, expected: int) -> None:
    """Raises RuntimeError unless so many tasks have succeeded at the first attempt, and there are no others."""
    good, others = await finished(dsn)
    if (good, others) != (expected, 0):
        raise RuntimeError(f"{expected} tasks ended as {good}, with {others} others")


def costs(measured: Sequence[Mapping[str, float]]) -> list[Row]:
    """What a task cost each of the processes: medians."""
    return [
        Row(f"life: CPU of a task, {name}", median(each[name] for each in measured), "us/task") for name in measured[0]
    ]
