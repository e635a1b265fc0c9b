"""An event loop whose clock jumps to the next timer when nothing is ready: a day of sleeps takes milliseconds.

Time passes only while everybody waits, so what a test measures is exact and the same on every machine. Processes are
simulated in one loop: code that runs as a `Process` can be stopped and continued, as by SIGSTOP and SIGCONT, and its
timers and wake-ups wait meanwhile.

Refuses: sockets, subprocesses and threads; to wait for what can't happen (Stuck), and to go round without end while
time stands still (Stuck).
"""

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

ROUNDS = 50_000
"""Turns of the loop without a millisecond passing, after which it is taken for a program that spins."""
_PROCESS: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


class Stuck(Exception):
    """Nothing will ever happen again, or nothing but spinning."""


class _Jump(selectors.SelectSelector):
    """Instead of waiting, moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("nothing is ready and no timer is set")
        self._rounds = 0 if timeout > 0 else self._rounds + 1
        if self._rounds > ROUNDS:
            self._rounds = 0
            raise Stuck(f"{ROUNDS} turns of the loop, and no time has passed")
        self.now_s += max(timeout, 0)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that starts at 0 s and never waits."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        """Virtual seconds."""
        return self._jump.now_s

    def call_soon(  # type: ignore[override]  # plain callables, no variadic generics
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """See asyncio; a stopped process runs it when it is continued."""
        context = contextvars.copy_context() if context is None else context
        process = context.get(_PROCESS)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        turn = _Turn(process, callback, args, context)
        turn.handle = super().call_soon(turn, context=context)
        return turn.handle

    def call_at(  # type: ignore[override]  # the same
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio; a stopped process runs it when it is continued."""
        context = contextvars.copy_context() if context is None else context
        process = context.get(_PROCESS)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        turn = _Turn(process, callback, args, context)
        turn.handle = handle = super().call_at(when, turn, context=context)
        return handle


class Process:
    """Code that can be stopped as a whole; a stopped process does not see time pass until it goes on."""

    def __init__(self) -> None:
        self._stopped = False
        self._held: list[_Turn] = []
        self.ended = False
        """Nothing of it runs any more."""

    @property
    def stopped(self) -> bool:
        """Between `stop` and `resume`."""
        return self._stopped

    def start(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work`, and all that it starts, as this process."""
        context = contextvars.copy_context()
        context.run(_PROCESS.set, self)
        return group.create_task(work, context=context)

    def stop(self) -> None:
        """Run nothing of it from now on."""
        self._stopped = True

    def resume(self) -> None:
        """Go on with what has become ready meanwhile, in its order."""
        self._stopped = False
        held, self._held = self._held, []
        loop = asyncio.get_running_loop()
        for turn in held:
            loop.call_soon(turn.late, context=turn.context)

    def hold(self, turn: "_Turn") -> None:
        """Keep a turn until the process goes on."""
        self._held.append(turn)


class _Turn:
    """One callback of a process."""

    __slots__ = ("args", "callback", "context", "handle", "process")

    handle: asyncio.Handle

    def __init__(
        self, process: Process, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context
    ) -> None:
        self.process = process
        self.callback = callback
        self.args = args
        self.context = context

    def __call__(self) -> None:
        if self.process.stopped:
            self.process.hold(self)
        elif not self.process.ended:
            self.callback(*self.args)

    def late(self) -> None:
        """After the process went on: unless it was cancelled in the meantime."""
        if not self.handle.cancelled():
            self()
