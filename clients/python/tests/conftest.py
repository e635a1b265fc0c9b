"""Fixtures of the client's tests: services, a client, a worker."""

from collections.abc import AsyncIterator

import pytest

from fake_service import LIMIT_S, Fake, serving
from ringwheel import Client, Worker
from ringwheel.testing import ringwheel_server

__all__ = ["ringwheel_server"]


@pytest.fixture
async def fake() -> AsyncIterator[Fake]:
    """A service that keeps the contract."""
    async with serving() as fake:
        yield fake


@pytest.fixture
async def client(fake: Fake) -> AsyncIterator[Client]:
    """A client of it."""
    async with Client(fake.url, "rw_test_key", patience=LIMIT_S) as client:
        yield client


@pytest.fixture
def worker(client: Client) -> Worker:
    """A worker without handlers."""
    return Worker(client, "q", concurrency=10, grace=5)
