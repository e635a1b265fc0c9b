"""Settings under which a node does not start: it says why and what helps, and ends with exit code 2."""

import random
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from storage.embedded import EmbeddedPostgres
from storage.migrations import VERSION, migrate
from tests.service.programs import ringwheel, serve


async def refusal(dsn: str, *words: str) -> str:
    """What the node says when it does not start."""
    async with ringwheel(*serve(dsn), *words) as program:
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
