"""Changes that other nodes tell, on their way to the hub: those of queues that are not known here yet wait for them.

Whoever makes a queue must not blind those who watch others. So a change that can't be named is held, with all that
follow it of the same queue, while the queue is read (`learner.py`); then they are told, in their order. Changes of
other queues wait for nobody: what comes in order is the story of each task, and a task has one queue.

Promises: bounded, HELD changes and HELD_BYTES of what varies in them, whichever links they came over. What can't be
named after all, and what is too much, is a gap, one in MISS_S at most unless it is too much.
"""

import asyncio
from collections.abc import Callable
from typing import NoReturn

from actors.core.events import Change
from actors.core.wire import Changes, Wire, WireChange
from gateway.learner import Learner

HELD = 10_000
HELD_BYTES = 8 * 1024 * 1024
MISS_S = 1.0


class Strange:
    """One a node."""

    def __init__(
        self, wire: Wire, learner: Learner, *, publish: Callable[[list[Change]], None], miss: Callable[[], None]
    ) -> None:
        """`miss`: watchers are to be told that changes of other nodes are missing."""
        self._wire = wire
        self._learner = learner
        self._publish = publish
        self._miss = miss
        self._held: dict[int, list[WireChange]] = {}
        """By the number of the queue."""
        self._count = 0
        self._bytes = 0
        self._unreadable = False
        """Some change can't be named though its queue is known."""
        self._news = asyncio.Event()

    def hear(self, told: Changes) -> None:
        """Publish what can be named, and hold the rest back."""
        changes = self._wire.told_changes(told)
        if not self._held and None not in changes:
            self._publish(changes)  # type: ignore[arg-type]  # none of them is None
            return
        strange = self._wire.strange(told) | self._held.keys()
        self._tell([change for change, it in zip(changes, told.changes, strict=True) if it.queue not in strange])
        self._hold([it for it in told.changes if it.queue in strange])

    def forget(self) -> None:
        """Watchers were told of a gap: the snapshots that follow show what was held."""
        self._held = {}
        self._count = self._bytes = 0

    async def run(self) -> NoReturn:
        """Have the queues read, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            numbers = list(self._held)
            if numbers:
                await self._learner.learn(numbers)
                self._release(numbers)
            if self._unreadable:
                self._lose()
                await asyncio.sleep(MISS_S)

    def _tell(self, changes: list[Change | None]) -> None:
        known = [change for change in changes if change is not None]
        if len(known) < len(changes):
            self._unreadable = True
            self._news.set()
        if known:
            self._publish(known)

    def _hold(self, changes: list[WireChange]) -> None:
        if not changes:
            return
        self._count += len(changes)
        self._bytes += sum(map(_size, changes))
        if self._count > HELD or self._bytes > HELD_BYTES:
            self._lose()
            return
        for change in changes:
            self._held.setdefault(change.queue, []).append(change)
        self._news.set()

    def _release(self, numbers: list[int]) -> None:
        changes = [change for number in numbers for change in self._held.pop(number, ())]
        self._count -= len(changes)
        self._bytes -= sum(map(_size, changes))
        self._tell(self._wire.told_changes(Changes(changes)))

    def _lose(self) -> None:
        self._unreadable = False
        self.forget()
        self._miss()


def _size(change: WireChange) -> int:
    return len(change.labels or "") + len(change.error or "")
