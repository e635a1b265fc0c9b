"""The probe asks for what is overdue, of every shard, and goes on where there is more than a page shows."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest

from actors.clock import Clock
from actors.core.events import Event, Loaded, Page, Probed
from actors.core.queue import Queue
from actors.core.task import Task
from actors.probe import CALM, FULL_ROUND, NEWS_ROWS, PROBE_LATE_MS, PROBE_ROWS, PROBE_S, PROBE_STEPS, Probe
from storage.memory import MemoryDatabase, MemoryStores
from tests.support.builders import T0_MS, make_task


class World:
    """A probe over the memory twin, ten seconds after `T0_MS`, of four shards until told otherwise."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.clock = Clock(lambda: loop.time() * 1_000)
        self.database = MemoryDatabase(lambda: T0_MS + loop.time() * 1_000)
        self.stores = MemoryStores(self.database, "boot-a")
        self.owned: dict[int, dict[int, int]] = {shard: {} for shard in range(4)}
        self.told: list[tuple[int, Event]] = []
        self.asked: list[tuple[float, Page]] = []
        self._load = self.stores.tasks.load
        self.stores.tasks.load = self.load  # type: ignore[method-assign]
        self.known: set[str] = set()
        self.probe = Probe(self.stores.tasks, self.clock, self._owned, self._post)
        self.queue: Queue

    def _owned(self) -> list[tuple[int, Callable[[], dict[int, int]]]]:
        return [(shard, partial(self.owned.__getitem__, shard)) for shard in self.owned]

    def _post(self, shard: int, event: Probed) -> bool:
        self.told.append((shard, event))
        news = {task.id for task in event.tasks} - self.known
        return bool(news)

    async def load(self, pages: Sequence[Page]) -> list[Loaded]:
        loop = asyncio.get_running_loop()
        self.clock.observe(T0_MS + loop.time() * 1_000, loop.time() * 1_000)
        self.asked.extend((loop.time(), page) for page in pages)
        return await self._load(pages)

    @property
    def found(self) -> list[tuple[int, str]]:
        return [(shard, task.id) for shard, event in self.told if isinstance(event, Probed) for task in event.tasks]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.probe.run())
            yield
            task.cancel()


@pytest.fixture
async def world() -> World:
    world = World()
    world.queue = await world.stores.queues.ensure("default", "emails")
    await asyncio.sleep(10)
    world.clock.observe(T0_MS + 10_000, 10_000)
    return world


async def test_a_round_asks_for_every_shard_once_and_one_in_thirty_from_the_beginning(world: World) -> None:
    owned = sorted(range(0, 64, 3))
    world.owned = {shard: {shard: 7} for shard in owned}
    async with world.running():
        await asyncio.sleep(FULL_ROUND * PROBE_S - 0.01)
    for turn in range(FULL_ROUND - 1):
        since, until = 10 + turn * PROBE_S, 10 + (turn + 1) * PROBE_S
        part = [page for at, page in world.asked if since < at <= until + 0.001]
        assert sorted(page.shard for page in part) == owned
        assert all((page.after_due_ms == -1) is (turn == 0) for page in part)
        assert all((page.queue_id, page.caps) == (None, {page.shard: 7}) for page in part)
    for at, page in world.asked:
        assert page.until_ms == pytest.approx(T0_MS + at * 1_000 - PROBE_LATE_MS, abs=2)
    assert len({at for at, _ in world.asked[: len(owned)]}) <= PROBE_STEPS


async def test_each_shard_is_told_what_was_found_and_an_outage_leaves_no_stretch_unseen(world: World) -> None:
    await world.stores.tasks.accept([make_task(n, world.queue, shard=n % 4) for n in range(8)])
    for _ in range(3):
        world.stores.link.fail_next("load")
    async with world.running():
        await asyncio.sleep(PROBE_S + 0.01)
        assert {shard for shard, _ in world.found} == {3}
        await asyncio.sleep(PROBE_S)
    assert {shard: len([s for s, _ in set(world.found) if s == shard]) for shard in range(4)} == dict.fromkeys(
        range(4), 2
    )
    assert all(isinstance(event, Probed) and event.asked_ms > T0_MS + 10_000 for _, event in world.told)


async def test_a_node_without_shards_asks_for_nothing(world: World) -> None:
    world.owned = {}
    async with world.running():
        await asyncio.sleep(60)
    assert world.asked == []


@pytest.mark.parametrize(("known", "steps"), [(True, 1_000 / PROBE_ROWS), (False, 1_000 / NEWS_ROWS)])
async def test_no_crowd_hides_a_row(world: World, known: bool, steps: float) -> None:
    crowd = [make_task(n, world.queue, due_ms=T0_MS + n // 100) for n in range(1_000)]
    await world.stores.tasks.accept([*crowd, make_task(5_000, world.queue, due_ms=T0_MS + 5_000)])
    world.known = {task.id for task in crowd} if known else set()
    async with world.running():
        await asyncio.sleep((4 + steps) * PROBE_S / PROBE_STEPS)
    assert {task_id for _, task_id in world.found} == {task.id for task in crowd} | {make_task(5_000, world.queue).id}


async def test_what_rests_in_the_tables_is_left_there(world: World) -> None:
    world.owned[0] = {world.queue.id: T0_MS + 2}
    await world.stores.tasks.accept([make_task(n, world.queue, due_ms=T0_MS + n // 100) for n in range(1_000)])
    async with world.running():
        await asyncio.sleep(2 * PROBE_S)
    assert {task_id for _, task_id in world.found} == {make_task(n, world.queue).id for n in range(300)}


STEP_S = PROBE_S / PROBE_STEPS


@pytest.fixture
async def crowd(world: World) -> list[Task]:
    """A hundred known tasks in each of CALM queues of shard 0, then of shard 1."""
    queues = [await world.stores.queues.ensure("default", f"q{n}") for n in range(2 * CALM)]
    tasks = [make_task(1_000 * at + n, queue, shard=at // CALM) for at, queue in enumerate(queues) for n in range(100)]
    await world.stores.tasks.accept(tasks)
    world.known = {task.id for task in tasks}
    return tasks


def found_of(world: World, shard: int) -> set[str]:
    return {task_id for where, task_id in world.found if where == shard}


async def test_continued_pages_take_turns_and_survive_an_outage(world: World, crowd: list[Task]) -> None:
    async with world.running():
        await asyncio.sleep(2.1 * STEP_S)
        assert len(world.asked) == 2 + CALM
        world.stores.link.fail_next("load")
        await asyncio.sleep(STEP_S)
        failed = len(world.asked)
        lost = [page for _, page in world.asked[2 + CALM :] if page.queue_id is not None]
        assert len(lost) == CALM
        await asyncio.sleep(STEP_S)
        again = [page for _, page in world.asked[failed:]]
    assert all(page in again for page in lost)


async def test_continued_pages_go_with_their_shard(world: World, crowd: list[Task]) -> None:
    async with world.running():
        await asyncio.sleep(2.1 * STEP_S)
        del world.owned[1]
        await asyncio.sleep(0.9 * PROBE_S)
    assert {page.shard for _, page in world.asked if page.queue_id is not None} == {0}
    assert found_of(world, 0) == {task.id for task in crowd if task.shard == 0}


async def test_a_page_that_waits_goes_on_to_the_end_of_the_next_window(world: World) -> None:
    tasks = [make_task(n, world.queue, due_ms=T0_MS + 7_000 + 10 * n) for n in range(900)]
    await world.stores.tasks.accept(tasks)
    async with world.running():
        await asyncio.sleep(16 * PROBE_S)
    assert {task_id for _, task_id in world.found} == {task.id for task in tasks}
