"""A running service, its target, and its tables."""

from collections.abc import AsyncIterator

import pytest

from tests.service.api import Api, Tables, tables_of
from tests.service.hook import Hook, hooked
from tests.service.served import serving


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Api]:
    """The service on a database of its own; webhooks may reach this machine."""
    async with serving(database_url) as api:
        yield api


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    """A target that does what a test says."""
    async with hooked() as hook:
        yield hook


@pytest.fixture
async def tables(database_url: str) -> AsyncIterator[Tables]:
    """The service's tables."""
    async with tables_of(database_url) as tables:
        yield tables
