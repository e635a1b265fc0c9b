"""Following a stream that breaks off."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web

from gateway.cli import follow as following
from gateway.cli.api import SUBPROTOCOL, Api, connected
from gateway.cli.exits import Refused, Unreachable
from gateway.cli.follow import Seen, follow

Script = list[dict[str, Any]]


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[tuple[Api, list[dict[str, Any]]]]:
    """A stream whose n-th connection hears one message, says its script and breaks off; then nobody is there."""
    heard: list[dict[str, Any]] = []
    left = list(scripts)

    async def stream(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(protocols=(SUBPROTOCOL,))
        await ws.prepare(request)
        heard.append(orjson.loads((await ws.receive()).data))
        for message in left.pop(0):
            await ws.send_json(message)
        if not left:
            await site.stop()
        assert request.transport is not None
        request.transport.close()
        return ws

    app = web.Application()
    app.router.add_get("/v1/stream", stream)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    try:
        await site.start()
        async with connected(f"http://127.0.0.1:{runner.addresses[0][1]}") as api:
            yield api, heard
    finally:
        await runner.cleanup()


def a_task(version: int, **more: Any) -> dict[str, Any]:
    return {"id": "t", "state": "running", "version": version} | more


async def collect(api: Api, wanted: dict[str, str], told: Script) -> None:
    async with aclosing(follow(api, [wanted])) as messages:
        async for message in messages:
            told.append(message)


async def test_it_goes_on_where_it_broke_off_and_gives_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "RECONNECT_S", (0.0, 0.0))
    snapshot = {"type": "snapshot", "sub": "0", "tasks": [], "cursor": "c1", "truncated": False}
    event = {"type": "event", "sub": "0", "cursor": "c2", "task": a_task(1)}
    told: Script = []
    async with scripted([snapshot], [event], []) as (api, heard):
        with pytest.raises(Unreachable):
            await collect(api, {"queue": "mail"}, told)
    assert told == [snapshot, event]
    subscribe = {"type": "subscribe", "sub": "0", "filter": {"queue": "mail"}}
    assert heard == [subscribe, subscribe | {"from": "c1"}, subscribe | {"from": "c2"}]


@pytest.mark.parametrize(
    ("problem", "code"), [("invalid", 2), ("not-supported", 2), ("overloaded", 1), ("conflict", 4), ("new", 2)]
)
async def test_a_refused_subscription_ends_it(problem: str, code: int) -> None:
    error = {"type": "error", "sub": "0", "problem": problem, "detail": "no"}
    async with scripted([error]) as (api, _):
        with pytest.raises(Refused, match="no") as refused:
            await collect(api, {"id": "x"}, [])
    assert refused.value.code == code


def test_what_was_seen_never_goes_back() -> None:
    seen = Seen()
    assert seen.take({"type": "event", "task": a_task(3)}) == [a_task(3)]
    assert seen.take({"type": "event", "task": a_task(3)}) == []
    assert seen.take({"type": "snapshot", "sub": "0", "tasks": [a_task(2)], "truncated": True}) == []
    assert seen.tasks["t"]["version"] == 3
    assert seen.note


def test_what_looks_the_same_is_told_once() -> None:
    """An attempt that runs for a while is told again once it is on record: nothing has changed for whoever looks on."""
    seen = Seen()
    first = a_task(3, attempt=1, time="2027-01-31T09:00:00.000Z", lateness_ms=1, next_attempt_time=None)
    claimed = first | {"version": 5, "time": "2027-01-31T09:00:00.500Z"}
    assert seen.take({"type": "event", "task": first}) == [first]
    assert seen.take({"type": "event", "task": claimed}) == []
    assert seen.tasks["t"] is claimed, "it goes on from there"
    for more in (
        {"attempt": 2},
        {"state": "scheduled", "next_attempt_time": "2027-01-31T10:00:00.000Z"},
        {"next_attempt_time": "2027-01-31T11:00:00.000Z"},
        {"last_attempt": {"error": "busy"}},
    ):
        claimed = claimed | {"version": claimed["version"] + 1} | more
        assert seen.take({"type": "event", "task": claimed}) == [claimed], more


def test_what_was_seen_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MOST_TASKS", 3)
    seen = Seen()
    for number, state in enumerate(("running", "dead", "running", "running", "running")):
        seen.take({"type": "event", "task": a_task(1, id=str(number), state=state)})
    assert list(seen.tasks) == ["2", "3", "4"]


def test_what_is_unknown_is_shown_no_more() -> None:
    seen = Seen()
    seen.take({"type": "event", "task": a_task(3)})
    assert seen.take({"type": "unknown", "sub": "0", "ids": ["t", "u"]}) == []
    assert (seen.tasks, "2 tasks" in seen.note) == ({}, True)


def test_what_was_not_told_is_noted() -> None:
    seen = Seen()
    seen.take({"type": "gap", "sub": "0", "reason": "conflated", "snapshot": False})
    assert seen.note == (
        "some changes were not shown, but the newest of each task is: more changed at once than could be told"
    )
    seen.take({"type": "gap", "sub": "0", "reason": "unknown-cursor", "snapshot": True})
    assert seen.note.startswith("some changes were not shown: the service was started anew")
    seen.take({"type": "gap", "sub": "0", "reason": "of later", "snapshot": True})
    assert "of later" in seen.note
    seen.take({"type": "error", "sub": "0", "detail": "no database"})
    assert seen.note == "no database"
