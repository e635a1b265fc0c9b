"""A process with every Postgres store, and a second pair of eyes on the server."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.storage.home import Home, Watch


@pytest.fixture
async def home(database_url: str) -> AsyncIterator[Home]:
    """A process that owns every shard."""
    async with Home(database_url, "boot-a") as home:
        await home.own_all()
        yield home


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Home]:
    """Another process; it owns nothing."""
    async with Home(database_url, "boot-b") as home:
        await home.leases.join("boot-b", "b", "b:7070")
        yield home


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A bare connection: the other side of a race."""
    connection = await asyncpg.connect(database_url)
    yield connection
    connection.terminate()


@pytest.fixture
async def watch(database_url: str) -> AsyncIterator[Watch]:
    """Sees who waits for whom."""
    connection = await asyncpg.connect(database_url)
    yield Watch(connection)
    connection.terminate()
