"""The QueueStore port: queues and their settings."""

import asyncio

from actors.core.queue import Queue
from actors.core.retry import DEFAULT
from tests.actors.ports.worlds import Stores, World


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
