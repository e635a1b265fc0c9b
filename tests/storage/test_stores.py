"""What only Postgres can get wrong: partitions, many queues, bad text, sessions that hang."""

import asyncio
from collections.abc import Awaitable

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from actors.core.errors import Invalid, Unavailable
from actors.core.events import Op, Verdict
from actors.core.queue import DAY_MS, MAX_RETENTION_MS, Unheard
from actors.core.retry import DEFAULT
from actors.core.task import State
from storage import queues
from storage.records import batches_of
from storage.statements import statements
from tests.actors.ports.worlds import kill
from tests.storage.home import Home, Watch
from tests.support.builders import T0_DAY, T0_MS, finish, make_outcome, make_page, make_record, make_task, move

SQL = statements("tasks")


# --- accepting ---------------------------------------------------------------------------------------------------


async def test_a_batch_without_faults_is_one_commit(home: Home, watch: Watch) -> None:
    queue = await home.queue()
    await home.tasks.accept([make_task(n, queue) for n in range(500)])
    assert await watch.value("SELECT count(DISTINCT xmin::text) FROM tasks") == 1


@settings(max_examples=25)
@given(bad=st.sets(st.integers(0, 19)))
def test_bisection_refuses_exactly_the_bad_rows(bad: set[int]) -> None:
    class Table:
        """Takes a batch only when none of its rows is bad."""

        def __init__(self) -> None:
            self.rows: list[int] = []

        async def copy_records_to_table(self, _: str, *, records: list[tuple[object, ...]], columns: object) -> None:
            numbers = [int(str(record[6])[:8], 16) for record in records]
            if bad.intersection(numbers):
                raise asyncpg.InvalidTextRepresentationError("bad")
            self.rows += numbers

    from actors.core.queue import Queue

    home = Home("postgresql://unused", "boot-x")
    table, errors = Table(), dict[int, Exception]()
    tasks = [make_task(n, Queue(1, "default", "emails")) for n in range(20)]
    asyncio.run(home.tasks._copy(table, tasks, 0, errors))
    assert set(errors) == bad
    assert all(isinstance(error, Invalid) for error in errors.values())
    assert table.rows == [n for n in range(20) if n not in bad]


async def test_an_outage_while_accepting_is_never_sent_again(
    home: Home, session: asyncpg.Connection, watch: Watch
) -> None:
    queue = await home.queue()
    await home.tasks.accept([make_task(0, queue)])
    async with asyncio.TaskGroup() as group:
        transaction = session.transaction()
        await transaction.start()
        await session.execute("LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE")
        accept = group.create_task(_outcome(home, queue_number=1))
        await watch.waiting_for(session)
        ended = await watch.value(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
            "WHERE $1 = ANY (pg_blocking_pids(pid))",
            session.get_server_pid(),
        )
        await transaction.rollback()
    assert ended == 1
    assert isinstance(accept.result(), Unavailable)
    assert await watch.value("SELECT count(*) FROM tasks") == 1


async def _outcome(home: Home, *, queue_number: int) -> object:
    queue = home.book.by_id(queue_number)
    assert queue is not None
    try:
        return await home.tasks.accept([make_task(1, queue)])
    except Unavailable as error:
        return error


# --- loading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 32, 33, 70])
async def test_a_page_of_every_queue_is_the_same_with_few_and_with_many_queues(home: Home, count: int) -> None:
    names = [await home.queue(f"q{n}") for n in range(count)]
    tasks = [
        make_task(100 * at + n, queue, shard=at % 3, due_ms=T0_MS + n)
        for at, queue in enumerate(names)
        for n in range(at % 4)
    ]
    await home.tasks.accept(tasks)
    loads = await home.tasks.load([make_page(shard=shard, limit=2) for shard in range(3)])
    for shard, loaded in enumerate(loads):
        wanted = {t.id for t in tasks if t.shard == shard and t.due_ms < T0_MS + 2}
        assert {task.id for task in loaded.tasks} == wanted
        assert set(loaded.full) == {t.queue.id for t in tasks if t.shard == shard and t.due_ms == T0_MS + 1}


async def test_rows_that_can_not_be_read_are_left_out_and_harm_no_neighbour(
    home: Home, session: asyncpg.Connection
) -> None:
    queue = await home.queue()
    tasks = [make_task(n, queue, due_ms=T0_MS + n) for n in range(5)]
    await home.tasks.accept(tasks)
    await session.execute("UPDATE tasks SET queue_id = 99 WHERE id = $1", tasks[0].id)
    await session.execute("UPDATE tasks SET spec = '{\"v\":9}' WHERE id = ANY ($1)", [tasks[1].id, tasks[3].id])
    loaded, foreign = await home.tasks.load([make_page(queue=queue, limit=3), make_page(limit=3)])
    assert [task.id for task in loaded.tasks] == [tasks[2].id]
    assert loaded.full == {queue.id: (tasks[3].due_ms, tasks[3].id)}, "the page goes on behind what it can't read"
    assert [task.id for task in foreign.tasks] == [tasks[2].id]
    found = await home.tasks.find(None, [task.id for task in tasks])
    assert [each.task is not None for each in found] == [False, False, True, False, True]
    assert home.db.unreadable.count == 2 + 2 + 3


async def test_people_read_past_what_can_not_be_read(home: Home, session: asyncpg.Connection) -> None:
    queue = await home.queue()
    tasks = [make_task(n, queue, due_ms=T0_MS + n) for n in range(9)]
    await home.tasks.accept(tasks)
    bad = [task.id for task in tasks[1:6]]
    await session.execute("UPDATE tasks SET spec = '{\"v\":9}' WHERE id = ANY ($1)", bad)
    page = await home.reader.page("default", None, [State.SCHEDULED], None, 3)
    assert [row.id for row in page] == [tasks[n].id for n in (0, 6, 7)]
    page = await home.reader.page("default", None, [State.SCHEDULED], (page[-1].due_ms, page[-1].id), 3)
    assert [row.id for row in page] == [tasks[8].id]
    with pytest.raises(Unavailable, match="can't read"):
        await home.reader.get("default", bad[0])


async def test_a_tenant_with_too_many_queues_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MAX_QUEUES", 2)
    await home.queue("a")
    await home.queue("b")
    with pytest.raises(Invalid):
        await home.queue("c")
    assert (await home.queues.ensure("acme", "c")).name == "c"


# --- results -----------------------------------------------------------------------------------------------------


async def test_missing_partitions_are_made_on_the_spot(home: Home, watch: Watch) -> None:
    queue = await home.queue()
    task, failed = make_task(1, queue), make_task(2, queue)
    await home.tasks.accept([task, failed])
    outcome = make_outcome(failed, Verdict.FAILED)
    assert await home.write(finish(task), make_record(Op.MOVE, failed, 1, attempt=1, outcome=outcome)) == set()
    assert await watch.value("SELECT last_day FROM finished") == T0_DAY + 1
    assert await watch.value("SELECT last_day FROM attempts") == (T0_MS + MAX_RETENTION_MS) // DAY_MS


@pytest.mark.parametrize("error", ["a\0b", "a\ud800b", "x" * 100_000])
async def test_no_error_text_can_stop_a_result(home: Home, error: str) -> None:
    task = make_task(1, await home.queue())
    await home.tasks.accept([task])
    outcome = make_outcome(task, Verdict.NEVER, error=error)
    assert await home.write(make_record(Op.FINISH, task, 1, state=State.DEAD, outcome=outcome)) == set()
    row = await home.reader.get("default", task.id)
    assert row is not None
    assert row.last_error is not None
    assert len(row.last_error) <= 2_000
    [attempt] = await home.reader.attempts("default", task.id)
    assert attempt.error == row.last_error


async def test_a_claim_is_a_heap_only_update(home: Home, session: asyncpg.Connection) -> None:
    """It keeps the due time, so no index is touched."""
    task = make_task(1, await home.queue())
    await home.tasks.accept([task])
    claim = make_record(Op.MOVE, task, 1, attempt=1, claim_ms=T0_MS + 9)
    [(statement, arguments)] = batches_of("boot-a", [claim], 1)
    async with session.transaction():
        assert await session.fetch(statement, *arguments) == []
        assert await session.fetchval("SELECT pg_stat_get_xact_tuples_hot_updated('tasks'::regclass)") == 1


async def test_the_views_read_well(home: Home, session: asyncpg.Connection) -> None:
    task, done = make_task(1, await home.queue(), payload=b"12"), make_task(2, await home.queue())
    await home.tasks.accept([task, done])
    await home.write(finish(done, state=State.DEAD))
    row = await session.fetchrow("SELECT queue, schedule_time, spec, payload_bytes FROM tasks_view")
    assert (row["queue"], row["schedule_time"].timestamp() * 1000, row["payload_bytes"]) == ("emails", T0_MS, 2)
    row = await session.fetchrow("SELECT state, kept_until - date '1970-01-01' AS day FROM finished_view")
    assert tuple(row) == ("dead", T0_DAY + 7)
    assert await session.fetchval("SELECT count(*) FROM attempts_view") == 0


# --- ownership ---------------------------------------------------------------------------------------------------


async def test_a_hung_session_of_a_dead_boot_is_ended_and_its_shards_are_taken(
    home: Home, other: Home, watch: Watch
) -> None:
    """It holds the shard's lock, as a stopped process in the middle of a write does."""
    task = make_task(1, await home.queue(), shard=4)
    await home.tasks.accept([task])
    await kill(other, "boot-a")
    [(statement, arguments)] = batches_of("boot-a", [finish(task)], 1)
    await home.housekeeping.make_partitions(T0_DAY, T0_DAY + 2)
    async with home.db.ledger.use() as hung:
        transaction = hung.transaction()
        await transaction.start()
        await hung.fetch(statement, *arguments)
        first = await other.leases.sweep("boot-b", {4: 1, 5: 1})
        assert first[5] == 2
        assert first.get(4) or await other.leases.sweep("boot-b", {4: 1}) == {4: 2}
    assert await other.live(task)


async def test_a_shard_that_somebody_else_holds_a_lock_on_keeps_no_other(
    home: Home, other: Home, session: asyncpg.Connection
) -> None:
    await kill(other, "boot-a")
    async with session.transaction():
        await session.execute("SELECT FROM shards WHERE shard = 4 FOR UPDATE")
        assert await other.leases.sweep("boot-b", {4: 1, 5: 1}) == {5: 2}
    assert await other.leases.sweep("boot-b", {4: 1}) == {4: 2}


async def test_a_heartbeat_that_waits_for_the_verdict_finds_it(
    home: Home, session: asyncpg.Connection, watch: Watch
) -> None:
    async with asyncio.TaskGroup() as group, session.transaction():
        await session.execute("UPDATE nodes SET state = 'dead' WHERE boot = 'boot-a'")
        beat = group.create_task(home.leases.beat("boot-a"))
        await watch.waiting_for(session)
    assert beat.result() is None


async def test_a_verdict_that_waits_for_the_heartbeat_is_dropped(
    home: Home, other: Home, session: asyncpg.Connection, watch: Watch
) -> None:
    seen = await watch.value("SELECT hb_seq FROM nodes WHERE boot = 'boot-a'")
    assert isinstance(seen, int)
    async with asyncio.TaskGroup() as group, session.transaction():
        await session.execute("UPDATE nodes SET hb_seq = hb_seq + 1 WHERE boot = 'boot-a'")
        verdict = group.create_task(other.leases.condemn("boot-a", seen))
        await watch.waiting_for(session)
    assert verdict.result() is False
    assert await home.leases.beat("boot-a") is not None


async def test_two_survivors_one_shard(home: Home, other: Home, session: asyncpg.Connection, watch: Watch) -> None:
    await kill(other, "boot-a")
    await other.leases.join("boot-c", "c", "c:7070")
    async with asyncio.TaskGroup() as group, session.transaction():
        taken = await session.fetch(statements("leases")["sweep"], "boot-c", [4], [1])
        late = group.create_task(other.leases.sweep("boot-b", {4: 1}))
        await watch.waiting_for(session)
    assert dict(taken) == {4: 2}
    assert late.result() == {}


async def test_a_survivor_that_dies_between_verdict_and_sweep_holds_nothing_up(home: Home, other: Home) -> None:
    await other.leases.join("boot-c", "c", "c:7070")
    await kill(other, "boot-a")
    await kill(other, "boot-c")
    assert await other.leases.sweep("boot-c", {4: 1}) == {}
    assert await other.leases.sweep("boot-b", {4: 1}) == {4: 2}


async def test_leaving_waits_for_an_open_write(home: Home, session: asyncpg.Connection, watch: Watch) -> None:
    task = make_task(1, await home.queue(), shard=4)
    await home.tasks.accept([task])
    await home.housekeeping.make_partitions(T0_DAY, T0_DAY + 2)
    [(statement, arguments)] = batches_of("boot-a", [finish(task)], 1)
    async with asyncio.TaskGroup() as group, session.transaction():
        assert await session.fetch(statement, *arguments) == []
        group.create_task(home.leases.leave("boot-a"))
        await watch.waiting_for(session)
    assert await home.write(move(task, rev=1)) == {task.id}
    assert not await home.live(task)


# --- history -----------------------------------------------------------------------------------------------------


async def test_a_partition_that_is_read_is_dropped_later(home: Home, session: asyncpg.Connection, watch: Watch) -> None:
    await home.housekeeping.make_partitions(T0_DAY, T0_DAY)
    task = make_task(1, await home.queue())
    await home.tasks.accept([task])
    async with home.db.reads.use() as connection:
        await connection.execute("SET lock_timeout = '50ms'")
    async with session.transaction():
        await session.fetch("SELECT * FROM finished")
        assert await home.housekeeping.drop_partitions(T0_DAY + 1) == [f"attempts_{T0_DAY}"]
        # Nothing waits behind the attempt.
        assert await home.write(finish(task)) == set()
    assert await home.housekeeping.drop_partitions(T0_DAY + 1) == [f"finished_{T0_DAY}"]
    assert await watch.value("SELECT count(*) FROM pg_class WHERE relname = $1", f"finished_{T0_DAY}") == 0
    assert await watch.value("SELECT count(*) FROM finished") == 1


async def test_making_partitions_waits_for_no_reader(home: Home, session: asyncpg.Connection) -> None:
    async with session.transaction():
        await session.fetch("SELECT * FROM finished")
        await session.execute("INSERT INTO queues (queue_id, tenant, name) VALUES (7, 'a', 'b')")
        await home.housekeeping.make_partitions(T0_DAY, T0_DAY + 3)


async def test_what_an_interrupted_removal_left_is_put_to_use_or_removed(
    home: Home, session: asyncpg.Connection, watch: Watch
) -> None:
    await home.housekeeping.make_partitions(T0_DAY, T0_DAY + 1)
    for day in (T0_DAY, T0_DAY + 1):
        await session.execute(f"ALTER TABLE finished DETACH PARTITION finished_{day} CONCURRENTLY")
    await home.housekeeping.make_partitions(T0_DAY + 1, T0_DAY + 1)
    attached = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'finished'::regclass"
    assert await watch.value(attached) == 1
    dropped = await home.housekeeping.drop_partitions(T0_DAY + 2)
    assert sorted(dropped) == sorted(f"{table}_{T0_DAY + n}" for table in ("finished", "attempts") for n in (0, 1))


async def test_a_removal_that_was_cut_off_half_way_is_ended(
    home: Home, session: asyncpg.Connection, watch: Watch
) -> None:
    await home.housekeeping.make_partitions(T0_DAY, T0_DAY)
    reader = await asyncpg.connect(home.dsn)
    async with reader.transaction():
        await reader.fetch("SELECT * FROM finished")
        await session.execute("SET lock_timeout = '50ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await session.execute(f"ALTER TABLE finished DETACH PARTITION finished_{T0_DAY} CONCURRENTLY")
    reader.terminate()
    assert await watch.value("SELECT inhdetachpending FROM pg_inherits WHERE inhparent = 'finished'::regclass") is True
    assert len(await home.housekeeping.drop_partitions(T0_DAY + 1)) == 2


async def test_a_partition_that_something_depends_on_is_in_nobodys_way(home: Home, session: asyncpg.Connection) -> None:
    await home.housekeeping.make_partitions(T0_DAY, T0_DAY + 1)
    await session.execute(f"CREATE VIEW mine AS SELECT * FROM finished_{T0_DAY}")
    others = {f"finished_{T0_DAY + 1}", f"attempts_{T0_DAY}", f"attempts_{T0_DAY + 1}"}
    with capture_logs() as lines:
        assert set(await home.housekeeping.drop_partitions(T0_DAY + 2)) == others
    [line] = lines
    assert line["partition"] == f"finished_{T0_DAY}"
    assert "depend" in line["reason"]
    await session.execute("DROP VIEW mine")
    assert await home.housekeeping.drop_partitions(T0_DAY + 2) == [f"finished_{T0_DAY}"]


async def test_a_session_that_ends_in_mid_removal_is_an_outage(home: Home, session: asyncpg.Connection) -> None:
    await home.housekeeping.make_partitions(T0_DAY, T0_DAY)
    blocker = await asyncpg.connect(home.dsn)
    async with asyncio.TaskGroup() as group, blocker.transaction():
        await blocker.fetch("SELECT * FROM finished")
        dropping = group.create_task(_unavailable(home.housekeeping.drop_partitions(T0_DAY + 1)))
        await Watch(session).waiting_for(blocker)
        await session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))",
            blocker.get_server_pid(),
        )
        await dropping
    blocker.terminate()


async def _unavailable(work: Awaitable[object]) -> None:
    with pytest.raises(Unavailable):
        await work


# --- settings of queues ------------------------------------------------------------------------------------------

UNREADABLE_POLICIES = ['{"max_attempts": "many"}', '{"max_attempts": 0}', '{"max_doublings": -1}', "[]"]


@pytest.mark.parametrize("policy", UNREADABLE_POLICIES)
async def test_a_retry_policy_that_can_not_be_read_leaves_all_else_as_it_is(
    home: Home, session: asyncpg.Connection, policy: str
) -> None:
    bad, good = await home.queue("bad"), await home.queue("good")
    change = "UPDATE queues SET retry = $2, paused = true, version = version + 1 WHERE name = $1"
    await session.execute(change, "bad", '{"max_attempts": 7}')
    await home.queues.refresh()
    await session.execute(change, "bad", policy)
    await session.execute(change, "good", '{"max_attempts": 9}')
    with capture_logs() as lines:
        await home.queues.refresh()
    assert (bad.retry.max_attempts, bad.version, good.retry.max_attempts) == (7, 2, 9)
    [line] = lines
    assert list(line["queues"]) == ["default/bad"]


async def test_a_new_process_gives_the_default_for_a_retry_policy_that_it_can_not_read(
    home: Home, other: Home, session: asyncpg.Connection
) -> None:
    await home.queue()
    await session.execute("UPDATE queues SET retry = $1", UNREADABLE_POLICIES[0])
    assert (await other.queue()).retry == DEFAULT


async def test_a_policy_of_a_later_version_is_taken_for_the_one_that_runs_nothing_twice(
    home: Home, session: asyncpg.Connection
) -> None:
    queue = await home.queue()
    await session.execute("UPDATE queues SET unknown = 'ask_the_target', version = version + 1")
    await home.queues.refresh()
    assert queue.unknown is Unheard.HOLD
