"""The databases that tests get: fresh, apart from each other, durable."""

import asyncpg
import pytest


async def fetchval(dsn: str, statement: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_an_empty_database_of_its_own(empty_database_url: str, turn: int) -> None:
    assert await fetchval(empty_database_url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await fetchval(empty_database_url, "CREATE TABLE mine (n int)")


async def test_a_database_has_the_current_schema(database_url: str) -> None:
    assert await fetchval(database_url, "SELECT to_regclass('tasks') IS NOT NULL")


async def test_the_server_of_the_run_is_durable(empty_database_url: str) -> None:
    assert await fetchval(empty_database_url, "SHOW fsync") == "on"
    assert await fetchval(empty_database_url, "SHOW synchronous_commit") == "on"
