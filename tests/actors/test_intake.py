"""Group commit of submits: what is sent together, what is answered, and how much may wait."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.clock import Clock
from actors.core.draft import Draft, Receipt
from actors.core.errors import Invalid, KeyReused, Overloaded, Unavailable
from actors.core.queue import Queue
from actors.core.task import Task
from actors.intake import FLUSH_TASKS, PATIENCE_S, WAITING, WAITING_BYTES, Intake
from actors.stats import Stats
from storage.memory import Fault, MemoryDatabase, MemoryLink, MemoryStores
from tests.support.builders import T0_MS
from tests.support.cluster import draft

QUEUE = Queue(1, "default", "emails")


class World:
    """An intake over the memory twin."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        clock = Clock(lambda: loop.time() * 1_000)
        clock.observe(T0_MS, 0)
        self.stores = MemoryStores(MemoryDatabase(lambda: float(T0_MS)), "boot-a")
        self.stores.book.put(QUEUE)
        self.link: MemoryLink = self.stores.link
        self.stats = Stats()
        self.hints: list[Task] = []
        self.hinted_ms: list[int] = []
        self.commits: list[int] = []
        self.leased = True
        self.intake = Intake(self.stores.tasks, clock, lambda: 256, self._hint, self.stats, lambda: self.leased)

    def _hint(self, tasks: list[Task], at_ms: int) -> None:
        self.hints += tasks
        self.hinted_ms.append(at_ms)

    async def send(self, *drafts: Draft) -> list[Receipt | Exception]:
        return await self.intake.submit(drafts)

    @property
    def live(self) -> list[str]:
        return sorted(row.id for row in self.link.database.live.all())


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    world = World()
    accept = world.stores.tasks.accept
    accept_keyed = world.stores.tasks.accept_keyed

    async def counted(tasks: list[Task]) -> object:
        world.commits.append(len(tasks))
        return await accept(tasks)

    async def counted_keyed(tasks: list[Task]) -> object:
        world.commits.append(len(tasks))
        return await accept_keyed(tasks)

    monkeypatch.setattr(world.stores.tasks, "accept", counted)
    monkeypatch.setattr(world.stores.tasks, "accept_keyed", counted_keyed)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.intake.run())
        yield world
        running.cancel()


async def test_what_comes_while_a_commit_is_under_way_goes_with_the_next_one(world: World) -> None:
    gate = world.link.hold_next("accept")
    async with asyncio.TaskGroup() as group:
        group.create_task(world.send(draft(QUEUE)))
        await gate.reached.wait()
        for _ in range(10):
            group.create_task(world.send(draft(QUEUE), draft(QUEUE)))
        await asyncio.sleep(1)
        gate.open()
    assert world.commits == [1, 20]
    assert len(world.hints) == 21
    assert world.stats.accepted == 21


async def test_keyed_and_unkeyed_tasks_of_one_batch_are_committed_side_by_side(world: World) -> None:
    gate, keyed = world.link.hold_next("accept"), world.link.hold_next("accept_keyed")
    async with asyncio.TaskGroup() as group:
        sent = group.create_task(world.send(draft(QUEUE), draft(QUEUE, key="a"), draft(QUEUE), draft(QUEUE, key="b")))
        async with asyncio.timeout(1):
            await gate.reached.wait()
            await keyed.reached.wait()
        gate.open()
        await asyncio.sleep(0)
        assert not sent.done()
        keyed.open()
    assert [isinstance(answer, Receipt) for answer in sent.result()] == [True] * 4


async def test_a_submit_larger_than_a_commit_is_answered_as_one(world: World) -> None:
    answers = await world.send(*[draft(QUEUE) for _ in range(2 * FLUSH_TASKS + 1)])
    assert world.commits == [FLUSH_TASKS, FLUSH_TASKS, 1]
    assert sorted(answer.id for answer in answers if isinstance(answer, Receipt)) == world.live


async def test_a_commit_takes_a_bounded_number_of_tasks(world: World) -> None:
    gate = world.link.hold_next("accept")
    async with asyncio.TaskGroup() as group:
        group.create_task(world.send(draft(QUEUE)))
        await gate.reached.wait()
        for _ in range(30):
            group.create_task(world.send(*[draft(QUEUE) for _ in range(300)]))
        await asyncio.sleep(1)
        gate.open()
    assert max(world.commits) <= FLUSH_TASKS
    assert len(world.commits) == 1 + 5


async def test_an_empty_submit_sends_nothing(world: World) -> None:
    assert await world.send() == []
    assert world.commits == []


async def test_tasks_of_one_submit_are_ordered_by_their_accept_time(world: World) -> None:
    one = await world.send(*[draft(QUEUE) for _ in range(50)])
    two = await world.send(*[draft(QUEUE) for _ in range(50)])
    times = [world.link.database.live.get(answer.id) for answer in [*one, *two] if isinstance(answer, Receipt)]
    accepted = [row.accept_us for row in times if row is not None]
    assert accepted == sorted(set(accepted))
    assert len(accepted) == 100


async def test_a_delay_counts_from_now_and_a_past_time_is_kept_but_due_at_once(world: World) -> None:
    answers = await world.send(
        draft(QUEUE, delay_ms=500), draft(QUEUE, schedule_ms=T0_MS - 9_000), draft(QUEUE, schedule_ms=T0_MS + 7)
    )
    rows = [world.link.database.live.get(answer.id) for answer in answers if isinstance(answer, Receipt)]
    assert [(row.schedule_ms - T0_MS, row.due_ms - T0_MS) for row in rows if row is not None] == [
        (500, 500),
        (-9_000, 0),
        (7, 7),
    ]


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_commit_that_fails_is_told_to_all_who_wait_for_it_and_not_sent_again(
    world: World, fault: Fault
) -> None:
    world.link.fail_next("accept", fault)
    gate = world.link.hold_next("accept")
    told: list[str] = []

    async def refused() -> None:
        with pytest.raises(Unavailable):
            await world.send(draft(QUEUE), draft(QUEUE))
        told.append("Unavailable")

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(refused())
        await gate.reached.wait()
        gate.open()
    assert len(told) == 5
    assert len(world.commits) <= 2
    assert world.hints == [] or len(world.hints) == 8
    assert isinstance((await world.send(draft(QUEUE)))[0], Receipt)


async def test_a_mixed_submit_of_which_one_half_fails_fails_as_a_whole(world: World) -> None:
    for statement in ("accept", "accept_keyed"):
        world.link.fail_next(statement)
        with pytest.raises(Unavailable):
            await world.send(draft(QUEUE), draft(QUEUE, key="k"))
        await world.intake.idle()


async def test_an_error_of_the_program_reaches_the_client_and_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(world.stores.tasks, "accept", None)
        with pytest.raises(TypeError):
            await world.send(draft(QUEUE))
    assert isinstance((await world.send(draft(QUEUE)))[0], Receipt)


async def test_refused_items_are_not_hinted_at(world: World) -> None:
    bad = draft(QUEUE)
    bad.labels = '{"a":"\\u0000"}'
    answers = await world.send(draft(QUEUE), bad, draft(QUEUE))
    assert isinstance(answers[1], Invalid)
    assert len(world.hints) == world.stats.accepted == 2
    bad.key, bad.key_hash = "k", bytes(16)
    (answer,) = await world.send(bad)
    assert isinstance(answer, Invalid)
    assert world.stats.replayed == 0


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_hint_is_as_old_as_the_commit_may_be(world: World, key: str | None) -> None:
    """Its reply came late, or this process was stopped meanwhile: others may have run the task, and forgotten it."""
    gate = world.link.hold_next("accept" if key is None else "accept_keyed")
    async with asyncio.TaskGroup() as group:
        group.create_task(world.send(draft(QUEUE, key=key)))
        await gate.reached.wait()
        await asyncio.sleep(PATIENCE_S * 0.9)
        gate.open()
    assert world.hinted_ms == [T0_MS]


@pytest.mark.parametrize("key", [None, "k"])
async def test_at_the_end_of_the_node_everyone_is_answered(key: str | None) -> None:
    world = World()
    told: list[int] = []

    async def refused(count: int) -> None:
        with pytest.raises(Unavailable):
            await world.send(*[draft(QUEUE, key=key) for _ in range(count)])
        told.append(count)

    gate = world.link.hold_next("accept" if key is None else "accept_keyed")
    async with asyncio.timeout(1), asyncio.TaskGroup() as group:
        running = group.create_task(world.intake.run())
        group.create_task(refused(1))
        await gate.reached.wait()
        for _ in range(3):
            group.create_task(refused(FLUSH_TASKS))
        await asyncio.sleep(0)
        running.cancel()
    assert sorted(told) == [1, *[FLUSH_TASKS] * 3]
    await refused(1)
    await world.intake.idle()


# --- bounds


async def test_more_than_the_bound_is_refused_before_anything_is_sent(world: World) -> None:
    gate = world.link.hold_next("accept")
    async with asyncio.TaskGroup() as group:
        for _ in range(WAITING // 5_000):
            group.create_task(world.send(*[draft(QUEUE)] * 5_000))
        await gate.reached.wait()
        with pytest.raises(Overloaded):
            await world.send(draft(QUEUE))
        with pytest.raises(Overloaded):
            await world.send(draft(QUEUE, key="k"))
        gate.open()
    assert len(world.live) == WAITING
    assert isinstance((await world.send(draft(QUEUE)))[0], Receipt)


async def test_nothing_is_taken_while_others_wait_too_long(world: World) -> None:
    """Each commit comes to its end, but more come than can be written."""
    gates = [world.link.hold_next("accept") for _ in range(2)]
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(world.send(*[draft(QUEUE)] * FLUSH_TASKS))
        for gate in gates:
            await gate.reached.wait()
            await asyncio.sleep(PATIENCE_S * 0.6)
            if gate is gates[1]:
                for late in (draft(QUEUE), draft(QUEUE, key="k")):
                    with pytest.raises(Overloaded) as refusal:
                        await world.send(late)
                    assert refusal.value.retry_after_ms == 2_000
                    with pytest.raises(Overloaded):
                        world.intake.submit_one(late)
            gate.open()
    assert len(world.live) == 3 * FLUSH_TASKS
    assert isinstance((await world.send(draft(QUEUE)))[0], Receipt)


async def test_nobody_waits_longer_for_a_commit_that_hangs(world: World) -> None:
    """Whoever waits is told in time, who comes later at once, and the commit goes on."""
    loop = asyncio.get_running_loop()
    gate = world.link.hold_next("accept")
    began_s = loop.time()
    first = world.intake.submit_one(draft(QUEUE))
    await gate.reached.wait()
    await asyncio.sleep(PATIENCE_S / 2)
    behind = [world.intake.submit_one(draft(QUEUE)) for _ in range(3)]
    for waiting, words in [(first, "not known"), *((each, "does not answer") for each in behind)]:
        with pytest.raises(Unavailable, match=words) as refusal:
            await waiting
        assert refusal.value.retry_after_ms == 2_000
        assert loop.time() - began_s == pytest.approx(PATIENCE_S, abs=0.01)
    with pytest.raises(Unavailable):
        world.intake.submit_one(draft(QUEUE))
    with pytest.raises(Unavailable):
        await world.send(draft(QUEUE), draft(QUEUE))
    assert isinstance((await world.send(draft(QUEUE, key="a")))[0], Receipt), "keyed tasks go another way"
    await world.intake.idle()
    gate.open()
    await asyncio.sleep(0.1)
    assert len(world.live) == len(world.hints) == 2, "its end was not known, and nobody heard of it but the owner"
    assert isinstance(await world.intake.submit_one(draft(QUEUE)), Receipt)
    assert world.commits == [1, 1, 1]


async def test_without_a_lease_a_commit_that_failed_is_the_last_one(world: World) -> None:
    """And as long as commits come to their end, none is needed."""
    world.leased = False
    assert isinstance((await world.send(draft(QUEUE)))[0], Receipt)
    world.link.away = True
    with pytest.raises(Unavailable):
        await world.send(draft(QUEUE))
    assert len(world.commits) == 2
    for again in (draft(QUEUE), draft(QUEUE, key="k")):
        with pytest.raises(Unavailable) as refusal:
            world.intake.submit_one(again)
        assert refusal.value.retry_after_ms == 2_000
    world.link.away = False
    assert len(world.commits) == 2
    world.leased = True
    assert isinstance((await world.send(draft(QUEUE)))[0], Receipt)
    world.leased = False
    assert isinstance((await world.send(draft(QUEUE)))[0], Receipt)


async def test_payloads_are_bounded_in_bytes(world: World) -> None:
    payload = bytes(1024 * 1024)
    many = [draft(QUEUE, payload=payload)] * (WAITING_BYTES // len(payload))
    gate = world.link.hold_next("accept")
    async with asyncio.TaskGroup() as group:
        group.create_task(world.send(*many))
        await gate.reached.wait()
        with pytest.raises(Overloaded):
            await world.send(draft(QUEUE, payload=b"x"))
        group.create_task(world.send(draft(QUEUE)))
        gate.open()
    assert isinstance((await world.send(draft(QUEUE, payload=payload)))[0], Receipt)


async def test_a_client_that_goes_away_takes_nobody_with_it(world: World) -> None:
    gate = world.link.hold_next("accept")
    async with asyncio.TaskGroup() as group:
        group.create_task(world.send(draft(QUEUE)))
        await gate.reached.wait()
        gone = group.create_task(world.send(draft(QUEUE)))
        stays = group.create_task(world.send(draft(QUEUE), draft(QUEUE)))
        await asyncio.sleep(0.1)
        gone.cancel()
        gate.open()
    (first, second) = stays.result()
    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    assert {first.id, second.id} <= set(world.live)
    await world.intake.idle()


async def test_what_clients_left_behind_counts_until_it_is_written(world: World) -> None:
    gate = world.link.hold_next("accept")
    async with asyncio.TaskGroup() as group:
        group.create_task(world.send(draft(QUEUE)))
        await gate.reached.wait()
        for _ in range(WAITING // 5_000):
            gone = group.create_task(world.send(*[draft(QUEUE)] * 4_999))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            gone.cancel()
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await world.send(*[draft(QUEUE)] * 5_000)
        gate.open()
    await world.intake.idle()
    assert isinstance((await world.send(*[draft(QUEUE)] * WAITING))[0], Receipt)


async def test_idle_waits_for_all_that_was_sent_before(world: World) -> None:
    await world.intake.idle()
    gate, keyed = world.link.hold_next("accept"), world.link.hold_next("accept_keyed")
    async with asyncio.TaskGroup() as group:
        group.create_task(world.send(draft(QUEUE), draft(QUEUE, key="k")))
        await asyncio.sleep(0)
        idle = group.create_task(world.intake.idle())
        for held in (gate, keyed):
            await asyncio.sleep(0.5)
            assert not idle.done()
            held.open()
    assert len(world.live) == 2


# --- one task, without a coroutine


async def test_single_tasks_share_a_commit_with_all_others(world: World) -> None:
    gate = world.link.hold_next("accept")
    async with asyncio.TaskGroup() as group:
        first = world.intake.submit_one(draft(QUEUE, delay_ms=1))
        await gate.reached.wait()
        singles = [world.intake.submit_one(draft(QUEUE, delay_ms=2))]
        batch = group.create_task(world.send(draft(QUEUE, delay_ms=3), draft(QUEUE, delay_ms=4)))
        await asyncio.sleep(0)
        singles.append(world.intake.submit_one(draft(QUEUE, delay_ms=5)))
        assert not first.done()
        gate.open()
    assert world.commits == [1, 4]
    receipts = [await first, await singles[0], *batch.result(), await singles[1]]
    delays = [receipt.schedule_ms - T0_MS for receipt in receipts if isinstance(receipt, Receipt)]
    assert delays == [1, 2, 3, 4, 5], "each has the answer of its own place"
    assert sorted(receipt.id for receipt in receipts if isinstance(receipt, Receipt)) == world.live
    assert world.stats.accepted == len(world.hints) == 5


async def test_a_single_task_that_does_not_fit_begins_the_next_commit(world: World) -> None:
    gate = world.link.hold_next("accept")
    async with asyncio.TaskGroup() as group:
        group.create_task(world.send(draft(QUEUE)))
        await gate.reached.wait()
        group.create_task(world.send(*[draft(QUEUE) for _ in range(FLUSH_TASKS)]))
        await asyncio.sleep(0)
        single = world.intake.submit_one(draft(QUEUE))
        gate.open()
    assert (await single).new
    assert world.commits == [1, FLUSH_TASKS, 1]


async def test_a_single_task_is_refused_before_it_is_sent(world: World) -> None:
    gate = world.link.hold_next("accept")
    async with asyncio.TaskGroup() as group:
        for _ in range(WAITING // 5_000):
            group.create_task(world.send(*[draft(QUEUE)] * 5_000))
        await gate.reached.wait()
        for key in (None, "k"):
            with pytest.raises(Overloaded):
                world.intake.submit_one(draft(QUEUE, key=key))
        gate.open()
    assert len(world.live) == WAITING
    assert isinstance(await world.intake.submit_one(draft(QUEUE)), Receipt)


async def test_payloads_of_single_tasks_are_bounded_in_bytes(world: World) -> None:
    payload = bytes(1024 * 1024)
    gate = world.link.hold_next("accept")
    for _ in range(WAITING_BYTES // len(payload)):
        world.intake.submit_one(draft(QUEUE, payload=payload))
    with pytest.raises(Overloaded):
        world.intake.submit_one(draft(QUEUE, payload=b"x"))
    small = world.intake.submit_one(draft(QUEUE))
    gate.open()
    assert isinstance(await small, Receipt)
    await world.intake.idle()
    assert isinstance(await world.intake.submit_one(draft(QUEUE, payload=payload)), Receipt)


async def test_who_no_longer_waits_for_a_single_task_takes_nobody_with_it(world: World) -> None:
    gate = world.link.hold_next("accept")
    world.intake.submit_one(draft(QUEUE))
    await gate.reached.wait()
    gone, stays = (world.intake.submit_one(draft(QUEUE)) for _ in range(2))
    gone.cancel()
    gate.open()
    assert (await stays).id in world.live
    await world.intake.idle()
    assert gone.cancelled()
    assert len(world.live) == 3, "it was accepted all the same"
    assert world.stats.accepted == 3


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("key", [None, "k"])
async def test_a_commit_that_fails_is_told_to_each_single_task(world: World, key: str | None, fault: Fault) -> None:
    statement = "accept" if key is None else "accept_keyed"
    gate = world.link.hold_next(statement)
    held = world.intake.submit_one(draft(QUEUE, key=key))
    await gate.reached.wait()
    world.link.fail_next(statement, fault)
    singles = [world.intake.submit_one(draft(QUEUE, key=key and f"{key}{n}")) for n in range(5)]
    singles[2].cancel()
    gate.open()
    assert isinstance(await held, Receipt)
    await world.intake.idle()
    assert [type(single.exception()) for n, single in enumerate(singles) if n != 2] == [Unavailable] * 4
    assert isinstance(await world.intake.submit_one(draft(QUEUE)), Receipt)
    assert world.commits == [1, 5, 1], "nothing is sent again"


async def test_a_single_task_is_refused_alone(world: World) -> None:
    gate = world.link.hold_next("accept")
    first = world.intake.submit_one(draft(QUEUE))
    await gate.reached.wait()
    bad = draft(QUEUE)
    bad.labels = '{"a":"\\u0000"}'
    refused, good = world.intake.submit_one(bad), world.intake.submit_one(draft(QUEUE))
    gate.open()
    with pytest.raises(Invalid):
        await refused
    assert sorted([(await first).id, (await good).id]) == world.live
    assert len(world.hints) == world.stats.accepted == 2


async def test_a_single_task_with_a_key_is_replayed_or_refused(world: World) -> None:
    first = await world.intake.submit_one(draft(QUEUE, key="k"))
    again = await world.intake.submit_one(draft(QUEUE, key="k"))
    other = draft(QUEUE, key="k")
    other.key_hash = bytes(16)
    with pytest.raises(KeyReused):
        await world.intake.submit_one(other)
    assert (first.new, again.new) == (True, False)
    assert [first.id] == [again.id] == world.live
    assert (world.stats.accepted, world.stats.replayed, len(world.hints)) == (1, 1, 1)


@pytest.mark.parametrize("key", [None, "k"])
async def test_single_tasks_with_and_without_a_key_do_not_wait_for_each_other(world: World, key: str | None) -> None:
    gate = world.link.hold_next("accept" if key is None else "accept_keyed")
    held = world.intake.submit_one(draft(QUEUE, key=key))
    await gate.reached.wait()
    assert isinstance(await world.intake.submit_one(draft(QUEUE, key="k" if key is None else None)), Receipt)
    assert not held.done()
    gate.open()
    await held


@pytest.mark.parametrize("key", [None, "k"])
async def test_at_the_end_of_the_node_each_single_task_is_answered(key: str | None) -> None:
    world = World()
    gate = world.link.hold_next("accept" if key is None else "accept_keyed")
    async with asyncio.timeout(1), asyncio.TaskGroup() as group:
        running = group.create_task(world.intake.run())
        held = world.intake.submit_one(draft(QUEUE, key=key))
        await gate.reached.wait()
        waits, gone = world.intake.submit_one(draft(QUEUE, key=key)), world.intake.submit_one(draft(QUEUE, key=key))
        gone.cancel()
        running.cancel()
    assert isinstance(held.exception(), Unavailable)
    assert isinstance(waits.exception(), Unavailable)
    with pytest.raises(Unavailable):
        world.intake.submit_one(draft(QUEUE, key=key))
    await world.intake.idle()
