"""Fixtures of the whole suite: databases."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import postgres

_FOLDER = pytest.StashKey[Path | None]()


# A machine that stands still for a moment has found no bug.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FOLDER] = postgres.make_folder()


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.stash.get(_FOLDER, None)
    if folder is not None:
        postgres.remove_folder(folder)


@pytest.fixture(scope="session")
def databases() -> Iterator[postgres.Databases]:
    """The server of this run; started when the first test asks for it."""
    with postgres.run_server() as databases:
        yield databases


@pytest.fixture
async def database_url(databases: postgres.Databases) -> AsyncIterator[str]:
    """DSN of a fresh database with the current schema, dropped after the test."""
    async with databases.migrated() as dsn:
        yield dsn


@pytest.fixture
async def empty_database_url(databases: postgres.Databases) -> AsyncIterator[str]:
    """DSN of a fresh database without tables, dropped after the test."""
    async with databases.empty() as dsn:
        yield dsn
