"""The LeaseStore port: membership and ownership."""

import asyncio

from tests.actors.ports.worlds import Stores, World, kill, own_all
from tests.support.builders import finish, make_task

SHARDS = 256


async def orphans_seen_by(stores: Stores, boot: str) -> dict[int, int]:
    beat = await stores.leases.beat(boot)
    assert beat is not None
    return beat.orphans


async def joined(world: World, boot: str) -> Stores:
    stores = await world.process(boot)
    await stores.leases.join(boot, f"name-{boot}", f"{boot}:7070")
    return stores


async def test_joining_answers_what_all_nodes_of_the_cluster_know(world: World) -> None:
    a, b = await world.process("boot-a"), await world.process("boot-b")
    cluster = await a.leases.join("boot-a", "a", "a:7070")
    assert cluster.shards == SHARDS
    assert len(cluster.secret) == 32
    assert await b.leases.join("boot-b", "b", "b:7070") == cluster


async def test_a_beat_shows_what_living_others_own(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    await a.leases.sweep("boot-a", {3: 0, 5: 0})
    beat = await b.leases.beat("boot-b")
    assert beat is not None
    assert beat.holders == {3: ("boot-a", 1), 5: ("boot-a", 1)}
    beat = await a.leases.beat("boot-a")
    assert beat is not None
    assert beat.holders == {}
    await a.leases.leave("boot-a")
    beat = await b.leases.beat("boot-b")
    assert beat is not None
    assert beat.holders == {}


async def test_the_first_beat_shows_a_cluster_that_owns_nothing(world: World) -> None:
    a = await joined(world, "boot-a")
    beat = await a.leases.beat("boot-a")
    assert beat is not None
    assert beat.owned == {}
    assert beat.orphans == dict.fromkeys(range(SHARDS), 0)
    assert beat.timeline >= 1
    assert beat.clock_ms > 1_600_000_000_000
    [peer] = beat.peers
    assert (peer.boot, peer.name, peer.address, peer.state) == ("boot-a", "name-boot-a", "boot-a:7070", "up")


async def test_a_beat_raises_the_own_counter_alone(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    counts = []
    for _ in range(3):
        beat = await a.leases.beat("boot-a")
        assert beat is not None
        counts.append({peer.boot: peer.beats for peer in beat.peers})
    assert [count["boot-a"] - counts[0]["boot-a"] for count in counts] == [0, 1, 2]
    assert {count["boot-b"] for count in counts} == {counts[0]["boot-b"]}
    beat = await b.leases.beat("boot-b")
    assert beat is not None
    assert {peer.boot: peer.beats for peer in beat.peers} == {
        "boot-a": counts[2]["boot-a"],
        "boot-b": counts[0]["boot-b"] + 1,
    }


async def test_a_boot_that_never_joined_has_no_beat(stores: Stores) -> None:
    assert await stores.leases.beat("boot-x") is None


async def test_sweep_takes_orphans_and_raises_their_epoch(world: World) -> None:
    a = await joined(world, "boot-a")
    assert await a.leases.sweep("boot-a", {3: 0, 9: 0}) == {3: 1, 9: 1}
    beat = await a.leases.beat("boot-a")
    assert beat is not None
    assert beat.owned == {3: 1, 9: 1}
    assert beat.orphans == {shard: 0 for shard in range(SHARDS) if shard not in (3, 9)}


async def test_sweep_of_nothing_takes_nothing(world: World) -> None:
    a = await joined(world, "boot-a")
    assert await a.leases.sweep("boot-a", {}) == {}


async def test_sweep_leaves_what_a_living_boot_owns(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    await a.leases.sweep("boot-a", {3: 0})
    assert await b.leases.sweep("boot-b", {3: 0, 4: 0}) == {4: 1}
    assert await b.leases.sweep("boot-b", {3: 1}) == {}
    assert 3 not in await orphans_seen_by(b, "boot-b")


async def test_sweep_leaves_a_shard_whose_epoch_moved_on(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    await a.leases.sweep("boot-a", {3: 0})
    await kill(a, "boot-a")
    assert await b.leases.sweep("boot-b", {3: 0}) == {}
    assert await b.leases.sweep("boot-b", {3: 1}) == {3: 2}


async def test_two_boots_that_race_for_orphans_get_each_shard_once(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    orphans = await orphans_seen_by(a, "boot-a")
    backwards = dict(reversed(orphans.items()))
    async with asyncio.TaskGroup() as group:
        sweeps = [
            group.create_task(stores.leases.sweep(boot, seen))
            for stores, boot, seen in (
                (a, "boot-a", orphans),
                (b, "boot-b", backwards),
                (a, "boot-a", backwards),
                (b, "boot-b", orphans),
            )
        ]
    taken = [shard for sweep in sweeps for shard in sweep.result()]
    assert sorted(taken) == list(range(SHARDS))
    beats = [await a.leases.beat("boot-a"), await b.leases.beat("boot-b")]
    owned = [beat.owned for beat in beats if beat is not None]
    assert set(owned[0]) | set(owned[1]) == set(range(SHARDS))
    assert set(owned[0]) & set(owned[1]) == set()
    assert set(owned[0].values()) | set(owned[1].values()) == {1}


async def test_an_epoch_grows_with_every_owner(world: World) -> None:
    epochs = []
    for boot in ("boot-a", "boot-b", "boot-c"):
        stores = await world.process(boot)
        epochs.append((await own_all(stores, boot))[0])
        await kill(stores, boot)
    assert epochs == sorted(set(epochs))


async def test_condemn_kills_a_boot_whose_counter_stood_still(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    await a.leases.sweep("boot-a", {3: 0})
    beat = await b.leases.beat("boot-b")
    assert beat is not None
    [beats] = [peer.beats for peer in beat.peers if peer.boot == "boot-a"]
    assert await b.leases.condemn("boot-a", beats)
    assert await a.leases.beat("boot-a") is None
    after = await b.leases.beat("boot-b")
    assert after is not None
    assert [peer.boot for peer in after.peers] == ["boot-b"]
    assert after.orphans[3] == 1


async def test_condemn_fails_when_the_counter_moved(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    beat = await b.leases.beat("boot-b")
    assert beat is not None
    [beats] = [peer.beats for peer in beat.peers if peer.boot == "boot-a"]
    assert await a.leases.beat("boot-a") is not None
    assert not await b.leases.condemn("boot-a", beats)
    assert await a.leases.beat("boot-a") is not None


async def test_a_boot_that_has_to_be_gone_is_condemned_when_it_has_no_session_left(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    await a.leases.sweep("boot-a", {3: 0})
    beat = await b.leases.beat("boot-b")
    assert beat is not None
    [beats] = [peer.beats for peer in beat.peers if peer.boot == "boot-a"]
    assert not await b.leases.condemn("boot-a", beats, gone=True)
    assert await b.leases.end_sessions(["boot-a"]) >= 1
    assert not await b.leases.condemn("boot-a", beats + 1, gone=True)
    assert await b.leases.condemn("boot-a", beats, gone=True)


async def test_condemning_a_dead_boot_again_says_that_it_is_dead(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    await kill(a, "boot-a")
    assert await b.leases.condemn("boot-a", 12_345)


async def test_a_boot_that_is_dead_stays_dead(world: World) -> None:
    a = await joined(world, "boot-a")
    await kill(a, "boot-a")
    await a.leases.join("boot-a", "a", "a:7070")
    assert await a.leases.beat("boot-a") is None
    b = await joined(world, "boot-b")
    beat = await b.leases.beat("boot-b")
    assert beat is not None
    assert [peer.boot for peer in beat.peers] == ["boot-b"]


async def test_a_boot_that_is_dead_takes_no_shard(world: World) -> None:
    a = await joined(world, "boot-a")
    await kill(a, "boot-a")
    assert await a.leases.sweep("boot-a", {3: 0}) == {}
    assert await a.leases.sweep("boot-unknown", {3: 0}) == {}


async def test_leaving_gives_everything_up_at_once(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    held = await a.leases.sweep("boot-a", {3: 0, 4: 0})
    await a.leases.leave("boot-a")
    assert await a.leases.beat("boot-a") is None
    orphans = await orphans_seen_by(b, "boot-b")
    assert set(orphans) == set(range(SHARDS))
    taken = await b.leases.sweep("boot-b", {3: orphans[3], 4: orphans[4]})
    assert all(taken[shard] > held[shard] for shard in held)


async def test_leaving_twice_or_unknown_does_no_harm(world: World) -> None:
    a, b = await joined(world, "boot-a"), await joined(world, "boot-b")
    await b.leases.sweep("boot-b", {3: 0})
    for boot in ("boot-a", "boot-a", "boot-unknown"):
        await a.leases.leave(boot)
    beat = await b.leases.beat("boot-b")
    assert beat is not None
    assert beat.owned == {3: 1}


async def test_a_beat_shows_that_settings_changed(world: World) -> None:
    a = await joined(world, "boot-a")
    queue = await a.queues.ensure("default", "emails")
    before = await a.leases.beat("boot-a")
    await world.set_paused(queue, True)
    after = await a.leases.beat("boot-a")
    assert before is not None
    assert after is not None
    assert after.settings_version > before.settings_version


async def test_sessions_of_unknown_boots_are_none(world: World) -> None:
    a = await joined(world, "boot-a")
    assert await a.leases.end_sessions([]) == 0
    assert await a.leases.end_sessions(["boot-unknown"]) == 0


async def test_after_its_sessions_were_ended_a_dead_boot_still_gets_its_answers(world: World) -> None:
    a, b = await world.process("boot-a"), await joined(world, "boot-b")
    queue = await a.queues.ensure("default", "emails")
    task = make_task(1, queue)
    await a.tasks.accept([task])
    await own_all(a, "boot-a")
    await kill(b, "boot-a")
    await b.leases.end_sessions(["boot-a"])
    await own_all(b, "boot-b")
    assert await a.leases.beat("boot-a") is None
    assert await a.ledger.write("boot-a", [finish(task)]) == {task.id}
