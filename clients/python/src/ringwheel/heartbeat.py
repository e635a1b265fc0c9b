"""Extends leases, from a thread with a loop and connections of its own: whatever a handler does to the worker's loop,
its lease lives on. So does that of a task that has ended, until its result is recorded: nobody else is to run it again.

A lease is extended after a third of its period, so that two more tries fit in before it ends. Requests are small,
many leases each; a beat tries each node once at most, and the next one begins at another node after a failure.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from time import monotonic as clock_s

import msgspec

from ringwheel.context import Context
from ringwheel.errors import RingwheelError
from ringwheel.frames import Lease, Refused, write
from ringwheel.transport import Transport, words_of

PATH = "/v1/tasks:extend"
AT_ONCE = 1_000
MOST_TICK_S = 1.0
LEAST_TICK_S = 0.02
log = logging.getLogger("ringwheel.worker")


class _Answer(Refused):
    lease_expire_time: datetime | None = None


class _Answers(msgspec.Struct):
    results: list[_Answer]


_answers = msgspec.json.Decoder(_Answers)


class Heartbeat:
    """Keeps the leases in `held` and `ended` alive; in this thread `lost` is told of those that can't be kept, and
    `sure` of those that were doubtful, and are alive.
    """

    def __init__(
        self,
        transport: Transport,
        held: dict[str, Context],
        ended: dict[str, Context],
        lost: Callable[[Context, str], None],
        sure: Callable[[Context], None],
    ) -> None:
        self._transport = transport.twin(patience_s=0.0, timeout_s=30.0)
        self._held = held
        self._ended = ended
        self._lost = lost
        self._sure = sure
        self._tick_s = MOST_TICK_S
        self._life: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._wake = asyncio.Event()
        self._thread = threading.Thread(target=self._live, name="ringwheel-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the end."""
        with suppress(RuntimeError):  # it is over
            self._loop.call_soon_threadsafe(self._end)
        self._thread.join()

    def watch(self, period_s: float) -> None:
        """There is a lease with this period: look often enough."""
        tick_s = max(LEAST_TICK_S, period_s / 10)
        if tick_s < self._tick_s:
            self._tick_s = tick_s
            self.nudge()

    def extend(self, context: Context, by_s: float) -> None:
        """What a handler asks for; from any thread."""
        context.by_s = by_s
        context.beat_s = 0.0
        self.nudge()

    def nudge(self) -> None:
        """Look at once; from any thread."""
        with suppress(RuntimeError):  # it is over
            self._loop.call_soon_threadsafe(self._wake.set)

    def _live(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner, suppress(asyncio.CancelledError):
            runner.run(self._run())

    def _end(self) -> None:
        if self._life is not None:
            self._life.cancel()

    async def _run(self) -> None:
        self._life = asyncio.current_task()
        try:
            while True:
                self._wake.clear()
                await self._beat()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._tick_s):
                        await self._wake.wait()
        finally:
            await self._transport.close()

    async def _beat(self) -> None:
        now_s = clock_s()
        kept = self._ended.copy() | self._held.copy()
        due = [one for one in kept.values() if one.beat_s <= now_s and not one.over]
        for start in range(0, len(due), AT_ONCE):
            url = self._transport.url
            try:
                async with asyncio.timeout(max(self._tick_s * 3, 0.25)):
                    await self._extend({one.id: (one, one.by_s) for one in due[start : start + AT_ONCE]})
            except (RingwheelError, TimeoutError) as error:
                self._transport.leave(url)
                log.warning("leases could not be extended: %s", words_of(error))
            except Exception:  # a heart goes on beating
                log.exception("leases could not be extended")

    async def _extend(self, due: dict[str, tuple[Context, float | None]]) -> None:
        body = write({"leases": [Lease(one.id, one.task.lease, by_s) for one, by_s in due.values()]})
        now_s = clock_s()
        answers = await self._transport.ask(_answers, "POST", PATH, body)
        for answer in answers.results:
            if answer.id not in due:
                continue
            context, by_s = due[answer.id]
            if answer.lease_expire_time is not None:
                context.lease_expire_time = answer.lease_expire_time
                _rest(context, by_s, now_s)
                if context.doubtful:
                    self._sure(context)
            elif answer.status in (404, 409):
                self._lost(context, answer.words)
            elif answer.status < 500:
                log.error("the lease of task %s can't be extended: %s", context.id, answer.words)
                _rest(context, by_s, now_s)


def _rest(context: Context, by_s: float | None, now_s: float) -> None:
    """It was extended: leave it alone for a while; a long extension by hand must not be cut short by a plain one."""
    if context.by_s != by_s:
        return  # a handler asked for something else meanwhile
    context.by_s = None
    period_s = context.task.lease_seconds
    by_s = by_s or period_s
    context.beat_s = now_s + max(by_s / 3, by_s - period_s * 2 / 3)
