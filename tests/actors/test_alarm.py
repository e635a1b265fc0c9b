"""The alarm: it rings once, at the earliest moment that was asked for, and never behind its runner's back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest

from actors.alarm import NEVER_S, Alarm

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class Ringing:
    """An alarm, and when it rang."""

    def __init__(self, answer: Callable[[], float] = lambda: NEVER_S) -> None:
        self.times: list[float] = []
        self.who: list[str] = []
        self.answer = answer
        self.alarm = Alarm(self._ring)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> float:
        self.times.append(round(loop.time() - self.start_s, 6))
        self.who.append(WHO.get())
        return self.answer()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Callable[[float], None]]:
        loop = asyncio.get_running_loop()
        self.start_s = loop.time()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.alarm.run())
            await asyncio.sleep(0.5)
            yield lambda at_s: self.alarm.set(self.start_s + at_s)
            task.cancel()


async def test_the_earliest_moment_counts_whatever_was_asked_for_first() -> None:
    ringing = Ringing()
    async with ringing.running() as set_at:
        set_at(5)
        set_at(3)
        set_at(4)
        await asyncio.sleep(10)
    assert ringing.times == [0, 3]


async def test_a_moment_that_is_past_is_the_next_turn_of_the_loop() -> None:
    ringing = Ringing()
    async with ringing.running() as set_at:
        set_at(0)
        assert ringing.times == [0]
        await asyncio.sleep(0)
    assert ringing.times == [0, 0.5]


async def test_a_ring_says_when_the_next_one_is_and_hears_of_nothing_meanwhile() -> None:
    ringing = Ringing()
    answers = iter([2.0, NEVER_S])

    def answer() -> float:
        assert ringing.alarm.deaf
        ringing.alarm.set(0)
        return ringing.start_s + next(answers)

    ringing.answer = answer
    async with ringing.running():
        await asyncio.sleep(10)
    assert ringing.times == [0, 2]


async def test_after_its_run_and_before_it_nothing_rings() -> None:
    ringing = Ringing()
    ringing.alarm.set(0)
    deaf = [ringing.alarm.deaf]
    async with ringing.running() as set_at:
        deaf.append(ringing.alarm.deaf)
        set_at(1)
    deaf.append(ringing.alarm.deaf)
    set_at(2)
    await asyncio.sleep(10)
    assert ringing.times == [0]
    assert deaf == [True, False, True]


async def test_a_ring_that_fails_is_the_last_one_and_ends_the_run() -> None:
    def fail() -> float:
        raise LookupError

    ringing = Ringing(fail)
    with pytest.raises(ExceptionGroup) as failed:
        async with ringing.running():
            await asyncio.sleep(10)
    assert failed.group_contains(LookupError)
    ringing.alarm.set(0)
    await asyncio.sleep(10)
    assert ringing.times == [0]


async def test_it_rings_in_the_context_of_its_run_not_of_whoever_set_it() -> None:
    ringing = Ringing()
    async with ringing.running() as set_at:
        WHO.set("a request")
        set_at(1)
        await asyncio.sleep(1)
    assert ringing.who == ["nobody", "nobody"]
