"""`ringwheel dev`, as a developer meets it."""

import asyncio
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.service.api import Api
from tests.service.programs import LIMIT_S, RINGWHEEL, URL, Program, ringwheel


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


async def shell(command: str) -> list[Any]:
    """The JSON documents that a command line prints, one a line."""
    process = await asyncio.create_subprocess_shell(
        command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(LIMIT_S):
        out, _ = await process.communicate()
    assert process.returncode == 0, command
    return [orjson.loads(line) for line in out.splitlines()]


async def interrupted(program: Program, data: Path) -> None:
    """Ctrl-C: it ends, and so does all that it started."""
    program.signal(signal.SIGINT)
    assert await program.ended() == 0
    assert left_of(data) == []


async def test_from_the_first_start_to_the_second(tmp_path: Path) -> None:
    data = tmp_path / "data"
    words = ("dev", "--data", str(data), "--port", "0")
    async with ringwheel(*words) as program, aiohttp.ClientSession() as session:
        api = Api((await program.says(f"ready at +{URL}"))[1], session)
        curl = (await program.says(r"Try: +(curl .*)\n"))[1]
        [task] = await shell(curl)
        assert task["http"]["url"].startswith((await program.says(f"target is at +{URL}"))[1])
        assert (await api.wait(task["id"]))["state"] == "succeeded"
        shown = re.findall(r"\n +(.*ringwheel (?:list|watch).*)", program.output)
        listing, _ = shown
        assert task["id"] in {listed["id"] for listed in await shell(f"{listing} --json")}
        assert all(f"--url {api.url}" in line for line in shown), "it is not at the usual port"
        future = await api.submit(delay="5d", payload="kept")
        assert left_of(data) != []
        await interrupted(program, data)
    async with ringwheel(*words, "--no-demo") as program, aiohttp.ClientSession() as session:
        api = Api((await program.says(f"ready at +{URL}"))[1], session)
        assert (await api.get(task["id"]))["state"] == "succeeded"
        assert (await api.get(future["id"], "?view=full"))["payload"] == "kept"
        before = {listed["id"] for listed in await api.listed(queue="demo")}
        mine = await api.submit(queue="pulled", ttl=0.3)
        assert (await api.wait(mine["id"]))["state"] == "expired"
        assert {listed["id"] for listed in await api.listed(queue="demo")} == before, "no tasks but mine"
        assert f"watch --queue default --url {api.url}" in program.output
        await interrupted(program, data)


@pytest.mark.timeout(60)
async def test_interrupted_while_it_starts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with ringwheel("dev", "--data", str(data), "--port", "0") as program:
        while not left_of(data / "pgdata"):  # the database cluster is being made
            pass
        program.signal(signal.SIGINT)
        await program.ended()
    while left_of(data):
        pass
    async with ringwheel("dev", "--data", str(data), "--port", "0", "--json") as program:
        await program.says('"event": "the webhook target listens"')
        await interrupted(program, data)
        assert {"listening", "the webhook target listens"} <= {
            orjson.loads(line)["event"] for line in program.output.splitlines()
        }


async def ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientConnectionError:
        return False


async def test_nothing_that_it_says_can_be_written(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ("dev", "--data", str(data), "--port", str(port))
    full = os.open("/dev/full", os.O_WRONLY)
    process = await asyncio.create_subprocess_exec(
        RINGWHEEL, *words, stdin=asyncio.subprocess.DEVNULL, stdout=full, stderr=full, start_new_session=True
    )
    os.close(full)
    try:
        async with aiohttp.ClientSession() as session:
            api = Api(f"http://127.0.0.1:{port}", session)
            async with asyncio.timeout(LIMIT_S):
                while not await ready(session, api.url):
                    pass
            task = await api.submit(ttl=0.1)
            assert (await api.wait(task["id"]))["state"] == "expired"
        await interrupted(Program(process), data)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def nodes_of(pid: int) -> dict[int, int]:
    """Port -> process id of the further nodes that this process has started."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue  # no process, or one that has just ended
        if parent == pid and b"--attached" in words:
            found[int(words[words.index(b"--port") + 1])] = int(entry.name)
    return found


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.timeout(120)
async def test_several_nodes(tmp_path: Path) -> None:
    """One database and three processes: any answers for all, one that dies comes back, and all end together."""
    data = tmp_path / "data"
    words = ("dev", "--data", str(data), "--port", "0", "--nodes", "3", "--no-demo")
    async with ringwheel(*words) as program, aiohttp.ClientSession() as session:
        target = (await program.says(f"target is at +{URL}"))[1]
        urls = re.findall(rf"(?:ready|another node is) at +{URL}", program.output)
        apis = [Api(url, session) for url in urls]
        first = nodes_of(program.pid)
        assert {f"http://127.0.0.1:{port}" for port in first} == set(urls[1:])
        for api in apis:
            task = await api.submit(http={"url": f"{target}/ok"})
            assert (await api.wait(task["id"]))["state"] == "succeeded"
        future = await apis[1].submit(delay="5d")
        assert [(await api.get(future["id"]))["state"] for api in apis] == ["scheduled"] * 3
        port, victim = next(iter(first.items()))
        os.kill(victim, signal.SIGKILL)
        await program.says("a node ended; it is started again.*exit code -9")
        async with asyncio.timeout(LIMIT_S):
            while not await ready(session, f"http://127.0.0.1:{port}"):
                pass
        second = nodes_of(program.pid)
        assert second.keys() == first.keys()
        assert second[port] != victim
        await interrupted(program, data)
        assert not any(alive(pid) for pid in second.values())
    async with ringwheel(*words) as program, aiohttp.ClientSession() as session:
        await program.says(f"target is at +{URL}")
        api = Api(re.findall(f"another node is at +{URL}", program.output)[0], session)
        assert (await api.get(future["id"]))["state"] == "scheduled"
        left = nodes_of(program.pid)
        await program.killed()
        while any(alive(pid) for pid in left.values()) or left_of(data):
            pass


async def test_more_nodes_than_ports(tmp_path: Path) -> None:
    async with ringwheel("dev", "--data", str(tmp_path / "data"), "--port", "65534", "--nodes", "3") as program:
        assert await program.ended() == 2
        await program.heard.wait()
        assert "no 3 ports from 65534 on" in program.output
