"""Every contract test runs on each implementation of the ports."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from actors.core.queue import Queue
from tests.actors.ports.postgres_world import PostgresWorld, open_postgres_world
from tests.actors.ports.worlds import MemoryWorld, Owner, Stores, World, own_all
from tests.support.builders import T0_DAY
from tests.support.postgres import Databases

BOOT = "boot-a"


@pytest.fixture
def memory_world() -> World:
    return MemoryWorld()


@pytest.fixture(scope="session")
def contract_dsn(databases: Databases) -> Iterator[str]:
    """One database for all contract tests of this worker: each clears it first."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        opened = databases.migrated()
        dsn = runner.run(opened.__aenter__())
        try:
            yield dsn
        finally:
            runner.run(opened.__aexit__(None, None, None))


@pytest.fixture
async def postgres_world(contract_dsn: str) -> AsyncIterator[PostgresWorld]:
    async with open_postgres_world(contract_dsn) as world:
        yield world


@pytest.fixture(params=["memory", "postgres"])
def world(request: pytest.FixtureRequest) -> World:
    found: World = request.getfixturevalue(f"{request.param}_world")
    return found


@pytest.fixture
async def stores(world: World) -> Stores:
    """The ports of a process that has not joined."""
    return await world.process(BOOT)


@pytest.fixture
async def queue(stores: Stores) -> Queue:
    return await stores.queues.ensure("default", "emails")


@pytest.fixture
async def owner(stores: Stores, queue: Queue) -> Owner:
    epochs = await own_all(stores, BOOT)
    await stores.housekeeping.make_partitions(T0_DAY, T0_DAY + 8)
    return Owner(BOOT, stores, epochs, queue)
