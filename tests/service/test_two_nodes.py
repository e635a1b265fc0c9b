"""Two nodes on one database: whoever watches or reads at one of them sees what the other does."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from gateway import interest, link
from tests.service.api import TERMINAL, Stream
from tests.service.hook import OK, Held, Hook
from tests.service.served import Node, serving, until, up, way
from tests.support.raw_target import answers

SOON = {"min_backoff": 0.02, "max_backoff": 0.05}
Story = list[tuple[str, int, int]]
"""State, attempt and version of each change of a task."""


@asynccontextmanager
async def pair(dsn: str) -> AsyncIterator[tuple[Node, Node]]:
    """The owner of every shard, and a node that has none; each has a link to the other."""
    async with serving(dsn, name="node-a") as owner:
        owner.service.node.handover.look = lambda: None  # type: ignore[method-assign]  # it keeps what it has
        assert len(owner.service.node.hand.actors) == 256
        async with serving(dsn, name="node-b") as other:
            assert not other.service.node.hand.actors
            await until(other, lambda: up(owner, other) and up(other, owner))
            yield owner, other


async def opened(stream: Stream, **wanted: object) -> dict[str, Any]:
    """Subscribe; the tasks of the snapshot."""
    await stream.subscribe("s", None, **wanted)
    return await snapshot(stream)


async def snapshot(stream: Stream) -> dict[str, Any]:
    """The next message, which must be one; what it interrupts is passed over."""
    while (message := await stream.hear())["type"] == "event":
        pass
    assert message["type"] == "snapshot", message
    return {task["id"]: task for task in message["tasks"]}


async def stories(stream: Stream, ids: list[str]) -> dict[str, Story]:
    """All that is told until each of these has ended; nothing else is, and nothing is missed."""
    told: dict[str, Story] = defaultdict(list)
    left = set(ids)
    while left:
        message = await stream.hear()
        assert message["type"] == "event", message
        task = message["task"]
        assert task["id"] in ids
        told[task["id"]].append((task["state"], task["attempt"], task["version"]))
        left -= {task["id"]} if task["state"] in TERMINAL else set()
    return told


def rises(story: Story) -> bool:
    versions = [version for _, _, version in story]
    return all(one < other for one, other in pairwise(versions))


async def test_each_change_is_told_at_both_nodes_once_and_in_order(database_url: str, hook: Hook) -> None:
    async with pair(database_url) as (owner, other), owner.stream() as at_home, other.stream() as away:
        first = await other.submit(queue="mail", delay="1h")
        for stream in (at_home, away):
            assert set(await opened(stream, queue="mail")) == {first["id"]}
        ids = [first["id"]]
        for n in range(60):
            target = hook.url(*(answers(500), OK)[n % 2 :])
            api = (owner, other)[n // 2 % 2]
            task = await api.submit(queue="mail", http={"url": target}, retry=SOON, delay=0.01 * (n % 5))
            ids.append(task["id"])
        await other.command(first["id"], "cancel")
        here, there = await stories(at_home, ids), await stories(away, ids)
        assert here == there
        assert all(rises(story) for story in there.values())
        retried = ["scheduled", "running", "scheduled", "running", "succeeded"]
        assert [state for state, _, _ in there[ids[1]]] == retried
        assert [state for state, _, _ in there[ids[2]]] == ["scheduled", "running", "succeeded"]
        assert [state for state, _, _ in there[ids[0]]] == ["cancelled"]


async def test_one_task_elsewhere_from_its_start_to_its_end(database_url: str, hook: Hook) -> None:
    held = Held()
    async with pair(database_url) as (owner, other):
        task = await other.submit(http={"url": hook.url(held)}, labels={"team": "blue"})
        await hook.called(task["id"])
        shown = await other.get(task["id"])
        assert (shown["state"], shown["attempt"]) == ("running", 1)
        assert shown["fence"] == (await owner.get(task["id"]))["fence"]
        async with other.stream() as by_id, other.stream() as by_label:
            assert (await opened(by_id, id=task["id"]))[task["id"]]["state"] == "running"
            assert (await opened(by_label, labels={"team": "blue"}))[task["id"]]["state"] == "running"
            held.release.set()
            for stream in (by_id, by_label):
                (*_, end) = (await stories(stream, [task["id"]]))[task["id"]]
                assert end[:2] == ("succeeded", 1)


async def test_what_a_cut_link_lost_is_a_gap_and_a_snapshot(
    database_url: str, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PAUSES_S", (0.01,))
    async with pair(database_url) as (owner, other), other.stream() as queue, other.stream() as single:
        one, two = [(await owner.submit(queue="mail", delay="1h"))["id"] for _ in range(2)]
        assert set(await opened(queue, queue="mail")) == {one, two}
        await opened(single, id=one)
        found = way(other, owner)
        assert found is not None
        home, found._url = found._url, "http://127.0.0.1:1"
        await found.cut()
        await until(owner, lambda: owner.service.hub.watchers == 0)
        await owner.command(one, "cancel")
        found._url = home
        for stream in (queue, single):
            message = await stream.hear()
            assert (message["type"], message["reason"], message["snapshot"]) == ("gap", "interrupted", True)
        assert set(await snapshot(queue)) == {two}
        assert (await snapshot(single))[one]["state"] == "cancelled"
        await owner.command(two, "cancel")
        assert [state for state, _, _ in (await stories(queue, [two]))[two]] == ["cancelled"]


async def test_a_cursor_goes_on_over_what_was_told_from_elsewhere(database_url: str) -> None:
    async with pair(database_url) as (owner, other):
        one, two = [(await other.submit(queue="mail", delay="1h"))["id"] for _ in range(2)]
        async with other.stream() as stream:
            await opened(stream, queue="mail")
            cursor = stream.cursor
        async with other.stream() as witness:
            await opened(witness, queue="mail")
            await owner.command(one, "cancel")
            await stories(witness, [one])
        async with other.stream() as stream:
            await stream.subscribe("s", cursor, queue="mail")
            assert (await stream.hear())["type"] == "resumed"
            await owner.command(two, "cancel")
            told = await stories(stream, [one, two])
            assert {task_id: len(story) for task_id, story in told.items()} == {one: 1, two: 1}


async def test_who_watches_goes_on_where_the_owner_has_left(database_url: str, hook: Hook) -> None:
    async with serving(database_url, name="node-b") as first:
        task = await first.submit(queue="mail", http={"url": hook.url(OK)}, delay="1h")
        async with serving(database_url, name="node-c") as other, other.stream() as stream:
            await until(other, lambda: up(first, other) and up(other, first))
            assert set(await opened(stream, queue="mail")) == {task["id"]}
            first.service.stop()
            await until(other, lambda: len(other.service.node.hand.actors) == 256)
            while (message := await stream.hear())["type"] != "snapshot":
                assert message["type"] == "gap", message
            assert [shown["id"] for shown in message["tasks"]] == [task["id"]]
            await other.command(task["id"], "run")
            assert await last_of(stream, task["id"]) == "succeeded"


async def last_of(stream: Stream, task_id: str) -> str:
    """The state that it ends in, over all gaps."""
    async for task in stream.tasks():
        if task["id"] == task_id and task["state"] in TERMINAL:
            return str(task["state"])
    raise AssertionError("the stream ended")


async def test_what_nobody_watches_is_no_longer_told(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(database_url) as (owner, other):
        async with other.stream() as stream:
            await opened(stream, queue="mail")
            assert owner.service.hub.watchers == 1
        monkeypatch.setattr(interest, "LINGER_S", 0.0)
        await until(other, lambda: owner.service.hub.watchers == 0)
        assert not owner.service.hub._feeds
        assert other.service.hub.interest.topics == []


async def test_new_queues_blind_nobody(database_url: str, hook: Hook) -> None:
    """Each task of each queue that one node makes is told at the other, and nobody there is told of a gap."""
    async with pair(database_url) as (owner, other), other.stream() as mail, other.stream() as blue:
        await owner.submit(queue="mail", delay="1h")
        await opened(mail, queue="mail")
        await opened(blue, labels={"team": "blue"})
        wanted = {"http": {"url": hook.url(OK)}, "labels": {"team": "blue"}}
        letters, new = [], []
        for n in range(20):
            for m in range(2):
                new.append((await owner.submit(queue=f"new-{n}", delay=0.01 * m, **wanted))["id"])
            letters.append((await owner.submit(queue="mail", http={"url": hook.url(OK)}))["id"])
        told = await stories(blue, new)
        assert {tuple(state for state, _, _ in story) for story in told.values()} == {
            ("scheduled", "running", "succeeded")
        }
        assert all(rises(story) for story in told.values())
        await stories(mail, letters)


async def test_one_who_waits_for_a_queue_hears_of_it_from_its_first_task(database_url: str, hook: Hook) -> None:
    async with pair(database_url) as (owner, other), other.stream() as stream:
        assert await opened(stream, queue="new") == {}
        task = await owner.submit(queue="new", http={"url": hook.url(OK)})
        told = await stories(stream, [task["id"]])
        assert [state for state, _, _ in told[task["id"]]] == ["scheduled", "running", "succeeded"]


async def test_tasks_of_new_queues_start_at_once_wherever_they_are_accepted(database_url: str, hook: Hook) -> None:
    async with pair(database_url) as (owner, other):
        for n in range(10):
            task = await other.submit(queue=f"new-{n}", http={"url": hook.url(OK)})
            await hook.called(task["id"])
        assert owner.service.node.stats.tally.found == 0
