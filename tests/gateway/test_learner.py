"""Many who miss queues, and few reads."""

import asyncio
from collections.abc import Collection

from actors.core.errors import Unavailable
from gateway.learner import FAILED_S, PAUSE_S, Learner
from tests.support.virtual_time import VirtualTimeLoop


async def readings(*, away: bool) -> list[tuple[float, list[int]]]:
    """When the table was read, and what for, while one after another misses a queue, 100 of them in a second."""
    loop = asyncio.get_running_loop()
    reads: list[tuple[float, list[int]]] = []

    async def read(numbers: Collection[int]) -> None:
        reads.append((loop.time(), sorted(numbers)))
        if away:
            raise Unavailable("the database is away")

    learner = Learner(read)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(learner.run())
        waiting = []
        for number in range(100):
            waiting.append(group.create_task(learner.learn([number])))
            await asyncio.sleep(0.01)
        await asyncio.wait(waiting)
        running.cancel()
    return reads


def test_however_many_queues_are_missed_few_reads_look_for_them() -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        reads = runner.run(readings(away=False))
    assert sorted(number for _, some in reads for number in some) == list(range(100))
    assert reads[0][1] == [0], "whoever comes first does not wait"
    assert len(reads) <= 1 / PAUSE_S + 2


def test_while_the_database_is_away_it_is_hardly_asked() -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        reads = runner.run(readings(away=True))
    assert [len(some) for _, some in reads] == [1, 99]
    assert reads[1][0] - reads[0][0] >= FAILED_S
