"""The TaskStore port: accepting, unkeyed and by idempotency key."""

import asyncio
import json

import pytest

from actors.core.errors import Invalid
from actors.core.events import Loaded, Page
from actors.core.queue import Queue
from actors.core.retry import RetryPolicy
from actors.core.spec import HttpTarget, Spec
from actors.core.task import State, Task
from actors.ports.tasks import Accepted
from tests.actors.ports.worlds import Owner, Stores, World
from tests.support.builders import (
    HASH,
    LABELS,
    OTHER_HASH,
    T0_MS,
    finish,
    keyed,
    make_page,
    make_task,
    redrive,
)

FIELDS = (
    "id",
    "shard",
    "queue",
    "schedule_ms",
    "due_ms",
    "accept_us",
    "spec",
    "payload_bytes",
    "labels",
    "key_hash",
    "budget",
    "rev",
    "attempt",
    "lateness_ms",
    "claim_ms",
)
NUL = r'{"a":"\u0000"}'


async def load_one(stores: Stores, page: Page) -> Loaded:
    [loaded] = await stores.tasks.load([page])
    return loaded


def numbers(tasks: list[Task]) -> list[int]:
    return [int(task.id[:8], 16) for task in tasks]


# --- accept ------------------------------------------------------------------------------------------------------


async def test_an_accepted_task_is_loaded_as_it_was_given(stores: Stores, queue: Queue) -> None:
    spec = Spec(
        http=HttpTarget("http://sink.test/é", "PUT", {"x-a": "1"}),
        retry=RetryPolicy(max_attempts=3),
        dispatch_deadline_ms=5_000,
        ttl_ms=60_000,
        content_type="text/plain",
    )
    given = make_task(
        1,
        queue,
        shard=255,
        schedule_ms=T0_MS - 1,
        spec=spec,
        payload=b"\0\xff body",
        labels=LABELS,
        key_hash=HASH,
    )
    assert await stores.tasks.accept([given]) == {}
    [task] = (await load_one(stores, make_page(shard=255))).tasks
    assert [(name, getattr(task, name)) for name in FIELDS] == [(name, getattr(given, name)) for name in FIELDS]


async def test_labels_come_back_as_equal_json(stores: Stores, queue: Queue) -> None:
    given = {"zone": "eu", "a": 'quote " and \\u0000 backslash', "long name": "", "é": "☃ \U0001f600"}
    await stores.tasks.accept([make_task(1, queue, labels=json.dumps(given)), make_task(2, queue, labels="{}")])
    first, second = (await load_one(stores, make_page())).tasks
    assert [json.loads(task.labels or "none") for task in (first, second)] == [given, {}]


async def test_what_one_process_accepted_another_one_reads_at_once(world: World, stores: Stores, queue: Queue) -> None:
    other = await world.process("boot-b")
    await stores.tasks.accept([make_task(1, queue)])
    [task] = (await load_one(other, make_page())).tasks
    assert (task.queue.tenant, task.queue.name) == ("default", "emails")
    assert task.queue is other.book.by_id(queue.id)


async def test_nothing_to_accept_is_fine(stores: Stores) -> None:
    assert await stores.tasks.accept([]) == {}
    assert await stores.tasks.accept_keyed([]) == []


@pytest.mark.parametrize("bad", [0, 1, 6])
async def test_a_bad_row_is_refused_alone(stores: Stores, queue: Queue, bad: int) -> None:
    tasks = [make_task(n, queue, labels=NUL if n == bad else None) for n in range(7)]
    errors = await stores.tasks.accept(tasks)
    assert list(errors) == [bad]
    assert isinstance(errors[bad], Invalid)
    assert numbers((await load_one(stores, make_page())).tasks) == [n for n in range(7) if n != bad]


async def test_several_bad_rows_are_refused_each(stores: Stores, queue: Queue) -> None:
    tasks = [make_task(n, queue, labels=NUL if n % 3 == 0 else None) for n in range(10)]
    assert set(await stores.tasks.accept(tasks)) == {0, 3, 6, 9}
    assert numbers((await load_one(stores, make_page())).tasks) == [1, 2, 4, 5, 7, 8]


async def test_a_time_that_fits_no_column_is_refused_alone(stores: Stores, queue: Queue) -> None:
    tasks = [make_task(1, queue), make_task(2, queue, due_ms=2**70), make_task(3, queue, due_ms=2**63 - 1)]
    assert set(await stores.tasks.accept(tasks)) == {1}
    assert numbers((await load_one(stores, make_page(until_ms=2**63 - 1))).tasks) == [1, 3]


@pytest.mark.parametrize("labels", ['{"a":"\0"}', '{"a":"\ud800"}', r'{"a":"\ud800"}', "{"])
async def test_labels_that_are_no_json_or_no_unicode_are_refused(stores: Stores, queue: Queue, labels: str) -> None:
    tasks = [make_task(1, queue), make_task(2, queue, labels=labels), make_task(3, queue)]
    errors = await stores.tasks.accept(tasks)
    assert set(errors) == {1}
    assert numbers((await load_one(stores, make_page())).tasks) == [1, 3]


async def test_an_id_that_is_live_is_refused_and_unchanged(stores: Stores, queue: Queue) -> None:
    await stores.tasks.accept([make_task(1, queue)])
    errors = await stores.tasks.accept(
        [make_task(2, queue), make_task(1, queue, due_ms=T0_MS + 5), make_task(3, queue)]
    )
    assert set(errors) == {1}
    tasks = (await load_one(stores, make_page())).tasks
    assert numbers(tasks) == [1, 2, 3]
    assert tasks[0].due_ms == T0_MS


async def test_of_an_id_twice_in_a_batch_the_first_is_accepted(stores: Stores, queue: Queue) -> None:
    errors = await stores.tasks.accept([make_task(1, queue), make_task(1, queue, due_ms=T0_MS + 5)])
    assert set(errors) == {1}
    assert [task.due_ms for task in (await load_one(stores, make_page())).tasks] == [T0_MS]


async def test_changing_a_task_does_not_change_its_row(stores: Stores, queue: Queue) -> None:
    given = make_task(1, queue)
    await stores.tasks.accept([given])
    given.due_ms += 1
    [first] = (await load_one(stores, make_page())).tasks
    first.attempt = 9
    [second] = (await load_one(stores, make_page())).tasks
    assert second is not first
    assert (second.due_ms, second.attempt) == (T0_MS, 0)


# --- accept_keyed ------------------------------------------------------------------------------------------------


def new() -> Accepted:
    return Accepted(new=True, same_request=True, state=State.SCHEDULED)


def replay(state: State = State.SCHEDULED, *, same: bool = True) -> Accepted:
    return Accepted(new=False, same_request=same, state=state)


async def test_a_key_is_new_once_and_then_a_replay(stores: Stores, queue: Queue) -> None:
    assert await stores.tasks.accept_keyed([keyed(1, queue)]) == [new()]
    assert await stores.tasks.accept_keyed([keyed(1, queue)]) == [replay()]
    assert len((await load_one(stores, make_page())).tasks) == 1


async def test_a_key_used_for_another_request_says_so(stores: Stores, queue: Queue) -> None:
    await stores.tasks.accept_keyed([keyed(1, queue)])
    assert await stores.tasks.accept_keyed([keyed(1, queue, key_hash=OTHER_HASH)]) == [replay(same=False)]


async def test_of_a_key_twice_in_a_batch_the_first_wins(stores: Stores, queue: Queue) -> None:
    batch = [keyed(1, queue), keyed(2, queue), keyed(1, queue), keyed(1, queue, key_hash=OTHER_HASH)]
    assert await stores.tasks.accept_keyed(batch) == [new(), new(), replay(), replay(same=False)]
    assert numbers((await load_one(stores, make_page())).tasks) == [1, 2]


async def test_a_batch_may_mix_new_keys_and_replays(stores: Stores, queue: Queue) -> None:
    await stores.tasks.accept_keyed([keyed(2, queue)])
    answers = await stores.tasks.accept_keyed([keyed(3, queue), keyed(2, queue), keyed(1, queue)])
    assert answers == [new(), replay(), new()]


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.DEAD, State.EXPIRED, State.CANCELLED])
async def test_a_key_whose_task_is_finished_is_a_replay(owner: Owner, state: State) -> None:
    task = keyed(1, owner.queue)
    await owner.stores.tasks.accept_keyed([task])
    assert await owner.stores.ledger.write(owner.boot, [finish(task, state=state)]) == set()
    answers = await owner.stores.tasks.accept_keyed([task, keyed(1, owner.queue, key_hash=OTHER_HASH)])
    assert answers == [replay(state), replay(state, same=False)]
    assert (await load_one(owner.stores, make_page())).tasks == []


async def test_a_redriven_task_is_live_under_its_key(owner: Owner) -> None:
    task = keyed(1, owner.queue)
    await owner.stores.tasks.accept_keyed([task])
    await owner.stores.ledger.write(owner.boot, [finish(task, state=State.DEAD)])
    await owner.stores.ledger.write(owner.boot, [redrive(task, rev=1)])
    assert await owner.stores.tasks.accept_keyed([task]) == [replay()]


async def test_a_bad_keyed_row_is_refused_alone(stores: Stores, queue: Queue) -> None:
    bad = keyed(2, queue)
    bad.labels = NUL
    answers = await stores.tasks.accept_keyed([keyed(1, queue), bad, keyed(3, queue)])
    assert [answers[0], answers[2]] == [new(), new()]
    assert isinstance(answers[1], Invalid)
    assert numbers((await load_one(stores, make_page())).tasks) == [1, 3]


async def test_of_many_identical_submits_at_once_exactly_one_is_new(world: World, stores: Stores, queue: Queue) -> None:
    other = await world.process("boot-b")
    await other.queues.refresh()
    async with asyncio.TaskGroup() as group:
        submits = [
            group.create_task(home.tasks.accept_keyed([keyed(1, queue), keyed(2, queue)]))
            for home in [stores, other] * 32
        ]
    answers = [submit.result() for submit in submits]
    for place in (0, 1):
        mine = [answer[place] for answer in answers]
        assert mine.count(new()) == 1
        assert mine.count(replay()) == 63
    assert numbers((await load_one(stores, make_page())).tasks) == [1, 2]


async def test_keys_in_opposite_order_do_not_hurt_each_other(stores: Stores, queue: Queue) -> None:
    batch = [keyed(n, queue, shard=n) for n in range(50)]
    async with asyncio.TaskGroup() as group:
        submits = [
            group.create_task(stores.tasks.accept_keyed(tasks)) for tasks in [batch, batch[::-1], batch, batch[::-1]]
        ]
    answers = [answer for submit in submits for answer in submit.result()]
    assert answers.count(new()) == 50
    assert answers.count(replay()) == 150
