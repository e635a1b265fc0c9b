import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

import asyncpg
import pytest

from bench.proxy import COMMIT, Client, Proxy

INSERT = "INSERT INTO seen SELECT unnest($1::int4[]) RETURNING n"
CUT = (asyncpg.ConnectionDoesNotExistError, ConnectionError)


def message(letter: bytes, body: bytes) -> bytes:
    return letter + (len(body) + 4).to_bytes(4, "big") + body


START = message(b"", b"\0\3\0\0user\0me\0\0")
BIND = message(b"B", b"\0name\0and so on")
SYNC = message(b"S", b"")


def test_what_commits_is_known_byte_by_byte() -> None:
    client = Client({"mine": b"INTO seen"})
    words = b"".join(
        [
            *(START, message(b"Q", b"BEGIN;\0"), message(b"Q", b"COMMIT;\0")),
            *(message(b"P", b"name\0INSERT INTO seen\0\0\0"), SYNC, BIND, message(b"E", b""), SYNC),
            *(message(b"P", b"name\0SELECT 1\0\0\0"), BIND, SYNC),
        ]
    )
    assert [kind for byte in words for kind in client.feed(bytes([byte]))] == [COMMIT, "mine"]
    assert Client({"mine": b"INTO seen"}).feed(words) == [COMMIT, "mine"]


@pytest.fixture
async def proxy(empty_database_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the server of the run, and the DSN through it, with a table to write to."""
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute("CREATE TABLE seen (n int4)")
    await connection.close()
    found = re.fullmatch(r"postgresql://(\w+)@/(\w+)\?host=([^&]+)&port=(\d+)", empty_database_url)
    assert found is not None
    user, database, folder, port = found.groups()
    async with Proxy(Path(unquote(folder)) / f".s.PGSQL.{port}", {"mine": b"INTO seen"}) as proxy:
        yield proxy, proxy.dsn(user, database)


async def rows(dsn: str) -> list[int]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row[0] for row in await connection.fetch("SELECT n FROM seen ORDER BY n")]
    finally:
        await connection.close()


async def test_the_reply_to_a_commit_is_cut_and_the_row_is_there(
    proxy: tuple[Proxy, str], empty_database_url: str
) -> None:
    cutter, dsn = proxy
    cutter.wanted[COMMIT] = 1
    connection = await asyncpg.connect(dsn)
    with pytest.raises(CUT):
        async with connection.transaction():
            await connection.execute("INSERT INTO seen VALUES (1)")
    assert await rows(empty_database_url) == [1]
    assert cutter.cut == {COMMIT: 1}
    assert cutter.changed.is_set()


async def test_a_marked_statement_is_cut_every_second_time(proxy: tuple[Proxy, str], empty_database_url: str) -> None:
    cutter, dsn = proxy
    cutter.wanted["mine"] = 2
    for number in range(1, 5):
        connection = await asyncpg.connect(dsn)
        if number % 2:
            with pytest.raises(CUT):
                await connection.fetch(INSERT, [number])
        else:
            assert len(await connection.fetch(INSERT, [number])) == 1
            await connection.close()
    assert await rows(empty_database_url) == [1, 2, 3, 4]
    assert (cutter.cut["mine"], cutter.passed["mine"]) == (2, 2)


async def test_what_failed_is_passed_on(proxy: tuple[Proxy, str]) -> None:
    cutter, dsn = proxy
    connection = await asyncpg.connect(dsn)
    await connection.execute("ALTER TABLE seen ADD CHECK (n > 0)")
    cutter.wanted["mine"] = 1
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.fetch(INSERT, [-1])
    assert cutter.cut == {}
    await connection.close()
