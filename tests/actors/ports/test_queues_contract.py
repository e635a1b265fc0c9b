"""The QueueStore port: queues and their settings."""

import asyncio

import pytest

from actors.core.errors import Invalid
from actors.core.queue import DAY_MS, RETENTION_MS, Queue, QueueSettings, Unheard
from actors.core.retry import DEFAULT, RetryPolicy
from actors.core.task import State
from tests.actors.ports.worlds import Owner, Stores, World
from tests.support.builders import T0_MS, finish, make_task

OTHER = QueueSettings(
    paused=True,
    retry=RetryPolicy(max_attempts=2),
    dispatch_deadline_ms=5_000,
    retention_ms=RETENTION_MS | {State.SUCCEEDED: 3 * DAY_MS},
    unknown=Unheard.HOLD,
)


async def test_a_new_queue_has_the_default_settings(stores: Stores) -> None:
    queue = await stores.queues.ensure("acme", "emails")
    fresh = Queue(0, "acme", "emails")
    assert (queue.tenant, queue.name) == ("acme", "emails")
    assert (queue.paused, queue.retry, queue.dispatch_deadline_ms) == (False, DEFAULT, fresh.dispatch_deadline_ms)


async def test_a_queue_is_one_object_in_a_process(stores: Stores) -> None:
    queue = await stores.queues.ensure("default", "emails")
    assert await stores.queues.ensure("default", "emails") is queue
    assert stores.book.by_id(queue.id) is queue
    assert stores.book.by_name("default", "emails") is queue


async def test_names_and_tenants_tell_queues_apart(stores: Stores) -> None:
    pairs = [("default", "a"), ("default", "b"), ("acme", "a"), ("acme", "A")]
    queues = [await stores.queues.ensure(tenant, name) for tenant, name in pairs]
    assert len({queue.id for queue in queues}) == 4
    assert [(queue.tenant, queue.name) for queue in queues] == pairs


@pytest.mark.parametrize("name", [".", ".."])
async def test_a_step_of_a_path_names_no_new_queue(
    world: World, stores: Stores, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with pytest.raises(Invalid, match="no queue can be named") as caught:
        await stores.queues.ensure("default", name)
    assert caught.value.pointer == "/queue"
    with monkeypatch.context() as earlier:
        earlier.setattr("actors.core.queue.UNREACHABLE", frozenset())
        queue = await stores.queues.ensure("default", name)
    other = await world.process("boot-b")
    assert (await other.queues.ensure("default", name)).id == queue.id
    assert await other.queues.delete(queue)
    with pytest.raises(Invalid):
        await (await world.process("boot-c")).queues.ensure("default", name)


async def test_a_queue_has_one_number_in_all_processes(world: World, stores: Stores) -> None:
    other = await world.process("boot-b")
    mine = await stores.queues.ensure("default", "emails")
    theirs = await other.queues.ensure("default", "emails")
    assert theirs is not mine
    assert theirs.id == mine.id


async def test_many_that_ensure_one_name_at_once_make_one_queue(world: World, stores: Stores) -> None:
    other = await world.process("boot-b")
    async with asyncio.TaskGroup() as group:
        asks = [group.create_task(home.queues.ensure("default", "emails")) for home in [stores, other] * 16]
    queues = [ask.result() for ask in asks]
    assert len({queue.id for queue in queues}) == 1
    assert len({id(queue) for queue in queues}) == 2
    third = await world.process("boot-c")
    await third.queues.refresh()
    assert len(third.book) == 1


async def test_refresh_reads_every_queue_into_the_book(world: World, stores: Stores) -> None:
    other = await world.process("boot-b")
    made = [await stores.queues.ensure("default", f"q{n}") for n in range(5)]
    await other.queues.refresh()
    assert [known.name for queue in made if (known := other.book.by_id(queue.id))] == [queue.name for queue in made]


async def test_learn_reads_these_queues_alone(world: World, stores: Stores) -> None:
    other = await world.process("boot-b")
    made = [await stores.queues.ensure("acme", f"q{n}") for n in range(5)]
    assert await stores.queues.delete(made[2])
    await other.queues.learn([made[1].id, made[2].id, made[4].id + 77])
    known = [other.book.by_id(queue.id) for queue in made]
    assert [queue and (queue.name, queue.tenant, queue.deleted) for queue in known] == [
        None,
        ("q1", "acme", False),
        ("q2", "acme", True),
        None,
        None,
    ]
    assert len(other.book) == 2


async def test_refresh_sees_changed_settings_in_the_same_object(world: World, stores: Stores) -> None:
    queue = await stores.queues.ensure("default", "emails")
    seen = [queue.paused]
    for paused in (True, False):
        await world.set_paused(queue, paused)
        seen.append(queue.paused)
        await stores.queues.refresh()
        seen.append(queue.paused)
    assert seen == [False, False, True, True, False]
    assert stores.book.by_id(queue.id) is queue


# --- settings are changed


async def test_a_change_is_seen_at_once_here_and_elsewhere_with_the_version(world: World, stores: Stores) -> None:
    other = await world.process("boot-b")
    await other.leases.join("boot-b", "b", "b:1")
    queue = await stores.queues.ensure("default", "emails")
    there = await other.queues.ensure("default", "emails")
    before = await other.leases.beat("boot-b")
    assert await stores.queues.change(queue, queue.version, OTHER) is queue
    after = await other.leases.beat("boot-b")
    assert before is not None
    assert after is not None
    assert after.settings_version > before.settings_version
    assert (queue.settings, there.settings) == (OTHER, QueueSettings())
    await other.queues.refresh()
    assert there.settings == OTHER


async def test_a_change_of_what_somebody_else_changed_is_refused(stores: Stores) -> None:
    queue = await stores.queues.ensure("default", "emails")
    version = queue.version
    assert await stores.queues.change(queue, version, OTHER) is queue
    assert await stores.queues.change(queue, version, QueueSettings()) is None
    assert queue.settings == OTHER


async def test_get_answers_the_tenants_own_queue(stores: Stores) -> None:
    queue = await stores.queues.ensure("default", "emails")
    assert await stores.queues.get("default", "emails") is queue
    assert await stores.queues.get("acme", "emails") is None
    assert await stores.queues.get("default", "other") is None


async def test_pages_of_queues_go_by_name(stores: Stores) -> None:
    for name in ("b", "a-1", "C", "a.1", "a"):
        await stores.queues.ensure("default", name)
    await stores.queues.ensure("acme", "z")
    first = await stores.queues.page("default", "", 3)
    rest = await stores.queues.page("default", first[-1].name, 3)
    assert [queue.name for queue in [*first, *rest]] == ["C", "a", "a-1", "a.1", "b"]


async def test_a_deleted_queue_is_gone_until_it_is_used_again(world: World, stores: Stores) -> None:
    other = await world.process("boot-b")
    queue = await stores.queues.ensure("default", "emails")
    there = await other.queues.ensure("default", "emails")
    await stores.queues.change(queue, queue.version, OTHER)
    assert await stores.queues.delete(queue)
    assert await stores.queues.get("default", "emails") is None
    assert await stores.queues.page("default", "", 9) == []
    assert stores.book.by_name("default", "emails") is None
    assert stores.book.by_id(queue.id) is queue
    await other.queues.refresh()
    assert other.book.by_name("default", "emails") is None
    assert await other.queues.ensure("default", "emails") is there
    assert there.settings == QueueSettings()
    assert await stores.queues.get("default", "emails") is queue


async def test_a_queue_with_live_tasks_is_not_deleted(owner: Owner) -> None:
    task = make_task(1, owner.queue, shard=77)
    await owner.stores.tasks.accept([task])
    assert not await owner.stores.queues.delete(owner.queue)
    assert await owner.stores.queues.get("default", "emails") is owner.queue
    await owner.stores.ledger.write(owner.boot, [finish(task)])
    assert await owner.stores.queues.delete(owner.queue)
    row = await owner.stores.reader.get("default", task.id)
    assert row is not None
    assert row.queue is owner.queue


async def test_a_finished_task_is_kept_as_its_queue_says(owner: Owner) -> None:
    task = make_task(1, owner.queue)
    await owner.stores.tasks.accept([task])
    await owner.stores.queues.change(owner.queue, owner.queue.version, OTHER)
    await owner.stores.ledger.write(owner.boot, [finish(task)])
    today = T0_MS // DAY_MS
    for day, there in ((today + 3, True), (today + 4, False)):
        await owner.stores.housekeeping.drop_partitions(day)
        assert (await owner.stores.reader.get("default", task.id) is not None) is there
