"""The LedgerStore port: fenced results and commands."""

import asyncio

import pytest

from actors.core.events import Found, Op, Verdict
from actors.core.queue import DAY_MS
from actors.core.task import State, Task, fence
from actors.ports.reader import AttemptRow, TaskRow
from tests.actors.ports.worlds import Owner, World, kill, own_all
from tests.support.builders import (
    HASH,
    LABELS,
    T0_MS,
    finish,
    make_outcome,
    make_page,
    make_record,
    make_task,
    move,
    redrive,
)


async def accepted(owner: Owner, count: int = 1, *, shard: int = 0) -> list[Task]:
    tasks = [make_task(n, owner.queue, shard=shard, payload=b"body", labels=LABELS) for n in range(count)]
    assert await owner.stores.tasks.accept(tasks) == {}
    return tasks


async def found(owner: Owner, task: Task) -> Found:
    [one] = await owner.stores.tasks.find(None, [task.id])
    return one


async def row_of(owner: Owner, task: Task) -> TaskRow:
    row = await owner.stores.reader.get("default", task.id, payload=True)
    assert row is not None
    return row


async def rev_of(owner: Owner, task: Task) -> int:
    return (await row_of(owner, task)).rev


# --- what a record does ------------------------------------------------------------------------------------------


async def test_nothing_to_write_is_fine(owner: Owner) -> None:
    assert await owner.stores.ledger.write(owner.boot, []) == set()


async def test_finish_leaves_times_and_budget_as_the_row_has_them(owner: Owner) -> None:
    [task] = await accepted(owner)
    record = make_record(Op.FINISH, task, 1, state=State.DEAD, due_ms=T0_MS + 1, budget=99, attempt=3)
    record.schedule_ms = T0_MS + 1
    await owner.stores.ledger.write(owner.boot, [record])
    row = await row_of(owner, task)
    assert (row.schedule_ms, row.due_ms, row.budget, row.attempt) == (T0_MS, T0_MS, 5, 3)


async def test_a_claim_ends_with_its_task(owner: Owner) -> None:
    [task] = await accepted(owner)
    await owner.stores.ledger.write(owner.boot, [make_record(Op.MOVE, task, 1, claim_ms=T0_MS + 1)])
    await owner.stores.ledger.write(owner.boot, [make_record(Op.FINISH, task, 1, rev=1, state=State.DEAD)])
    assert (await row_of(owner, task)).claim_ms is None
    await owner.stores.ledger.write(owner.boot, [redrive(task, rev=2)])
    assert (await row_of(owner, task)).claim_ms is None


async def test_an_error_that_can_not_be_stored_as_it_is_harms_nobody(owner: Owner) -> None:
    tasks = await accepted(owner, 3)
    errors = ["plain", "a NUL \0 inside", "a lone \ud800 surrogate"]
    records = [
        make_record(Op.MOVE, task, 1, attempt=1, outcome=make_outcome(task, Verdict.FAILED, error=error))
        for task, error in zip(tasks, errors, strict=True)
    ]
    assert await owner.stores.ledger.write(owner.boot, records) == set()
    assert [await rev_of(owner, task) for task in tasks] == [1, 1, 1]
    shown = [(await row_of(owner, task)).last_error or "" for task in tasks]
    assert [text[:5] for text in shown] == [error[:5] for error in errors]


async def test_finish_takes_the_task_from_the_live_to_the_finished(owner: Owner) -> None:
    [task] = await accepted(owner)
    outcome = make_outcome(task, duration_ms=40, status=204, result=b'{"ok":true}')
    record = make_record(
        Op.FINISH, task, 1, state=State.SUCCEEDED, at_ms=T0_MS + 50, attempt=1, lateness_ms=3, outcome=outcome
    )
    assert await owner.stores.ledger.write(owner.boot, [record]) == set()
    [loaded] = await owner.stores.tasks.load([make_page()])
    assert loaded.tasks == []
    row = await row_of(owner, task)
    assert (row.state, row.finish_ms, row.result) == (State.SUCCEEDED, T0_MS + 50, b'{"ok":true}')
    assert (row.rev, row.epoch, row.attempt, row.budget, row.lateness_ms) == (1, 1, 1, 5, 3)
    assert (row.last_started_ms, row.last_duration_ms, row.last_status, row.last_error) == (T0_MS, 40, 204, None)
    assert (row.schedule_ms, row.accept_us, row.spec, row.labels) == (
        task.schedule_ms,
        task.accept_us,
        task.spec,
        task.labels,
    )


@pytest.mark.parametrize("state", [State.DEAD, State.EXPIRED, State.CANCELLED])
async def test_a_task_that_did_not_succeed_keeps_its_payload(owner: Owner, state: State) -> None:
    [task] = await accepted(owner)
    await owner.stores.ledger.write(owner.boot, [finish(task, state=state)])
    row = await row_of(owner, task)
    assert (row.state, row.payload, row.result) == (state, b"body", None)


async def test_a_task_that_succeeded_drops_its_payload(owner: Owner) -> None:
    [task] = await accepted(owner)
    await owner.stores.ledger.write(owner.boot, [finish(task)])
    assert (await row_of(owner, task)).payload is None


async def test_move_changes_the_live_row(owner: Owner) -> None:
    [task] = await accepted(owner)
    outcome = make_outcome(task, Verdict.FAILED, status=500, error="no luck", duration_ms=7)
    record = make_record(
        Op.MOVE,
        task,
        1,
        due_ms=T0_MS + 900,
        attempt=1,
        budget=6,
        lateness_ms=2,
        claim_ms=T0_MS + 30_000,
        outcome=outcome,
    )
    assert await owner.stores.ledger.write(owner.boot, [record]) == set()
    row = await row_of(owner, task)
    assert (row.state, row.schedule_ms, row.due_ms, row.rev, row.epoch) == (
        State.SCHEDULED,
        T0_MS,
        T0_MS + 900,
        1,
        1,
    )
    assert (row.attempt, row.budget, row.lateness_ms, row.claim_ms) == (1, 6, 2, T0_MS + 30_000)
    assert (row.last_started_ms, row.last_duration_ms, row.last_status, row.last_error) == (T0_MS, 7, 500, "no luck")
    assert (row.finish_ms, row.result, row.payload) == (None, None, b"body")
    [loaded] = (await owner.stores.tasks.load([make_page()]))[0].tasks
    assert (loaded.due_ms, loaded.rev, loaded.attempt, loaded.claim_ms) == (T0_MS + 900, 1, 1, T0_MS + 30_000)


async def test_a_move_without_an_attempt_keeps_what_is_known_of_the_last_one(owner: Owner) -> None:
    [task] = await accepted(owner)
    outcome = make_outcome(task, Verdict.FAILED, status=500, error="no luck")
    await owner.stores.ledger.write(owner.boot, [make_record(Op.MOVE, task, 1, attempt=1, outcome=outcome)])
    await owner.stores.ledger.write(owner.boot, [make_record(Op.MOVE, task, 1, rev=1, attempt=1)])
    row = await row_of(owner, task)
    assert (row.rev, row.last_status, row.last_error) == (2, 500, "no luck")


async def test_a_move_may_change_the_time_asked_for_and_clear_a_claim(owner: Owner) -> None:
    [task] = await accepted(owner)
    await owner.stores.ledger.write(owner.boot, [make_record(Op.MOVE, task, 1, claim_ms=T0_MS, lateness_ms=4)])
    record = make_record(Op.MOVE, task, 1, rev=1, due_ms=T0_MS + DAY_MS)
    record.schedule_ms = T0_MS + DAY_MS
    await owner.stores.ledger.write(owner.boot, [record])
    row = await row_of(owner, task)
    assert (row.schedule_ms, row.due_ms, row.claim_ms, row.lateness_ms) == (T0_MS + DAY_MS, T0_MS + DAY_MS, None, None)


@pytest.mark.parametrize("state", [State.DEAD, State.EXPIRED, State.CANCELLED])
async def test_redrive_brings_a_finished_task_back(owner: Owner, state: State) -> None:
    task = make_task(1, owner.queue, payload=b"body", labels=LABELS, key_hash=HASH)
    await owner.stores.tasks.accept_keyed([task])
    outcome = make_outcome(task, Verdict.FAILED, status=500, error="no luck")
    last = make_record(Op.FINISH, task, 1, state=state, attempt=5, outcome=outcome)
    await owner.stores.ledger.write(owner.boot, [last])
    back = make_record(Op.REDRIVE, task, 1, rev=1, due_ms=T0_MS + 10, attempt=5, budget=10)
    assert await owner.stores.ledger.write(owner.boot, [back]) == set()
    [live] = (await owner.stores.tasks.load([make_page()]))[0].tasks
    assert (live.id, live.rev, live.attempt, live.budget, live.due_ms) == (task.id, 2, 5, 10, T0_MS + 10)
    assert (live.schedule_ms, live.accept_us, live.spec, live.labels, live.key_hash, live.payload_bytes) == (
        task.schedule_ms,
        task.accept_us,
        task.spec,
        task.labels,
        HASH,
        4,
    )
    row = await row_of(owner, task)
    assert (row.state, row.finish_ms, row.result, row.payload) == (State.SCHEDULED, None, None, b"body")


async def test_a_redriven_task_can_finish_and_be_redriven_again(owner: Owner) -> None:
    [task] = await accepted(owner)
    records = [
        finish(task, state=State.DEAD),
        redrive(task, rev=1),
        finish(task, rev=2, state=State.CANCELLED),
        redrive(task, rev=3),
        finish(task, rev=4),
    ]
    for record in records:
        assert await owner.stores.ledger.write(owner.boot, [record]) == set()
    row = await row_of(owner, task)
    assert (row.state, row.rev) == (State.SUCCEEDED, 5)


async def test_one_write_may_finish_move_and_redrive(owner: Owner) -> None:
    tasks = await accepted(owner, 3)
    await owner.stores.ledger.write(owner.boot, [finish(tasks[2], state=State.DEAD)])
    records = [finish(tasks[0]), move(tasks[1], due_ms=T0_MS + 5), redrive(tasks[2], rev=1)]
    assert await owner.stores.ledger.write(owner.boot, records) == set()
    rows = [await row_of(owner, task) for task in tasks]
    assert [(row.state, row.rev, row.due_ms) for row in rows] == [
        (State.SUCCEEDED, 1, T0_MS),
        (State.SCHEDULED, 1, T0_MS + 5),
        (State.SCHEDULED, 2, T0_MS),
    ]


async def test_a_write_of_many_shards_and_tasks_applies_all(owner: Owner) -> None:
    tasks = [make_task(n, owner.queue, shard=n % 256) for n in range(1_000)]
    await owner.stores.tasks.accept(tasks)
    assert await owner.stores.ledger.write(owner.boot, [finish(task) for task in tasks]) == set()
    loads = await owner.stores.tasks.load([make_page(shard=shard) for shard in range(256)])
    assert sum(len(loaded.tasks) for loaded in loads) == 0


# --- attempts ----------------------------------------------------------------------------------------------------


async def test_a_failed_attempt_leaves_a_row(owner: Owner) -> None:
    [task] = await accepted(owner)
    outcome = make_outcome(task, Verdict.FAILED, attempt=1, status=500, error="no luck", duration_ms=12)
    await owner.stores.ledger.write(owner.boot, [make_record(Op.MOVE, task, 1, attempt=1, outcome=outcome)])
    outcome = make_outcome(task, Verdict.NEVER, attempt=2, status=None, error="refused", duration_ms=5)
    await owner.stores.ledger.write(
        owner.boot, [make_record(Op.FINISH, task, 1, rev=1, state=State.DEAD, attempt=2, outcome=outcome)]
    )
    beat = await owner.stores.leases.beat(owner.boot)
    assert beat is not None
    assert await owner.stores.reader.attempts("default", task.id) == [
        AttemptRow(1, fence(beat.timeline, 1, 1), T0_MS, 12, "failed", 500, "no luck"),
        AttemptRow(2, fence(beat.timeline, 1, 2), T0_MS, 5, "never", None, "refused"),
    ]


async def test_a_success_leaves_a_row_only_when_it_was_slow(owner: Owner) -> None:
    quick, slow = await accepted(owner, 2)
    records = [
        make_record(
            Op.FINISH, task, 1, state=State.SUCCEEDED, attempt=1, outcome=make_outcome(task, duration_ms=duration_ms)
        )
        for task, duration_ms in ((quick, 499), (slow, 500))
    ]
    await owner.stores.ledger.write(owner.boot, records)
    assert await owner.stores.reader.attempts("default", quick.id) == []
    [row] = await owner.stores.reader.attempts("default", slow.id)
    assert (row.verdict, row.duration_ms, row.status) == ("succeeded", 500, 200)


async def test_a_refused_record_leaves_no_attempt(owner: Owner) -> None:
    [task] = await accepted(owner)
    record = make_record(Op.MOVE, task, 1, rev=3, attempt=1, outcome=make_outcome(task, Verdict.FAILED))
    assert await owner.stores.ledger.write(owner.boot, [record]) == {task.id}
    assert await owner.stores.reader.attempts("default", task.id) == []


async def test_a_command_without_an_attempt_leaves_no_row(owner: Owner) -> None:
    [task] = await accepted(owner)
    await owner.stores.ledger.write(owner.boot, [finish(task, state=State.CANCELLED)])
    assert await owner.stores.reader.attempts("default", task.id) == []


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rev", [0, 2])
async def test_another_rev_is_refused(owner: Owner, rev: int) -> None:
    [task] = await accepted(owner)
    await owner.stores.ledger.write(owner.boot, [move(task)])
    for record in (move(task, rev=rev, due_ms=1), finish(task, rev=rev)):
        assert await owner.stores.ledger.write(owner.boot, [record]) == {task.id}
    row = await row_of(owner, task)
    assert (row.state, row.due_ms, row.rev) == (State.SCHEDULED, T0_MS, 1)


async def test_a_redrive_under_another_rev_is_refused(owner: Owner) -> None:
    [task] = await accepted(owner)
    await owner.stores.ledger.write(owner.boot, [finish(task, state=State.DEAD)])
    assert await owner.stores.ledger.write(owner.boot, [redrive(task, rev=0)]) == {task.id}
    assert (await row_of(owner, task)).state is State.DEAD


async def test_a_row_that_is_not_there_is_refused(owner: Owner) -> None:
    task = make_task(1, owner.queue)
    assert await owner.stores.ledger.write(owner.boot, [finish(task)]) == {task.id}
    assert await owner.stores.ledger.write(owner.boot, [redrive(task)]) == {task.id}
    assert (await found(owner, task)).task is None


async def test_a_finished_task_is_neither_moved_nor_finished_again(owner: Owner) -> None:
    [task] = await accepted(owner)
    await owner.stores.ledger.write(owner.boot, [finish(task)])
    for rev in (0, 1):
        assert await owner.stores.ledger.write(owner.boot, [move(task, rev=rev)]) == {task.id}
        assert await owner.stores.ledger.write(owner.boot, [finish(task, rev=rev, state=State.DEAD)]) == {task.id}
    assert (await found(owner, task)).state is State.SUCCEEDED


async def test_a_live_task_is_not_redriven(owner: Owner) -> None:
    [task] = await accepted(owner)
    assert await owner.stores.ledger.write(owner.boot, [redrive(task)]) == {task.id}
    assert await rev_of(owner, task) == 0


@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("op", [Op.FINISH, Op.MOVE, Op.REDRIVE])
async def test_another_epoch_is_refused(owner: Owner, op: Op, epoch: int) -> None:
    [task] = await accepted(owner)
    rev = 0
    if op is Op.REDRIVE:
        await owner.stores.ledger.write(owner.boot, [finish(task, state=State.DEAD)])
        rev = 1
    state = State.SUCCEEDED if op is Op.FINISH else State.SCHEDULED
    assert await owner.stores.ledger.write(owner.boot, [make_record(op, task, epoch, rev=rev, state=state)]) == {
        task.id
    }
    assert await rev_of(owner, task) == rev


@pytest.mark.parametrize("op", [Op.FINISH, Op.MOVE, Op.REDRIVE])
async def test_a_boot_that_does_not_own_the_shard_is_refused(world: World, owner: Owner, op: Op) -> None:
    [task] = await accepted(owner)
    rev = 0
    if op is Op.REDRIVE:
        await owner.stores.ledger.write(owner.boot, [finish(task, state=State.DEAD)])
        rev = 1
    other = await world.process("boot-b")
    await other.leases.join("boot-b", "b", "b:7070")
    state = State.SUCCEEDED if op is Op.FINISH else State.SCHEDULED
    for boot in ("boot-b", "boot-unknown"):
        assert await other.ledger.write(boot, [make_record(op, task, 1, rev=rev, state=state)]) == {task.id}
    assert await rev_of(owner, task) == rev


async def test_refusals_leave_their_neighbours_unharmed(owner: Owner) -> None:
    tasks = [make_task(n, owner.queue, shard=n) for n in range(6)]
    await owner.stores.tasks.accept(tasks)
    records = [
        finish(tasks[0]),
        finish(tasks[1], rev=4),
        move(tasks[2]),
        move(tasks[3], epoch=7),
        redrive(tasks[4]),
        finish(tasks[5], state=State.DEAD),
    ]
    refused = await owner.stores.ledger.write(owner.boot, records)
    assert refused == {tasks[1].id, tasks[3].id, tasks[4].id}
    assert [await rev_of(owner, task) for task in tasks] == [1, 0, 1, 0, 0, 1]


async def test_a_dead_owner_is_refused_once_its_shards_are_swept(world: World, owner: Owner) -> None:
    tasks = await accepted(owner, 2, shard=4)
    other = await world.process("boot-b")
    await kill(owner.stores, owner.boot)
    taken = await own_all(other, "boot-b")
    assert taken[4] == 2
    assert await owner.stores.ledger.write(owner.boot, [finish(tasks[0])]) == {tasks[0].id}
    assert await owner.stores.ledger.write(owner.boot, [finish(tasks[0], epoch=2)]) == {tasks[0].id}
    assert await other.ledger.write("boot-b", [finish(tasks[0], epoch=2), finish(tasks[1], epoch=1)]) == {tasks[1].id}


async def test_an_owner_that_left_is_refused(owner: Owner) -> None:
    [task] = await accepted(owner)
    await owner.stores.leases.leave(owner.boot)
    for epoch in (1, 2):
        assert await owner.stores.ledger.write(owner.boot, [finish(task, epoch=epoch)]) == {task.id}
    assert await rev_of(owner, task) == 0


# --- unknown outcomes --------------------------------------------------------------------------------------------


async def test_what_is_sent_again_is_refused_and_shows_the_first_write(owner: Owner) -> None:
    tasks = await accepted(owner, 2)
    records = [finish(tasks[0], state=State.DEAD), move(tasks[1], due_ms=T0_MS + 9)]
    assert await owner.stores.ledger.write(owner.boot, records) == set()
    assert await owner.stores.ledger.write(owner.boot, records) == {task.id for task in tasks}
    done, moved = await owner.stores.tasks.find(None, [task.id for task in tasks])
    assert done.task is not None
    assert moved.task is not None
    assert (done.state, done.task.rev, done.epoch) == (State.DEAD, 1, 1)
    assert (moved.task.due_ms, moved.task.rev, moved.epoch) == (T0_MS + 9, 1, 1)


async def test_of_two_equal_writes_at_once_one_is_applied(owner: Owner) -> None:
    tasks = await accepted(owner, 20)
    records = [finish(task) if n % 2 else move(task) for n, task in enumerate(tasks)]
    async with asyncio.TaskGroup() as group:
        writes = [group.create_task(owner.stores.ledger.write(owner.boot, records)) for _ in range(2)]
    first, second = (write.result() for write in writes)
    assert first | second == {task.id for task in tasks}
    assert first & second == set()
    assert [await rev_of(owner, task) for task in tasks] == [1] * 20


async def test_a_write_shows_the_epoch_of_its_owner(world: World, owner: Owner) -> None:
    tasks = await accepted(owner, 2)
    await owner.stores.ledger.write(owner.boot, [move(task) for task in tasks])
    other = await world.process("boot-b")
    await kill(owner.stores, owner.boot)
    await own_all(other, "boot-b")
    await other.ledger.write("boot-b", [finish(tasks[0], epoch=2, rev=1)])
    assert [(await found(owner, task)).epoch for task in tasks] == [2, 1]
