import asyncio

import pytest

from actors.clock import Clock
from actors.core.errors import Unavailable
from actors.core.queue import DAY_MS
from actors.housekeeper import AHEAD_DAYS, RETRY_S, ROUND_S, Housekeeper
from storage.memory import MemoryDatabase, MemoryStores
from tests.support.builders import T0_DAY, T0_MS


class World:
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        clock = Clock(lambda: loop.time() * 1_000)
        clock.observe(T0_MS, 0)
        self.database = MemoryDatabase(lambda: T0_MS + loop.time() * 1_000)
        self.link = (stores := MemoryStores(self.database, "boot-a")).link
        self.keeper = Housekeeper(stores.housekeeping, clock)


async def test_partitions_are_made_ahead_and_old_ones_dropped() -> None:
    world = World()
    world.database.partitions = {T0_DAY - 9, T0_DAY - 1, T0_DAY}
    await world.keeper.tidy()
    assert world.database.partitions == set(range(T0_DAY, T0_DAY + AHEAD_DAYS + 1))


async def test_it_tidies_every_hour_and_keeps_ahead_of_time() -> None:
    world = World()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.keeper.run())
        await asyncio.sleep(3 * DAY_MS / 1_000)
        running.cancel()
    # the day began ten hours before
    assert world.database.partitions == set(range(T0_DAY + 3, T0_DAY + 3 + AHEAD_DAYS + 1))


async def test_an_outage_is_waited_for() -> None:
    world = World()
    for _ in range(7):
        world.link.fail_next("make_partitions")
    for _ in range(3):
        world.link.fail_next("drop_partitions")
    await world.keeper.prepare()
    assert asyncio.get_running_loop().time() == pytest.approx(10 * RETRY_S)
    assert T0_DAY in world.database.partitions


async def test_a_round_that_fails_is_made_up_for_within_seconds() -> None:
    world = World()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.keeper.run())
        await asyncio.sleep(ROUND_S - 1)
        world.link.away = True
        await asyncio.sleep(60)
        world.link.away = False
        await asyncio.sleep(2)
        assert T0_DAY in world.database.partitions
        running.cancel()


async def test_tidying_up_by_hand_says_when_the_database_is_away() -> None:
    world = World()
    world.link.away = True
    with pytest.raises(Unavailable):
        await world.keeper.tidy()
