"""Watching: cursors, gaps, broken connections, refusals; the service says what a test's script says."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import chain, repeat
from typing import Any

import msgspec
import pytest
from aiohttp import web

from fake_service import answering
from ringwheel import Change, Client, Forbidden, Gap, Invalid, NotFound, Unauthenticated, Unavailable

Message = dict[str, Any]
Script = Callable[[web.WebSocketResponse, Message], Any]


def shown(task_id: str, version: int, state: str = "scheduled") -> Message:
    time = "2027-01-31T09:00:00.000Z"
    return {"id": task_id, "queue": "q", "state": state, "schedule_time": time, "time": time, "version": version}


def event(cursor: str, task: Message) -> Message:
    return {"type": "event", "sub": "1", "cursor": cursor, "task": task}


def snapshot(cursor: str, *tasks: Message, truncated: bool = False) -> Message:
    return {"type": "snapshot", "sub": "1", "cursor": cursor, "tasks": tasks, "truncated": truncated}


@asynccontextmanager
async def saying(*scripts: list[Message] | int, asked: list[Message] | None = None) -> AsyncIterator[Client]:
    """A client of a service that says one script a connection, then ends it; the last one over and over.

    A number: the connection ends with this close code, or, below 1000, does not come about.
    """
    order = chain(scripts, repeat(scripts[-1]))

    async def handle(request: web.Request) -> web.StreamResponse:
        script = next(order)
        if isinstance(script, int) and script < 1000:
            return web.Response(status=script)
        ws = web.WebSocketResponse(protocols=("ringwheel.v1.json",))
        await ws.prepare(request)
        subscribe = await ws.receive_json()
        if asked is not None:
            asked.append(subscribe)
        if isinstance(script, int):
            await ws.close(code=script, message=b"because")
            return ws
        for message in script:
            await ws.send_str(msgspec.json.encode(message).decode())
        await ws.close()
        return ws

    async with answering(handle) as url, Client(url, patience=5) as client:
        yield client


async def heard(client: Client, count: int, **wanted: Any) -> list[Change | Gap]:
    told = []
    async for one in client.watch(**wanted):
        told.append(one)
        if len(told) == count:
            break
    return told


async def test_it_goes_on_where_it_was() -> None:
    asked: list[Message] = []
    first = [snapshot("c1", shown("a", 1)), event("c2", shown("a", 2, "running"))]
    second = [{"type": "resumed", "sub": "1", "cursor": "c2"}, event("c3", shown("a", 3, "succeeded"))]
    async with saying(first, 503, second, asked=asked) as client:
        told = await heard(client, 3, queue="q", labels={"k": "v"})
    assert [(one.version, one.cursor, one.snapshot) for one in told if isinstance(one, Change)] == [
        (1, "c1", True),
        (2, "c2", False),
        (3, "c3", False),
    ]
    assert isinstance(told[-1], Change)
    assert told[-1].finished
    wanted = {"type": "subscribe", "sub": "1", "filter": {"queue": "q", "labels": {"k": "v"}}}
    assert asked == [wanted, wanted | {"from": "c2"}]


async def test_a_cursor_may_be_given() -> None:
    asked: list[Message] = []
    async with saying([event("c8", shown("a", 8))], asked=asked) as client:
        await heard(client, 1, task_id="a", cursor="c7")
    assert (asked[0]["from"], asked[0]["filter"]) == ("c7", {"id": "a"})


async def test_what_was_not_told_is_told_as_a_gap() -> None:
    gap = {"type": "gap", "sub": "1", "reason": "overrun", "snapshot": True}
    passing = {"type": "error", "sub": "1", "problem": "unavailable", "detail": "later"}
    async with saying([gap, passing, snapshot("c1", shown("a", 5), truncated=True)]) as client:
        told = await heard(client, 3, queue="q")
    assert told[0] == Gap(reason="overrun", snapshot=True)
    assert isinstance(told[1], Change)
    assert told[2] == Gap(reason="truncated")


async def test_a_refused_connection_is_told_in_the_service_s_words() -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.json_response({"title": "Not allowed", "detail": "the key lacks the scope read"}, status=403)

    async with answering(refuse) as url, Client(url) as client:
        with pytest.raises(Forbidden, match=r"^403 Not allowed: the key lacks the scope read$"):
            await heard(client, 1, queue="q")


@pytest.mark.parametrize("second", [200, 404])
async def test_a_refusal_without_words_is_told_by_its_status(second: int) -> None:
    statuses = iter((403, second))

    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=next(statuses))

    async with answering(refuse) as url, Client(url) as client:
        with pytest.raises(Forbidden, match=r"^403 No websocket here: the service, or a proxy, refuses it$"):
            await heard(client, 1, queue="q")


@pytest.mark.parametrize(
    ("script", "leaf"),
    [
        (4401, Unauthenticated),
        (4403, Forbidden),
        (403, Forbidden),
        ([{"type": "error", "sub": "1", "problem": "invalid", "detail": "no", "errors": []}], Invalid),
        (
            [
                {
                    "type": "error",
                    "problem": "invalid",
                    "detail": "no",
                    "errors": [{"pointer": "/filter/id", "detail": "expected the id of a task"}],
                }
            ],
            NotFound,
        ),
    ],
)
async def test_a_refusal_ends_it(script: list[Message] | int, leaf: type[Exception]) -> None:
    async with saying(script) as client:
        with pytest.raises(leaf):
            await heard(client, 1, queue="q")


async def test_a_watch_ends_with_its_client() -> None:
    async with saying([snapshot("c", shown("t1", 1))]) as client, asyncio.TaskGroup() as group:
        began = asyncio.Event()
        watching = group.create_task(_watch(client, began))
        await began.wait()
        await client.close()
        await watching
        assert client.transport._session is None


async def _watch(client: Client, began: asyncio.Event) -> None:
    watch = client.watch(queue="emails")
    await anext(watch)
    began.set()
    with pytest.raises(Unavailable, match="the client was closed"):
        await anext(watch)


async def test_patience_ends() -> None:
    async with saying(503) as client:
        client.transport.patience_s = 0.2
        with pytest.raises(Unavailable):
            await heard(client, 1, queue="q")
