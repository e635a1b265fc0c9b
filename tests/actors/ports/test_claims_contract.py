"""The LedgerStore and TaskStore ports: claims of running attempts, and who wrote them."""

import pytest

from actors.core.events import Op, Verdict
from actors.core.settle import HELD_MS
from actors.core.task import State, Task
from tests.actors.ports.worlds import Owner, Stores, World
from tests.support.builders import T0_MS, finish, make_outcome, make_page, make_record, make_task, move, redrive

CLAIM_MS = T0_MS + 30_000


async def accepted(owner: Owner) -> Task:
    task = make_task(1, owner.queue)
    assert await owner.stores.tasks.accept([task]) == {}
    return task


async def claimed(owner: Owner) -> Task:
    task = await accepted(owner)
    claim = make_record(Op.MOVE, task, 1, attempt=1, claim_ms=CLAIM_MS)
    assert await owner.stores.ledger.write(owner.boot, [claim]) == set()
    return task


async def shown(stores: Stores, task: Task) -> Task:
    """The live row, which `load` and `find` show alike."""
    [loaded] = await stores.tasks.load([make_page(shard=task.shard)])
    [found] = await stores.tasks.find(None, [task.id])
    assert found.task is not None
    [twin] = loaded.tasks
    for name in ("rev", "attempt", "claim_ms", "claim_boot", "epoch"):
        assert getattr(found.task, name) == getattr(twin, name), name
    return twin


@pytest.fixture
async def heir(world: World, owner: Owner) -> Stores:
    """The process of `boot-b`, which has been given shard 0 under epoch 2 when a test says so."""
    stores = await world.process("boot-b")
    await stores.leases.join("boot-b", "b", "b:7070")
    await stores.queues.refresh()
    return stores


async def give(owner: Owner) -> None:
    assert await owner.stores.leases.give(owner.boot, {0: (1, "boot-b")}) == {0}


async def test_a_task_that_was_never_claimed_has_nobody(owner: Owner) -> None:
    task = await shown(owner.stores, await accepted(owner))
    assert (task.claim_ms, task.claim_boot) == (None, None)


async def test_a_claim_tells_who_wrote_it(owner: Owner) -> None:
    task = await shown(owner.stores, await claimed(owner))
    assert (task.claim_ms, task.claim_boot, task.epoch, task.attempt) == (CLAIM_MS, "boot-a", 1, 1)


async def test_whoever_is_given_the_shard_is_shown_who_runs_it(owner: Owner, heir: Stores) -> None:
    task = await claimed(owner)
    await give(owner)
    row = await shown(heir, task)
    assert (row.claim_ms, row.claim_boot, row.epoch) == (CLAIM_MS, "boot-a", 1)


async def test_a_refused_claim_leaves_nobody(owner: Owner) -> None:
    task = await accepted(owner)
    for wrong in ({"rev": 1, "epoch": 1}, {"rev": 0, "epoch": 2}):
        claim = make_record(Op.MOVE, task, wrong["epoch"], rev=wrong["rev"], claim_ms=CLAIM_MS)
        assert await owner.stores.ledger.write(owner.boot, [claim]) == {task.id}
    assert (await shown(owner.stores, task)).claim_boot is None


async def test_a_retry_takes_the_claim_and_its_boot_away(owner: Owner, heir: Stores) -> None:
    task = await claimed(owner)
    await give(owner)
    retry = move(task, 2, rev=1, due_ms=T0_MS + 5)
    retry.outcome = make_outcome(task, Verdict.FAILED)
    assert await heir.ledger.write("boot-b", [retry]) == set()
    row = await shown(heir, task)
    assert (row.claim_ms, row.claim_boot) == (None, None)


@pytest.mark.parametrize("op", [Op.MOVE, Op.FINISH])
async def test_a_claimed_attempt_that_ends_keeps_its_fence(owner: Owner, heir: Stores, op: Op) -> None:
    """What is said of it again is known by that, whoever recorded it."""
    task = await claimed(owner)
    await give(owner)
    record = move(task, 2, rev=1, due_ms=T0_MS + 5) if op is Op.MOVE else finish(task, 2, rev=1)
    assert await heir.ledger.write("boot-b", [record]) == set()
    [found] = await heir.tasks.find(None, [task.id])
    assert found.task is not None
    assert (found.epoch, found.task.rev) == (1, 2)


async def test_a_claim_that_replaces_another_tells_of_its_own_writer(owner: Owner, heir: Stores) -> None:
    """The attempt's target said that it completes the task later, and the heir was told."""
    task = await claimed(owner)
    await give(owner)
    later = make_record(Op.MOVE, task, 2, rev=1, attempt=1, due_ms=CLAIM_MS, claim_ms=CLAIM_MS)
    assert await heir.ledger.write("boot-b", [later]) == set()
    row = await shown(heir, task)
    assert (row.due_ms, row.claim_ms, row.claim_boot, row.rev) == (CLAIM_MS, CLAIM_MS, "boot-b", 2)


async def test_a_claim_that_replaces_another_keeps_the_fence_of_the_attempt(owner: Owner, heir: Stores) -> None:
    """The target completes it under the fence that it was shown, whoever owns the task by then."""
    task = await claimed(owner)
    await give(owner)
    later = make_record(Op.MOVE, task, 2, rev=1, attempt=1, due_ms=CLAIM_MS, claim_ms=CLAIM_MS)
    assert await heir.ledger.write("boot-b", [later]) == set()
    row = await shown(heir, task)
    assert (row.epoch, row.attempt) == (1, 1)
    shown_to_all = await heir.reader.get("default", task.id, payload=False)
    assert shown_to_all is not None
    assert shown_to_all.epoch == 1


async def test_a_finished_and_a_redriven_task_have_nobody(owner: Owner) -> None:
    task = await claimed(owner)
    await owner.stores.ledger.write(owner.boot, [finish(task, state=State.DEAD, rev=1)])
    [found] = await owner.stores.tasks.find(None, [task.id])
    assert found.task is not None
    assert (found.state, found.task.claim_ms, found.task.claim_boot) == (State.DEAD, None, None)
    await owner.stores.ledger.write(owner.boot, [redrive(task, rev=2)])
    row = await shown(owner.stores, task)
    assert (row.claim_ms, row.claim_boot) == (None, None)


async def test_a_held_task_keeps_the_fence_of_its_attempt_and_is_loaded_by_nobody(owner: Owner, heir: Stores) -> None:
    task = await claimed(owner)
    await give(owner)
    held = make_record(Op.MOVE, task, 2, rev=1, state=State.RUNNING, due_ms=HELD_MS, attempt=1, claim_ms=HELD_MS)
    held.outcome = make_outcome(task, Verdict.LOST, error="lost")
    assert await heir.ledger.write("boot-b", [held]) == set()
    [found] = await heir.tasks.find(None, [task.id])
    assert found.task is not None
    assert (found.epoch, found.task.due_ms, found.task.claim_ms) == (1, HELD_MS, HELD_MS)
    assert [loaded.tasks for loaded in await heir.tasks.load([make_page(shard=task.shard)])] == [[]]
    assert [attempt.verdict for attempt in await heir.reader.attempts("default", task.id)] == ["lost"]


@pytest.mark.parametrize("claim_ms", [HELD_MS, CLAIM_MS])
async def test_what_ends_ahead_of_its_claim_ended_when_it_ended(owner: Owner, claim_ms: int) -> None:
    """In lists it has its place by that time, not by the one that was waited for."""
    task = await accepted(owner)
    claim = make_record(Op.MOVE, task, 1, state=State.RUNNING, due_ms=claim_ms, attempt=1, claim_ms=claim_ms)
    assert await owner.stores.ledger.write(owner.boot, [claim]) == set()
    done = finish(task, rev=1, at_ms=T0_MS + 7)
    assert await owner.stores.ledger.write(owner.boot, [done]) == set()
    row = await owner.stores.reader.get("default", task.id)
    assert row is not None
    assert (row.state, row.due_ms, row.finish_ms) == (State.SUCCEEDED, T0_MS + 7, T0_MS + 7)
