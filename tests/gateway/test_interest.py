"""What other nodes have to tell of: when they are told, how long it stays, and from when on nothing is missing."""

import asyncio
from collections.abc import Sequence

import pytest

from actors.core.errors import Overloaded
from gateway import interest
from gateway.interest import LINGER_S, Interest
from gateway.topics import Topic

MAIL = ("default", "mail")
TASK = "00000001-0000-7000-8000-000000000000"


class World:
    """Other nodes, a clock, and a hub's number."""

    def __init__(self, *, alone: bool = False) -> None:
        self.seq = 7
        self.now_s = 1_000.0
        self.told: list[Sequence[Topic]] = []
        self.forgot: list[Topic] = []
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self.answer.set()
        self.interest = Interest(lambda: self.seq, lambda: self.now_s)
        self.interest.alone = alone
        self.interest.tell = self.tell
        self.interest.forget = self.forgot.extend

    async def tell(self, topics: Sequence[Topic]) -> None:
        self.told.append(topics)
        self.asked.set()
        await self.answer.wait()


async def test_a_topic_is_told_once_and_known_from_then_on() -> None:
    world = World()
    world.interest.take(MAIL)
    assert world.interest.since(MAIL) is None
    await world.interest.told(MAIL)
    world.seq = 9
    world.interest.take(MAIL)
    await world.interest.told(MAIL)
    assert (world.told, world.interest.since(MAIL)) == ([[MAIL]], 7)
    assert world.interest.topics == [MAIL]


async def test_what_comes_while_others_are_told_goes_together() -> None:
    world = World()
    world.answer.clear()
    topics: list[Topic] = [MAIL, TASK, ("default", "other"), MAIL]
    for topic in topics[:1]:
        world.interest.take(topic)
    async with asyncio.TaskGroup() as group:
        group.create_task(world.interest.told(MAIL))
        await world.asked.wait()
        for topic in topics[1:]:
            world.interest.take(topic)
            group.create_task(world.interest.told(topic))
        await asyncio.sleep(0)
        assert world.interest.since(MAIL) is None, "nobody has said that it tells"
        world.answer.set()
    assert world.told == [[MAIL], topics[1:3]]


async def test_whoever_waits_for_a_topic_is_served_when_the_first_one_left() -> None:
    world = World()
    world.answer.clear()
    world.interest.take(MAIL)
    world.interest.take(MAIL)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(world.interest.told(MAIL))
        await world.asked.wait()
        group.create_task(world.interest.told(MAIL))
        first.cancel()
        world.answer.set()
    assert (world.told, world.interest.since(MAIL)) == ([[MAIL], [MAIL]], 7)


async def test_of_what_was_let_go_while_it_was_told_nobody_is_told_again() -> None:
    world = World()
    world.answer.clear()
    world.interest.take(MAIL)
    async with asyncio.TaskGroup() as group:
        telling = group.create_task(world.interest.told(MAIL))
        await world.asked.wait()
        world.interest.leave(MAIL)
        world.now_s += LINGER_S
        world.interest.sweep()
        telling.cancel()
        await asyncio.wait([telling])
    world.answer.set()
    world.interest.take(TASK)
    await world.interest.told(TASK)
    await world.interest.told(MAIL)
    assert (world.told, world.forgot) == ([[MAIL], [TASK]], [MAIL])


async def test_who_is_alone_tells_nobody_and_misses_nothing() -> None:
    world = World(alone=True)
    world.interest.take(MAIL)
    await world.interest.told(MAIL)
    assert (world.told, world.interest.since(MAIL), world.interest.since(TASK)) == ([], 0, 0)
    world.interest.alone = False
    assert (world.interest.since(MAIL), world.interest.since(TASK)) == (7, None)


async def test_what_nobody_watches_lingers_and_is_forgotten() -> None:
    world = World()
    world.interest.take(MAIL)
    world.interest.take(MAIL)
    world.interest.take(TASK)
    await world.interest.told(MAIL)
    world.interest.leave(MAIL)
    world.interest.leave(MAIL)
    world.now_s += LINGER_S - 1
    world.interest.leave(TASK)
    world.interest.sweep()
    assert world.interest.since(MAIL) == 7, "who comes back goes on where it was"
    world.now_s += 1
    world.interest.sweep()
    assert (world.forgot, world.interest.topics, world.interest.since(MAIL)) == ([MAIL], [TASK], None)
    world.interest.take(MAIL)
    await world.interest.told(MAIL)
    assert world.told[1:] == [[MAIL]], "it is new to others"


async def test_who_comes_back_in_time_keeps_it() -> None:
    world = World()
    world.interest.take(MAIL)
    await world.interest.told(MAIL)
    world.interest.leave(MAIL)
    world.now_s += LINGER_S - 1
    world.interest.take(MAIL)
    world.now_s += LINGER_S
    world.interest.sweep()
    assert (world.forgot, world.interest.since(MAIL)) == ([], 7)


async def test_what_lingers_makes_room_and_what_is_watched_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interest, "TOPICS", 2)
    world = World()
    world.interest.take(MAIL)
    world.interest.take(TASK)
    with pytest.raises(Overloaded):
        world.interest.take("another")
    world.interest.take(MAIL)
    world.interest.leave(TASK)
    world.interest.take("another")
    assert (world.interest.topics, world.forgot) == ([MAIL, "another"], [TASK])
