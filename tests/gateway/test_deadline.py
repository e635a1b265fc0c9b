"""The limit of a call, without a call."""

import asyncio

import pytest

from gateway.deadline import Deadline


def current() -> "asyncio.Task[None]":
    task = asyncio.current_task()
    assert task is not None
    return task


async def test_it_cancels_its_task_and_takes_that_back() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(3):  # a task makes many calls
        began = loop.time()
        deadline = Deadline(loop, 0.02)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(30)
        assert deadline.stop()
        assert current().cancelling() == 0
        assert not deadline.stop()
        assert 0.015 < loop.time() - began < 5
    await asyncio.sleep(0)


async def test_a_call_that_ends_in_time_is_left_alone() -> None:
    deadline = Deadline(asyncio.get_running_loop(), 0.01)
    assert not deadline.stop()
    await asyncio.sleep(0.03)
    assert current().cancelling() == 0


@pytest.mark.parametrize("limit_s", [0.01, 30.0])
async def test_a_cancellation_from_elsewhere_is_not_taken_for_it(limit_s: float) -> None:
    loop = asyncio.get_running_loop()

    async def call() -> bool:
        deadline = Deadline(loop, limit_s)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return deadline.stop()
        raise AssertionError("not cancelled")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(call())
        await asyncio.sleep(0)
        if limit_s < 1:
            loop.call_later(limit_s, task.cancel)  # at once with the deadline, which alone would be taken back
        else:
            task.cancel()
        assert not await task
        assert task.cancelling() == 1


async def test_what_was_cancelled_before_stays_so() -> None:
    current().cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    deadline = Deadline(asyncio.get_running_loop(), 0.01)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(30)
    assert deadline.stop()
    assert current().uncancel() == 0
