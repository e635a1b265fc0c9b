"""Live status and keys: by header or first message, and for as long as the key is in use."""

import asyncio
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType, WSServerHandshakeError

from actors.core.keys import ALL, Scope
from tests.gateway.watched import FOREIGN, NOW_MS, World, a_change, a_row, id_of, serving
from tests.support.keys import bearer, new_key


async def key(world: World, tenant: str = "default", **more: Any) -> str:
    """A key that the node has heard of."""
    new, text = new_key(tenant, **more)
    await world.keys.create(new)
    await world.gateway.keyring.refresh()
    return text


async def closed(ws: ClientWebSocketResponse) -> int | None:
    """The close code, once it is closed."""
    async with asyncio.timeout(30):
        async for message in ws:
            assert message.type is WSMsgType.TEXT
    return ws.close_code


async def test_a_key_by_header() -> None:
    async with serving() as world:
        text = await key(world)
        world.tables.put(a_row(1))
        async with world.watcher(headers=bearer(text)) as watcher:
            assert (await watcher.watch("q", queue="mail"))["type"] == "snapshot"


async def test_a_key_by_the_first_message() -> None:
    async with serving() as world:
        text = await key(world)
        async with world.watcher() as watcher:
            await watcher.ws.send_json({"type": "authenticate", "key": text})
            assert await watcher.hear() == {"type": "authenticated"}
            assert (await watcher.watch("q", queue="mail"))["type"] == "snapshot"


@pytest.mark.parametrize("scopes", [frozenset({Scope.READ}), ALL - {Scope.READ}])
async def test_watching_is_reading(scopes: frozenset[Scope]) -> None:
    may = Scope.READ in scopes
    async with serving() as world:
        text = await key(world, scopes=scopes)
        async with world.watcher() as watcher:
            await watcher.ws.send_json({"type": "authenticate", "key": text})
            if may:
                assert await watcher.hear() == {"type": "authenticated"}
            else:
                assert await closed(watcher.ws) == 4403
        if not may:
            with pytest.raises(WSServerHandshakeError) as caught:
                async with world.watcher(headers=bearer(text)):
                    pass
            assert caught.value.status == 403


@pytest.mark.parametrize(
    "message",
    [
        '{"type":"authenticate","key":"rw_nothing"}',
        '{"type":"authenticate","key":7}',
        '{"type":"authenticate"}',
        '{"type":"subscribe","sub":"q","filter":{"queue":"mail"}}',
        "{",
        "[" * 10_000,
    ],
)
async def test_another_first_message_ends_the_connection(message: str) -> None:
    async with serving() as world:
        await key(world)
        async with world.watcher() as watcher:
            await watcher.ws.send_str(message)
            assert await closed(watcher.ws) == 4401
        assert (world.tables.reads, world.hub.watchers) == (0, 0)


async def test_a_first_message_that_does_not_come() -> None:
    async with serving(authenticate_s=0.01) as world:
        await key(world)
        async with world.watcher() as watcher:
            assert await closed(watcher.ws) == 4408


async def test_a_client_that_leaves_instead() -> None:
    async with serving() as world:
        await key(world)
        async with world.watcher() as watcher:
            await watcher.ws.close()
        assert world.hub.watchers == 0


async def test_a_node_that_can_not_tell_asks_to_try_again() -> None:
    async with serving() as world:
        text = await key(world)
        async with world.watcher() as watcher:
            world.gateway.keyring._good_until = float("-inf")
            await watcher.ws.send_json({"type": "authenticate", "key": text})
            assert await closed(watcher.ws) == 1013


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_a_socket_ends_with_its_key(how: str) -> None:
    async with serving() as world:
        text, other = await key(world, ttl_ms=60_000), await key(world)
        async with world.watcher(headers=bearer(text)) as watcher, world.watcher(headers=bearer(other)) as stays:
            for one in (watcher, stays):
                assert (await one.watch("q", queue="mail"))["type"] == "snapshot"
            if how == "revoked":
                await world.keys.revoke(text.split("_")[1])
            else:
                world.memory.at_ms = NOW_MS + 60_000
            await world.gateway.keyring.refresh()
            assert await closed(watcher.ws) == 4401
            world.hub.publish([a_change(1)])
            assert (await stays.hear())["type"] == "event"


async def test_without_keys_none_is_asked_for_until_the_first_is_made() -> None:
    async with serving() as world, world.watcher() as watcher:
        assert (await watcher.watch("q", queue="mail"))["type"] == "snapshot"
        await key(world)
        assert await closed(watcher.ws) == 4401


async def test_a_page_of_another_origin_may_not_even_authenticate() -> None:
    async with serving() as world:
        await key(world)
        with pytest.raises(WSServerHandshakeError) as caught:
            async with world.watcher(origin="http://evil.test"):
                pass
        assert caught.value.status == 400


async def test_a_stranger_sees_nothing_by_any_filter_or_cursor() -> None:
    async with serving() as world:
        text, theirs = await key(world), await key(world, tenant=FOREIGN.tenant)
        world.tables.put(a_row(1))
        async with world.watcher(headers=bearer(theirs)) as stranger, world.watcher(headers=bearer(text)) as owner:
            mine = await owner.watch("q", queue="mail")
            assert [task["id"] for task in mine["tasks"]] == [id_of(1)]
            for number, wanted in enumerate(({"queue": "mail"}, {"id": id_of(1)}, {"id": id_of(2)})):
                shown = await stranger.watch(f"new{number}", **wanted)
                assert (shown["type"], shown["tasks"]) == ("snapshot", [])
            world.hub.publish([a_change(1, 1), a_change(2, 0)])
            for number in (1, 2):
                assert (await owner.hear())["task"]["id"] == id_of(number)
            for number, wanted in enumerate(({"queue": "mail"}, {"id": id_of(1)}, {"id": id_of(2)})):
                resumed = await stranger.watch(f"old{number}", cursor=mine["cursor"], **wanted)
                assert resumed["type"] == "resumed"
            world.hub.publish([a_change(1, 2), a_change(3, queue=FOREIGN)])
            told = [await stranger.hear() for _ in range(2)]
            assert {message["task"]["id"] for message in told} == {id_of(3)}, "its own alone, by both of its queues"


async def test_server_sent_events_end_with_their_key() -> None:
    async with serving() as world:
        text = await key(world)
        url = world.url.replace("/v1/stream", "/v1/events")
        assert world.client is not None
        async with world.client.get(url, params={"queue": "mail"}) as refused:
            assert refused.status == 401
        async with world.client.get(url, params={"queue": "mail"}, headers=bearer(text)) as response:
            assert response.status == 200
            async with asyncio.timeout(30):
                told = b""
                while b'"tasks":' not in told:
                    told += await response.content.readany()
                await world.keys.revoke(text.split("_")[1])
                await world.gateway.keyring.refresh()
                await response.read()
            assert response.content.at_eof(), "it came to its end"
