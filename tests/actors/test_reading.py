"""Every page and every look-up is answered, whatever the database does."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from actors.clock import Clock
from actors.core.desk import Desk
from actors.core.errors import Unavailable
from actors.core.events import Answer, Command, Event, Loaded, LoadFailed, Looked, Vanished
from actors.core.queue import Queue
from actors.core.task import Move, Phase
from actors.reading import LOAD_PAGES, LOAD_ROWS, PAUSE_S, Reading
from storage.memory import MemoryDatabase, MemoryStores
from tests.support.builders import T0_MS, make_page, make_task, task_id


class World:
    """A reading over the memory twin."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.clock = Clock(lambda: loop.time() * 1_000)
        self.database = MemoryDatabase(lambda: T0_MS + loop.time() * 1_000)
        self.clock.observe(T0_MS, 0)
        self.stores = MemoryStores(self.database, "boot-a")
        self.link = self.stores.link
        self.desk = Desk()
        self.told: list[tuple[int, Event]] = []
        self.answers: list[Answer] = []
        self.ready = asyncio.Event()
        self.reading = Reading(
            self.stores.tasks,
            self.clock,
            (self.desk,),
            shards=lambda: 256,
            post=lambda shard, event: self.told.append((shard, event)),
            answer=self.answers.append,
            ready=self.ready.set,
        )
        self.queue: Queue


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.queue = await world.stores.queues.ensure("default", "emails")
    await world.stores.tasks.accept([make_task(n, world.queue, shard=n % 4, payload=b"x") for n in range(8)])
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.reading.run())
        yield world
        running.cancel()


def command(number: int, shard: int = 0) -> Command:
    return Command(Move.CANCEL, task_id(number, shard), number)


async def test_pages_are_answered_to_their_shard(world: World) -> None:
    for shard in (2, 0):
        world.reading.load(make_page(shard=shard))
    await asyncio.sleep(1)
    assert [(shard, [task.id for task in event.tasks]) for shard, event in world.told if isinstance(event, Loaded)] == [
        (2, [task_id(2, 2), task_id(6, 2)]),
        (0, [task_id(0, 0), task_id(4, 0)]),
    ]


@pytest.mark.parametrize(("total", "at_a_time"), [(4, LOAD_PAGES), (1_000, 16), (LOAD_ROWS + 1, 1)])
async def test_as_many_pages_as_fit_are_read_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch, total: int, at_a_time: int
) -> None:
    sizes: list[int] = []
    load = world.stores.tasks.load

    async def counted(pages: Sequence[object]) -> list[Loaded]:
        sizes.append(len(pages))
        return await load(pages)  # type: ignore[arg-type]

    monkeypatch.setattr(world.stores.tasks, "load", counted)
    for shard in range(300):
        world.reading.load(make_page(shard=shard % 256, total=total))
    await asyncio.sleep(1)
    assert max(sizes) == at_a_time
    assert sum(sizes) == len(world.told) == 300


async def test_a_page_that_can_not_be_read_comes_back_after_a_pause(world: World) -> None:
    world.link.fail_next("load")
    page = make_page()
    world.reading.load(page)
    await asyncio.sleep(PAUSE_S - 0.01)
    assert world.told == []
    await asyncio.sleep(0.02)
    assert world.told == [(0, LoadFailed(page))]


async def test_look_ups_are_answered_to_their_shard(world: World) -> None:
    commands = [command(1, 1), command(9), command(0)]
    world.reading.find(commands)
    await asyncio.sleep(1)
    looked = [(shard, event) for shard, event in world.told if isinstance(event, Looked)]
    assert [(shard, event.commands) for shard, event in looked] == [
        (1, commands[:1]),
        (0, [commands[1]]),
        (0, [commands[2]]),
    ]
    assert [event.found[0].task is not None for _, event in looked] == [True, False, True]


async def test_a_look_up_that_fails_is_answered_unavailable_at_once(world: World) -> None:
    world.link.fail_next("find")
    world.reading.find([command(0), command(1, 1)])
    await asyncio.sleep(0.01)
    assert [answer.token for answer in world.answers] == [0, 1]
    assert all(isinstance(answer.error, Unavailable) for answer in world.answers)


async def test_payloads_bring_tasks_to_the_front_of_the_desk(world: World) -> None:
    tasks = [make_task(n, world.queue, shard=n % 4, payload=b"x") for n in range(3)]
    for task in tasks:
        task.payload, task.phase = None, Phase.OFFERED
    tasks[1].phase = Phase.GONE
    world.desk.put(tasks)
    assert world.desk.take(9) == []
    world.reading.payloads(world.desk.unread())
    await world.ready.wait()
    assert world.desk.take(9) == [tasks[0], tasks[2]]
    assert tasks[0].payload == b"x"


async def test_payloads_of_tasks_that_went_meanwhile_are_not_read(world: World) -> None:
    task = make_task(0, world.queue, payload=b"x")
    task.payload, task.phase = None, Phase.GONE
    world.reading.payloads([task])
    await world.ready.wait()
    assert task.payload is None
    assert world.told == []


async def test_payloads_that_can_not_be_read_are_asked_for_again_in_turn(world: World) -> None:
    task = make_task(0, world.queue, payload=b"x")
    task.payload, task.phase = None, Phase.OFFERED
    world.desk.put([task])
    world.desk.take(1)
    world.link.fail_next("payloads")
    world.reading.payloads(world.desk.unread())
    await world.ready.wait()
    assert asyncio.get_running_loop().time() == pytest.approx(PAUSE_S)
    assert world.desk.take(1) == []
    world.ready.clear()
    world.reading.payloads(world.desk.unread())
    await world.ready.wait()
    assert world.desk.take(1) == [task]


async def test_a_row_that_is_gone_is_reported(world: World) -> None:
    task = make_task(99, world.queue, payload=b"x")
    task.payload, task.phase = None, Phase.OFFERED
    world.desk.put([task])
    world.desk.take(1)
    world.reading.payloads(world.desk.unread())
    await world.ready.wait()
    assert world.told == [(0, Vanished([task]))]
