"""Group commit as a shape: while one batch is on its way, the next one gathers.

Batching grows with the load by itself, and who comes after a quiet moment waits for nobody. One `run` a gather:
batches never overlap.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")
REST_TIMES = 5.0
"""A flush that takes long is a machine with little time to spare: it is let alone for so many times as long."""


class Gather(Generic[T]):
    """Items on their way to `flush`, in the order they came, at most `most` at a time.

    Flushes start at least `interval_s` apart, unless a full batch waits: a steady trickle costs no flush an item. Where
    they take long, what is not urgent waits for REST_TIMES as long, `longest_s` at most: what is slow for want of time
    is asked less often. Whoever puts bounds what it puts; `len()` says how many items wait.
    """

    def __init__(
        self, flush: Callable[[list[T]], Awaitable[None]], most: int, interval_s: float = 0.0, longest_s: float = 0.0
    ) -> None:
        self._flush = flush
        self._most = most
        self._interval_s = interval_s
        self._longest_s = longest_s
        self._items: list[T] = []
        self._some = asyncio.Event()
        self._urgent = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, items: Iterable[T], *, urgent: bool = True) -> None:
        """Add items to the next batch."""
        self._items.extend(items)
        if urgent or len(self._items) >= self._most:
            self._urgent.set()
        if self._items:
            self._some.set()
            self._idle.clear()

    async def idle(self) -> None:
        """Return when nothing waits and nothing is on its way."""
        await self._idle.wait()

    async def run(self) -> None:
        """Flush batch after batch until cancelled. An error of `flush` ends it: flush handles its own."""
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            started = loop.time()
            batch, self._items = self._items[: self._most], self._items[self._most :]
            if not self._items:
                self._some.clear()
                self._urgent.clear()
            await self._flush(batch)
            if not self._items:
                self._idle.set()
            took_s = loop.time() - started
            if len(self._items) < self._most:
                await self._rest(started + self._interval_s, started + min(REST_TIMES * took_s, self._longest_s))

    async def _rest(self, until_s: float, calm_until_s: float) -> None:
        """What is urgent waits for the first of these, and all else for the second."""
        loop = asyncio.get_running_loop()
        if until_s > loop.time():
            await asyncio.sleep(until_s - loop.time())
        if calm_until_s > loop.time() and not self._urgent.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(calm_until_s):
                    await self._urgent.wait()
