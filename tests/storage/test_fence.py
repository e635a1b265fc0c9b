"""The fence, against real locks: both orders of each race, and what weaker fences would let through."""

import asyncio
from collections.abc import Awaitable, Collection

import asyncpg
import pytest

from actors.core.errors import Unavailable
from actors.core.task import State, Task
from storage.records import batches_of
from storage.statements import statements
from tests.actors.ports.worlds import kill
from tests.storage.home import Home, Watch
from tests.support.builders import T0_MS, finish, make_task, move

WRITE = statements("ledger")["write"]
SWEEP = statements("leases")["sweep"]
GIVE = statements("leases")["give"]
PLAIN_READ = WRITE.replace("FOR SHARE OF s", "")
KEY_SHARE = WRITE.replace("FOR SHARE OF s", "FOR KEY SHARE OF s")
NOT_REFERENCED = WRITE.replace("((e.shard, e.epoch) IN (SELECT shard, epoch FROM mine)) IS TRUE", "true").replace(
    "((c.shard, c.epoch) IN (SELECT shard, epoch FROM mine)) IS TRUE", "true"
)


async def accepted(home: Home, *, shard: int = 4) -> Task:
    task = make_task(1, await home.queue(), shard=shard)
    assert await home.tasks.accept([task]) == {}
    await home.housekeeping.make_partitions(T0_MS // 86_400_000, T0_MS // 86_400_000 + 8)
    return task


async def write_by_hand(session: asyncpg.Connection, home: Home, task: Task, statement: str = WRITE) -> set[str]:
    """The ledger's statement for the end of `task` under epoch 1, in whatever transaction `session` is in."""
    [(_, arguments)] = batches_of(home.boot, [finish(task)], 1)
    return {row[0] for row in await session.fetch(statement, *arguments)}


async def sweep_by_hand(session: asyncpg.Connection, boot: str, shard: int = 4, epoch: int = 1) -> dict[int, int]:
    return dict(await session.fetch(SWEEP, boot, [shard], [epoch]))


def test_the_variants_differ_from_the_statement() -> None:
    assert len({WRITE, PLAIN_READ, KEY_SHARE, NOT_REFERENCED}) == 4


async def test_take_over_waits_for_an_open_write(
    home: Home, other: Home, session: asyncpg.Connection, watch: Watch
) -> None:
    task = await accepted(home)
    await kill(other, "boot-a")
    async with asyncio.TaskGroup() as group, session.transaction():
        assert await write_by_hand(session, home, task) == set()
        sweep = group.create_task(other.leases.sweep("boot-b", {4: 1}))
        await watch.waiting_for(session)
    assert sweep.result() == {4: 2}
    [found] = await other.tasks.find(None, [task.id])
    assert found.state is State.SUCCEEDED


async def test_a_write_that_comes_after_the_take_over_began_is_refused(
    home: Home, other: Home, session: asyncpg.Connection, watch: Watch
) -> None:
    task = await accepted(home)
    await kill(other, "boot-a")
    async with asyncio.TaskGroup() as group, session.transaction():
        assert await sweep_by_hand(session, "boot-b") == {4: 2}
        write = group.create_task(home.write(finish(task)))
        await watch.waiting_for(session)
    assert write.result() == {task.id}
    assert await home.live(task)


async def test_a_write_passes_when_the_take_over_is_rolled_back(
    home: Home, other: Home, session: asyncpg.Connection, watch: Watch
) -> None:
    task = await accepted(home)
    await kill(other, "boot-a")
    async with asyncio.TaskGroup() as group:
        transaction = session.transaction()
        await transaction.start()
        await sweep_by_hand(session, "boot-b")
        write = group.create_task(home.write(finish(task)))
        await watch.waiting_for(session)
        await transaction.rollback()
    assert write.result() == set()


@pytest.mark.parametrize("weaker", [PLAIN_READ, KEY_SHARE, NOT_REFERENCED], ids=["plain", "key share", "unreferenced"])
async def test_a_weaker_fence_lets_the_take_over_pass_an_open_write(
    home: Home, other: Home, session: asyncpg.Connection, weaker: str
) -> None:
    task = await accepted(home)
    await kill(other, "boot-a")
    async with session.transaction():
        assert await write_by_hand(session, home, task, weaker) == set()
        assert await other.leases.sweep("boot-b", {4: 1}) == {4: 2}
        # The new owner reads the row as live, and would fire it again.
        assert await other.live(task)


@pytest.mark.parametrize("weaker", [PLAIN_READ, KEY_SHARE, NOT_REFERENCED], ids=["plain", "key share", "unreferenced"])
async def test_a_weaker_fence_lets_a_late_write_pass_the_take_over(
    home: Home, other: Home, session: asyncpg.Connection, weaker: str
) -> None:
    task = await accepted(home)
    await kill(other, "boot-a")
    writer = await asyncpg.connect(home.dsn)
    async with session.transaction():
        assert await sweep_by_hand(session, "boot-b") == {4: 2}
        assert await write_by_hand(writer, home, task, weaker) == set()
    writer.terminate()
    assert not await other.live(task)


async def test_a_fence_that_nothing_refers_to_never_runs(home: Home, session: asyncpg.Connection, watch: Watch) -> None:
    task = await accepted(home)
    await session.execute("UPDATE shards SET owner_boot = 'somebody else'")
    assert await write_by_hand(session, home, task) == {task.id}
    assert await write_by_hand(session, home, task, NOT_REFERENCED) == set()
    assert await watch.value("SELECT count(*) FROM tasks") == 0


async def test_rescue_then_completion(home: Home, other: Home) -> None:
    """The successor moved the task: the old owner's result comes too late."""
    task = await accepted(home)
    await kill(other, "boot-a")
    await other.leases.sweep("boot-b", {4: 1})
    assert await other.write(move(task, epoch=2, due_ms=T0_MS + 5)) == set()
    assert await home.write(finish(task)) == {task.id}
    assert await home.write(finish(task, rev=1)) == {task.id}
    [found] = await home.tasks.find(None, [task.id])
    assert found.task is not None
    assert (found.task.due_ms, found.task.rev, found.epoch) == (T0_MS + 5, 1, 2)


async def test_completion_then_rescue(home: Home, other: Home, session: asyncpg.Connection, watch: Watch) -> None:
    """The result was on its way when its owner died: the successor, having read before, is refused."""
    task = await accepted(home)
    await kill(other, "boot-a")
    async with asyncio.TaskGroup() as group, session.transaction():
        await write_by_hand(session, home, task)
        sweep = group.create_task(other.leases.sweep("boot-b", {4: 1}))
        await watch.waiting_for(session)
    assert sweep.result() == {4: 2}
    assert await other.write(move(task, epoch=2)) == {task.id}


async def test_a_batch_holds_each_record_against_its_own_epoch(home: Home, other: Home) -> None:
    queue = await home.queue()
    tasks = [make_task(n, queue, shard=4) for n in range(2)]
    await home.tasks.accept(tasks)
    await kill(other, "boot-a")
    await other.leases.sweep("boot-b", {4: 1})
    assert await other.write(finish(tasks[0], epoch=2), finish(tasks[1], epoch=1)) == {tasks[1].id}


async def test_two_writes_of_one_task_at_once_apply_one(home: Home, session: asyncpg.Connection, watch: Watch) -> None:
    task = await accepted(home)
    async with asyncio.TaskGroup() as group, session.transaction():
        assert await write_by_hand(session, home, task) == set()
        second = group.create_task(home.write(move(task, due_ms=1)))
        await watch.waiting_for(session)
    assert second.result() == {task.id}


async def test_writes_of_one_owner_do_not_wait_for_each_other(home: Home, session: asyncpg.Connection) -> None:
    first = await accepted(home)
    second = make_task(2, await home.queue(), shard=4)
    await home.tasks.accept([second])
    async with session.transaction():
        await write_by_hand(session, home, first)
        assert await home.write(finish(second)) == set()


# --- a shard that is given


async def give_by_hand(session: asyncpg.Connection, *, epoch: int = 1) -> set[int]:
    return {row["shard"] for row in await session.fetch(GIVE, "boot-a", [4], [epoch], ["boot-b"])}


async def test_a_give_waits_for_an_open_write(
    home: Home, other: Home, session: asyncpg.Connection, watch: Watch
) -> None:
    task = await accepted(home)
    async with asyncio.TaskGroup() as group, session.transaction():
        assert await write_by_hand(session, home, task) == set()
        give = group.create_task(home.leases.give("boot-a", {4: (1, "boot-b"), 5: (1, "boot-b")}))
        await watch.waiting_for(session)
    assert give.result() == {4, 5}
    [found] = await other.tasks.find(None, [task.id])
    assert found.state is State.SUCCEEDED


async def test_a_write_that_comes_after_the_give_began_is_refused(
    home: Home, other: Home, session: asyncpg.Connection, watch: Watch
) -> None:
    task = await accepted(home)
    async with asyncio.TaskGroup() as group, session.transaction():
        assert await give_by_hand(session) == {4}
        write = group.create_task(home.write(finish(task)))
        await watch.waiting_for(session)
    assert write.result() == {task.id}
    assert await other.write(finish(task, epoch=2)) == set()


async def test_a_write_passes_when_the_give_is_rolled_back(
    home: Home, other: Home, session: asyncpg.Connection, watch: Watch
) -> None:
    task = await accepted(home)
    async with asyncio.TaskGroup() as group:
        transaction = session.transaction()
        await transaction.start()
        await give_by_hand(session)
        write = group.create_task(home.write(finish(task)))
        await watch.waiting_for(session)
        await transaction.rollback()
    assert write.result() == set()
    assert (await session.fetchval("SELECT owner_boot FROM shards WHERE shard = 4")) == "boot-a"


@pytest.mark.parametrize("first", ["give", "sweep"])
async def test_a_give_and_a_take_over_at_once_make_one_owner(
    home: Home, other: Home, session: asyncpg.Connection, watch: Watch, first: str
) -> None:
    """The giver was taken for dead while it gave."""
    await kill(other, "boot-a")
    async with asyncio.TaskGroup() as group, session.transaction():
        if first == "give":
            assert await give_by_hand(session) == {4}
            second = group.create_task(_taken(other.leases.sweep("boot-b", {4: 1})))
        else:
            assert await sweep_by_hand(session, "boot-b") == {4: 2}
            second = group.create_task(_taken(home.leases.give("boot-a", {4: (1, "boot-b")})))
        await watch.waiting_for(session)
    assert second.result() == set()
    row = await session.fetchrow("SELECT owner_boot, epoch FROM shards WHERE shard = 4")
    assert tuple(row) == ("boot-b", 2)


async def _taken(asked: Awaitable[Collection[int]]) -> set[int]:
    return set(await asked)


async def test_a_give_that_would_wait_for_long_gives_nothing(
    home: Home, other: Home, session: asyncpg.Connection
) -> None:
    task = await accepted(home)
    async with session.transaction():
        await write_by_hand(session, home, task)
        with pytest.raises(Unavailable):
            await home.leases.give("boot-a", {4: (1, "boot-b"), 5: (1, "boot-b")})
    assert await home.leases.give("boot-a", {4: (1, "boot-b"), 5: (1, "boot-b")}) == {4, 5}


@pytest.mark.parametrize("weaker", [PLAIN_READ, KEY_SHARE, NOT_REFERENCED], ids=["plain", "key share", "unreferenced"])
async def test_a_weaker_fence_lets_a_give_pass_an_open_write(
    home: Home, other: Home, session: asyncpg.Connection, weaker: str
) -> None:
    task = await accepted(home)
    async with session.transaction():
        assert await write_by_hand(session, home, task, weaker) == set()
        assert await home.leases.give("boot-a", {4: (1, "boot-b")}) == {4}
        assert await other.live(task)
