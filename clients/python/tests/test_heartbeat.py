"""Leases live for as long as their handlers run, even those that block everything."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

import pytest

from at_work import at_work
from fake_service import Fake, Held, elsewhere
from ringwheel import Client, Context, Worker
from ringwheel.heartbeat import Heartbeat

LEASE_S = 1.5
"""A machine that stands still for a second must not end one."""
T = TypeVar("T")


async def add(fake: Fake, payload: object) -> Held:
    return fake.add(payload, lease_s=LEASE_S)


def there(fake: Fake, call: Coroutine[Any, Any, T]) -> Awaitable[T]:
    """Begin it where the service runs, in the loop that no handler blocks; answers what it returns."""
    assert fake.loop is not None
    return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, fake.loop))


async def test_a_handler_that_blocks_the_loop_keeps_its_lease() -> None:
    with elsewhere() as fake:
        worker = Worker(Client(fake.url), "q", 2)

        @worker.task
        async def block(seconds: float) -> str:
            time.sleep(seconds)  # noqa: ASYNC251 - what must not be done
            return "done"

        held = await there(fake, add(fake, {"seconds": 3 * LEASE_S}))
        async with at_work(worker):
            await there(fake, fake.ended(held))
        assert held.attempt == 1
        assert fake.lost == []
        assert held.extended >= 3


async def test_what_has_ended_keeps_its_lease_until_its_result_is_recorded() -> None:
    """It can't be said while another handler blocks the loop, and is not to run again for that."""
    with elsewhere() as fake:
        worker = Worker(Client(fake.url), "q", 2)

        @worker.task
        async def block(seconds: float) -> None:
            time.sleep(seconds)  # noqa: ASYNC251 - what must not be done

        async def two() -> list[Held]:
            return [await add(fake, {"seconds": seconds}) for seconds in (0, 1.5 * LEASE_S)]

        tasks = await there(fake, two())
        async with at_work(worker):
            await there(fake, fake.ended(*tasks))
        assert [task.attempt for task in tasks] == [1, 1]
        assert fake.lost == []


async def test_what_lay_unread_until_its_lease_was_over_is_not_begun() -> None:
    """It came while a handler blocked the loop, and is somebody else's by now."""
    begun: list[tuple[str, int]] = []
    blocked = threading.Event()
    with elsewhere() as fake:
        worker = Worker(Client(fake.url), "q", 2)

        @worker.task
        async def work(task: Context, seconds: float) -> None:
            begun.append((task.id, task.attempt))
            blocked.set()
            time.sleep(seconds)  # noqa: ASYNC251 - what must not be done

        async def two() -> tuple[Held, Held]:
            first = await add(fake, {"seconds": 1.5 * LEASE_S})
            await asyncio.to_thread(blocked.wait)
            return first, await add(fake, {"seconds": 0})

        adding = there(fake, two())
        async with at_work(worker):
            first, second = await adding
            await there(fake, fake.ended(first, second))
        assert fake.lost == [second.id]
        assert begun == [(first.id, 1), (second.id, 2)]


async def test_a_lease_is_extended_by_itself_and_by_hand(fake: Fake, worker: Worker) -> None:
    gate = asyncio.Event()
    seen: list[Context] = []

    @worker.task
    async def work(task: Context, by: float | None = None) -> None:
        seen.append(task)
        if by is not None:
            task.extend(by)
        await gate.wait()

    short, long = fake.add(lease_s=LEASE_S), fake.add({"by": 600}, lease_s=LEASE_S)
    async with at_work(worker):
        await fake.until(lambda: short.extended == 3)
        gate.set()
        await fake.ended(short, long)
    assert long.extended == 1, "a long one is not cut short"
    assert seen[1].lease_expire_time > seen[1].task.lease_expire_time
    assert fake.lost == []


async def test_an_extension_that_fails_is_tried_again(fake: Fake, worker: Worker) -> None:
    @worker.task
    async def work() -> None:
        await fake.until(lambda: task.extended == 2)

    fake.faults.extend([lambda request: 503] * 2)
    task = fake.add(lease_s=LEASE_S)
    async with at_work(worker):
        await fake.ended(task)
    assert fake.lost == []


async def test_work_whose_lease_was_lost_is_stopped(fake: Fake, worker: Worker) -> None:
    ends: list[bool] = []

    @worker.task
    async def work(task: Context) -> None:
        if task.attempt == 1:
            held.lease = "another"
            try:
                await asyncio.Event().wait()
            finally:
                ends.append(task.cancelled.is_set())

    held = fake.add(lease_s=LEASE_S)
    async with at_work(worker):
        await fake.ended(held)
    assert ends == [True]


async def test_what_is_done_needs_no_extension(fake: Fake, worker: Worker) -> None:
    @worker.task
    async def work() -> None: ...

    tasks = [fake.add(lease_s=LEASE_S) for _ in range(3)]
    async with at_work(worker):
        await fake.ended(*tasks)
    assert fake.requests["/v1/tasks:extend"] == 0


async def test_one_lease_that_can_t_be_extended_hurts_no_other(
    fake: Fake, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Event()

    @worker.task
    async def work() -> None:
        await gate.wait()

    good, unsure, bad = (fake.add(lease_s=LEASE_S) for _ in range(3))
    fake.refusals = {unsure.id: [503], bad.id: [422]}
    async with at_work(worker):
        await fake.until(lambda: good.extended == unsure.extended == 2)
        gate.set()
        await fake.ended(good, unsure, bad)
    assert f"the lease of task {bad.id} can't be extended: no" in caplog.text


async def test_the_heart_goes_on_beating(fake: Fake, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    extend = Heartbeat._extend
    tries: list[int] = []

    async def stumble(self: Heartbeat, due: Any) -> None:
        tries.append(len(due))
        if len(tries) == 1:
            raise ZeroDivisionError
        await extend(self, due)

    monkeypatch.setattr(Heartbeat, "_extend", stumble)

    @worker.task
    async def work() -> None:
        await fake.until(lambda: task.extended == 2)

    task = fake.add(lease_s=LEASE_S)
    async with at_work(worker):
        await fake.ended(task)
    assert fake.lost == []
