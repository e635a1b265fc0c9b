"""The service for users' tests: started, asked, ended."""

import os
import select
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from fake_service import answering
from ringwheel import Client, Invalid, RingwheelError
from ringwheel.testing import DevServer

END_S = 60.0


async def test_a_real_one_takes_tasks(ringwheel_server: DevServer) -> None:
    async with Client(ringwheel_server.url) as client:
        task = await client.submit("waits", {"a": 1}, delay=3600)
        assert (await client.get(task.id)).payload == {"a": 1}


async def test_time_passes_at_once() -> None:
    asked: list[object] = []

    async def advance(request: web.Request) -> web.StreamResponse:
        asked.append((request.path, msgspec.json.decode(await request.read())))
        return web.json_response({"time": "2027-01-31T09:00:00.000Z"})

    server = DevServer()
    async with answering(advance) as server.url:
        assert await server.advance(3600) == datetime(2027, 1, 31, 9, tzinfo=UTC)
    assert asked == [("/v1/clock:advance", {"by": 3600})]


async def test_time_that_can_t_pass_is_refused_in_words() -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.json_response({"title": "No", "detail": "the clock does not go back"}, status=422)

    server = DevServer()
    async with answering(refuse) as server.url:
        with pytest.raises(Invalid, match=r"^422 No: the clock does not go back$"):
            await server.advance(-1)
        with pytest.raises(ValueError, match=r"^advance\(seconds\): expected a finite number"):
            await server.advance(float("nan"))


def test_a_command_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("RINGWHEEL_COMMAND", raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(RingwheelError, match="RINGWHEEL_COMMAND"), DevServer():
        pass


def test_a_command_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGWHEEL_COMMAND", f"{shlex.quote(sys.executable)} -c \"print('no such thing')\"")
    server = DevServer()
    with pytest.raises(RingwheelError, match="no such thing"), server:
        pass
    assert server.url == ""


KILLED = """
import sys
from ringwheel.testing import DevServer
server = DevServer()
server.start()
print(server._process.pid, server._folder.name, flush=True)
sys.stdin.read()
"""


def left_of(folder: str) -> list[bytes]:
    """Command lines of the processes that use this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it has just ended
        if folder.encode() in words:
            found.append(words)
    return found


def test_it_ends_with_a_process_that_is_killed() -> None:
    words = [sys.executable, "-c", KILLED]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        pid, folder = tests.stdout.readline().split()
        assert left_of(folder) != []
        server = os.pidfd_open(int(pid))
        try:
            tests.kill()
            assert select.select([server], [], [], END_S)[0], "the server goes on"
        finally:
            os.close(server)
    assert left_of(folder) == []
    assert not Path(folder).exists()
