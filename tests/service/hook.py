"""A webhook target on a real socket: what it answers is said where a URL is asked for, and each call is remembered."""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.support.raw_target import Exchange, RawTarget, Script, answers, raw_target

LIMIT_S = 30.0
OK = answers(200, "content-type: application/json", body=b'{"done": true}')
LATER = answers(202, "ringwheel-complete: later")


@dataclass
class Call:
    """One attempt as its target saw it."""

    arrived_ms: float
    exchange: Exchange

    @property
    def headers(self) -> dict[str, str]:
        return self.exchange.headers

    @property
    def body(self) -> bytes:
        return self.exchange.body

    @property
    def attempt(self) -> int:
        return int(self.headers["ringwheel-attempt"])

    @property
    def fence(self) -> str:
        return self.headers["ringwheel-fence"]


class Held:
    """Answers when it is told to."""

    def __init__(self, then: Script = OK) -> None:
        self.release = asyncio.Event()
        self._then = then

    async def __call__(self, exchange: Exchange) -> None:
        await self.release.wait()
        await self._then(exchange)


async def closes(exchange: Exchange) -> None:
    """Close the connection without an answer."""
    exchange.writer.close()


class Hook:
    """All calls, by task."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self.target = RawTarget()
        self._steps: dict[str, tuple[Script, ...]] = {}
        self._numbers = itertools.count()
        self._came = asyncio.Event()

    def url(self, *steps: Script) -> str:
        """A URL whose n-th call for a task gets the n-th answer; the last answer repeats."""
        path = f"/{next(self._numbers)}"
        self._steps[path] = steps or (OK,)
        return self.target.url(path)

    async def let_go(self) -> None:
        """Answer all who still wait."""
        for steps in self._steps.values():
            for step in steps:
                if isinstance(step, Held):
                    step.release.set()
        await asyncio.sleep(0)

    async def called(self, task_id: str, times: int = 1) -> list[Call]:
        """The calls for a task, once there are so many."""
        async with asyncio.timeout(LIMIT_S):
            while len(self.calls[task_id]) < times:
                await self.news()
        return self.calls[task_id]

    async def news(self) -> None:
        """Return at the next call, whatever it is for."""
        self._came.clear()
        await self._came.wait()

    async def all_called(self, task_ids: list[str]) -> None:
        """Return once each of these tasks was called."""
        async with asyncio.timeout(LIMIT_S):
            while not all(self.calls[task_id] for task_id in task_ids):
                await self.news()

    async def serve(self, exchange: Exchange) -> None:
        """One request."""
        call = Call(time.time() * 1e3, exchange)
        calls = self.calls[call.headers["webhook-id"]]
        calls.append(call)
        self._came.set()
        steps = self._steps[exchange.lines[0].split(" ")[1].partition("?")[0]]
        await steps[min(len(calls), len(steps)) - 1](exchange)


@asynccontextmanager
async def hooked() -> AsyncIterator[Hook]:
    """A hook that listens."""
    hook = Hook()
    async with raw_target(hook.serve) as hook.target:
        yield hook
        await hook.let_go()
