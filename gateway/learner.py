"""Reads queues that other nodes have made: those that are missing alone, by number, for all who wait for some.

Promises: one statement at a time and at most one in PAUSE_S (in FAILED_S after one that failed), however many queues
somebody makes; what is asked for meanwhile goes into the next one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import NoReturn

from actors.core.errors import Unavailable

PAUSE_S = 0.05
FAILED_S = 1.0


class _Round:
    """One statement, and whoever waits for it."""

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self.over = asyncio.Event()


class Learner:
    """One a node."""

    def __init__(self, read: Callable[[Collection[int]], Awaitable[None]]) -> None:
        """`read` raises Unavailable."""
        self._read = read
        self._next = _Round()
        self._wanted = asyncio.Event()

    async def learn(self, numbers: Collection[int]) -> None:
        """Return when these were looked for: found, or not."""
        waiting = self._next
        waiting.numbers.update(numbers)
        self._wanted.set()
        await waiting.over.wait()

    async def run(self) -> NoReturn:
        """Read until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            now, self._next = self._next, _Round()
            pause_s = PAUSE_S
            try:
                await self._read(now.numbers)
            except Unavailable:
                pause_s = FAILED_S
            now.over.set()
            await asyncio.sleep(pause_s)
