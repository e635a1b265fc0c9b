"""Server-sent events on real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import orjson
import pytest
from aiohttp import ClientError, ClientResponse, web

from actors.core.errors import Unavailable
from actors.core.task import State
from gateway import interest
from tests.gateway.watched import OTHER, World, a_change, a_row, id_of, serving


class Source:
    """A browser's EventSource, as far as it matters: blocks of fields."""

    def __init__(self, response: ClientResponse) -> None:
        self.response = response

    async def block(self) -> dict[str, str]:
        """The next block; a comment has the name ""."""
        async with asyncio.timeout(30):
            text = (await self.response.content.readuntil(b"\n\n")).decode()
        return dict(line.split(": ", 1) for line in text.strip().split("\n"))

    async def event(self) -> tuple[str, str | None, dict[str, Any]]:
        """Name, id and data of the next event."""
        while "data" not in (block := await self.block()):
            pass
        return block["event"], block.get("id"), cast(dict[str, Any], orjson.loads(block["data"]))


@asynccontextmanager
async def source(world: World, query: str, **headers: str) -> AsyncIterator[Source]:
    assert world.client is not None
    url = world.url.replace("/v1/stream", "/v1/events")
    async with world.client.get(f"{url}?{query}", headers=headers, read_bufsize=4096) as response:
        yield Source(response)


async def test_a_snapshot_and_then_events_each_with_its_cursor() -> None:
    async with serving() as world:
        world.tables.put(a_row(1, 1), a_row(2, queue=OTHER))
        async with source(world, "queue=mail") as events:
            assert events.response.content_type == "text/event-stream"
            assert (await events.block())["retry"] == "1000"
            name, cursor, data = await events.event()
            assert (name, cursor) == ("snapshot", data["cursor"])
            assert [task["id"] for task in data["tasks"]] == [id_of(1)]
            world.hub.publish([a_change(1, 3), a_change(2, 1, queue=OTHER)])
            name, cursor, data = await events.event()
            assert (name, cursor, data["task"]["version"]) == ("event", data["cursor"], 3)


async def test_tasks_by_queue_and_labels() -> None:
    async with serving() as world:
        blue, red = '{"app":"shop","team":"blue"}', '{"app":"shop","team":"red"}'
        world.tables.put(a_row(1, labels=blue), a_row(2, labels=red), a_row(3, labels=blue, queue=OTHER))
        async with source(world, "queue=mail&label.team=blue&label.app=shop") as events:
            _, _, data = await events.event()
            assert [task["id"] for task in data["tasks"]] == [id_of(1)]
            changes = [a_change(2, 1, labels=red), a_change(3, 1, labels=blue, queue=OTHER), a_change(4, labels=blue)]
            world.hub.publish(changes)
            _, _, data = await events.event()
            assert (data["task"]["id"], data["task"]["labels"]) == (id_of(4), orjson.loads(blue))


async def test_one_task_by_its_id() -> None:
    async with serving() as world, source(world, f"id={id_of(1)}") as events:
        assert (await events.event())[0] == "snapshot"
        world.hub.publish([a_change(2), a_change(1, 1)])
        assert (await events.event())[2]["task"]["id"] == id_of(1)


async def test_who_comes_back_goes_on_where_it_was() -> None:
    async with serving() as world:
        async with source(world, "queue=mail") as events:
            await events.event()
            world.hub.publish([a_change(1)])
            _, cursor, _ = await events.event()
        assert cursor is not None
        world.hub.publish([a_change(1, 1), a_change(1, 2, State.SUCCEEDED)])
        async with source(world, "queue=mail", **{"Last-Event-ID": cursor}) as events:
            assert (await events.event())[:2] == ("resumed", cursor)
            assert [(await events.event())[2]["task"]["version"] for _ in range(2)] == [1, 2]
    assert world.tables.reads == 1


async def test_a_cursor_that_can_not_be_served_is_a_gap_without_id() -> None:
    async with serving() as world, source(world, "queue=mail", **{"Last-Event-ID": "else.7"}) as events:
        name, cursor, data = await events.event()
        assert (name, cursor, data["reason"]) == ("gap", None, "unknown-cursor")
        assert (await events.event())[0] == "snapshot"


async def test_a_problem_is_no_error_event() -> None:
    """Browsers raise `error` for a lost connection."""
    async with serving(reopen_s=0.0) as world:
        world.tables.errors = [Unavailable("no database")]
        async with source(world, "queue=mail") as events:
            name, _, data = await events.event()
            assert (name, data["problem"]) == ("problem", "unavailable")
            assert (await events.event())[0] == "snapshot"


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("", "/filter"),
        ("queue=a&id=b", "/filter"),
        ("label.a=b&id=b", "/filter"),
        ("queue=a&queue=b", "/queue"),
        ("label.a%20=b", "/label.a "),
        ("label.a=b&label.a=c", "/label.a"),
        ("queue=%20", "/filter/queue"),
        ("id=x", "/filter/id"),
        ("room=5", "/room"),
    ],
)
async def test_a_bad_wish_is_a_problem_and_no_stream(query: str, pointer: str) -> None:
    async with serving() as world, source(world, query) as events:
        assert events.response.status == 422
        assert (await events.response.json(content_type=None))["errors"][0]["pointer"] == pointer
    assert world.hub.watchers == 0


async def test_a_page_of_another_origin_may_not_watch() -> None:
    async with serving() as world, source(world, "queue=mail", Origin="http://evil.example") as events:
        assert events.response.status == 403


async def test_a_client_that_has_gone_is_found_out_by_the_next_sign_of_life() -> None:
    async with serving(heartbeat_s=0.01) as world:
        async with source(world, "queue=mail") as events:
            await events.event()
            assert (await events.block()) == {"": "here"}
            await world.hub.until(lambda: world.hub.feeds() == 1)
            events.response.close()
        await world.hub.until(lambda: world.hub.watchers == 0)
        assert world.hub.feeds() == 0


async def test_a_reader_who_takes_nothing_is_cut_off() -> None:
    async with serving(stall_s=0.2, room=8) as world, source(world, "queue=mail") as events:
        await events.event()
        await world.hub.until(lambda: world.hub.feeds() == 1)
        error = "x" * 2_000
        version = 0
        while world.hub.watchers:
            version += 1
            world.hub.publish([a_change(number, version, error=error) for number in range(200)])
            await asyncio.sleep(0.001)
    assert version > 1


async def test_the_end_of_the_service_is_the_end_of_the_answer() -> None:
    async with serving() as world, source(world, "queue=mail") as events:
        await events.event()
        world.hub.close()
        async with asyncio.timeout(30):
            assert await events.response.content.read() == b""


async def test_who_goes_before_the_answer_begins_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = asyncio.Event()

    async def prepare(response: web.StreamResponse, request: web.Request) -> None:
        tried.set()
        raise ConnectionResetError

    async with serving() as world:
        monkeypatch.setattr(interest, "LINGER_S", 0.0)
        monkeypatch.setattr(web.StreamResponse, "prepare", prepare)
        with pytest.raises(ClientError):
            async with source(world, "queue=mail"):
                raise AssertionError("there is no answer")
        assert tried.is_set()
        world.hub.interest.sweep()
        assert world.hub.interest.topics == []
