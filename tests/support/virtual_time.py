"""An event loop whose clock jumps to the next timer when nothing is ready: a day of sleeps takes milliseconds.

Time passes only while everybody waits, so what a test measures is exact and the same on every machine. Processes are
simulated in one loop: code that runs as a `Process` can be stopped and continued, as by SIGSTOP and SIGCONT, and its
timers and wake-ups wait meanwhile.

Refuses: sockets, subprocesses and threads; to wait for what can't happen (Stuck), and to go round without end while
time stands still (Stuck).
"""

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, TypeVar

T = TypeVar("T")

ROUNDS = 50_000
"""Turns of the loop without a millisecond passing, after which it is taken for a program that spins."""
_PROCESS: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


class Stuck(Exception):
    """Nothing will ever happen again, or nothing but spinning."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that starts at 0 s and never waits.

    It has its own turn in place of asyncio's: there are no files to look at, and a simulation is nothing but turns.
    """

    _ready: Any
    """Handles whose turn it is (asyncio's)."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._rounds = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        """A heap; timers of one moment go off in the order in which they were set."""
        self._numbers = count()

    def time(self) -> float:
        """Virtual seconds."""
        return self._now_s

    def call_soon(  # type: ignore[override]  # plain callables, no variadic generics
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """See asyncio; a stopped process runs it when it is continued."""
        context = contextvars.copy_context() if context is None else context
        process = context.get(_PROCESS)
        if process is None:
            handle = asyncio.Handle(callback, args, self, context)
        else:
            handle = _Turn(process, callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]  # the same
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio; a stopped process runs it when it is continued."""
        context = contextvars.copy_context() if context is None else context
        process = context.get(_PROCESS)
        if process is None:
            timer = asyncio.TimerHandle(when, callback, args, self, context)
        else:
            timer = _Timer(process, when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def _run_once(self) -> None:
        """One turn of the loop: what is ready now, or else the next timer."""
        ready, timers = self._ready, self._timers
        self._rounds += 1
        if not ready:
            self._jump()
        while timers and timers[0][0] <= self._now_s:
            ready.append(heapq.heappop(timers)[2])
        if self._rounds > ROUNDS:
            self._rounds = 0
            raise Stuck(f"{ROUNDS} turns of the loop, and no time has passed")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _jump(self) -> None:
        """To the next timer that still counts."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise Stuck("nothing is ready and no timer is set")
        if timers[0][0] > self._now_s:
            self._now_s = timers[0][0]
            self._rounds = 0


class Process:
    """Code that can be stopped as a whole; a stopped process does not see time pass until it goes on."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._stopped = False
        self._ended = False
        self._held: list[asyncio.Handle] = []

    @property
    def stopped(self) -> bool:
        """Between `stop` and `resume`."""
        return self._stopped

    def start(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work`, and all that it starts, as this process."""
        context = contextvars.copy_context()
        context.run(_PROCESS.set, self)
        return group.create_task(work, context=context)

    def call(self, callback: Callable[..., object], *args: object) -> None:
        """Have it called as this process, which hears of it in its next turn: whatever comes from outside."""
        context = contextvars.Context()
        context.run(_PROCESS.set, self)
        asyncio.get_running_loop().call_soon(callback, *args, context=context)

    def stop(self) -> None:
        """Run nothing of it from now on."""
        self._stopped = True

    def resume(self) -> None:
        """Go on with what has become ready meanwhile, in its order."""
        self._stopped = self._ended
        held, self._held = self._held, []
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop._ready.extend(held)

    def end(self) -> None:
        """Run nothing of it any more, for good: its timers go with it."""
        self._stopped = self._ended = True

    def hold(self, handle: asyncio.Handle) -> None:
        """Keep a turn until the process goes on."""
        if not self._ended:
            self._held.append(handle)


def current_process() -> Process | None:
    """Whose code this is."""
    return _PROCESS.get()


class _Turn(asyncio.Handle):
    """One callback of a process."""

    __slots__ = ("_process",)

    def __init__(
        self,
        process: Process,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: VirtualTimeLoop,
        context: contextvars.Context,
    ) -> None:
        super().__init__(callback, args, loop, context)
        self._process = process

    def _run(self) -> None:
        if self._process.stopped:
            self._process.hold(self)
        else:
            super()._run()


class _Timer(asyncio.TimerHandle):
    """The same, at its time."""

    __slots__ = ("_process",)

    def __init__(
        self,
        process: Process,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: VirtualTimeLoop,
        context: contextvars.Context,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self._process = process

    def _run(self) -> None:
        if self._process.stopped:
            self._process.hold(self)
        else:
            super()._run()
