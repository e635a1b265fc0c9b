"""The runtime's tests live in virtual time; those of the core need none, and those of the ports meet a real server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.parent == Path(__file__).parent:
        return {"virtual": VirtualTimeLoop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """A database, and as many nodes as the test starts."""
    async with Cluster() as cluster:
        yield cluster


@pytest.fixture
async def small() -> AsyncIterator[Cluster]:
    """The same with few shards: for hours and days."""
    async with Cluster(shards=8) as cluster:
        yield cluster
