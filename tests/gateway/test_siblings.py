"""Processes that are kept running, with scripts in the place of nodes."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from gateway import siblings
from gateway.settings import DevSettings, ServeSettings
from gateway.siblings import Siblings, siblings_of, words

NODE = ServeSettings("postgresql://db", port=7071, grace_s=0.0)
LIMIT_S = 30.0


class Warnings:
    """What is told of."""

    def __init__(self, most: int) -> None:
        self.told: list[dict[str, Any]] = []
        self.enough = asyncio.Event()
        self._most = most

    def warning(self, words: str, **fields: Any) -> None:
        self.told.append({"words": words, **fields})
        if len(self.told) >= self._most:
            self.enough.set()


def script(monkeypatch: pytest.MonkeyPatch, text: str, most: int = 1) -> Warnings:
    """Processes run this instead of a node."""
    warnings = Warnings(most)
    monkeypatch.setattr(siblings, "SERVE", ("-c", f"import os, signal, sys, time\n{text}"))
    monkeypatch.setattr(siblings, "log", warnings)
    return warnings


def test_further_nodes_have_the_ports_after_the_first() -> None:
    settings = DevSettings(Path("data"), port=7070, nodes=3)
    assert [node.port for node in siblings_of(settings, "postgresql://db")] == [7071, 7072]
    assert [node.url for node in siblings_of(settings, "x")] == ["http://127.0.0.1:7071", "http://127.0.0.1:7072"]
    assert siblings_of(DevSettings(Path("data")), "postgresql://db") == []
    free = [node.port for node in siblings_of(DevSettings(Path("data"), port=0, nodes=3), "x")]
    assert len(set(free)) == 2
    assert 0 not in free


def test_what_they_are_told() -> None:
    [node] = siblings_of(DevSettings(Path("data"), nodes=2), "postgresql://db")
    found = words(node)
    assert found[:6] == ["--database-url", "postgresql://db", "--bind", "127.0.0.1", "--port", "7071"]
    assert found[6:] == ["--grace", "5", "--allow-target", "127.0.0.0/8", "--allow-target", "::1/128"]


async def test_one_that_ends_is_started_again_after_pauses_that_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(siblings, "LONGEST_PAUSE_S", 0.04)
    warnings, stopping = script(monkeypatch, "sys.exit(3)", most=4), asyncio.Event()
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        group.create_task(Siblings([NODE], stopping).run())
        await warnings.enough.wait()
        stopping.set()
    reasons = [told["reason"] for told in warnings.told[:4]]
    assert reasons == [f"exit code 3, in {pause} s" for pause in ("0.01", "0.02", "0.04", "0.04")]
    assert {told["url"] for told in warnings.told} == {NODE.url}


async def test_one_that_lasted_is_started_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(siblings, "STEADY_S", 0.0)
    warnings, stopping = script(monkeypatch, "sys.exit(3)", most=3), asyncio.Event()
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        group.create_task(Siblings([NODE], stopping).run())
        await warnings.enough.wait()
        stopping.set()
    assert {told["reason"] for told in warnings.told} == {"exit code 3, in 0.01 s"}


async def started(made: str) -> None:
    """Wait until the script has made this file."""
    async with asyncio.timeout(LIMIT_S):
        while not os.path.exists(made):  # noqa: ASYNC110, ASYNC240 - the event is another process's
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_all_end_when_they_are_let_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cancelled: bool) -> None:
    text = f"open({str(tmp_path)!r} + '/up', 'w'); sys.stdin.read(); open({str(tmp_path)!r} + '/left', 'w')"
    warnings, stopping = script(monkeypatch, text), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(Siblings([NODE], stopping).run())
        await started(f"{tmp_path}/up")
        if cancelled:
            running.cancel()
        else:
            stopping.set()
    assert sorted(os.listdir(tmp_path)) == ["left", "up"], "it was waited for"
    assert warnings.told == []


async def test_one_that_does_not_leave_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(siblings, "END_S", 0.05)
    text = f"open({str(tmp_path)!r} + '/up', 'w')\nwhile True: signal.pause()"
    warnings, stopping = script(monkeypatch, text), asyncio.Event()
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        group.create_task(Siblings([NODE], stopping).run())
        await started(f"{tmp_path}/up")
        stopping.set()
    assert [told["words"] for told in warnings.told] == ["a node did not end in time; it is killed"]


async def test_none_is_started_once_it_is_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script(monkeypatch, f"open({str(tmp_path)!r} + '/up', 'w')")
    stopping = asyncio.Event()
    stopping.set()
    await Siblings([NODE], stopping).run()
    assert os.listdir(tmp_path) == []
