"""Tasks of asyncio that run handlers, one after the other: what costs a handler most is a task of its own.

A handler that waits for nothing is over in one go, and the runner takes the next one; only when one waits are further
runners woken. Each handler runs in a task that `asyncio.timeout`, TaskGroup and cancellation can rely on; a runner
whose context variables were changed, or that its handler has cancelled, is let go, so that no handler meets what
another one left.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextvars import copy_context

from ringwheel.context import Context

Work = Callable[[Context, asyncio.Task[None]], Awaitable[None]]


class Runners:
    """At most `most` handlers at a time; what comes beyond waits."""

    def __init__(self, group: asyncio.TaskGroup, most: int, work: Work) -> None:
        """`work` raises nothing but CancelledError, and that only when the runner is to end."""
        self._group = group
        self._most = most
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._clean = copy_context()
        self._waiting: deque[Context] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._runners: set[asyncio.Task[None]] = set()
        self._looking = False

    def put(self, contexts: Iterable[Context]) -> None:
        """Run their handlers."""
        self._waiting.extend(contexts)
        self._wake(1)

    def waiting(self) -> list[Context]:
        """Those that have not begun, taken back."""
        waiting = [*self._waiting]
        self._waiting.clear()
        return waiting

    def close(self) -> None:
        """End all runners, whatever they do."""
        for runner in self._runners:
            runner.cancel()

    def _wake(self, most: int) -> None:
        for _ in range(min(most, len(self._waiting))):
            if self._idle:
                self._idle.pop().set_result(None)
            elif len(self._runners) < self._most:
                runner = self._group.create_task(self._run(), context=self._clean.copy())
                self._runners.add(runner)
                runner.add_done_callback(self._runners.discard)
            else:
                return

    def _look(self) -> None:
        """Whoever began in the last turn of the loop is either done with everything, or waits for something."""
        self._looking = False
        self._wake(len(self._waiting))

    async def _run(self) -> None:
        runner = asyncio.current_task()
        assert runner is not None
        while True:
            if not self._waiting:
                rest: asyncio.Future[None] = self._loop.create_future()
                self._idle.append(rest)
                await rest
                continue
            if not self._looking:
                self._looking = True
                self._loop.call_soon(self._look)
            try:
                await self._work(self._waiting.popleft(), runner)
            except GeneratorExit:  # brought by a future: it has closed, one by one, all that waited for that future
                if asyncio.current_task(self._loop) is not runner:
                    raise
            if runner.cancelling() or copy_context() != self._clean:
                self._runners.discard(runner)
                self._wake(1)
                return
