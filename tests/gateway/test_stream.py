"""The stream on real sockets."""

import asyncio
import socket
import time
from contextlib import ExitStack
from typing import Any

import orjson
import pytest
from aiohttp import WSMsgType, WSServerHandshakeError

from actors.core.errors import Unavailable
from actors.core.task import State
from gateway.session import Session
from tests.gateway.watched import OTHER, Watcher, World, a_change, a_row, id_of, serving


async def seen(watcher: Watcher, count: int) -> list[tuple[str, int]]:
    messages = [await watcher.hear() for _ in range(count)]
    assert {message["type"] for message in messages} == {"event"}
    return [(message["task"]["id"], message["task"]["version"]) for message in messages]


async def test_snapshot_then_events() -> None:
    async with serving() as world, world.watcher() as watcher:
        world.tables.put(a_row(1, 1), a_row(2, queue=OTHER))
        snapshot = await watcher.watch("s", queue="mail")
        assert watcher.ws.protocol == "ringwheel.v1.json"
        assert snapshot["type"] == "snapshot"
        assert [(task["id"], task["version"]) for task in snapshot["tasks"]] == [(id_of(1), 2)]
        world.hub.publish([a_change(1, 3), a_change(2, 1, queue=OTHER)])
        world.hub.publish([a_change(1, 4, State.SUCCEEDED, status=200)])
        assert await seen(watcher, 2) == [(id_of(1), 3), (id_of(1), 4)]


async def test_between_two_writes_messages_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.watcher.WRITES_HZ", 5)
    async with serving() as world, world.watcher() as watcher:
        await watcher.watch("s", queue="mail")
        await world.hub.until(lambda: world.hub.feeds() == 1)
        begin_s = time.monotonic()
        for version in range(10):
            world.hub.publish([a_change(1, version)])
            await asyncio.sleep(0.001)
        assert await seen(watcher, 10) == [(id_of(1), version) for version in range(10)]
        assert 0.05 < time.monotonic() - begin_s < 1.0, "two writes with a pause between them, not ten"


async def test_resume_by_cursor_tells_what_was_missed() -> None:
    async with serving() as world:
        async with world.watcher() as watcher:
            await watcher.watch("s", queue="mail")
            world.hub.publish([a_change(1)])
            cursor = (await watcher.hear())["cursor"]
        world.hub.publish([a_change(1, 1), a_change(9, queue=OTHER), a_change(1, 2)])
        async with world.watcher() as watcher:
            assert (await watcher.watch("s", queue="mail", cursor=cursor))["type"] == "resumed"
            world.hub.publish([a_change(1, 3)])
            assert await seen(watcher, 3) == [(id_of(1), 1), (id_of(1), 2), (id_of(1), 3)]
    assert world.tables.reads == 1, "no second snapshot"


async def test_a_cursor_of_another_boot_is_a_gap_and_a_snapshot() -> None:
    async with serving() as world, world.watcher() as watcher:
        world.tables.put(a_row(1, 1))
        assert await watcher.watch("s", queue="mail", cursor="else.1") == {
            "type": "gap",
            "sub": "s",
            "reason": "unknown-cursor",
            "snapshot": True,
        }
        assert (await watcher.hear())["type"] == "snapshot"
        world.hub.publish([a_change(1, 3)])
        assert await seen(watcher, 1) == [(id_of(1), 3)]


async def test_a_racing_snapshot_never_goes_back() -> None:
    async with serving() as world, world.watcher() as watcher:
        world.tables.put(a_row(1, 1), a_row(2, 1))
        world.tables.answer.clear()
        await watcher.say("subscribe", "s", filter={"queue": "mail"})
        await world.tables.asked.wait()
        world.hub.publish([a_change(1, 3), a_change(1, 4, State.SUCCEEDED), a_change(2, 1)])
        world.tables.answer.set()
        snapshot = await watcher.hear()
        assert [(task["state"], task["version"]) for task in snapshot["tasks"]] == [("succeeded", 4), ("scheduled", 2)]
        world.hub.publish([a_change(2, 2), a_change(2, 3)])
        assert await seen(watcher, 1) == [(id_of(2), 3)]


async def test_a_database_that_is_away_is_told_and_waited_for() -> None:
    async with serving(reopen_s=0.0) as world, world.watcher() as watcher:
        world.tables.errors = [Unavailable("no database")]
        error = await watcher.watch("s", queue="mail")
        assert (error["type"], error["sub"], error["problem"]) == ("error", "s", "unavailable")
        assert (await watcher.hear())["type"] == "snapshot"


async def test_after_an_interruption_all_subscriptions_come_back_together() -> None:
    async with serving(reopen_s=0.2) as world, world.watcher() as watcher:
        for number in range(100):
            await watcher.watch(f"s{number}", id=id_of(number))
        world.hub.interrupt()
        async with asyncio.timeout(10):  # one after another they would take 20 s
            kinds = [(await watcher.hear())["type"] for _ in range(200)]
        assert sorted(kinds) == ["gap"] * 100 + ["snapshot"] * 100


async def test_a_bug_ends_the_connection_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as world, world.watcher() as watcher:
        world.tables.errors = [ZeroDivisionError("bug")]
        await watcher.say("subscribe", "s", filter={"queue": "mail"})
        message = await watcher.ws.receive()
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1011)
        await world.hub.until(lambda: world.hub.watchers == 0)
    assert "a stream broke" in caplog.text


async def test_many_subscriptions_and_unsubscribe() -> None:
    async with serving() as world, world.watcher() as watcher:
        for number in range(100):
            assert (await watcher.watch(f"s{number}", id=id_of(number)))["type"] == "snapshot"
        assert (await watcher.watch("more", queue="mail"))["problem"] == "overloaded"
        world.hub.publish([a_change(number) for number in range(200)])
        assert [number for number, _ in await seen(watcher, 100)] == [id_of(number) for number in range(100)]
        await watcher.say("unsubscribe", "s1")
        assert await watcher.hear() == {"type": "unsubscribed", "sub": "s1"}
        world.hub.publish([a_change(1, 1), a_change(2, 1)])
        assert await seen(watcher, 1) == [(id_of(2), 1)]


async def test_bad_messages_do_not_end_the_connection() -> None:
    async with serving() as world, world.watcher() as watcher:
        for text in ("", "nonsense", '{"type":"subscribe","sub":"s","filter":{"queue":"a"},"more":1}', '{"a":' * 900):
            await watcher.ws.send_str(text)
            assert (await watcher.hear())["type"] == "error"
        for name, sub in (("s", "s"), (5, None), ("x" * 65, None)):
            await watcher.ws.send_json({"type": "subscribe", "sub": name, "filter": {"queue": 5}})
            error = await watcher.hear()
            assert (error["problem"], error["sub"]) == ("invalid", sub)
        await watcher.ws.send_bytes(b"\xff")
        assert (await watcher.hear())["problem"] == "not-json"
        assert (await watcher.watch("s", queue="mail"))["type"] == "snapshot"


async def test_a_message_that_is_too_long_ends_the_connection() -> None:
    async with serving(message_bytes=100) as world, world.watcher() as watcher:
        await watcher.ws.send_str("x" * 200)
        message = await watcher.ws.receive()
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1009)
    assert world.hub.watchers == 0


async def test_what_is_not_a_websocket_of_ours_is_refused() -> None:
    async with serving() as world:
        assert world.client is not None
        assert (await world.client.get(world.url)).status >= 400
        for headers in ({"Sec-WebSocket-Protocol": "mqtt"}, {"Origin": "https://evil.example"}):
            with pytest.raises(WSServerHandshakeError):
                await world.client.ws_connect(world.url, headers=headers)
        origin = world.url.removesuffix("/v1/stream")
        async with world.client.ws_connect(world.url, headers={"Origin": origin}) as ws:
            await Watcher(ws).watch("s", queue="mail")


async def test_going_away_is_said() -> None:
    async with serving() as world, world.watcher() as watcher:
        await watcher.watch("s", queue="mail")
        world.hub.close()
        message = await watcher.ws.receive()
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)


async def test_a_client_that_goes_leaves_nothing_behind() -> None:
    async with serving() as world:
        async with world.watcher() as watcher:
            await watcher.watch("s", queue="mail")
            assert world.hub.watchers == 1
        await world.hub.until(lambda: world.hub.watchers == 0)
        assert world.hub.feeds() == 0


class Deaf:
    """A client that asks and never reads, with a receive buffer as small as the system allows."""

    def __init__(self, world: World, sockets: ExitStack) -> None:
        host, port = world.url.removeprefix("http://").removesuffix("/v1/stream").split(":")
        self._address = host, int(port)
        self._socket = sockets.enter_context(socket.socket())
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        self._socket.setblocking(False)

    async def subscribe(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, self._address)
        await loop.sock_sendall(
            self._socket,
            b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
            + frame({"type": "subscribe", "sub": "s", "filter": {"queue": "mail"}}),
        )


def frame(message: dict[str, Any]) -> bytes:
    """A client's text frame, masked with zeros (RFC 6455, 5.2)."""
    data = orjson.dumps(message)
    assert len(data) < 126
    return bytes([0x81, 0x80 | len(data)]) + bytes(4) + data


async def test_200_watchers_that_never_read_stay_small_and_harm_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[int] = []

    class Counted(Session):
        def close(self) -> None:
            waiting.append(len(self._outbox))
            super().close()

    monkeypatch.setattr("gateway.watcher.Session", Counted)
    async with serving(room=20, chunk_bytes=4096) as world, world.watcher() as good:
        hub = world.hub
        with ExitStack() as sockets:
            for _ in range(200):
                await Deaf(world, sockets).subscribe()
            await good.watch("s", queue="mail")
            await hub.until(lambda: hub.feeds() == 201)
            for version in range(100):
                hub.publish([a_change(1, version, error="x" * 10_000)])
                assert await seen(good, 1) == [(id_of(1), version)]
            assert hub.feeds() == 1, "the deaf are out of the publisher's way"
        await hub.until(lambda: hub.watchers == 1)
    assert len(waiting) == 201
    assert max(waiting) == 20


async def test_a_slow_reader_is_told_the_newest_and_how_much_it_missed() -> None:
    async with serving(kept=200, room=10, chunk_bytes=4096) as world, world.watcher() as watcher:
        await watcher.watch("s", queue="mail")
        assert watcher.ws._conn is not None
        transport = watcher.ws._conn.transport
        assert isinstance(transport, asyncio.ReadTransport)
        transport.pause_reading()
        versions = iter(range(1_000_000))
        while world.hub.feeds():
            world.hub.publish([a_change(1, next(versions), error="x" * 100_000)])
            await asyncio.sleep(0)
        world.hub.publish([a_change(1, next(versions)) for _ in range(150)])
        transport.resume_reading()
        last, messages = next(versions) - 1, [await watcher.hear()]
        while messages[-1]["type"] != "event" or messages[-1]["task"]["version"] != last:
            messages.append(await watcher.hear())
        gaps = [message for message in messages if message["type"] == "gap"]
        events = [message["task"]["version"] for message in messages if message["type"] == "event"]
        assert {message["reason"] for message in gaps} == {"conflated"}
        assert len(events) + sum(message["skipped"] for message in gaps) == last + 1, "it was told exactly how many"
        assert events == sorted(events)


async def test_who_takes_nothing_is_cut_off() -> None:
    async with serving(stall_s=0.2, chunk_bytes=4096) as world:
        hub = world.hub
        with ExitStack() as sockets:
            await Deaf(world, sockets).subscribe()
            await hub.until(lambda: hub.feeds() == 1)
            hub.publish([a_change(1, version, error="x" * 1_000_000) for version in range(20)])
            await hub.until(lambda: hub.watchers == 0)
