"""The Reader port: what people and programs read."""

import pytest

from actors.core.events import Op, Verdict
from actors.core.settle import HELD_MS
from actors.core.task import State
from actors.ports.reader import Narrow, TaskRow
from tests.actors.ports.worlds import Owner
from tests.support.builders import (
    LABELS,
    SPEC,
    T0_MS,
    finish,
    make_outcome,
    make_record,
    make_task,
    task_id,
)

EVERY = list(State)


def numbers(rows: list[TaskRow]) -> list[int]:
    return [int(row.id[:8], 16) for row in rows]


# --- get ---------------------------------------------------------------------------------------------------------


async def test_get_shows_a_live_task(owner: Owner) -> None:
    task = make_task(1, owner.queue, shard=200, schedule_ms=T0_MS - 3, payload=b"body", labels=LABELS)
    await owner.stores.tasks.accept([task])
    assert await owner.stores.reader.get("default", task.id) == TaskRow(
        id=task.id,
        shard=200,
        queue=owner.queue,
        state=State.SCHEDULED,
        schedule_ms=T0_MS - 3,
        due_ms=T0_MS,
        accept_us=task.accept_us,
        rev=0,
        attempt=0,
        budget=5,
        epoch=0,
        spec=SPEC,
        labels=LABELS,
        payload=None,
        claim_ms=None,
        lateness_ms=None,
        finish_ms=None,
        result=None,
        last_started_ms=None,
        last_duration_ms=None,
        last_status=None,
        last_error=None,
    )


async def test_get_shows_a_finished_task(owner: Owner) -> None:
    task = make_task(1, owner.queue, labels=LABELS)
    await owner.stores.tasks.accept([task])
    outcome = make_outcome(task, attempt=2, result=b"[1]", duration_ms=8)
    record = make_record(
        Op.FINISH, task, 1, state=State.SUCCEEDED, at_ms=T0_MS + 9, attempt=2, lateness_ms=1, outcome=outcome
    )
    await owner.stores.ledger.write(owner.boot, [record])
    assert await owner.stores.reader.get("default", task.id) == TaskRow(
        id=task.id,
        shard=0,
        queue=owner.queue,
        state=State.SUCCEEDED,
        schedule_ms=T0_MS,
        due_ms=T0_MS,
        accept_us=task.accept_us,
        rev=1,
        attempt=2,
        budget=5,
        epoch=1,
        spec=SPEC,
        labels=LABELS,
        payload=None,
        claim_ms=None,
        lateness_ms=1,
        finish_ms=T0_MS + 9,
        result=b"[1]",
        last_started_ms=T0_MS,
        last_duration_ms=8,
        last_status=200,
        last_error=None,
    )


async def test_get_brings_the_payload_only_when_asked(owner: Owner) -> None:
    live, dead = make_task(1, owner.queue, payload=b"one"), make_task(2, owner.queue, payload=b"two")
    await owner.stores.tasks.accept([live, dead])
    await owner.stores.ledger.write(owner.boot, [finish(dead, state=State.DEAD)])
    for asked, payloads in ((False, [None, None]), (True, [b"one", b"two"])):
        rows = [await owner.stores.reader.get("default", task.id, payload=asked) for task in (live, dead)]
        assert [row.payload if row else "no row" for row in rows] == payloads


async def test_get_of_an_unknown_id_is_none(owner: Owner) -> None:
    assert await owner.stores.reader.get("default", task_id(1)) is None


async def test_get_is_bound_to_its_tenant(owner: Owner) -> None:
    theirs = await owner.stores.queues.ensure("acme", "emails")
    live, done = make_task(1, theirs), make_task(2, theirs)
    await owner.stores.tasks.accept([live, done])
    await owner.stores.ledger.write(owner.boot, [finish(done)])
    for task in (live, done):
        assert await owner.stores.reader.get("default", task.id) is None
        assert await owner.stores.reader.get("acme", task.id) is not None


# --- attempts ----------------------------------------------------------------------------------------------------


async def test_attempts_are_oldest_first(owner: Owner) -> None:
    task = make_task(1, owner.queue)
    await owner.stores.tasks.accept([task])
    for attempt in range(1, 13):
        outcome = make_outcome(task, Verdict.FAILED, attempt=attempt, error=f"no. {attempt}")
        outcome.started_ms = T0_MS + attempt
        record = make_record(Op.MOVE, task, 1, rev=attempt - 1, attempt=attempt, outcome=outcome)
        assert await owner.stores.ledger.write(owner.boot, [record]) == set()
    rows = await owner.stores.reader.attempts("default", task.id)
    assert [(row.attempt, row.error) for row in rows] == [(n, f"no. {n}") for n in range(1, 13)]


async def test_attempts_are_of_one_task_and_one_tenant(owner: Owner) -> None:
    tasks = [make_task(n, owner.queue) for n in (1, 2)]
    await owner.stores.tasks.accept(tasks)
    await owner.stores.ledger.write(
        owner.boot,
        [make_record(Op.MOVE, task, 1, attempt=1, outcome=make_outcome(task, Verdict.FAILED)) for task in tasks],
    )
    assert len(await owner.stores.reader.attempts("default", tasks[0].id)) == 1
    assert await owner.stores.reader.attempts("acme", tasks[0].id) == []
    assert await owner.stores.reader.attempts("default", task_id(9)) == []


# --- page --------------------------------------------------------------------------------------------------------


async def mixed(owner: Owner, count: int) -> None:
    """Tasks 0..count-1, five to a moment; every third is dead, every third but one succeeded."""
    tasks = [make_task(n, owner.queue, shard=n % 7, due_ms=T0_MS + n // 5) for n in range(count)]
    await owner.stores.tasks.accept(tasks)
    dead = [finish(task, state=State.DEAD) for task in tasks[::3]]
    succeeded = [finish(task) for task in tasks[1::3]]
    assert await owner.stores.ledger.write(owner.boot, dead + succeeded) == set()


@pytest.mark.parametrize("name", ["emails", None])
@pytest.mark.parametrize("limit", [1, 4, 23, 100])
@pytest.mark.parametrize("backwards", [False, True])
async def test_pages_walk_live_and_finished_rows_once_each(
    owner: Owner, name: str | None, limit: int, backwards: bool
) -> None:
    await mixed(owner, 23)
    seen: list[int] = []
    after = None
    while rows := await owner.stores.reader.page("default", name, EVERY, after, limit, backwards=backwards):
        assert len(rows) <= limit
        assert len(seen) < 23, "the walk goes in circles"
        seen += numbers(rows)
        after = (rows[-1].due_ms, rows[-1].id)
    assert seen == sorted(range(23), reverse=backwards)


@pytest.mark.parametrize(
    ("states", "thirds"),
    [
        ([State.SCHEDULED], [2]),
        ([State.DEAD], [0]),
        ([State.SUCCEEDED, State.SCHEDULED], [1, 2]),
        ([State.EXPIRED, State.CANCELLED], []),
    ],
)
async def test_a_page_has_only_the_states_asked_for(owner: Owner, states: list[State], thirds: list[int]) -> None:
    await mixed(owner, 12)
    rows = await owner.stores.reader.page("default", "emails", states, None, 100)
    assert numbers(rows) == [n for n in range(12) if n % 3 in thirds]
    assert {row.state for row in rows} <= set(states)


async def test_a_page_is_in_order_of_what_is_next(owner: Owner) -> None:
    tasks = [
        make_task(1, owner.queue, schedule_ms=T0_MS + 2, due_ms=T0_MS + 2),
        make_task(2, owner.queue, schedule_ms=T0_MS + 1, due_ms=T0_MS + 9),
        make_task(3, owner.queue, schedule_ms=T0_MS, due_ms=T0_MS),
    ]
    await owner.stores.tasks.accept(tasks)
    await owner.stores.ledger.write(owner.boot, [finish(tasks[1], state=State.CANCELLED)])
    assert numbers(await owner.stores.reader.page("default", None, EVERY, None, 10)) == [3, 1, 2]


@pytest.mark.parametrize("count", [32, 33, 70])
async def test_a_page_of_many_queues_is_one_of_few(owner: Owner, count: int) -> None:
    queues = [await owner.stores.queues.ensure("acme", f"q{n}") for n in range(count)]
    theirs = await owner.stores.queues.ensure("zeta", "emails")
    busy = [queues[0], queues[count // 2], queues[-1], theirs]
    tasks = [make_task(n, busy[n % 4], shard=n % 3, due_ms=T0_MS + n) for n in range(20)]
    await owner.stores.tasks.accept(tasks)
    page, after = owner.stores.reader.page, (T0_MS + 4, task_id(4, 1))
    rows = await page("acme", None, [State.SCHEDULED], after, 10)
    assert numbers(rows) == [n for n in range(5, 20) if n % 4 != 3][:10]
    rows = await page("acme", None, [State.SCHEDULED], after, 10, backwards=True)
    assert numbers(rows) == [2, 1, 0]


async def test_a_page_is_of_its_queue_and_tenant(owner: Owner) -> None:
    other = await owner.stores.queues.ensure("default", "other")
    theirs = await owner.stores.queues.ensure("acme", "emails")
    tasks = [make_task(n, (owner.queue, other, theirs)[n % 3]) for n in range(6)]
    await owner.stores.tasks.accept(tasks)
    await owner.stores.ledger.write(owner.boot, [finish(task) for task in tasks[:3]])
    page = owner.stores.reader.page
    assert numbers(await page("default", "emails", EVERY, None, 10)) == [0, 3]
    assert numbers(await page("default", None, EVERY, None, 10)) == [0, 1, 3, 4]
    assert numbers(await page("acme", None, EVERY, None, 10)) == [2, 5]
    assert await page("acme", "other", EVERY, None, 10) == []
    assert await page("nobody", None, EVERY, None, 10) == []


async def test_a_page_brings_no_payload(owner: Owner) -> None:
    await owner.stores.tasks.accept([make_task(1, owner.queue, payload=b"body")])
    assert [row.payload for row in await owner.stores.reader.page("default", None, EVERY, None, 10)] == [None]


# --- narrowed pages ----------------------------------------------------------------------------------------------

RED, BLUE = '{"team":"red","x":"1"}', '{"team":"blue"}'


@pytest.mark.parametrize("few", [0, 5_000])
@pytest.mark.parametrize(
    ("labels", "numbers_"),
    [
        ('{"team":"red"}', [0, 3, 6, 9]),
        ('{"x":"1","team":"red"}', [0, 3, 6, 9]),
        ('{"x":"2"}', []),
        (BLUE, [1, 4, 7, 10]),
    ],
)
async def test_a_page_by_labels_has_those_with_all_of_them(
    owner: Owner, monkeypatch: pytest.MonkeyPatch, few: int, labels: str, numbers_: list[int]
) -> None:
    monkeypatch.setattr("storage.reader.FEW", few)
    theirs = await owner.stores.queues.ensure("acme", "emails")
    tasks = [
        make_task(n, theirs if n > 11 else owner.queue, shard=n % 5, due_ms=T0_MS + n, labels=(RED, BLUE, None)[n % 3])
        for n in range(15)
    ]
    await owner.stores.tasks.accept(tasks)
    await owner.stores.ledger.write(owner.boot, [finish(tasks[3]), finish(tasks[4], state=State.DEAD)])
    narrow = Narrow(labels)
    page = owner.stores.reader.page
    first = await page("default", None, EVERY, None, 2, narrow)
    assert numbers(first) == numbers_[:2]
    after = (first[-1].due_ms, first[-1].id) if first else None
    assert numbers(await page("default", "emails", EVERY, after, 9, narrow)) == numbers_[2:]
    turned = [n for n in reversed(numbers_) if n > 1]
    after = (T0_MS + 1, task_id(1, 1))
    assert numbers(await page("default", None, EVERY, None, len(turned), narrow, backwards=True)) == turned
    below = await page("default", None, EVERY, after, 9, narrow, backwards=True)
    assert numbers(below) == [n for n in numbers_ if n < 1]
    live = await page("default", None, [State.SCHEDULED], None, 9, narrow)
    assert numbers(live) == [n for n in numbers_ if n not in (3, 4)]
    succeeded = await page("default", None, [State.SUCCEEDED], None, 9, narrow)
    assert numbers(succeeded) == [n for n in numbers_ if n == 3]


@pytest.mark.parametrize(
    ("first_ms", "end_ms", "shown"),
    [(T0_MS + 3, None, [3, 4, 5]), (None, T0_MS + 2, [0, 1]), (T0_MS + 1, T0_MS + 4, [1, 2, 3]), (T0_MS + 9, None, [])],
)
@pytest.mark.parametrize("labels", [None, BLUE])
async def test_a_page_by_schedule_time(
    owner: Owner, first_ms: int | None, end_ms: int | None, shown: list[int], labels: str | None
) -> None:
    tasks = [make_task(n, owner.queue, schedule_ms=T0_MS + n, due_ms=T0_MS + n, labels=BLUE) for n in range(6)]
    await owner.stores.tasks.accept(tasks)
    await owner.stores.ledger.write(owner.boot, [finish(task) for task in tasks[::2]])
    rows = await owner.stores.reader.page("default", None, EVERY, None, 9, Narrow(labels, first_ms, end_ms))
    assert numbers(rows) == shown


async def test_a_backlog_is_counted_with_what_is_due(owner: Owner) -> None:
    other = await owner.stores.queues.ensure("default", "other")
    tasks = [make_task(n, other if n == 9 else owner.queue, shard=n, due_ms=T0_MS + n) for n in range(10)]
    await owner.stores.tasks.accept(tasks)
    held = [
        make_record(Op.MOVE, tasks[n], 1, state=State.RUNNING, due_ms=HELD_MS, attempt=1, claim_ms=HELD_MS)
        for n in (1, 9)
    ]
    assert await owner.stores.ledger.write(owner.boot, held) == set()
    backlog = await owner.stores.reader.backlog(owner.queue, T0_MS + 3)
    assert (backlog.live, backlog.due, backlog.held) == (9, 3, 1)
