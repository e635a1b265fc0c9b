"""Connections: settings, start-up checks, outages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from actors.core.errors import Misconfigured, Unavailable
from storage.outcry import Outcry
from storage.pool import INTAKE, LEASES, LOADS, READS, Database, Line
from storage.sessions import check_direct, check_server, prepare
from tests.storage.home import LIMIT_S, Home, Watch

SLEEP = "SELECT pg_sleep(60)"


async def pid_of(line: Line) -> int:
    async with line.use() as connection:
        return int(await connection.fetchval("SELECT pg_backend_pid()"))


async def test_every_connection_bears_the_name_of_its_boot(home: Home, watch: Watch) -> None:
    names = await watch.value(
        "SELECT array_agg(DISTINCT application_name::text) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name LIKE 'ringwheel%'"
    )
    assert names == ["ringwheel:boot-a"]


@pytest.mark.parametrize("session", [INTAKE, LEASES, LOADS, READS], ids=lambda session: session.purpose)
async def test_settings_are_made_once_for_each_connection(home: Home, session: Any) -> None:
    line = next(line for line in home.db._lines if line._session is session)
    async with line.use() as connection:
        for name, value in session.settings("ringwheel:boot-a").items():
            shown = await connection.fetchval("SELECT setting FROM pg_settings WHERE name = $1", name)
            assert shown == value.removesuffix("ms")


async def test_a_new_name_is_borne_by_later_statements(home: Home) -> None:
    before = await pid_of(home.db.ledger)
    await home.db.rename("boot-z")
    async with home.db.ledger.use() as connection:
        assert await connection.fetchval("SELECT current_setting('application_name')") == "ringwheel:boot-z"
    assert await pid_of(home.db.ledger) != before


async def test_purposes_do_not_wait_for_each_other(home: Home) -> None:
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        readers = [group.create_task(_run(home.db.reads, SLEEP)) for _ in range(READS.size)]
        for line in (home.db.intake, home.db.keyed, home.db.ledger, home.db.leases, home.db.loads):
            assert await pid_of(line)
        for reader in readers:
            reader.cancel()


async def _run(line: Line, statement: str) -> Any:
    async with line.use() as connection:
        return await connection.fetchval(statement)


async def test_a_session_that_was_ended_is_replaced(home: Home, session: asyncpg.Connection) -> None:
    ended = asyncio.Event()
    async with home.db.ledger.use() as connection:
        before = await connection.fetchval("SELECT pg_backend_pid()")
        connection._con.add_termination_listener(lambda _: ended.set())
    await session.execute("SELECT pg_terminate_backend($1, 10000)", before)
    await ended.wait()  # the server's last words come before the end of the connection
    assert await pid_of(home.db.ledger) != before


async def test_a_session_may_end_just_as_it_is_given_back(home: Home) -> None:
    async with home.db.ledger.use() as connection:
        before = await connection.fetchval("SELECT pg_backend_pid()")
        asyncio.get_running_loop().call_soon(connection._con.terminate)
    assert await pid_of(home.db.ledger) != before


async def test_a_statement_whose_session_ends_under_it_is_unavailable(home: Home, session: asyncpg.Connection) -> None:
    pid = await pid_of(home.db.ledger)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(_unavailable(home.db.ledger))
        await _until_active(session, pid)
        await session.execute("SELECT pg_terminate_backend($1)", pid)
    assert running.result()
    assert await pid_of(home.db.ledger) != pid


async def _unavailable(line: Line) -> bool:
    with pytest.raises(Unavailable):
        await _run(line, SLEEP)
    return True


async def _until_active(session: asyncpg.Connection, pid: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not await session.fetchval("SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $1", pid):
            pass


async def test_the_server_gives_a_statement_up_in_time(home: Home) -> None:
    async with home.db.reads.use() as connection:
        await connection.execute("SET statement_timeout = '20ms'")
    with pytest.raises(Unavailable, match="QueryCanceled"):
        await _run(home.db.reads, SLEEP)


async def test_a_cancelled_statement_takes_its_session_with_it(home: Home, session: asyncpg.Connection) -> None:
    pid = await pid_of(home.db.ledger)
    running = asyncio.TaskGroup()
    async with running as group:
        task = group.create_task(_run(home.db.ledger, SLEEP))
        await _until_active(session, pid)
        task.cancel()
    assert await pid_of(home.db.ledger) != pid


async def test_a_fault_of_the_program_is_no_outage_and_keeps_the_session(home: Home) -> None:
    pid = await pid_of(home.db.ledger)
    with pytest.raises(asyncpg.UndefinedTableError):
        await _run(home.db.ledger, "SELECT * FROM nowhere")
    assert await pid_of(home.db.ledger) == pid


async def test_leaving_does_not_wait_for_a_statement(database_url: str, session: asyncpg.Connection) -> None:
    async with asyncio.TaskGroup() as group:
        async with Database(database_url, "boot-c") as db:
            pid = await pid_of(db.reads)
            running = group.create_task(_unavailable(db.reads))
            await _until_active(session, pid)
        assert await running


async def test_no_server_is_unavailable_and_soon_asked_again(tmp_path: Any) -> None:
    async with Line(f"postgresql://nobody@/nowhere?host={tmp_path}", INTAKE, "ringwheel:x") as line:
        with pytest.raises(Unavailable) as first:
            await _run(line, "SELECT 1")
        with pytest.raises(Unavailable, match="a moment ago") as second:
            await _run(line, "SELECT 1")
    assert "FileNotFoundError" in str(first.value)
    assert 1 <= second.value.retry_after_ms <= 51


async def test_a_connection_that_ends_while_it_is_set_up_is_unavailable(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ends(*_: object) -> None:
        raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")

    monkeypatch.setattr("storage.pool.prepare", ends)
    await home.db.reads.expire()
    with pytest.raises(Unavailable):
        await pid_of(home.db.reads)


async def test_no_such_database_is_a_matter_of_the_settings(database_url: str, session: asyncpg.Connection) -> None:
    name = await session.fetchval("SELECT current_database()::text")
    with pytest.raises(Misconfigured, match="does not exist"):
        async with Database(database_url.replace(name, f"{name}_x"), "boot-c"):
            pass


@pytest.fixture
async def role(session: asyncpg.Connection) -> AsyncIterator[str]:
    """A role of this test's own that may do everything."""
    name = f"role_{session.get_server_pid()}"
    await session.execute(f"CREATE ROLE {name} LOGIN SUPERUSER")
    yield name
    await session.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = $1", name)
    await session.execute(f"DROP ROLE {name}")


async def test_a_login_that_is_refused_later_on_is_an_outage(
    database_url: str, session: asyncpg.Connection, role: str
) -> None:
    dsn = database_url.replace("ringwheel@", f"{role}@")
    async with Database(dsn, "boot-r") as db:
        await session.execute(f"ALTER ROLE {role} NOLOGIN")
        await db.leases.expire()
        with pytest.raises(Unavailable, match="is not permitted to log in"):
            await pid_of(db.leases)
        with pytest.raises(Misconfigured, match="is not permitted to log in"):
            await Database(dsn, "boot-s").__aenter__()
        await session.execute(f"ALTER ROLE {role} LOGIN")
        assert await _once_back(db.leases)


async def _once_back(line: Line) -> int:
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                return await pid_of(line)
            except Unavailable:
                await asyncio.sleep(0)


async def test_settings_that_do_not_stay_later_on_are_an_outage(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forgets(*_: object) -> None:
        raise Misconfigured("a pooler shares sessions")

    monkeypatch.setattr("storage.pool.prepare", forgets)
    await home.db.reads.expire()
    with pytest.raises(Unavailable, match="a pooler shares sessions"):
        await pid_of(home.db.reads)


async def test_a_database_without_the_schema_is_refused(empty_database_url: str) -> None:
    with pytest.raises(Misconfigured, match="ringwheel migrate"):
        async with Database(empty_database_url, "boot-c"):
            pass


class Server:
    """A connection to a server that is set up in some way."""

    def __init__(self, **shown: object) -> None:
        good = {"version": 140_000, "fsync": "on", "commits": "on", "encoding": "UTF8", "standby": False}
        self._shown = good | shown

    async def fetchrow(self, _: str) -> dict[str, object]:
        return self._shown


@pytest.mark.parametrize(
    ("shown", "word"),
    [
        ({"version": 130_012}, "PostgreSQL 14"),
        ({"standby": True}, "standby"),
        ({"fsync": "off"}, "fsync"),
        ({"commits": "off"}, "synchronous_commit"),
        ({"encoding": "SQL_ASCII"}, "UTF8"),
    ],
)
async def test_a_server_that_cannot_keep_the_promises_is_refused(shown: dict[str, object], word: str) -> None:
    with pytest.raises(Misconfigured, match=word):
        await check_server(Server(**shown))


async def test_a_good_server_is_taken(session: asyncpg.Connection) -> None:
    for commits in ("on", "local", "remote_write", "remote_apply"):
        await check_server(Server(commits=commits))
    await check_server(session)


async def test_synchronous_commit_off_for_the_database_is_found(database_url: str, session: asyncpg.Connection) -> None:
    name = await session.fetchval("SELECT current_database()")
    await session.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    with pytest.raises(Misconfigured, match="synchronous_commit"):
        async with Database(database_url, "boot-c"):
            pass


async def test_direct_connections_pass(database_url: str, session: asyncpg.Connection) -> None:
    second = await asyncpg.connect(database_url)
    await check_direct(session, second)
    second.terminate()


class Pooled:
    """A client of a pooler in transaction mode: each transaction gets the session that was used last and is free."""

    def __init__(self, free: list[int]) -> None:
        self._free = free
        self._held: int | None = None

    async def fetchval(self, _: str) -> int:
        return self._free[-1] if self._held is None else self._held

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        self._held = self._free.pop()
        yield
        self._free.append(self._held)
        self._held = None


async def test_a_pooler_in_transaction_mode_is_refused() -> None:
    free = [11, 12, 13]
    with pytest.raises(Misconfigured, match="transaction mode"):
        await check_direct(Pooled(free), Pooled(free))


async def test_a_pooler_that_turns_sessions_round_is_refused() -> None:
    first, second = [11, 12, 13], [14]
    client = Pooled(first)
    taken = Pooled(second)

    class Turning(Pooled):
        async def fetchval(self, _: str) -> int:
            self._free.insert(0, self._free.pop())
            return self._free[0]

    await check_direct(client, taken)
    with pytest.raises(Misconfigured, match="transaction mode"):
        await check_direct(Turning(first), taken)


async def test_settings_that_do_not_stay_are_refused() -> None:
    class Forgetful:
        async def execute(self, *_: object) -> None: ...

        async def fetch(self, _: str, names: list[str]) -> list[dict[str, str]]:
            return [{"name": name, "value": "0"} for name in names]

    with pytest.raises(Misconfigured, match="did not stay"):
        await prepare(Forgetful(), INTAKE, "ringwheel:x")


async def test_what_is_refused_to_a_role_is_a_matter_of_the_settings_or_in_a_service_an_outage(
    database_url: str, session: asyncpg.Connection, role: str
) -> None:
    dsn = database_url.replace("ringwheel@", f"{role}@")
    async with Database(dsn, "boot-r") as once, Database(dsn, "boot-s", Outcry(dsn)) as service:
        await session.execute(f"ALTER ROLE {role} NOSUPERUSER")
        with pytest.raises(Misconfigured, match=f"belong to the role ringwheel, not to {role}"):
            await _run(once.reads, "SELECT * FROM tasks")
        with pytest.raises(Unavailable, match="permission denied"):
            await _run(service.reads, "SELECT * FROM tasks")
        await session.execute(f"ALTER ROLE {role} SUPERUSER")
        assert await _run(service.reads, "SELECT count(*) FROM tasks") == 0
