"""A crew: worker processes (`bench/worker.py`) that pull from one queue, and what they count together.

async with crew([port, port], "bench", 4_000) as workers:
    await workers.reset()
    ...
    seen = await workers.recorded(100_000)
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import msgspec

from bench.cpu import thread_s
from bench.load import LIMIT_S, ask, get
from bench.processes import Child, process
from bench.worker import Seen

LOOK_S = 0.05


class Crew:
    """The workers of one queue."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children
        self._decoder = msgspec.json.Decoder(Seen)

    @property
    def parties(self) -> dict[str, Callable[[], float]]:
        """The processor time of each, by a name; they have one thread."""
        return {f"worker {number}": partial(thread_s, child.pid) for number, child in enumerate(self._children, 1)}

    async def reset(self) -> None:
        """All of them forget what they counted."""
        for child in self._children:
            await ask(child.port, get("/reset"))

    async def seen(self, path: str = "/seen") -> Seen:
        """What they counted together; at `/late`, how late each task was, too. Raises Failed when one has ended."""
        found = []
        for child in self._children:
            child.check()
            found.append(self._decoder.decode(await ask(child.port, get(path))))
        return total(found)

    async def recorded(self, count: int) -> Seen:
        """All of it, once so many results are recorded. Raises Failed, TimeoutError; RuntimeError: one was refused."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                found = await self.seen()
                if found.refused:
                    raise RuntimeError(f"a result was refused: {found.refusal}")
                if found.recorded >= count:
                    return await self.seen("/late")
                await asyncio.sleep(LOOK_S)


def total(counts: Iterable[Seen]) -> Seen:
    """What several workers counted."""
    found = Seen()
    for seen in counts:
        found.tasks += seen.tasks
        found.recorded += seen.recorded
        found.refused += seen.refused
        found.refusal = found.refusal or seen.refusal
        found.above += seen.above
        found.last_ms = max(found.last_ms, seen.last_ms)
        found.cpu_s += seen.cpu_s
        for shard, late_ms in seen.lateness_ms.items():
            found.lateness_ms.setdefault(shard, []).extend(late_ms)
    return found


@asynccontextmanager
async def crew(ports: Sequence[int], queue: str, credits_: int, *words: str) -> AsyncIterator[Crew]:
    """A worker for each of these ports of services, with so many credits each; `words` as for `bench.worker`."""
    async with AsyncExitStack() as stack:
        children = [
            await stack.enter_async_context(process("-m", "bench.worker", str(port), queue, str(credits_), *words))
            for port in ports
        ]
        yield Crew(children)
