"""The schema and how it comes into a database."""

import asyncio

import asyncpg
import pytest

from actors.core.errors import Misconfigured, Unavailable
from storage import migrations
from storage.keys import PgKeyStore
from storage.migrations import VERSION, check_version, known, migrate
from storage.pool import Database


async def test_each_is_applied_once(empty_database_url: str) -> None:
    assert await migrate(empty_database_url) == [migration.name for migration in known()]
    assert await migrate(empty_database_url) == []


async def test_many_processes_may_migrate_at_once(empty_database_url: str) -> None:
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(migrate(empty_database_url)) for _ in range(5)]
    assert sorted(name for run in runs for name in run.result()) == sorted(migration.name for migration in known())


def test_versions_count_up_from_one() -> None:
    assert [migration.version for migration in known()] == list(range(1, VERSION + 1))


async def test_a_schema_that_needs_a_newer_program_is_refused(database_url: str, session: asyncpg.Connection) -> None:
    await session.execute("UPDATE cluster SET schema_version = $1, needs_program = $1", VERSION + 1)
    with pytest.raises(Misconfigured, match="newer than this program"):
        await migrate(database_url)
    with pytest.raises(Misconfigured, match="newer than this program"):
        async with Database(database_url, "boot-c"):
            pass


async def test_the_next_schema_is_fine_for_this_program(database_url: str, session: asyncpg.Connection) -> None:
    await session.execute("UPDATE cluster SET schema_version = $1", VERSION + 1)
    assert await migrate(database_url) == []
    async with Database(database_url, "boot-c") as db:
        assert db.shards == 256


async def test_an_older_schema_is_refused_at_the_start(session: asyncpg.Connection) -> None:
    await session.execute("UPDATE cluster SET schema_version = $1", VERSION - 1)
    with pytest.raises(Misconfigured, match="ringwheel migrate"):
        await check_version(session)


async def test_a_lost_cluster_row_is_refused(session: asyncpg.Connection) -> None:
    await session.execute("DELETE FROM cluster")
    with pytest.raises(Misconfigured, match="backup"):
        await check_version(session)


async def test_an_operators_key_still_opens_what_is_of_all_and_a_tenants_does_not(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(migrations, "known", lambda: known()[:6])
        before.setattr(migrations, "VERSION", 6)
        await migrate(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.executemany(
            "INSERT INTO api_keys (created_ms, prefix, tenant, name, hash, scopes) VALUES (1, $1, $2, '', $3, $4)",
            [
                (name.ljust(12, "0"), tenant, bytes(32), ["read", scope])
                for name, tenant, scope in (("a", "default", "admin"), ("b", "default", "work"), ("c", "acme", "admin"))
            ],
        )
        await migrate(empty_database_url)
        assert await connection.fetchval("SELECT keys_version FROM cluster") == 1, "nodes look at the keys again"
    finally:
        await connection.close()
    async with Database(empty_database_url, "boot-c") as database:
        scopes = {key.prefix[0]: set(key.scopes) for key in await PgKeyStore(database).known()}
    assert scopes == {"a": {"read", "admin", "metrics", "operate"}, "b": {"read", "work"}, "c": {"read", "admin"}}


@pytest.mark.parametrize("shards", [1, 32, 1_024])
async def test_a_new_cluster_has_as_many_shards_as_it_is_told(empty_database_url: str, shards: int) -> None:
    await migrate(empty_database_url, shards)
    assert await migrate(empty_database_url) == [], "later nobody need say it"
    assert await migrate(empty_database_url, shards) == []
    async with Database(empty_database_url, "boot-c") as db, db.reads.use() as connection:
        assert db.shards == shards
        assert await connection.fetchval("SELECT count(*) FROM shards") == shards


async def test_a_cluster_keeps_its_shards(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who wishes for others is refused before anything else is changed."""
    with monkeypatch.context() as before:
        before.setattr(migrations, "known", lambda: known()[:2])
        before.setattr(migrations, "VERSION", 2)
        await migrate(empty_database_url, 32)
    with pytest.raises(Misconfigured, match="has 32 shards, and keeps them"):
        await migrate(empty_database_url, 64)
    connection = await asyncpg.connect(empty_database_url)
    try:
        assert await connection.fetchval("SELECT array_agg(version ORDER BY version) FROM migrations") == [1, 2]
    finally:
        await connection.close()
    assert len(await migrate(empty_database_url)) == VERSION - 2


async def test_of_two_that_begin_a_cluster_at_once_one_has_its_way(empty_database_url: str) -> None:
    refused: list[Misconfigured] = []

    async def begin(shards: int) -> None:
        try:
            await migrate(empty_database_url, shards)
        except Misconfigured as error:
            refused.append(error)

    async with asyncio.TaskGroup() as group:
        for shards in (32, 64):
            group.create_task(begin(shards))
    assert len(refused) == 1
    async with Database(empty_database_url, "boot-c") as db:
        assert f"has {db.shards} shards" in str(refused[0])


async def test_no_server_is_unavailable(tmp_path: object) -> None:
    with pytest.raises(Unavailable):
        await migrate(f"postgresql://nobody@/nowhere?host={tmp_path}")


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("ALTER DATABASE {name} SET synchronous_commit = off", "synchronous_commit is off"),
        ("UPDATE pg_database SET encoding = 0 WHERE datname = '{name}'", "encoding is SQL_ASCII"),
    ],
)
async def test_a_server_that_the_service_refuses_is_left_as_it_is(
    empty_database_url: str, statement: str, why: str
) -> None:
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute(statement.format(name=await connection.fetchval("SELECT current_database()")))
        with pytest.raises(Misconfigured, match=why):
            await migrate(empty_database_url)
        assert await connection.fetchval("SELECT to_regclass('migrations')") is None
    finally:
        await connection.close()


async def test_there_is_a_row_for_every_shard(session: asyncpg.Connection) -> None:
    assert await session.fetchval("SELECT array_agg(shard ORDER BY shard) FROM shards") == list(range(256))


async def test_nothing_that_a_distributed_engine_would_lack(session: asyncpg.Connection) -> None:
    ours = "SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    assert await session.fetchval(f"SELECT count(*) FROM pg_class WHERE relkind = 'S' AND oid IN ({ours})") == 0
    assert await session.fetchval("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") == 0
    assert await session.fetchval(f"SELECT count(*) FROM pg_trigger WHERE tgrelid IN ({ours})") == 0
