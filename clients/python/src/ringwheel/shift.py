"""One run of a worker, from its first link to the last result: what it is made of, and how it ends."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import NoReturn

from ringwheel.context import Context
from ringwheel.ctrl_c import is_ctrl_c
from ringwheel.desk import Desk
from ringwheel.frames import Delivery, Result
from ringwheel.handler import Handler
from ringwheel.heartbeat import Heartbeat
from ringwheel.lag import Lag
from ringwheel.link import Link
from ringwheel.outcome import Verdict, failed, snoozed, succeeded
from ringwheel.runners import Runners
from ringwheel.transport import Transport

THREADS = "ringwheel-handler"
"""Begins the names of the threads that run plain functions."""
STOP_S = 2.0
"""How long the service may take to confirm that nothing more comes."""
RECORD_S = 10.0
"""How long it may take to record the last results."""
log = logging.getLogger("ringwheel.worker")


class Shift:
    """A worker at work."""

    def __init__(
        self,
        transport: Transport,
        find: Callable[[Delivery], Handler[...]],
        queue: str,
        concurrency: int,
        grace_s: float,
        name: str,
    ) -> None:
        held: dict[str, Context] = {}
        ended: dict[str, Context] = {}
        self._loop = asyncio.get_running_loop()
        self._find = find
        self._concurrency = concurrency
        self._grace_s = grace_s
        self._lag = Lag()
        self._heartbeat = Heartbeat(transport, held, ended, self._lost, self._sure)
        self._desk = Desk(queue, concurrency, held, ended, self._heartbeat, self._lag)
        self._link = Link(transport, self._desk, name, self._begin)
        self._threads = ThreadPoolExecutor(concurrency, THREADS)
        self._runners: Runners | None = None
        self._watch: asyncio.Task[NoReturn] | None = None
        """Of the lag: it ends when all else does, and not before."""
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Take nothing new, and end; said again: without waiting for what runs."""
        if self._stopping.is_set():
            self._desk.idle.set()
        self._stopping.set()

    async def run(self) -> None:
        """Until it was stopped. Raises what ended the link for good."""
        self._heartbeat.start()
        try:
            async with asyncio.TaskGroup() as group:
                self._runners = Runners(group, self._concurrency, self._work)
                self._watch = group.create_task(self._lag.run())
                link = group.create_task(self._link.run())
                await self._stopping.wait()
                await self._leave(self._runners)
                link.cancel()
                self._watch.cancel()
                self._runners.close()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)
            await asyncio.to_thread(self._heartbeat.stop)

    async def _leave(self, runners: Runners) -> None:
        """Let what runs end, give back what does not, and have everything recorded."""
        desk = self._desk
        log.info("stopping: %d tasks may take %g s to end", len(desk.held), self._grace_s)
        desk.stopping = True
        desk.news.set()
        await _within(STOP_S, self._link.stopped)
        for context in [*runners.waiting(), *desk.doubtful()]:
            desk.give_back(context, snoozed(context.task, 0))
        if desk.held:
            await _within(self._grace_s, desk.idle)
        for context in [*desk.held.values()]:
            log.warning("giving task %s back: it did not end in time", context.id)
            desk.give_back(context, snoozed(context.task, 0))
        if not await _within(RECORD_S, desk.outbox.empty):
            log.error("%d results were not recorded: their tasks will run again", len(desk.outbox))

    def _begin(self, contexts: list[Context]) -> None:
        assert self._runners is not None
        self._runners.put(contexts)

    def _lost(self, context: Context, why: str) -> None:
        """In the heartbeat's thread: a handler that blocks the loop is to know at once, too."""
        context.give_up()
        with suppress(RuntimeError):  # the worker has ended
            self._loop.call_soon_threadsafe(self._desk.cancel, context.id, why, context.task.lease)

    def _sure(self, context: Context) -> None:
        """In the heartbeat's thread."""
        with suppress(RuntimeError):  # the worker has ended
            self._loop.call_soon_threadsafe(self._begin_late, context)

    def _begin_late(self, context: Context) -> None:
        if context.doubtful and not context.over:
            context.doubtful = False
            self._begin([context])

    async def _work(self, context: Context, runner: "asyncio.Task[None]") -> None:
        """Run the handler of a task, whatever comes of it; CancelledError is raised only when the worker ends."""
        if context.over:
            return
        try:
            result = await self._result(context, runner)
        except (asyncio.CancelledError, GeneratorExit) as error:
            if asyncio.current_task(self._loop) is not runner:
                raise  # closed, for its loop is no more
            result = failed(context.task, error)
        context.runner = None
        if context.interrupted:
            runner.uncancel()
        if self._watch is not None and self._watch.cancelling():  # the runner may have been cancelled by its handler
            raise asyncio.CancelledError
        self._desk.end(context, result)

    async def _result(self, context: Context, runner: "asyncio.Task[None]") -> Result:
        try:
            handler = self._find(context.task)
            positional, named = handler.arguments(context)
            if handler.threaded:
                call = partial(handler.call, positional, named)
                value = await self._loop.run_in_executor(self._threads, copy_context().run, call)
            else:
                context.runner = runner
                value = await handler.function(*positional, **named)
            return succeeded(context.task, value)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            if context.runner is not None and is_ctrl_c(error):
                raise
            return _told(context, error)


def _told(context: Context, error: BaseException) -> Result:
    """What a handler raised, as a result and in the log."""
    result = failed(context.task, error)
    if not isinstance(error, Verdict):
        try:
            log.warning("task %s, attempt %d, failed", context.id, context.attempt, exc_info=error)
        except RecursionError:  # the only one that `logging` lets through
            log.warning("task %s, attempt %d, failed: %s", context.id, context.attempt, result.error)
    return result


async def _within(limit_s: float, event: asyncio.Event) -> bool:
    """Whether it was set in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await event.wait()
    return event.is_set()
