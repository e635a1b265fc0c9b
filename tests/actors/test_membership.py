"""Several nodes on one database: who owns what, who takes over, who must stop."""

import asyncio
from collections import Counter

import pytest

from actors.core.errors import Misconfigured
from actors.core.members import GONE_MS, T_DEAD_MS
from actors.core.ring import Ring, limit
from actors.core.task import State
from actors.membership import BEAT_LIMIT_S, ORPHAN_MS, T_STOP_MS
from storage.memory import Fault
from tests.support.cluster import Cluster, Member, submit_some
from tests.support.scripted import Step, always

SLOW = always(Step(takes_ms=20))


async def start_all(cluster: Cluster, *names: str) -> list[Member]:
    """A cold start: all at the same time."""
    members = [cluster.join(name, SLOW) for name in names]
    await cluster.until(lambda: all(member.node.ready for member in members))
    return members


def settled(cluster: Cluster, members: list[Member]) -> bool:
    """Every shard has one owner, who knows it, under the epoch of the tables."""
    believed = {shard: (m.node.membership.boot, epoch) for m in members for shard, epoch in m.owned.items()}
    return believed == {shard: (row.owner, row.epoch) for shard, row in cluster.database.shards.items()}


async def spread(members: list[Member], each: int, *, delay_ms: int | None = None) -> list[str]:
    """Tasks accepted by every node."""
    return [task_id for member in members for task_id in await submit_some(member, each, delay_ms=delay_ms)]


async def test_a_cold_start_shares_the_shards_as_the_ring_says(cluster: Cluster) -> None:
    members = await start_all(cluster, "a", "b", "c")
    assert settled(cluster, members)
    ring = Ring(("a", "b", "c"), 256)
    for member in members:
        assert sorted(member.owned) == ring.shards_of(member.name)
        assert len(member.owned) <= limit(3, 256)
    assert {row.epoch for row in cluster.database.shards.values()} == {1}


async def test_tasks_accepted_anywhere_run_once_where_their_shard_is(cluster: Cluster) -> None:
    members = await start_all(cluster, "a", "b", "c")
    ids = await spread(members, 100)
    await cluster.ended(ids)
    assert Counter(run.id for run in cluster.runs) == Counter(ids)
    by_name = {member.name: member.owned for member in members}
    assert all(cluster.row(run.id).shard in by_name[run.node] for run in cluster.runs)


async def test_who_comes_second_takes_nothing_that_has_an_owner(cluster: Cluster) -> None:
    first = await cluster.start("a")
    first.keep()
    second = cluster.join("b")
    await asyncio.sleep(20)
    assert len(first.owned) == 256
    assert second.owned == {}
    assert second.node.ready


async def test_a_stopped_node_is_taken_over_and_every_task_ends(cluster: Cluster) -> None:
    a, b = await start_all(cluster, "a", "b")
    ids = await spread([a, b], 200, delay_ms=500)
    await cluster.until(lambda: len(cluster.runs) > 150)
    stopped_ms = cluster.now_ms()
    mine = dict(a.owned)
    a.process.stop()
    await cluster.until(lambda: len(b.owned) == 256)
    took_ms = cluster.now_ms() - stopped_ms
    assert T_DEAD_MS - 500 <= took_ms <= T_DEAD_MS + ORPHAN_MS
    assert {b.owned[shard] for shard in mine} == {2}
    await cluster.ended(ids)
    assert all(
        count == 1 or {run.node for run in cluster.runs_of(task_id)} == {"a", "b"}
        for task_id, count in Counter(run.id for run in cluster.runs).items()
    )
    first = min(run.at_ms for run in cluster.runs if run.epoch == 2)
    assert first - stopped_ms - took_ms < 10


async def test_a_zombie_fires_nothing_has_its_writes_refused_and_joins_again(cluster: Cluster) -> None:
    a, b = await start_all(cluster, "a", "b")
    ids = await spread([a, b], 200, delay_ms=100)
    await cluster.until(lambda: len(cluster.runs) > 150)
    a.process.stop()
    await asyncio.sleep(30)
    await cluster.ended(ids)
    runs, rows = len(cluster.runs), {task_id: cluster.row(task_id).rev for task_id in ids}
    a.process.resume()
    resumed_ms = cluster.now_ms()
    await cluster.until(lambda: a.node.membership.boot != a.boot and a.node.ready)
    assert cluster.now_ms() - resumed_ms <= 1_000
    await asyncio.sleep(10)
    assert len(cluster.runs) == runs
    assert {task_id: cluster.row(task_id).rev for task_id in ids} == rows
    assert a.node.stats.rejoins == 1
    assert a.owned == dict.fromkeys(Ring("ab", 256).shards_of("a"), 3)  # given back
    assert len(a.owned) + len(b.owned) == 256


async def test_a_stop_of_two_seconds_moves_nothing(cluster: Cluster) -> None:
    a, b = await start_all(cluster, "a", "b")
    for _ in range(5):
        ids = await spread([a, b], 20)
        a.process.stop()
        await asyncio.sleep(2)
        a.process.resume()
        await cluster.ended(ids)
        await asyncio.sleep(3)
    assert {row.epoch for row in cluster.database.shards.values()} == {1}
    assert len(cluster.runs) == 200


async def test_a_node_whose_statements_hang_stops_firing_and_is_taken_over(cluster: Cluster) -> None:
    a, b = await start_all(cluster, "a", "b")
    await spread([a, b], 100, delay_ms=2_000)
    late = await spread([a, b], 100, delay_ms=7_500)
    hung_ms = cluster.now_ms()
    a.wire.hang()
    await asyncio.sleep(BEAT_LIMIT_S + 5)
    assert not a.node.may_fire()
    await cluster.ended(late)
    assert max(run.at_ms for run in cluster.runs if run.node == "a") <= hung_ms + T_STOP_MS
    a.wire.flow()
    await cluster.until(lambda: a.node.ready and a.node.membership.boot != a.boot, within_s=5)
    assert all(cluster.state(row_id) is State.SUCCEEDED for row_id in late)


async def test_a_killed_node_is_replaced_by_the_others(cluster: Cluster) -> None:
    members = await start_all(cluster, "a", "b", "c")
    ids = await spread(members, 100, delay_ms=1_000)
    await asyncio.sleep(1.01)
    await members[0].kill()
    killed_ms = cluster.now_ms()
    await cluster.until(lambda: settled(cluster, members[1:]))
    assert cluster.now_ms() - killed_ms <= T_DEAD_MS + ORPHAN_MS
    heirs = [member.node.membership for member in members[1:]]
    assert sum(heir.take_overs for heir in heirs) > 0
    assert all(heir.take_overs_ms <= heir.take_overs * (T_DEAD_MS + ORPHAN_MS) for heir in heirs)
    assert members[0].node.membership.take_overs == 0
    shares = Counter(len(member.owned) for member in members[1:])
    assert max(shares) <= limit(2, 256) + 1
    await cluster.ended(ids)


async def test_two_nodes_that_die_at_once_leave_everything_to_the_third(cluster: Cluster) -> None:
    a, b, c = await start_all(cluster, "a", "b", "c")
    ids = await spread([a, b, c], 100, delay_ms=3_000)
    await a.kill()
    await b.kill()
    await cluster.ended(ids)
    assert len(c.owned) == 256
    assert Counter(run.id for run in cluster.runs) == Counter(ids)


async def test_the_whole_cluster_dies_and_starts_again(cluster: Cluster) -> None:
    members = await start_all(cluster, "a", "b")
    ids = await spread(members, 100, delay_ms=2_000)
    for member in members:
        await member.kill()
    await asyncio.sleep(10)
    again = await start_all(cluster, "a", "b")
    await cluster.ended(ids)
    assert settled(cluster, again)
    assert len(cluster.runs) == 200


async def test_a_restart_under_the_same_name_does_not_wait_for_the_verdict(cluster: Cluster) -> None:
    (a,) = await start_all(cluster, "a")
    await a.kill()
    killed_ms = cluster.now_ms()
    again = await cluster.start("a")
    assert cluster.now_ms() - killed_ms <= 2_600
    assert len(again.owned) == 256
    assert again.node.ready


async def test_a_name_that_a_living_node_bears_is_refused(cluster: Cluster) -> None:
    a = await cluster.start("a")
    twin = cluster.join("a")
    assert isinstance(await twin.failed(), Misconfigured)
    assert twin.owned == {}
    assert len(a.owned) == 256
    ids = await submit_some(a, 5)
    await cluster.ended(ids)


async def test_a_node_that_leaves_keeps_its_name_until_it_has_gone(cluster: Cluster) -> None:
    a, b = await start_all(cluster, "a", "b")
    await a.node.membership.depart()
    twin = cluster.join("a")
    wished: set[str | None] = set()

    def refused() -> bool:
        wished.update(map(b.node.membership.wish, range(256)))
        return twin.ended.is_set()

    await cluster.until(refused)
    assert isinstance(await twin.failed(), Misconfigured)
    assert twin.boot not in wished


async def test_a_node_that_was_cut_off_stops_before_another_of_its_name_fires(cluster: Cluster) -> None:
    a = await cluster.start("a")
    ids = await submit_some(a, 50, delay_ms=2_500)
    await asyncio.sleep(0.6)
    a.wire.hang()
    lease_ends_ms = cluster.now_ms() + T_STOP_MS
    again = cluster.join("a")
    await cluster.ended(ids)
    assert max(run.at_ms for run in cluster.runs if run.epoch == 1) <= lease_ends_ms
    assert min(run.at_ms for run in cluster.runs if run.epoch == 2) > lease_ends_ms
    assert len(again.owned) == 256


async def test_a_beat_that_hangs_now_and_then_keeps_no_dead_node_alive(cluster: Cluster) -> None:
    a, b = await start_all(cluster, "a", "b")
    a.process.stop()
    for _ in range(4):
        b.wire.hold_next("beat")
        await asyncio.sleep(5)
    assert len(b.owned) == 256


async def test_a_node_that_is_stopped_during_its_first_beat_knows_the_time_all_the_same(cluster: Cluster) -> None:
    member = cluster.join()
    await cluster.until(lambda: any(row.beats for row in cluster.database.nodes.values()))
    member.process.stop()
    await asyncio.sleep(5)
    member.process.resume()
    await cluster.until(lambda: member.node.ready)
    assert member.node.clock.now_ms() == pytest.approx(cluster.now_ms(), abs=BEAT_LIMIT_S * 1_000)


@pytest.mark.parametrize("hangs", [False, True])
async def test_while_the_database_is_away_nothing_fires_nobody_dies_and_all_goes_on(
    cluster: Cluster, hangs: bool
) -> None:
    members = await start_all(cluster, "a", "b", "c")
    ids = await spread(members, 200, delay_ms=30_000)
    boots = [member.node.membership.boot for member in members]
    await asyncio.sleep(1)
    away_ms = cluster.now_ms()
    early = await spread(members, 50, delay_ms=3_000)
    for member in members:
        member.wire.hang() if hangs else None
        member.wire.away = not hangs
    await asyncio.sleep(60)
    assert cluster.runs
    assert max(run.at_ms for run in cluster.runs) <= away_ms + T_STOP_MS
    assert not any(member.node.may_fire() or member.node.ready for member in members)
    for member in members:
        member.wire.away = False
        member.wire.flow()
    back_ms = cluster.now_ms()
    await cluster.ended(ids + early, within_s=6)
    assert Counter(run.id for run in cluster.runs) == Counter(ids + early)
    assert min(run.at_ms for run in cluster.runs if run.id in set(ids)) <= back_ms + 1_000
    assert [member.node.membership.boot for member in members] == boots
    assert {row.epoch for row in cluster.database.shards.values()} == {1}


async def test_the_lease_is_checked_when_tasks_are_taken_and_again_before_they_are_sent(cluster: Cluster) -> None:
    member = await cluster.start(script=always(Step(connect_ms=450)))
    (task_id,) = await submit_some(member, 1, delay_ms=3_800)
    member.wire.away = True
    cut_ms = cluster.now_ms()
    await cluster.until(lambda: bool(member.dispatcher.takes) and member.dispatcher.takes[-1] == 1)
    assert cluster.now_ms() - cut_ms < T_STOP_MS
    await asyncio.sleep(2)
    assert cluster.runs == []
    assert cluster.now_ms() - cut_ms > T_STOP_MS
    assert member.node.take(1) == []
    member.wire.away = False
    await cluster.ended([task_id])
    (run,) = cluster.runs
    assert run.attempt == 1


async def test_a_lease_lasts_from_when_the_beat_was_sent(cluster: Cluster) -> None:
    member = await cluster.start()
    gate = member.wire.hold_next("beat")
    await gate.reached.wait()
    sent_ms = cluster.now_ms()
    await asyncio.sleep(BEAT_LIMIT_S - 0.1)
    gate.open()
    await asyncio.sleep(0.01)
    member.wire.away = True
    await asyncio.sleep((T_STOP_MS - 10) / 1_000 - (cluster.now_ms() - sent_ms) / 1_000)
    assert member.node.may_fire()
    await asyncio.sleep(0.02)
    assert not member.node.may_fire()


async def test_the_margin_runs_out_with_the_lease(cluster: Cluster) -> None:
    node = (await cluster.start("a")).node
    cluster.cut(away=True)
    await asyncio.sleep(BEAT_LIMIT_S)
    before_ms = node.membership.margin_ms
    await asyncio.sleep(1)
    assert node.membership.margin_ms == pytest.approx(before_ms - 1_000)
    assert T_STOP_MS - BEAT_LIMIT_S * 1_000 - 600 < before_ms < T_STOP_MS
    await asyncio.sleep(T_STOP_MS / 1_000)
    assert node.membership.margin_ms == 0
    assert not node.may_fire()
    cluster.cut(away=False)


async def test_orphans_are_counted_while_nobody_takes_them(cluster: Cluster) -> None:
    a, b = await start_all(cluster, "a", "b")
    assert a.node.membership.orphaned == 0
    theirs = len(b.owned)
    for _ in range(3):
        a.wire.fail_next("sweep")
    await b.kill()
    await cluster.until(lambda: a.node.membership.orphaned > 0)
    assert (a.node.membership.orphaned, len(a.owned)) == (theirs, 256 - theirs)
    await cluster.until(lambda: a.node.membership.orphaned == 0)
    assert len(a.owned) == 256


async def test_leaving_hands_everything_over_at_once(cluster: Cluster) -> None:
    a, b = await start_all(cluster, "a", "b")
    ids = await spread([a, b], 100, delay_ms=70_000)
    await asyncio.sleep(68)
    assert await a.node.drain(5)
    await a.node.membership.leave()
    left_ms = cluster.now_ms()
    await cluster.until(lambda: len(b.owned) == 256)
    took_ms = cluster.now_ms() - left_ms
    assert took_ms <= 510
    await cluster.ended(ids)
    assert Counter(run.id for run in cluster.runs) == Counter(ids)
    assert max(run.at_ms - run.schedule_ms for run in cluster.runs) < 100


async def test_an_orphan_that_its_node_does_not_take_is_taken_by_another(cluster: Cluster) -> None:
    a, b = await start_all(cluster, "a", "b")
    gone = next(iter(b.owned))
    for _ in range(100):
        b.wire.fail_next("sweep")
    cluster.database.shards[gone].owner = None
    cluster.database.shards[gone].epoch += 1
    orphaned_ms = cluster.now_ms()
    await cluster.until(lambda: gone in a.owned)
    assert ORPHAN_MS <= cluster.now_ms() - orphaned_ms <= ORPHAN_MS + 1_100
    assert settled(cluster, [a, b])


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("statement", ["join", "beat", "condemn", "sweep", "end_sessions"])
async def test_any_statement_of_membership_may_fail(cluster: Cluster, statement: str, fault: Fault) -> None:
    a, b, c = (cluster.join(name, SLOW) for name in "abc")
    for member in (a, b, c):
        for _ in range(3):
            member.wire.fail_next(statement, fault)
    await cluster.until(lambda: settled(cluster, [a, b, c]))
    ids = await spread([a, b, c], 50, delay_ms=3_000)
    await a.kill()
    for member in (b, c):
        for _ in range(2):
            member.wire.fail_next(statement, fault)
    await cluster.ended(ids)
    await cluster.until(lambda: settled(cluster, [b, c]))
    assert Counter(run.id for run in cluster.runs) == Counter(ids)


async def test_a_peer_that_beats_between_suspicion_and_verdict_lives(cluster: Cluster) -> None:
    a, b = await start_all(cluster, "a", "b")
    gates = [b.wire.hold_next("condemn")]
    a.process.stop()
    await gates[0].reached.wait()
    cluster.database.nodes[a.boot].beats += 1
    gates[0].open()
    await asyncio.sleep(3)
    assert cluster.database.nodes[a.boot].up
    a.process.resume()
    await asyncio.sleep(20)
    assert {row.epoch for row in cluster.database.shards.values()} == {1}


async def test_watchers_are_told_of_shards_that_went_and_of_those_that_came_back(cluster: Cluster) -> None:
    told: list[float] = []
    a = cluster.join("a")
    a.node._interrupt = lambda: told.append(cluster.now_ms())
    await cluster.until(lambda: a.node.ready)
    assert told == [], "nobody can have missed anything of the first shards"
    cluster.give_away("ghost")
    await cluster.until(lambda: not a.owned)
    await asyncio.sleep(0.001)
    assert len(told) == 1
    cluster.database.nodes["ghost"].up = False
    await cluster.until(lambda: len(a.owned) == 256)
    await asyncio.sleep(0.001)
    assert len(told) == 2


async def test_watchers_are_told_of_first_shards_that_somebody_else_had(cluster: Cluster) -> None:
    told: list[float] = []
    a = await cluster.start("a")
    b = await cluster.start("b")
    assert not b.owned
    b.node._interrupt = lambda: told.append(cluster.now_ms())
    await a.kill()
    await cluster.until(lambda: len(b.owned) == 256)
    await asyncio.sleep(0.001)
    assert len(told) == 1


async def test_one_that_was_killed_is_followed_at_once(cluster: Cluster) -> None:
    """Its links are refused, and it has no session left."""
    a, b = await start_all(cluster, "a", "b")
    ids = await spread([a, b], 200, delay_ms=3_000)
    await a.kill()
    killed_ms = cluster.now_ms()
    await cluster.until(lambda: len(b.owned) == 256)
    assert cluster.now_ms() - killed_ms <= GONE_MS + 500 + 110
    await cluster.ended(ids)
    assert {cluster.row(one).lateness_ms for one in ids} <= set(range(10))


async def test_one_that_seems_gone_but_has_sessions_keeps_its_lease(cluster: Cluster) -> None:
    a, b = await start_all(cluster, "a", "b")
    a.wire.away = True
    a.links.fall()
    cut_ms = cluster.now_ms()
    await cluster.until(lambda: len(b.owned) == 256)
    assert T_DEAD_MS - 600 <= cluster.now_ms() - cut_ms <= T_DEAD_MS + 510


async def test_silence_is_counted_from_the_last_beat_that_came_through(cluster: Cluster) -> None:
    a = await cluster.start("a")
    await asyncio.sleep(10)
    assert a.node.membership.silent_s() < 0.6
    a.wire.away = True
    await asyncio.sleep(10)
    assert 10 <= a.node.membership.silent_s() < 10.6
    a.wire.away = False
    await asyncio.sleep(1)
    assert a.node.membership.silent_s() < 0.6
