"""The ClusterStore port: the cluster as operators see it."""

import pytest

from actors.core.events import LAST_ID, NO_ID
from actors.core.reach import Reach
from actors.ports.cluster import Owned
from tests.actors.ports.worlds import Owner, Stores, World, kill
from tests.support.builders import T0_MS, finish, make_task, task_id

EVER_US = T0_MS * 1_000_000
MANY = 10_000


async def joined(world: World, boot: str, name: str) -> Stores:
    stores = await world.process(boot)
    await stores.leases.join(boot, name, f"{name}:7070")
    return stores


async def test_a_view_shows_who_is_there_and_who_owns_what(world: World) -> None:
    b, a = await joined(world, "boot-1", "b"), await joined(world, "boot-2", "a")
    await a.leases.sweep("boot-2", {3: 0, 5: 0})
    await b.leases.sweep("boot-1", {4: 0})
    assert await b.leases.beat("boot-1") is not None
    view = await a.cluster.view()
    shown = [(peer.boot, peer.name, peer.address, peer.state, peer.beats) for peer in view.peers]
    assert shown == [("boot-2", "a", "a:7070", "up", 0), ("boot-1", "b", "b:7070", "up", 1)]
    assert [owned.shard for owned in view.shards] == list(range(256))
    assert view.shards[2:6] == [
        Owned(2, None, 0),
        Owned(3, "boot-2", 1),
        Owned(4, "boot-1", 1),
        Owned(5, "boot-2", 1),
    ]


async def test_what_the_dead_owned_is_nobodys(world: World) -> None:
    a, b = await joined(world, "boot-1", "a"), await joined(world, "boot-2", "b")
    await a.leases.sweep("boot-1", {3: 0})
    await kill(b, "boot-2")
    await kill(a, "boot-1")
    view = await b.cluster.view()
    assert view.peers == []
    assert view.shards[3] == Owned(3, None, 1)


async def test_rows_within_a_reach_are_counted(owner: Owner) -> None:
    tasks = [make_task(n, owner.queue, shard=n % 3, due_ms=T0_MS + n) for n in range(30)]
    await owner.stores.tasks.accept(tasks)
    count = owner.stores.cluster.count
    parts = [[Reach(0, T0_MS + 9, 0), Reach(1, T0_MS + 100, 0)], [Reach(2, T0_MS + 1, 0)], [], [Reach(7, T0_MS, 0)]]
    assert await count(parts, EVER_US, MANY) == [4 + 10, 0, 0, 0]
    assert await count([[Reach(2, T0_MS + 2, 0)]], EVER_US, MANY) == [1]
    assert await count([], EVER_US, MANY) == []
    await owner.stores.ledger.write(owner.boot, [finish(tasks[3])])
    assert await count(parts[:1], EVER_US, MANY) == [13]


async def test_what_was_accepted_later_is_left_out(owner: Owner) -> None:
    tasks = [make_task(n, owner.queue) for n in range(9)]
    await owner.stores.tasks.accept(tasks)
    assert await owner.stores.cluster.count([[Reach(0, T0_MS, 0)]], tasks[4].accept_us, MANY) == [5]


@pytest.mark.parametrize("queues", [3, 40])
async def test_a_queue_that_is_held_less_far_is_counted_less_far(owner: Owner, queues: int) -> None:
    """The same end means nothing for another queue, shard or part."""
    many = [await owner.stores.queues.ensure("acme", f"q{n}") for n in range(queues)]
    rows = [(queue, shard, number) for queue in (many[0], many[-1]) for shard in (0, 1) for number in range(4)]
    tasks = [make_task(n, queue, shard=shard, due_ms=T0_MS + at) for n, (queue, shard, at) in enumerate(rows)]
    await owner.stores.tasks.accept(tasks)
    end = (T0_MS + 1, NO_ID)
    held, whole = [Reach(0, T0_MS + 9, 0, {many[0].id: end}), Reach(1, T0_MS + 9, 0)], [Reach(0, T0_MS + 9, 0)]
    assert await owner.stores.cluster.count([held, whole], EVER_US, MANY) == [1 + 4 + 8, 8]


async def test_an_end_is_between_two_rows_of_one_moment(owner: Owner) -> None:
    await owner.stores.tasks.accept([make_task(n, owner.queue) for n in range(5)])
    ends = [(T0_MS, NO_ID), (T0_MS, task_id(0)), (T0_MS, task_id(2)), (T0_MS, LAST_ID)]
    parts = [[Reach(0, T0_MS + 9, 0, {owner.queue.id: end})] for end in ends]
    assert await owner.stores.cluster.count(parts, EVER_US, MANY) == [0, 1, 3, 5]


async def test_counting_ends(owner: Owner) -> None:
    await owner.stores.tasks.accept([make_task(n, owner.queue, shard=n % 4) for n in range(40)])
    parts = [[Reach(0, T0_MS, 0)], [Reach(shard, T0_MS, 0) for shard in range(4)]]
    assert await owner.stores.cluster.count(parts, EVER_US, 12) == [10, 12]


async def test_a_node_is_marked_by_its_name(world: World) -> None:
    a, b = await joined(world, "boot-1", "a"), await joined(world, "boot-2", "b")
    assert await b.cluster.mark("a", "leaving") == 1
    assert [(peer.name, peer.state) for peer in (await a.cluster.view()).peers] == [("a", "leaving"), ("b", "up")]
    beat = await a.leases.beat("boot-1")
    assert beat is not None
    assert [peer.state for peer in beat.peers if peer.boot == "boot-1"] == ["leaving"]
    assert await b.cluster.mark("a", "up") == 1
    assert {peer.state for peer in (await a.cluster.view()).peers} == {"up"}
    assert await b.cluster.mark("c", "leaving") == 0


async def test_the_dead_are_not_marked(world: World) -> None:
    a, b = await joined(world, "boot-1", "a"), await joined(world, "boot-2", "b")
    await kill(a, "boot-1")
    assert await b.cluster.mark("a", "up") == 0
    assert await a.leases.beat("boot-1") is None
