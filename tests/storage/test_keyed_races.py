"""One task a key, against real locks: replay against finish, against redrive, against another submit."""

import asyncio
from typing import Any

import asyncpg

from actors.core.codec import SpecCodec
from actors.core.events import Record
from actors.core.task import State, Task
from actors.ports.tasks import Accepted
from storage.records import batches_of
from storage.rows import rows_of
from storage.statements import statements
from tests.storage.home import Home, Watch
from tests.support.builders import finish, keyed, redrive

SQL = statements("tasks")
ONE_STATEMENT = SQL["insert_keyed"].replace(
    "ON CONFLICT",
    "WHERE NOT EXISTS (SELECT FROM finished f WHERE f.id = ANY ($7)) ON CONFLICT",
)


def columns(task: Task) -> list[list[Any]]:
    """The arguments of an insert of this one task."""
    return [[value] for value in rows_of([task], SpecCodec())[0]]


async def by_hand(session: asyncpg.Connection, home: Home, *records: Record) -> None:
    """The ledger's statements, in the transaction that `session` is in."""
    for statement, arguments in batches_of(home.boot, records, 1):
        assert await session.fetch(statement, *arguments) == []


async def test_a_replay_that_waits_for_the_finish_finds_it(
    home: Home, session: asyncpg.Connection, watch: Watch
) -> None:
    task = keyed(1, await home.queue())
    await home.tasks.accept_keyed([task])
    await home.housekeeping.make_partitions(20_800, 20_810)
    async with asyncio.TaskGroup() as group, session.transaction():
        await by_hand(session, home, finish(task))
        replay = group.create_task(home.tasks.accept_keyed([task]))
        await watch.waiting_for(session)
    assert replay.result() == [Accepted(new=False, same_request=True, state=State.SUCCEEDED)]
    assert await watch.value("SELECT count(*) FROM tasks") == 0
    assert await watch.value("SELECT count(*) FROM finished") == 1


async def test_one_statement_would_have_doubled_it(home: Home, session: asyncpg.Connection, watch: Watch) -> None:
    task = keyed(1, await home.queue())
    await home.tasks.accept_keyed([task])
    await home.housekeeping.make_partitions(20_800, 20_810)
    second = await asyncpg.connect(home.dsn)
    async with asyncio.TaskGroup() as group, session.transaction():
        await by_hand(session, home, finish(task))
        insert = group.create_task(second.fetch(ONE_STATEMENT, *columns(task)))
        await watch.waiting_for(session)
    assert len(insert.result()) == 1
    second.terminate()
    assert await watch.value("SELECT count(*) FROM tasks JOIN finished USING (id)") == 1


async def test_a_replay_before_the_finish_finds_the_live_task(home: Home, session: asyncpg.Connection) -> None:
    task = keyed(1, await home.queue())
    await home.tasks.accept_keyed([task])
    async with session.transaction():
        # The finish comes between the two statements of the replay: its answer is the truth of one moment.
        [answer] = await home.tasks.accept_keyed([task])
        await home.write(finish(task))
    assert answer == Accepted(new=False, same_request=True, state=State.SCHEDULED)
    assert not await home.live(task)


async def test_a_replay_against_a_redrive_leaves_one_task(
    home: Home, session: asyncpg.Connection, watch: Watch
) -> None:
    task = keyed(1, await home.queue())
    await home.tasks.accept_keyed([task])
    await home.write(finish(task, state=State.DEAD))
    async with asyncio.TaskGroup() as group, session.transaction():
        await by_hand(session, home, redrive(task, rev=1))
        replay = group.create_task(home.tasks.accept_keyed([task]))
        await watch.waiting_for(session)
    assert replay.result() == [Accepted(new=False, same_request=True, state=State.SCHEDULED)]
    assert await watch.value("SELECT array_agg(rev) FROM tasks") == [2]
    assert await watch.value("SELECT count(*) FROM finished") == 0


async def test_a_redrive_waits_for_a_replay_that_takes_its_row_back(
    home: Home, session: asyncpg.Connection, watch: Watch
) -> None:
    task = keyed(1, await home.queue())
    await home.tasks.accept_keyed([task])
    await home.write(finish(task, state=State.DEAD))
    async with asyncio.TaskGroup() as group, session.transaction():
        assert len(await session.fetch(SQL["insert_keyed"], *columns(task))) == 1
        back = group.create_task(home.write(redrive(task, rev=1)))
        await watch.waiting_for(session)
        await session.fetch(SQL["settle_keyed"], [0], [task.id], [True])
    assert back.result() == set()
    assert await watch.value("SELECT array_agg(rev) FROM tasks") == [2]
    assert await watch.value("SELECT count(*) FROM finished") == 0


async def test_a_submit_is_new_when_the_one_before_it_was_rolled_back(
    home: Home, session: asyncpg.Connection, watch: Watch
) -> None:
    task = keyed(1, await home.queue())
    async with asyncio.TaskGroup() as group:
        transaction = session.transaction()
        await transaction.start()
        await session.fetch(SQL["insert_keyed"], *columns(task))
        submit = group.create_task(home.tasks.accept_keyed([task]))
        await watch.waiting_for(session)
        await transaction.rollback()
    assert submit.result() == [Accepted(new=True, same_request=True, state=State.SCHEDULED)]
