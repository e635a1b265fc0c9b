"""The Python client submits many tasks while the node that it speaks to is killed (-9) and started again: each of them
exists once. Keys make a request whose outcome is unknown safe to repeat; here it has to be.
"""

import asyncio
import signal
from contextlib import AsyncExitStack
from time import perf_counter

import asyncpg
import uvloop

from bench.faults.rows import some, told, zero
from bench.nodes import Nodes
from bench.report import Options, Row, Steps
from bench.stage import stage
from ringwheel import Client, Draft, Submitted

KILLS = 3
QUEUE = "bulk"
PATIENCE_S = 120.0
"""The client goes on trying for so long."""


class Count:
    """How many were taken, as the client tells."""

    def __init__(self) -> None:
        self.done = 0
        self._news = asyncio.Event()

    def tell(self, done: int) -> None:
        """So many by now."""
        self.done = done
        self._news.set()

    async def reach(self, count: int) -> None:
        """Return when it is so many."""
        while self.done < count:
            self._news.clear()
            await self._news.wait()


def run(options: Options) -> list[Row]:
    """Measures it."""
    return uvloop.run(_run(options))


async def _run(options: Options) -> list[Row]:
    count, kills = options.size(100_000, 10_000), options.size(KILLS, 1)
    async with stage() as here, AsyncExitStack() as stack:
        dsn = await here.database("ours")
        nodes = Nodes(dsn, stack)
        await nodes.start("a")
        await nodes.ready()
        begin_s = perf_counter()
        with options.steps("bulk", kills + 1) as steps:
            submitted = await _submit(nodes, count, kills, steps)
        took_s = perf_counter() - begin_s
        exist = await _exist(dsn)
    ids = [task_id for task_id in submitted.ids if task_id is not None]
    return [
        some("bulk: kills while tasks were submitted", kills),
        told("bulk: tasks", count, "tasks"),
        told("bulk: submitted in", took_s, "s"),
        zero("bulk: refused, or without an id", count - len(ids), "tasks"),
        zero("bulk: ids that were told twice", len(ids) - len(set(ids)), "ids"),
        zero("bulk: ids that no task has", len(set(ids) - exist), "ids"),
        zero("bulk: tasks whose id nobody was told", len(exist - set(ids)), "tasks"),
    ]


async def _submit(nodes: Nodes, count: int, kills: int, steps: Steps) -> Submitted:
    """All of them; the node dies when a part is done, and then the next, with requests under way."""
    counted = Count()
    drafts = (Draft(QUEUE, {"number": number}, delay=86_400) for number in range(count))
    async with (
        Client(f"http://127.0.0.1:{nodes.ports[0]}", patience=PATIENCE_S) as client,
        asyncio.TaskGroup() as group,
    ):
        job = group.create_task(client.submit_many(drafts, chunk=500, progress=counted.tell))
        for number in range(1, kills + 1):
            await counted.reach(count * number // (kills + 1))
            nodes.signal("a", signal.SIGKILL)
            if job.done():
                raise RuntimeError("all was submitted before a node could be killed")
            await asyncio.shield(nodes.children["a"].ended)
            await nodes.start("a")
            steps.done()
        submitted = await job
        steps.done()
        return submitted


async def _exist(dsn: str) -> set[str]:
    """The ids of all tasks that there are."""
    connection = await asyncpg.connect(dsn)
    try:
        return {row[0] for row in await connection.fetch("SELECT id::text FROM tasks")}
    finally:
        await connection.close()
