"""Group commit as a shape: while one batch is on its way, the next one gathers.

Batching grows with the load by itself, and an idle service adds no wait. One `run` a gather: batches never overlap.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Gather(Generic[T]):
    """Items on their way to `flush`, in the order they came; a batch weighs at most `most`, unless one item does more.

    Whoever puts bounds what it puts; `len()` says how many items wait.
    """

    def __init__(
        self, flush: Callable[[list[T]], Awaitable[None]], most: int, weigh: Callable[[T], int] | None = None
    ) -> None:
        self._flush = flush
        self._most = most
        self._weigh = weigh
        self._items: list[T] = []
        self._some = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, items: Iterable[T]) -> None:
        """Add items to the next batch."""
        self._items.extend(items)
        if self._items:
            self._some.set()
            self._idle.clear()

    async def idle(self) -> None:
        """Return when nothing waits and nothing is on its way."""
        await self._idle.wait()

    async def run(self) -> None:
        """Flush batch after batch until cancelled. An error of `flush` ends it: flush handles its own."""
        while True:
            await self._some.wait()
            count = self._count()
            batch, self._items = self._items[:count], self._items[count:]
            if not self._items:
                self._some.clear()
            await self._flush(batch)
            if not self._items:
                self._idle.set()

    def _count(self) -> int:
        if self._weigh is None:
            return self._most
        weight = 0
        for count, item in enumerate(self._items):
            weight += self._weigh(item)
            if weight > self._most:
                return max(count, 1)
        return len(self._items)
