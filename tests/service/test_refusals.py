"""Settings under which a node does not start: it says why and what helps, and ends with exit code 2."""

import os
import random
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from storage.embedded import EmbeddedPostgres
from storage.migrations import VERSION, migrate
from tests.service.api import Api
from tests.service.programs import ringwheel, serve
from tests.service.served import ready


async def refusal(dsn: str, *words: str) -> str:
    """What the node says when it does not start."""
    async with ringwheel(*serve(dsn), *words) as program:
        assert await program.ended() == 2, program.output
    assert "error: Can't run like this: " in program.output
    return program.output


async def refusal_of(*words: str) -> str:
    """What another command says."""
    async with ringwheel(*words) as program:
        assert await program.ended() == 2, program.output
    assert "error: Can't run like this: " in program.output
    return program.output


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def name_of(dsn: str) -> str:
    return urlsplit(dsn).path.removeprefix("/")


async def test_commits_that_do_not_wait_for_the_disk(database_url: str) -> None:
    await execute(database_url, f"ALTER DATABASE {name_of(database_url)} SET synchronous_commit = off")
    assert "synchronous_commit is off: accepted tasks could be lost" in await refusal(database_url)


async def test_no_schema(empty_database_url: str) -> None:
    assert "run `ringwheel migrate`" in await refusal(empty_database_url)
    async with ringwheel("migrate", "--database-url", empty_database_url) as program:
        assert await program.ended() == 0, program.output
    async with ringwheel(*serve(empty_database_url)) as program:
        await program.url()
        program.signal(signal.SIGTERM)
        assert await program.ended() == 0


async def test_a_schema_of_a_newer_program(database_url: str) -> None:
    newer = VERSION + 1
    await execute(database_url, f"UPDATE cluster SET schema_version = {newer}, needs_program = {newer}")
    assert "upgrade ringwheel" in await refusal(database_url)


async def test_a_database_that_is_not_there(database_url: str) -> None:
    dsn = database_url.replace(name_of(database_url), "not_there")
    assert 'database "not_there" does not exist' in await refusal(dsn)


async def test_a_user_that_is_not_there(database_url: str) -> None:
    assert 'role "nobody" does not exist' in await refusal(database_url.replace("ringwheel@", "nobody@"))


@pytest.fixture
async def guest(database_url: str) -> AsyncIterator[str]:
    """A role that may log in, and nothing else."""
    role = f"guest_{os.getpid()}"
    await execute(database_url, f"CREATE ROLE {role} LOGIN")
    yield role
    await execute(database_url, f"DROP OWNED BY {role}")
    await execute(database_url, f"DROP ROLE {role}")


async def test_a_role_without_rights(database_url: str, guest: str) -> None:
    dsn = database_url.replace("ringwheel@", f"{guest}@")
    words = f"ringwheel's tables belong to the role ringwheel, not to {guest}: use ringwheel, or run GRANT ringwheel TO"
    assert words in await refusal(dsn)
    assert words in await refusal_of("migrate", "--database-url", dsn)
    assert words in await refusal_of("key", "create", "--database-url", dsn, "--tenant", "acme", "--scope", "read")


async def test_a_role_that_may_do_what_is_needed(empty_database_url: str, guest: str) -> None:
    """No more than that: to make tables, which are its own then."""
    dsn = empty_database_url.replace("ringwheel@", f"{guest}@")
    words = f"the role {guest} may make no tables: run GRANT CREATE ON SCHEMA public TO {guest}"
    assert words in await refusal_of("migrate", "--database-url", dsn)
    await execute(empty_database_url, f"GRANT CREATE ON SCHEMA public TO {guest}")
    async with ringwheel("migrate", "--database-url", dsn) as program:
        assert await program.ended() == 0, program.output
    async with ringwheel(*serve(dsn)) as program:
        url = await program.url()
        async with aiohttp.ClientSession() as session:
            await ready(Api(url, session))
        program.signal(signal.SIGTERM)
        assert await program.ended() == 0
    await execute(empty_database_url, f"REVOKE CREATE ON SCHEMA public FROM {guest}")
    assert words in await refusal(dsn)
    await execute(empty_database_url, f"DROP OWNED BY {guest}")


async def test_what_is_no_dsn() -> None:
    assert "the DSN can't be used" in await refusal("mysql://localhost/x")


async def test_a_port_that_is_taken(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in await refusal(database_url, "--port", str(port))


async def test_a_wrong_password_and_no_fsync(tmp_path: Path) -> None:
    host = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
    async with EmbeddedPostgres(tmp_path / "data") as server:
        await migrate(server.dsn)
        await execute(server.dsn, "CREATE ROLE guest LOGIN PASSWORD 'right'")
        for setting in (f"listen_addresses = '{host}'", "fsync = off"):
            await execute(server.dsn, f"ALTER SYSTEM SET {setting}")
    async with EmbeddedPostgres(tmp_path / "data") as server:
        assert "fsync is off: accepted tasks could be lost" in await refusal(server.dsn)
        said = await refusal(f"postgresql://guest:wrong-secret@{host}/ringwheel?sslmode=disable")
        assert 'password authentication failed for user "guest"' in said
        assert "wrong-secret" not in said
