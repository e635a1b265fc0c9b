"""The embedded server, with real processes: whatever dies, the next start works, and nothing stays behind."""

import asyncio
import os
import select
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import pytest

from actors.core.errors import Misconfigured, Unavailable
from storage import binaries
from storage.binaries import Binaries
from storage.embedded import SURE, EmbeddedPostgres
from tests.support.as_nobody import as_nobody

ROOT = Path(__file__).resolve().parents[2]
END_S = 10
FOREIGN = Path("/usr")
"""A folder of root's, for whoever is not root."""


class Node:
    """A process that uses the folder."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def says(self, word: str) -> str:
        """The rest of the next line that has this word in it."""
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            async for line in self.process.stdout:
                before, found, rest = line.decode().partition(word)
                if found:
                    return rest.strip()
                assert "error" not in before, line
        raise AssertionError(f"the node ended without {word!r}")

    async def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(60):
            assert await self.process.wait() == 0

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def node(data: Path, wrap: Sequence[str] = ()) -> AsyncIterator[Node]:
    command = [*(wrap or (sys.executable,)), "-m", "tests.support.embedded_node", str(data)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=ROOT, start_new_session=True)
    try:
        yield Node(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def keeper_of(data: Path) -> int:
    return int((data / "keeper.lock").read_text())


def server_of(data: Path) -> int:
    return int((data / "pgdata" / "postmaster.pid").read_text().splitlines()[0])


@contextmanager
def end_of(*pids: int) -> Iterator[None]:
    """On leaving, wait until these processes have ended."""
    watched = [os.pidfd_open(pid) for pid in pids]
    try:
        yield
        for descriptor in watched:
            assert select.select([descriptor], [], [], END_S)[0], "still running"
    finally:
        for descriptor in watched:
            os.close(descriptor)


def left_of(data: Path) -> list[str]:
    """Command lines of the processes that were started for this folder or work in it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes()
            if str(data).encode() in words or str(data) in os.readlink(entry / "cwd"):
                found.append(words.replace(b"\0", b" ").decode())
        except OSError:
            continue  # no process, or one that has just ended, or a stranger's
    return found


async def query(server: EmbeddedPostgres, statement: str) -> object:
    connection = await asyncpg.connect(server.dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that was used before, to be copied: making one costs the most of a start."""
    data = tmp_path_factory.mktemp("made")

    async def use() -> None:
        async with EmbeddedPostgres(data) as server:
            await query(server, "CREATE TABLE kept AS SELECT 42 AS n")

    asyncio.run(use())
    return data


@pytest.fixture
def used(made_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_once, tmp_path / "data"))


async def test_starts_in_a_new_folder_and_leaves_nothing_running(tmp_path: Path) -> None:
    data = tmp_path / "not" / "there yet"
    async with EmbeddedPostgres(data) as server:
        assert await query(server, "SHOW fsync") == "on"
        assert await query(server, "SHOW listen_addresses") == ""
        assert await query(server, "SHOW data_checksums") == "on"
        assert await query(server, "SELECT current_database()") == "ringwheel"
        assert server.folder.sockets.stat().st_mode & 0o777 == 0o700
    assert left_of(data) == []


async def test_starts_again_with_what_was_there(used: Path) -> None:
    for _ in range(2):
        async with EmbeddedPostgres(used) as server:
            assert await query(server, "SELECT n FROM kept") == 42
    assert left_of(used) == []


@pytest.mark.parametrize("name", ["with a space", 'it\'s, "100 %"', "ünï", "long/" + "/".join(["x" * 60] * 3)])
async def test_any_path_will_do(made_once: Path, tmp_path: Path, name: str) -> None:
    data = Path(shutil.copytree(made_once, tmp_path / name))
    async with EmbeddedPostgres(data) as server:
        assert await query(server, "SELECT n FROM kept") == 42
        assert len(os.fsencode(server.folder.socket)) < 104
    assert left_of(data) == []
    assert not server.folder.sockets.exists()


async def test_two_starts_at_once_share_one_server(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with node(data) as one, node(data) as other:
        await one.says("ready")
        await other.says("ready")
        assert len([words for words in left_of(data) if "keeper.py" in words]) == 1
        keeper, server = keeper_of(data), server_of(data)
        await one.leave()
        await other.kill()
        with end_of(keeper, server):
            pass
    assert left_of(data) == []


async def test_the_server_stays_while_somebody_uses_it(used: Path) -> None:
    async with EmbeddedPostgres(used) as server:
        running = server_of(used)
        async with node(used) as brief:
            await brief.says("ready")
            await brief.leave()
        async with node(used) as killed:
            await killed.says("ready")
            await killed.kill()
        assert server_of(used) == running
        assert await query(server, "SELECT n FROM kept") == 42


async def test_who_leaves_last_does_not_wait_for_a_server_that_somebody_else_took_over(tmp_path: Path) -> None:
    """The next user comes before the keeper wakes up: it never does here, so that the moment can't be missed."""
    leaving = EmbeddedPostgres(tmp_path / "data")
    leaving.folder.prepare()
    keeper, hold = leaving.folder.try_keep(), leaving.folder.try_share()
    assert keeper is not None
    assert hold is not None
    leaving._hold = hold
    async with asyncio.timeout(END_S), asyncio.TaskGroup() as group:
        left = group.create_task(leaving.__aexit__(None, None, None))
        await asyncio.sleep(0)
        assert not left.done()
        other = leaving.folder.try_share()
        assert other is not None
        await left
    os.close(other)
    os.close(keeper)


async def test_who_leaves_last_waits_while_nobody_uses_the_server(tmp_path: Path) -> None:
    leaving = EmbeddedPostgres(tmp_path / "data")
    leaving.folder.prepare()
    keeper, hold = leaving.folder.try_keep(), leaving.folder.try_share()
    assert keeper is not None
    assert hold is not None
    leaving._hold = hold
    looks = 0
    used = leaving.folder.used

    def counted() -> bool:
        nonlocal looks
        looks += 1
        if looks == 3 * SURE:
            os.close(keeper)
        return used()

    leaving.folder.used = counted  # type: ignore[method-assign]
    async with asyncio.timeout(END_S):
        await leaving.__aexit__(None, None, None)
    assert looks == 3 * SURE


async def test_kill_of_the_last_user_stops_the_server(used: Path) -> None:
    async with node(used) as user:
        await user.says("ready")
        with end_of(keeper_of(used), server_of(used)):
            await user.kill()
    assert left_of(used) == []


@pytest.mark.parametrize("order", ["node keeper server", "server keeper node", "keeper server node", "keeper node"])
async def test_starts_after_everything_was_killed(used: Path, order: str) -> None:
    async with node(used) as user:
        await user.says("ready")
        pids = {"node": user.process.pid, "keeper": keeper_of(used), "server": server_of(used)}
        # All in one go: the keeper must not get its turn between two of the blows.
        for name in ["node", "keeper", "server"]:
            os.kill(pids[name], signal.SIGSTOP)
        with end_of(*(pids[name] for name in order.split())):
            for name in order.split():
                os.kill(pids[name], signal.SIGKILL)
        if "server" not in order:
            os.kill(pids["server"], signal.SIGCONT)
    async with EmbeddedPostgres(used) as server:
        assert await query(server, "SELECT n FROM kept") == 42
        assert server_of(used) != pids["server"]
    assert left_of(used) == []


async def test_a_stale_process_id_that_now_is_a_stranger_s_does_no_harm(used: Path) -> None:
    (used / "run").mkdir(mode=0o700, exist_ok=True)
    stale = f"{os.getpid()}\n{used}/pgdata\n1700000000\n5432\n{used}/run\n\n"
    (used / "pgdata" / "postmaster.pid").write_text(stale)
    (used / "run" / ".s.PGSQL.5432.lock").write_text(stale)
    async with EmbeddedPostgres(used) as server:
        assert await query(server, "SELECT n FROM kept") == 42


async def test_the_keeper_restarts_a_killed_server(used: Path) -> None:
    async with node(used) as user:
        await user.says("ready")
        keeper, killed = keeper_of(used), server_of(used)
        with end_of(killed):
            os.kill(killed, signal.SIGKILL)
        async with EmbeddedPostgres(used) as server:
            assert await query(server, "SELECT n FROM kept") == 42
            assert server_of(used) != killed
            assert keeper_of(used) == keeper


async def test_a_node_replaces_a_killed_keeper(used: Path) -> None:
    async with node(used) as user:
        await user.says("ready")
        killed = keeper_of(used)
        os.kill(killed, signal.SIGKILL)
        await user.says("keeper_replaced")
        assert keeper_of(used) != killed
        async with EmbeddedPostgres(used) as server:
            assert await query(server, "SELECT n FROM kept") == 42
        with end_of(keeper_of(used), server_of(used)):
            await user.kill()
    assert left_of(used) == []


async def test_ctrl_c_reaches_the_service_but_not_its_database(used: Path) -> None:
    async with node(used) as user:
        await user.says("ready")
        with end_of(keeper_of(used), server_of(used)):
            os.killpg(user.process.pid, signal.SIGINT)
            assert await user.says("flushed") == "1"
            assert user.process.stdin is not None
            user.process.stdin.close()
    assert left_of(used) == []


async def test_the_keeper_is_moved_by_no_signal_but_the_last(used: Path) -> None:
    async with EmbeddedPostgres(used) as server:
        keeper, running = keeper_of(used), server_of(used)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            os.kill(keeper, number)
        assert await query(server, "SELECT n FROM kept") == 42
        assert (keeper_of(used), server_of(used)) == (keeper, running)


async def test_an_ordinary_user_may_run_it() -> None:
    with tempfile.TemporaryDirectory() as folder, as_nobody(Path(folder)) as command:
        data = Path(folder) / "data"
        async with node(data, command) as user:
            await user.says("ready")
            with end_of(keeper_of(data), server_of(data)):
                await user.leave()
        assert left_of(data) == []


async def test_refuses_the_folder_of_another_user(tmp_path: Path) -> None:
    folder = FOREIGN
    if os.geteuid() == 0:
        folder = tmp_path / "foreign"
        folder.mkdir()
        os.chown(folder, 65534, 65534)
    with pytest.raises(Misconfigured, match=r"belongs to .* but ringwheel runs as"):
        async with EmbeddedPostgres(folder):
            pass


async def test_refuses_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(Misconfigured, match="can't be used"):
        async with EmbeddedPostgres(tmp_path / "data"):
            pass


async def test_refuses_data_of_a_version_that_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "pgdata").mkdir()
    (tmp_path / "pgdata" / "PG_VERSION").write_text("9\n")
    with pytest.raises(Misconfigured, match="PostgreSQL 9, which is not installed"):
        async with EmbeddedPostgres(tmp_path):
            pass


async def test_a_failing_initdb_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("postgres", "initdb"):
        (programs / name).write_text("#!/bin/sh\necho out of luck >&2\n[ $1 = --version ]\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(binaries, "find", lambda major: Binaries(programs, 18))
    with pytest.raises(Unavailable, match="out of luck"):
        async with EmbeddedPostgres(tmp_path / "data"):
            pass
    assert left_of(tmp_path / "data") == []
    assert not (tmp_path / "data" / "pgdata").exists()


async def test_a_server_that_refuses_to_start_is_told_in_its_own_words(used: Path) -> None:
    (used / "pgdata" / "postgresql.auto.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(Unavailable, match="no_such_setting"):
        async with EmbeddedPostgres(used):
            pass
    assert left_of(used) == []
