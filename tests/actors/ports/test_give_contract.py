"""The LeaseStore port: shards that a living boot gives away, and a boot that is about to leave."""

import asyncio

import pytest

from actors.ports.leases import Beat
from tests.actors.ports.worlds import Owner, Stores, World, kill, own_all
from tests.support.builders import finish, make_task


async def joined(world: World, boot: str) -> Stores:
    stores = await world.process(boot)
    await stores.leases.join(boot, boot, f"{boot}:7070")
    return stores


async def seen_by(stores: Stores, boot: str) -> Beat:
    beat = await stores.leases.beat(boot)
    assert beat is not None
    return beat


async def states(stores: Stores, boot: str) -> dict[str, str]:
    return {peer.boot: peer.state for peer in (await seen_by(stores, boot)).peers}


# --- leaving


async def test_who_departs_is_leaving_and_as_alive_as_before(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    await a.leases.sweep("boot-a", {3: 0})
    assert await states(b, "boot-b") == {"boot-a": "up", "boot-b": "up"}
    await a.leases.depart("boot-a")
    assert await states(b, "boot-b") == {"boot-a": "leaving", "boot-b": "up"}
    beat = await seen_by(a, "boot-a")
    assert (beat.owned, 3 in beat.orphans) == ({3: 1}, False)
    assert await b.leases.sweep("boot-b", {3: 1}) == {}
    assert (await seen_by(b, "boot-b")).holders == {3: ("boot-a", 1)}
    assert await a.leases.sweep("boot-a", {4: 0}) == {4: 1}


async def test_departing_twice_dead_or_unknown_does_no_harm(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    for _ in range(2):
        await a.leases.depart("boot-a")
    await b.leases.depart("boot-unknown")
    await kill(a, "boot-a")
    await a.leases.depart("boot-a")
    assert await a.leases.beat("boot-a") is None
    assert await states(b, "boot-b") == {"boot-b": "up"}


async def test_joining_again_does_not_call_a_leaving_boot_back(world: World) -> None:
    a = await joined(world, "boot-a")
    await a.leases.depart("boot-a")
    await a.leases.join("boot-a", "boot-a", "boot-a:7070")
    assert await states(a, "boot-a") == {"boot-a": "leaving"}


async def test_a_leaving_boot_can_be_condemned_and_can_leave(world: World) -> None:
    a, b, c = [await joined(world, boot) for boot in ("boot-a", "boot-b", "boot-c")]
    for stores, boot in ((a, "boot-a"), (b, "boot-b")):
        await stores.leases.sweep(boot, {ord(boot[-1]): 0})
        await stores.leases.depart(boot)
    await kill(a, "boot-a")
    await b.leases.leave("boot-b")
    beat = await seen_by(c, "boot-c")
    assert [peer.boot for peer in beat.peers] == ["boot-c"]
    assert {ord("a"), ord("b")} <= beat.orphans.keys()


# --- giving


async def test_a_shard_that_was_given_has_its_heir_under_one_epoch_more(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    await a.leases.sweep("boot-a", {3: 0, 4: 0})
    assert await a.leases.give("boot-a", {3: (1, "boot-b")}) == {3}
    mine, theirs = await seen_by(a, "boot-a"), await seen_by(b, "boot-b")
    assert (mine.owned, mine.holders) == ({4: 1}, {3: ("boot-b", 2)})
    assert (theirs.owned, theirs.holders) == ({3: 2}, {4: ("boot-a", 1)})
    assert 3 not in mine.orphans


async def test_several_heirs_are_served_at_once(world: World) -> None:
    a, b, c = [await joined(world, boot) for boot in ("boot-a", "boot-b", "boot-c")]
    await a.leases.sweep("boot-a", dict.fromkeys((9, 3, 5, 7), 0))
    moves = {9: (1, "boot-c"), 3: (1, "boot-b"), 7: (1, "boot-a"), 5: (1, "boot-c")}
    assert await a.leases.give("boot-a", moves) == {3, 5, 7, 9}
    assert (await seen_by(a, "boot-a")).owned == {7: 2}
    assert (await seen_by(b, "boot-b")).owned == {3: 2}
    assert (await seen_by(c, "boot-c")).owned == {5: 2, 9: 2}


async def test_nothing_asked_is_nothing_given(world: World) -> None:
    a = await joined(world, "boot-a")
    await a.leases.sweep("boot-a", {3: 0})
    assert await a.leases.give("boot-a", {}) == set()
    assert (await seen_by(a, "boot-a")).owned == {3: 1}


@pytest.mark.parametrize("epoch", [0, 2, 1 << 40])
async def test_another_epoch_gives_nothing(world: World, epoch: int) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    await a.leases.sweep("boot-a", {3: 0, 4: 0})
    assert await a.leases.give("boot-a", {3: (epoch, "boot-b"), 4: (1, "boot-b")}) == {4}
    assert (await seen_by(b, "boot-b")).owned == {4: 2}


async def test_nobody_gives_what_another_one_owns(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    await a.leases.sweep("boot-a", {3: 0})
    assert await b.leases.give("boot-b", {3: (1, "boot-b"), 4: (0, "boot-b")}) == set()
    assert await b.leases.give("boot-b", {3: (1, "boot-a"), 999: (1, "boot-a")}) == set()
    assert (await seen_by(a, "boot-a")).owned == {3: 1}


async def test_who_leaves_may_keep_a_shard_under_another_epoch(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    await a.leases.sweep("boot-a", {3: 0, 4: 0})
    await a.leases.depart("boot-a")
    assert await a.leases.give("boot-a", {3: (1, "boot-a"), 4: (1, "boot-b")}) == {3, 4}
    assert (await seen_by(a, "boot-a")).owned == {3: 2}
    await kill(a, "boot-a")
    assert await a.leases.give("boot-a", {3: (2, "boot-a")}) == set()
    assert (await seen_by(b, "boot-b")).owned == {4: 2}


@pytest.mark.parametrize("heir", ["leaving", "dead", "gone", "unknown"])
async def test_an_heir_that_is_not_up_is_given_nothing(world: World, heir: str) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    await a.leases.sweep("boot-a", {3: 0, 4: 0})
    if heir == "leaving":
        await b.leases.depart("boot-b")
    elif heir == "dead":
        await kill(a, "boot-b")
    elif heir == "gone":
        await b.leases.leave("boot-b")
    boot = "boot-x" if heir == "unknown" else "boot-b"
    assert await a.leases.give("boot-a", {3: (1, boot), 4: (1, "boot-a")}) == {4}
    assert (await seen_by(a, "boot-a")).owned == {3: 1, 4: 2}


async def test_a_second_telling_gives_nothing_and_takes_nothing_back(world: World) -> None:
    """The answer was lost: whoever asks again finds the shard gone."""
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    await a.leases.sweep("boot-a", {3: 0})
    for given in ({3}, set(), set()):
        assert await a.leases.give("boot-a", {3: (1, "boot-b")}) == given
    assert (await seen_by(b, "boot-b")).owned == {3: 2}
    assert await b.leases.give("boot-b", {3: (2, "boot-a")}) == {3}
    assert await a.leases.give("boot-a", {3: (1, "boot-b")}) == set()
    assert (await seen_by(a, "boot-a")).owned == {3: 3}


async def test_a_dead_giver_gives_at_most_what_nobody_took(world: World) -> None:
    """Its shards have a living owner by this or by a sweep, and never two."""
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    await a.leases.sweep("boot-a", {3: 0, 4: 0})
    await kill(b, "boot-a")
    assert await b.leases.sweep("boot-b", {3: 1}) == {3: 2}
    given = await a.leases.give("boot-a", {3: (1, "boot-b"), 4: (1, "boot-b")})
    assert given == {4}
    assert await b.leases.sweep("boot-b", {4: 1}) == {}
    assert (await seen_by(b, "boot-b")).owned == {3: 2, 4: 2}


async def test_two_gives_of_one_shard_at_once_give_it_once(world: World) -> None:
    a, b, c = [await joined(world, boot) for boot in ("boot-a", "boot-b", "boot-c")]
    shards = list(range(40))
    await a.leases.sweep("boot-a", dict.fromkeys(shards, 0))
    async with asyncio.TaskGroup() as group:
        to_b = group.create_task(a.leases.give("boot-a", dict.fromkeys(shards, (1, "boot-b"))))
        to_c = group.create_task(a.leases.give("boot-a", dict.fromkeys(reversed(shards), (1, "boot-c"))))
    assert sorted([*to_b.result(), *to_c.result()]) == shards
    assert (await seen_by(b, "boot-b")).owned == dict.fromkeys(to_b.result(), 2)
    assert (await seen_by(c, "boot-c")).owned == dict.fromkeys(to_c.result(), 2)


async def test_two_givers_at_once_do_not_wait_in_a_ring(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    for round_ in range(5):
        mine = await _shared_out(a, b, round_)
        async with asyncio.TaskGroup() as group:
            there = group.create_task(a.leases.give("boot-a", {s: (e, "boot-b") for s, e in mine["boot-a"].items()}))
            back = group.create_task(b.leases.give("boot-b", {s: (e, "boot-a") for s, e in mine["boot-b"].items()}))
        assert (there.result(), back.result()) == (set(mine["boot-a"]), set(mine["boot-b"]))


async def _shared_out(a: Stores, b: Stores, round_: int) -> dict[str, dict[int, int]]:
    """What each owns; at first, every other shard."""
    if round_ == 0:
        await a.leases.sweep("boot-a", dict.fromkeys(range(0, 40, 2), 0))
        await b.leases.sweep("boot-b", dict.fromkeys(range(1, 40, 2), 0))
    return {boot: (await seen_by(stores, boot)).owned for stores, boot in ((a, "boot-a"), (b, "boot-b"))}


async def test_what_was_given_is_not_written_by_its_giver_any_more(world: World, owner: Owner) -> None:
    b = await joined(world, "boot-b")
    tasks = [make_task(n, owner.queue) for n in range(2)]
    await owner.stores.tasks.accept(tasks)
    assert await owner.stores.leases.give(owner.boot, {0: (owner.epochs[0], "boot-b")}) == {0}
    late = finish(tasks[0], epoch=owner.epochs[0])
    assert await owner.stores.ledger.write(owner.boot, [late]) == {tasks[0].id}
    ahead = finish(tasks[0], epoch=owner.epochs[0] + 1)
    assert await owner.stores.ledger.write(owner.boot, [ahead]) == {tasks[0].id}
    assert await b.ledger.write("boot-b", [finish(tasks[1], epoch=owner.epochs[0] + 1)]) == set()


async def test_an_heir_that_dies_leaves_orphans_like_any_other(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    await own_all(a, "boot-a")
    await a.leases.give("boot-a", {3: (1, "boot-b")})
    await kill(b, "boot-b")
    beat = await seen_by(a, "boot-a")
    assert beat.orphans == {3: 2}
    assert await a.leases.sweep("boot-a", beat.orphans) == {3: 3}
