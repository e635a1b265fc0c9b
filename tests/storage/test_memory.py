"""What the memory twin offers beyond the ports: faults and gates, for each process by itself."""

import asyncio

import pytest

from actors.core.errors import Unavailable
from storage.memory import Fault, MemoryDatabase, MemoryStores
from tests.support.builders import T0_MS, make_page, make_task


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase(lambda: float(T0_MS))


async def live_rows(stores: MemoryStores) -> int:
    [loaded] = await stores.tasks.load([make_page()])
    return len(loaded.tasks)


@pytest.mark.parametrize(("fault", "committed"), [(Fault.LOST, 0), (Fault.REPLY_LOST, 1)])
async def test_an_unknown_outcome_may_be_committed_or_not(
    database: MemoryDatabase, fault: Fault, committed: int
) -> None:
    stores = MemoryStores(database, "boot-a")
    queue = await stores.queues.ensure("default", "emails")
    stores.link.fail_next("accept", fault)
    with pytest.raises(Unavailable):
        await stores.tasks.accept([make_task(1, queue)])
    assert await live_rows(stores) == committed


async def test_faults_strike_once_each_and_only_their_statement(database: MemoryDatabase) -> None:
    stores = MemoryStores(database, "boot-a")
    stores.link.fail_next("load")
    stores.link.fail_next("load")
    await stores.queues.refresh()
    for _ in range(2):
        with pytest.raises(Unavailable):
            await stores.tasks.load([])
    assert await stores.tasks.load([]) == []


async def test_a_process_that_is_cut_off_does_not_hurt_another(database: MemoryDatabase) -> None:
    a, b = MemoryStores(database, "boot-a"), MemoryStores(database, "boot-b")
    a.link.away = True
    with pytest.raises(Unavailable):
        await a.leases.join("boot-a", "a", "a:7070")
    assert (await b.leases.join("boot-b", "b", "b:7070")).shards == 256
    a.link.away = False
    assert (await a.leases.join("boot-a", "a", "a:7070")).shards == 256


async def test_a_statement_can_be_held_before_it_takes_effect(database: MemoryDatabase) -> None:
    stores = MemoryStores(database, "boot-a")
    queue = await stores.queues.ensure("default", "emails")
    gate = stores.link.hold_next("accept")
    async with asyncio.TaskGroup() as group:
        accept = group.create_task(stores.tasks.accept([make_task(1, queue)]))
        await gate.reached.wait()
        assert await live_rows(stores) == 0
        gate.open()
    assert accept.result() == {}
    assert await live_rows(stores) == 1


async def test_a_held_statement_is_lost_when_the_way_breaks_meanwhile(database: MemoryDatabase) -> None:
    stores = MemoryStores(database, "boot-a")
    gate = stores.link.hold_next("join")

    async def broken() -> None:
        with pytest.raises(Unavailable):
            await stores.leases.join("boot-a", "a", "a:7070")

    async with asyncio.TaskGroup() as group:
        group.create_task(broken())
        await gate.reached.wait()
        stores.link.away = True
        gate.open()
    assert database.nodes == {}


async def test_the_clock_of_a_beat_is_the_databases(database: MemoryDatabase) -> None:
    stores = MemoryStores(database, "boot-a")
    await stores.leases.join("boot-a", "a", "a:7070")
    beat = await stores.leases.beat("boot-a")
    assert beat is not None
    assert beat.clock_ms == T0_MS
