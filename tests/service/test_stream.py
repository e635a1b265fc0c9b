"""Live status of the real service, over its websocket."""

import asyncio
from typing import Any

from tests.service.api import LIMIT_S, Api, Stream
from tests.service.hook import OK, Held, Hook
from tests.service.served import serving
from tests.support.raw_target import answers

SOON = {"min_backoff": 0.02, "max_backoff": 0.05}


async def story(stream: Stream, task_id: str, *ends: str) -> list[tuple[str, int]]:
    """State and attempt of each event of a task, until one of these states; versions only rise."""
    told: list[tuple[str, int]] = []
    version = -1
    while not told or told[-1][0] not in ends:
        message = await stream.hear()
        assert message["type"] == "event", message
        task = message["task"]
        if task["id"] == task_id:
            assert task["version"] > version
            version = task["version"]
            told.append((task["state"], task["attempt"]))
    return told


async def snapshot(stream: Stream) -> dict[str, dict[str, Any]]:
    message = await stream.hear()
    assert (message["type"], message["truncated"]) == ("snapshot", False), message
    return {task["id"]: task for task in message["tasks"]}


async def test_a_life_as_it_is_told(service: Api, hook: Hook) -> None:
    held = Held()
    url = hook.url(answers(500), held)
    task = await service.submit(queue="mail", http={"url": url}, delay=0.3, retry=SOON, labels={"a": "b"})
    async with service.stream() as stream:
        await stream.subscribe("q", queue="mail")
        shown = await snapshot(stream)
        assert (shown[task["id"]]["state"], shown[task["id"]]["labels"]) == ("scheduled", {"a": "b"})
        assert await story(stream, task["id"], "scheduled") == [("running", 1), ("scheduled", 1)]
        await hook.called(task["id"], 2)
        held.release.set()
        assert await story(stream, task["id"], "succeeded") == [("running", 2), ("succeeded", 2)]
        assert (await service.get(task["id"]))["state"] == "succeeded", "events come after the commit"


async def test_every_terminal_state_is_seen(service: Api, hook: Hook) -> None:
    async with service.stream() as stream:
        await stream.subscribe("q", queue="ends")
        assert await snapshot(stream) == {}
        ids = await service.submit_many(
            [
                {"queue": "ends", "http": {"url": hook.url(OK)}},
                {"queue": "ends", "http": {"url": hook.url(answers(410))}},
                {"queue": "ends", "ttl": 0.1},
                {"queue": "ends", "delay": "90d"},
            ]
        )
        await service.command(ids[3], "cancel")
        ended: dict[str, str] = {}
        async for task in stream.tasks():
            if task["state"] not in ("scheduled", "running"):
                ended[task["id"]] = task["state"]
            if len(ended) == len(ids):
                break
        assert ended == dict(zip(ids, ("succeeded", "dead", "expired", "cancelled"), strict=True))
        await service.command(ids[2], "redrive")
        assert await story(stream, ids[2], "scheduled") == [("scheduled", 0)]


async def test_tasks_by_their_labels(service: Api, hook: Hook) -> None:
    blue = await service.submit(queue="one", delay="1h", labels={"team": "blue", "app": "shop"})
    red = await service.submit(queue="one", delay="1h", labels={"team": "red", "app": "shop"})
    gone = await service.submit(queue="one", delay="1h", labels={"team": "blue"})
    await service.command(gone["id"], "cancel")
    async with service.stream() as stream:
        await stream.subscribe("l", labels={"team": "blue"})
        assert set(await snapshot(stream)) == {blue["id"]}
        await service.command(red["id"], "cancel")
        await service.command(blue["id"], "cancel")
        url = hook.url(OK)
        new = await service.submit(queue="two", http={"url": url}, labels={"team": "blue", "n": "1"})
        assert await story(stream, blue["id"], "cancelled") == [("cancelled", 0)]
        assert (await story(stream, new["id"], "succeeded"))[-1] == ("succeeded", 1)
        cursor = stream.cursor
    async with service.stream() as stream:
        await stream.subscribe("l", cursor, queue="one", labels={"team": "blue"})
        assert (await stream.hear())["type"] == "resumed"
        last = await service.submit(queue="one", delay="1h", labels={"team": "blue"})
        assert await story(stream, last["id"], "scheduled") == [("scheduled", 0)]


async def test_coming_back_with_a_cursor(service: Api, hook: Hook) -> None:
    url = hook.url()
    async with service.stream() as stream:
        await stream.subscribe("q", queue="mail")
        assert await snapshot(stream) == {}
        cursor = stream.cursor
    ids = await service.submit_many([{"queue": "mail", "http": {"url": url}, "delay": 0.01 * n} for n in range(60)])
    ended: list[str] = []
    while len(ended) < len(ids):
        async with service.stream() as stream:  # a connection for every fourth event
            await stream.subscribe("q", cursor, queue="mail")
            assert (await stream.hear())["type"] == "resumed"
            for _ in range(4):
                task = (await stream.hear())["task"]
                ended += [task["id"]] if task["state"] == "succeeded" else []
                if len(ended) == len(ids):
                    break
            cursor = stream.cursor
    assert sorted(ended) == sorted(ids), "each end was told once"


async def test_one_task_and_many_watchers(service: Api, hook: Hook) -> None:
    held = Held()
    task = await service.submit(http={"url": hook.url(held)})
    await hook.called(task["id"])
    async with service.stream() as one, service.stream() as other:
        for stream in (one, other):
            await stream.subscribe("t", id=task["id"])
            assert (await snapshot(stream))[task["id"]]["state"] == "running"
        held.release.set()
        for stream in (one, other):
            told = await story(stream, task["id"], "succeeded")
            assert set(told) <= {("running", 1), ("succeeded", 1)}
        await one.subscribe("again", id=task["id"])
        assert (await snapshot(one))[task["id"]]["state"] == "succeeded"


async def test_a_restart_is_a_gap_and_a_new_snapshot(database_url: str) -> None:
    async with serving(database_url) as service:
        task = await service.submit(queue="mail", delay="1h")
        async with service.stream() as stream:
            await stream.subscribe("q", queue="mail")
            await snapshot(stream)
            cursor = stream.cursor
    async with serving(database_url) as service, service.stream() as stream:
        await stream.subscribe("q", cursor, queue="mail")
        message = await stream.hear()
        assert (message["type"], message["reason"], message["snapshot"]) == ("gap", "unknown-cursor", True)
        assert task["id"] in await snapshot(stream)
        await service.command(task["id"], "cancel")
        assert await story(stream, task["id"], "cancelled") == [("cancelled", 0)]


async def test_watchers_are_told_when_the_service_goes_away(database_url: str) -> None:
    async with serving(database_url) as service, service.stream() as stream:
        await stream.subscribe("q", queue="mail")
        await snapshot(stream)
        service.service.stop()
        async with asyncio.timeout(LIMIT_S):
            async for message in stream.socket:
                assert message.json()["type"] == "gap", "its shards are nobody's for a moment"
        assert stream.socket.close_code == 1001, "going away"
