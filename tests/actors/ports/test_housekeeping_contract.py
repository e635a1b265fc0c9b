"""The Housekeeping port: history by day."""

import asyncio

import pytest

from actors.core.events import Op, Verdict
from actors.core.queue import DAY_MS, RETENTION_MS
from actors.core.task import State
from tests.actors.ports.worlds import Owner, Stores, World
from tests.support.builders import T0_DAY, T0_MS, finish, keyed, make_outcome, make_record, make_task

FAR_DAY = T0_DAY + 1_000
"""Days that no other test makes."""


async def is_known(owner: Owner, task_id: str) -> bool:
    return await owner.stores.reader.get("default", task_id) is not None


async def test_partitions_may_be_made_twice_and_at_once(world: World, stores: Stores) -> None:
    other = await world.process("boot-b")
    async with asyncio.TaskGroup() as group:
        for home in [stores, other] * 2:
            group.create_task(home.housekeeping.make_partitions(FAR_DAY, FAR_DAY + 11))
    await stores.housekeeping.make_partitions(FAR_DAY + 10, FAR_DAY + 13)
    dropped = await stores.housekeeping.drop_partitions(FAR_DAY + 14)
    assert len(dropped) == len(set(dropped))
    assert await stores.housekeeping.drop_partitions(FAR_DAY + 14) == []


async def test_two_that_drop_at_once_do_no_harm(world: World, stores: Stores) -> None:
    other = await world.process("boot-b")
    await stores.housekeeping.make_partitions(FAR_DAY, FAR_DAY + 1)
    async with asyncio.TaskGroup() as group:
        drops = [group.create_task(home.housekeeping.drop_partitions(FAR_DAY + 2)) for home in (stores, other)]
    first, second = (drop.result() for drop in drops)
    assert set(first) & set(second) == set()
    await stores.housekeeping.drop_partitions(FAR_DAY + 2)
    assert await stores.housekeeping.drop_partitions(FAR_DAY + 2) == []


async def test_what_finishes_on_a_day_without_a_partition_is_kept(owner: Owner) -> None:
    late_ms = T0_MS + 90 * DAY_MS
    done, failed = make_task(1, owner.queue), make_task(2, owner.queue)
    await owner.stores.tasks.accept([done, failed])
    outcome = make_outcome(failed, Verdict.FAILED)
    retry = make_record(Op.MOVE, failed, 1, at_ms=late_ms, attempt=1, outcome=outcome)
    assert await owner.stores.ledger.write(owner.boot, [finish(done, at_ms=late_ms), retry]) == set()
    await owner.stores.housekeeping.drop_partitions(T0_DAY + 91)
    assert await is_known(owner, done.id)
    assert len(await owner.stores.reader.attempts("default", failed.id)) == 1
    await owner.stores.housekeeping.drop_partitions(T0_DAY + 100)
    assert not await is_known(owner, done.id)
    assert await owner.stores.reader.attempts("default", failed.id) == []


async def test_only_days_before_are_dropped(stores: Stores) -> None:
    await stores.housekeeping.drop_partitions(FAR_DAY)
    await stores.housekeeping.make_partitions(FAR_DAY, FAR_DAY + 2)
    first = await stores.housekeeping.drop_partitions(FAR_DAY + 1)
    second = await stores.housekeeping.drop_partitions(FAR_DAY + 3)
    assert await stores.housekeeping.drop_partitions(FAR_DAY + 3) == []
    assert set(first) & set(second) == set()
    assert 2 * len(first) == len(second) > 0


@pytest.mark.parametrize("state", list(RETENTION_MS))
async def test_a_finished_task_stays_for_its_retention_and_goes_with_its_day(owner: Owner, state: State) -> None:
    task = keyed(1, owner.queue)
    await owner.stores.tasks.accept_keyed([task])
    await owner.stores.ledger.write(owner.boot, [finish(task, state=state)])
    last_day = (T0_MS + RETENTION_MS[state]) // DAY_MS
    await owner.stores.housekeeping.drop_partitions(last_day)
    assert await is_known(owner, task.id)
    await owner.stores.housekeeping.drop_partitions(last_day + 1)
    assert not await is_known(owner, task.id)
    assert [found.task for found in await owner.stores.tasks.find("default", [task.id])] == [None]
    assert await owner.stores.reader.page("default", None, list(State), None, 10) == []


async def test_a_key_is_free_again_when_its_task_has_gone(owner: Owner) -> None:
    task = keyed(1, owner.queue)
    await owner.stores.tasks.accept_keyed([task])
    await owner.stores.ledger.write(owner.boot, [finish(task)])
    await owner.stores.housekeeping.drop_partitions(T0_DAY + 2)
    [answer] = await owner.stores.tasks.accept_keyed([task])
    assert not isinstance(answer, Exception)
    assert answer.new


async def test_attempts_outlive_the_longest_retention_and_then_go(owner: Owner) -> None:
    task = make_task(1, owner.queue)
    await owner.stores.tasks.accept([task])
    record = make_record(Op.MOVE, task, 1, attempt=1, outcome=make_outcome(task, Verdict.FAILED))
    await owner.stores.ledger.write(owner.boot, [record])
    await owner.stores.housekeeping.drop_partitions(T0_DAY + 7)
    assert len(await owner.stores.reader.attempts("default", task.id)) == 1
    await owner.stores.housekeeping.drop_partitions(T0_DAY + 9)
    assert await owner.stores.reader.attempts("default", task.id) == []


async def test_live_tasks_are_never_dropped(owner: Owner) -> None:
    task = make_task(1, owner.queue, due_ms=T0_MS - 100 * DAY_MS)
    await owner.stores.tasks.accept([task])
    await owner.stores.housekeeping.drop_partitions(T0_DAY + 9)
    assert await is_known(owner, task.id)
