"""An alarm: one callback of the loop at a time, at the earliest moment that anybody asked for.

A task that waits for an event gets its turn one round of the loop after the event; under load that is milliseconds. A
callback has its turn when its time has come.

Promises: rings never overlap; whoever runs it hears of a ring that failed, and after that it rings no more. Refuses
nothing: outside `run` it keeps still, and its first ring is at once.
"""

import asyncio
import math
from collections.abc import Callable
from contextvars import copy_context

NEVER_S = math.inf
_NOT_NOW_S = -math.inf


class Alarm:
    """Calls `ring`, which answers when it wants to be called again; all times are those of the loop."""

    def __init__(self, ring: Callable[[asyncio.AbstractEventLoop], float]) -> None:
        self._ring = ring
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next_s = _NOT_NOW_S
        """When it rings next. During a ring, and when nobody runs it: earlier than anybody could ask for."""
        self._handle: asyncio.Handle | None = None

    @property
    def deaf(self) -> bool:
        """Whether `set` does nothing now: during a ring, which answers itself, and while nobody runs it."""
        return self._next_s == _NOT_NOW_S

    def set(self, at_s: float) -> None:
        """Ring at `at_s`, or at once when that is past. An earlier ring that was asked for stays."""
        if at_s >= self._next_s or self._loop is None:
            return
        if self._handle is not None:
            self._handle.cancel()
        self._next_s = at_s
        if at_s <= self._loop.time():
            self._handle = self._loop.call_soon(self._go, context=self._context)
        else:
            self._handle = self._loop.call_at(at_s, self._go, context=self._context)

    async def run(self) -> None:
        """Ring until cancelled; raises what a ring raised."""
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()  # not that of whoever sets it
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self._next_s = NEVER_S
        self.set(0)
        try:
            await self._failed
        finally:
            self._next_s = _NOT_NOW_S
            if self._handle is not None:
                self._handle.cancel()

    def _go(self) -> None:
        assert self._loop is not None
        self._handle = None
        self._next_s = _NOT_NOW_S
        try:
            at_s = self._ring(self._loop)
        except Exception as error:
            if self._failed.done():
                raise
            self._failed.set_exception(error)
            return
        self._next_s = NEVER_S
        self.set(at_s)
