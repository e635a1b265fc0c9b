"""The TaskStore port: loading, payloads, probing, finding."""

from collections import defaultdict
from itertools import pairwise

import pytest

from actors.core.events import NO_ID, Loaded, Op, Page, Verdict
from actors.core.queue import Queue
from actors.core.task import State, Task
from tests.actors.ports.worlds import Owner, Stores
from tests.support.builders import (
    HASH,
    LABELS,
    T0_MS,
    TRACE,
    finish,
    make_outcome,
    make_page,
    make_record,
    make_task,
    move,
    redrive,
    task_id,
)


async def load_one(stores: Stores, page: Page) -> Loaded:
    [loaded] = await stores.tasks.load([page])
    return loaded


def numbers(tasks: list[Task]) -> list[int]:
    return [int(task.id[:8], 16) for task in tasks]


@pytest.mark.parametrize("key_hash", [None, HASH])
async def test_a_trace_stays_with_its_task_wherever_its_row_goes(owner: Owner, key_hash: bytes | None) -> None:
    tasks = [make_task(n, owner.queue, trace=trace, key_hash=key_hash) for n, trace in enumerate((TRACE, None))]
    store = owner.stores.tasks
    await (store.accept(tasks) if key_hash is None else store.accept_keyed(tasks))

    async def traces() -> list[str | None]:
        found = await store.find(None, [task.id for task in tasks])
        return [one.task.trace for one in found if one.task is not None]

    assert [task.trace for task in (await load_one(owner.stores, make_page())).tasks] == [TRACE, None]
    assert await traces() == [TRACE, None]
    assert await owner.stores.ledger.write(owner.boot, [move(task, due_ms=T0_MS + 5) for task in tasks]) == set()
    assert await traces() == [TRACE, None]
    assert await owner.stores.ledger.write(owner.boot, [finish(task, rev=1) for task in tasks]) == set()
    assert await traces() == [TRACE, None]
    assert await owner.stores.ledger.write(owner.boot, [redrive(task, rev=2) for task in tasks]) == set()
    assert [task.trace for task in (await load_one(owner.stores, make_page())).tasks] == [TRACE, None]


# --- load --------------------------------------------------------------------------------------------------------


async def test_a_page_is_in_due_then_id_order(stores: Stores, queue: Queue) -> None:
    dues = {1: 30, 2: 10, 3: 20, 4: 10, 5: 0}
    await stores.tasks.accept([make_task(n, queue, due_ms=T0_MS + due) for n, due in reversed(dues.items())])
    assert numbers((await load_one(stores, make_page(queue=queue))).tasks) == [5, 2, 4, 3, 1]


async def test_pages_walk_every_row_once_also_among_equal_due_times(stores: Stores, queue: Queue) -> None:
    await stores.tasks.accept([make_task(n, queue, due_ms=T0_MS + n // 5) for n in range(17)])
    seen: list[int] = []
    after = (0, NO_ID)
    while True:
        loaded = await load_one(stores, make_page(queue=queue, after=after, limit=3))
        assert len(seen) < 17, "the walk goes in circles"
        seen += numbers(loaded.tasks)
        if not loaded.full:
            break
        after = (loaded.tasks[-1].due_ms, loaded.tasks[-1].id)
    assert seen == list(range(17))


async def test_a_page_starts_strictly_after_its_key(stores: Stores, queue: Queue) -> None:
    await stores.tasks.accept([make_task(n, queue) for n in (1, 2, 3)])
    loaded = await load_one(stores, make_page(queue=queue, after=(T0_MS, task_id(1))))
    assert numbers(loaded.tasks) == [2, 3]


async def test_a_page_holds_what_is_due_at_its_end_and_nothing_beyond(stores: Stores, queue: Queue) -> None:
    await stores.tasks.accept([make_task(n, queue, due_ms=T0_MS + n) for n in (1, 2, 3)])
    for home in (queue, None):
        assert numbers((await load_one(stores, make_page(queue=home, until_ms=T0_MS + 2))).tasks) == [1, 2]


async def test_full_names_the_queue_that_hit_the_limit(stores: Stores, queue: Queue) -> None:
    await stores.tasks.accept([make_task(n, queue) for n in range(4)])
    for home in (queue, None):
        for limit, full in ((3, {queue.id}), (5, set())):
            loaded = await load_one(stores, make_page(queue=home, limit=limit))
            assert len(loaded.tasks) == min(limit, 4)
            assert set(loaded.full) == full


async def test_a_page_of_one_queue_has_no_other(stores: Stores, queue: Queue) -> None:
    other = await stores.queues.ensure("default", "other")
    await stores.tasks.accept([make_task(1, queue), make_task(2, other)])
    assert numbers((await load_one(stores, make_page(queue=other))).tasks) == [2]


async def test_a_page_of_every_queue_gives_each_its_own_limit(stores: Stores, queue: Queue) -> None:
    queues = [queue, *[await stores.queues.ensure("default", f"q{n}") for n in range(3)]]
    tasks = [make_task(100 * at + n, home, due_ms=T0_MS + n) for at, home in enumerate(queues) for n in range(at + 1)]
    await stores.tasks.accept(tasks)
    loaded = await load_one(stores, make_page(limit=2))
    held = defaultdict(list)
    for task in loaded.tasks:
        held[task.queue.id].append(task.id)
    firsts = {home.id: [task_id(100 * at + n) for n in range(min(at + 1, 2))] for at, home in enumerate(queues)}
    assert held == firsts
    assert set(loaded.full) == {home.id for home in queues[1:]}


async def test_a_page_of_every_queue_starts_after_its_key_in_each(stores: Stores, queue: Queue) -> None:
    other = await stores.queues.ensure("default", "other")
    await stores.tasks.accept([make_task(n, queue if n % 2 else other, due_ms=T0_MS + n // 2) for n in range(8)])
    loaded = await load_one(stores, make_page(after=(T0_MS + 1, task_id(3))))
    assert sorted(numbers(loaded.tasks)) == [4, 5, 6, 7]


@pytest.mark.parametrize("count", [5, 70])
async def test_pages_find_the_few_queues_that_have_rows(stores: Stores, queue: Queue, count: int) -> None:
    queues = [await stores.queues.ensure("default", f"q{n}") for n in range(count)]
    busy = [queues[1], queues[count // 2], queues[-1]]
    tasks = [make_task(10 * at + n, home, due_ms=T0_MS + n) for at, home in enumerate(busy) for n in range(3)]
    await stores.tasks.accept([*tasks, make_task(99, queues[0], shard=1)])
    loads = await stores.tasks.load([make_page(limit=2), make_page(shard=1), make_page(shard=2)])
    assert [sorted(numbers(loaded.tasks)) for loaded in loads] == [[0, 1, 10, 11, 20, 21], [99], []]
    assert set(loads[0].full) == {home.id for home in busy}


async def test_a_page_of_every_queue_shows_the_first_of_them_all_and_one_of_each(stores: Stores, queue: Queue) -> None:
    """Tasks 0-4 are due before 10-14, those before 20, 21; 30 is alone in its queue, and last."""
    queues = [queue, *[await stores.queues.ensure("default", f"q{n}") for n in range(3)]]
    counts = [5, 5, 2, 1]
    await stores.tasks.accept(
        [
            make_task(10 * at + n, home, due_ms=T0_MS + 10 * at + n)
            for at, (home, count) in enumerate(zip(queues, counts, strict=True))
            for n in range(count)
        ]
    )
    loaded = await load_one(stores, make_page(limit=4, total=6))
    assert numbers(loaded.tasks) == [0, 1, 2, 3, 10, 11, 20, 30]
    assert {queue_id: due_ms - T0_MS for queue_id, (due_ms, _) in loaded.full.items()} == {
        queues[0].id: 3,
        queues[1].id: 11,
        queues[2].id: 20,
    }
    assert numbers((await load_one(stores, make_page(limit=4, total=100))).tasks) == [
        0,
        1,
        2,
        3,
        10,
        11,
        12,
        13,
        20,
        21,
        30,
    ]


async def test_a_page_of_every_queue_ends_earlier_for_those_it_is_told_to(stores: Stores, queue: Queue) -> None:
    other = await stores.queues.ensure("default", "other")
    await stores.tasks.accept([make_task(n, queue if n % 2 else other, due_ms=T0_MS + n) for n in range(8)])
    caps = {queue.id: T0_MS + 3, other.id: T0_MS - 1}
    assert numbers((await load_one(stores, make_page(caps=caps))).tasks) == [1, 3]
    assert numbers((await load_one(stores, make_page(caps={queue.id: T0_MS + 99}, until_ms=T0_MS + 3))).tasks) == [
        0,
        1,
        2,
        3,
    ]


async def test_a_page_has_only_its_shard(stores: Stores, queue: Queue) -> None:
    await stores.tasks.accept([make_task(n, queue, shard=n) for n in range(4)])
    assert numbers((await load_one(stores, make_page(shard=2))).tasks) == [2]


async def test_pages_are_answered_one_each_in_order(stores: Stores, queue: Queue) -> None:
    other = await stores.queues.ensure("default", "other")
    await stores.tasks.accept(
        [make_task(n, queue, shard=n) for n in range(3)] + [make_task(9, other, shard=1), make_task(10, other, shard=2)]
    )
    pages = [
        make_page(shard=2, queue=queue),
        make_page(shard=7),
        make_page(shard=1),
        make_page(shard=2, queue=other),
        make_page(shard=0, limit=1),
    ]
    loads = await stores.tasks.load(pages)
    assert [loaded.page for loaded in loads] == pages
    assert [sorted(numbers(loaded.tasks)) for loaded in loads] == [[2], [], [1, 9], [10], [0]]
    assert [set(loaded.full) for loaded in loads] == [set(), set(), set(), set(), {queue.id}]


async def test_no_page_is_no_answer(stores: Stores) -> None:
    assert await stores.tasks.load([]) == []


async def test_a_finished_task_is_not_loaded(owner: Owner) -> None:
    task = make_task(1, owner.queue)
    await owner.stores.tasks.accept([task])
    await owner.stores.ledger.write(owner.boot, [finish(task)])
    assert (await load_one(owner.stores, make_page())).tasks == []


async def test_a_moved_task_is_loaded_at_its_new_time(owner: Owner) -> None:
    task = make_task(1, owner.queue)
    await owner.stores.tasks.accept([task])
    await owner.stores.ledger.write(owner.boot, [move(task, due_ms=T0_MS + 500)])
    [loaded] = (await load_one(owner.stores, make_page())).tasks
    assert (loaded.due_ms, loaded.schedule_ms, loaded.rev) == (T0_MS + 500, T0_MS, 1)


@pytest.mark.parametrize("over", [False, True])
async def test_a_task_is_read_with_what_is_known_of_its_last_attempt(owner: Owner, over: bool) -> None:
    task = make_task(1, owner.queue)
    await owner.stores.tasks.accept([task])
    assert (await load_one(owner.stores, make_page())).tasks[0].last == (None, None)
    outcome = make_outcome(task, Verdict.FAILED, status=503, error="busy")
    await owner.stores.ledger.write(owner.boot, [make_record(Op.MOVE, task, 1, outcome=outcome)])
    if over:
        await owner.stores.ledger.write(owner.boot, [finish(task, state=State.CANCELLED, rev=1)])
    else:
        assert (await load_one(owner.stores, make_page())).tasks[0].last == (503, "busy")
    [found] = await owner.stores.tasks.find(None, [task.id])
    assert found.task is not None
    assert found.task.last == (503, "busy")


# --- payloads ----------------------------------------------------------------------------------------------------


async def test_a_load_brings_no_payload_but_its_size(stores: Stores, queue: Queue) -> None:
    await stores.tasks.accept([make_task(1, queue, payload=b"12345"), make_task(2, queue)])
    tasks = (await load_one(stores, make_page())).tasks
    assert [(task.payload, task.payload_bytes) for task in tasks] == [(None, 5), (None, 0)]


async def test_payloads_are_set_where_there_is_one(owner: Owner) -> None:
    queue = owner.queue
    given = [make_task(n, queue, shard=n, payload=b"%d" % n if n != 2 else None) for n in range(5)]
    await owner.stores.tasks.accept(given)
    loads = await owner.stores.tasks.load([make_page(shard=n) for n in range(5)])
    tasks = [task for loaded in loads for task in loaded.tasks]
    await owner.stores.ledger.write(owner.boot, [finish(given[3])])
    await owner.stores.tasks.payloads(tasks)
    assert [task.payload for task in tasks] == [b"0", b"1", None, None, b"4"]


async def test_no_payloads_wanted_is_fine(stores: Stores) -> None:
    await stores.tasks.payloads([])


# --- find --------------------------------------------------------------------------------------------------------


async def test_find_tells_live_from_finished_from_unknown(owner: Owner) -> None:
    live, done = make_task(1, owner.queue, shard=3), make_task(2, owner.queue, shard=9)
    await owner.stores.tasks.accept([live, done])
    await owner.stores.ledger.write(owner.boot, [finish(done, state=State.CANCELLED)])
    found = await owner.stores.tasks.find("default", [task_id(77), done.id, live.id])
    assert [one.id for one in found] == [task_id(77), done.id, live.id]
    unknown, was_done, was_live = found
    assert (unknown.task, unknown.state, unknown.epoch) == (None, None, 0)
    assert was_done.task is not None
    assert was_live.task is not None
    assert (was_done.state, was_done.task.rev, was_done.epoch) == (State.CANCELLED, 1, 1)
    assert (was_live.task.id, was_live.task.rev, was_live.epoch) == (live.id, 0, 0)
    assert was_live.state is None


async def test_find_answers_an_id_as_often_as_it_is_asked(stores: Stores, queue: Queue) -> None:
    await stores.tasks.accept([make_task(1, queue)])
    found = await stores.tasks.find("default", [task_id(1), task_id(2), task_id(1)])
    assert [one.task is not None for one in found] == [True, False, True]
    assert await stores.tasks.find("default", []) == []


async def test_find_is_bound_to_its_tenant(owner: Owner) -> None:
    theirs = await owner.stores.queues.ensure("acme", "emails")
    tasks = [make_task(1, theirs), make_task(2, theirs), make_task(3, owner.queue)]
    await owner.stores.tasks.accept(tasks)
    await owner.stores.ledger.write(owner.boot, [finish(tasks[1])])
    ids = [task.id for task in tasks]
    for tenant, seen in (("default", [False, False, True]), ("acme", [True, True, False]), (None, [True] * 3)):
        assert [one.task is not None for one in await owner.stores.tasks.find(tenant, ids)] == seen


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (State.SUCCEEDED, None),
        (State.DEAD, b"body"),
        (State.EXPIRED, b"body"),
        (State.CANCELLED, b"body"),
    ],
)
async def test_a_finished_task_keeps_its_payload_unless_it_succeeded(
    owner: Owner, state: State, kept: bytes | None
) -> None:
    task = make_task(1, owner.queue, payload=b"body", labels=LABELS, key_hash=HASH)
    await owner.stores.tasks.accept([task])
    await owner.stores.ledger.write(owner.boot, [finish(task, state=state)])
    [found] = await owner.stores.tasks.find("default", [task.id])
    assert found.task is not None
    assert (found.state, found.task.payload, found.task.payload_bytes) == (state, kept, len(kept or b""))
    assert (found.task.labels, found.task.key_hash, found.task.spec) == (task.labels, HASH, task.spec)
    assert (found.task.schedule_ms, found.task.accept_us) == (task.schedule_ms, task.accept_us)


async def test_find_knows_a_redriven_task_as_live(owner: Owner) -> None:
    task = make_task(1, owner.queue)
    await owner.stores.tasks.accept([task])
    await owner.stores.ledger.write(owner.boot, [finish(task, state=State.DEAD)])
    await owner.stores.ledger.write(owner.boot, [redrive(task, rev=1)])
    [found] = await owner.stores.tasks.find("default", [task.id])
    assert found.task is not None
    assert found.state is None
    assert found.task.rev == 2


def test_numbers_give_ids_in_the_same_order() -> None:
    assert all(task_id(low, 255) < task_id(high) for low, high in pairwise(range(20)))
