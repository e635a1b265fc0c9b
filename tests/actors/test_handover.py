"""Planned hand-over: shards that go from a living node to another one, while it works."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping

import pytest

from actors.core.errors import Conflict, Misconfigured
from actors.core.events import Command, Outcome, Verdict
from actors.core.inherited import OVERRUN_MS
from actors.core.ring import Ring, limit
from actors.core.task import Move, State, Task
from actors.handover import DWELL_MS, PART_S
from storage.memory import Fault
from tests.support.cluster import Cluster, Member, submit_some
from tests.support.scripted import Script, Step, always, succeed

SHARDS = 256


def parts(*names: str) -> dict[str, set[int]]:
    ring = Ring(names, SHARDS)
    return {name: set(ring.shards_of(name)) for name in names}


def is_spread(*members: Member) -> Callable[[], bool]:
    """Each has what the ring gives it."""
    wanted = parts(*(member.name for member in members))
    return lambda: all(member.owned.keys() == wanted[member.name] for member in members)


async def joined(cluster: Cluster, name: str = "b", script: Script = succeed) -> Member:
    """A node that has come to those that are there, and has its part."""
    member = cluster.join(name, script)
    await cluster.until(is_spread(*cluster.members))
    return member


def settled(cluster: Cluster) -> bool:
    """Every shard has the owner that thinks so, and no other thinks so."""
    believed = [
        (shard, member.node.membership.boot, epoch)
        for member in cluster.members
        for shard, epoch in member.owned.items()
    ]
    return sorted(believed) == sorted((s, row.owner or "", row.epoch) for s, row in cluster.database.shards.items())


# --- who has what


async def test_a_second_process_of_a_living_nodes_name_moves_nothing(cluster: Cluster) -> None:
    a = await cluster.start("a")
    b = await joined(cluster)
    moves = a.node.stats.moves
    await asyncio.sleep(DWELL_MS / 1_000 + 1)
    twin = cluster.join("b")
    assert isinstance(await twin.failed(), Misconfigured)
    await asyncio.sleep(5)
    assert (a.node.stats.moves, b.node.stats.moves, twin.owned) == (moves, 0, {})
    assert is_spread(a, b)()


async def test_a_node_that_joins_gets_its_part_and_no_more_moves_than_that(cluster: Cluster) -> None:
    a = await cluster.start("a")
    b = await joined(cluster)
    assert settled(cluster)
    moved = {shard for shard, row in cluster.database.shards.items() if row.epoch > 1}
    assert moved == b.owned.keys()
    assert len(b.owned) <= limit(2, SHARDS)
    assert a.node.stats.moves == len(moved)
    await asyncio.sleep(30)
    assert {shard for shard, row in cluster.database.shards.items() if row.epoch > 1} == moved
    assert all(row.epoch <= 2 for row in cluster.database.shards.values())


async def test_five_nodes_share_evenly(cluster: Cluster) -> None:
    await cluster.start("a")
    for name in "bcde":
        cluster.join(name)
    await cluster.until(is_spread(*cluster.members))
    counts = [len(member.owned) for member in cluster.members]
    assert max(counts) <= 1.15 * SHARDS / 5


async def test_what_was_given_stays_for_a_while(cluster: Cluster) -> None:
    await cluster.start("a")
    b = await joined(cluster)
    came_ms = cluster.now_ms()
    c = cluster.join("c")
    await cluster.until(is_spread(*cluster.members))
    assert cluster.now_ms() - came_ms == pytest.approx(DWELL_MS, abs=1_000)
    assert b.node.stats.moves > 0
    assert c.owned


async def test_two_nodes_of_one_name_get_nothing(cluster: Cluster) -> None:
    a = await cluster.start("a")
    b = cluster.join("b")
    await cluster.until(is_spread(a, b))
    await b.kill()
    cluster.members.remove(b)
    again = cluster.join("b")
    await cluster.until(is_spread(a, again))
    assert settled(cluster)


async def test_a_node_that_leaves_gives_all_it_has_and_gets_nothing(cluster: Cluster) -> None:
    a = await cluster.start("a")
    b = await joined(cluster)
    began_ms = cluster.now_ms()
    assert await a.node.drain(10)
    assert cluster.now_ms() - began_ms < 500
    assert a.owned == {}
    await asyncio.sleep(5)
    assert len(b.owned) == SHARDS
    await a.node.membership.leave()
    await asyncio.sleep(5)
    assert settled(cluster)
    assert b.node.stats.probe_finds == 0


async def test_two_that_leave_give_each_other_nothing(cluster: Cluster) -> None:
    a = await cluster.start("a")
    b = await joined(cluster, "b")
    await asyncio.sleep(DWELL_MS / 1_000)
    c = await joined(cluster, "c")
    async with asyncio.TaskGroup() as group:
        for member in (a, b):
            group.create_task(member.node.drain(10))
    assert a.owned == b.owned == {}
    await cluster.until(lambda: len(c.owned) == SHARDS, 2)


async def test_a_drain_outlives_a_verdict(cluster: Cluster) -> None:
    a = await cluster.start("a")
    b = await joined(cluster)
    cluster.database.nodes[b.node.membership.boot].leaving = True
    await cluster.until(lambda: not b.owned, 5)
    cluster.database.nodes[b.node.membership.boot].up = False
    await cluster.until(lambda: b.node.stats.rejoins == 1, 5)
    await asyncio.sleep(DWELL_MS / 1_000 + 5)
    assert (len(a.owned), b.owned) == (SHARDS, {})
    cluster.database.nodes[b.node.membership.boot].leaving = False
    await cluster.until(is_spread(a, b))


async def test_one_that_goes_is_not_called_back(cluster: Cluster) -> None:
    a = await cluster.start("a", always(Step(takes_ms=60_000)))
    b = await joined(cluster, "b", always(Step(takes_ms=60_000)))
    await submit_some(b, 20)
    await asyncio.sleep(DWELL_MS / 1_000)
    async with asyncio.TaskGroup() as group:
        draining = group.create_task(b.node.drain(30))
        await cluster.until(lambda: not b.owned, 10)
        cluster.database.nodes[b.node.membership.boot].leaving = False
        moves = a.node.stats.moves
        await asyncio.sleep(DWELL_MS / 1_000 + 2)
        assert cluster.database.nodes[b.node.membership.boot].leaving
        assert a.node.stats.moves == moves
        draining.cancel()


@pytest.mark.parametrize(("takes_ms", "left"), [(0, False), (60_000, True)])
async def test_without_a_grace_time_it_is_told_whether_something_ran(
    cluster: Cluster, takes_ms: int, left: bool
) -> None:
    a = await cluster.start("a", always(Step(takes_ms=takes_ms)))
    ids = await submit_some(a, 1)
    await (asyncio.sleep(1) if left else cluster.ended(ids))
    assert await a.node.drain(0) is not left


async def test_the_last_one_keeps_what_it_has_until_it_is_gone(cluster: Cluster) -> None:
    a = await cluster.start("a")
    assert await a.node.drain(10)
    assert len(a.owned) == SHARDS
    await a.node.membership.leave()
    assert {row.owner for row in cluster.database.shards.values()} == {None}


# --- tasks


async def test_nothing_runs_twice_or_late_while_shards_move(cluster: Cluster) -> None:
    """Tasks come to both nodes all the time."""
    a = await cluster.start("a", always(Step(takes_ms=40)))
    await submit_some(a, 2_000, delay_ms=12_000)
    ids: list[str] = []
    b = cluster.join("b", always(Step(takes_ms=40)))
    for turn in range(150):
        ids += await submit_some((a, b)[turn % 2 if b.node.ready else 0], 20)
        await asyncio.sleep(0.1)
    await cluster.ended(ids)
    await cluster.until(lambda: len(cluster.database.finished) == 5_000)
    assert is_spread(a, b)()
    assert max(Counter(run.id for run in cluster.runs).values()) == 1
    assert {run.node for run in cluster.runs} == {"a", "b"}
    lateness = sorted(row.lateness_ms or 0 for row in cluster.database.finished.values())
    assert lateness[-1] <= 500
    assert a.node.stats.probe_finds + b.node.stats.probe_finds == 0
    assert a.node.stats.stale_writes + b.node.stats.stale_writes == 0


ENDS = {
    Verdict.SUCCEEDED: State.SUCCEEDED,
    Verdict.NEVER: State.DEAD,
    Verdict.FAILED: State.SUCCEEDED,
    Verdict.UNSENT: State.SUCCEEDED,
}


@pytest.mark.parametrize("verdict", list(ENDS))
async def test_an_attempt_that_goes_on_ends_as_it_ends(cluster: Cluster, verdict: Verdict) -> None:
    begun: set[str] = set()

    def script(task: Task) -> Step:
        first = Verdict.SUCCEEDED if task.id in begun else verdict
        begun.add(task.id)
        return Step(first, takes_ms=20_000, result=b'"slow"', error="what it said")

    a = await cluster.start("a", script)
    ids = set(await submit_some(a, 100))
    await cluster.until(lambda: sum(a.dispatcher.takes) == 100)
    started = Counter(run.id for run in cluster.runs)
    b = await joined(cluster)
    moved = {one for one in ids if cluster.row(one).shard in b.owned}
    assert moved
    await cluster.ended(ids, 120)
    assert {cluster.state(one) for one in ids} == {ENDS[verdict]}
    again = int(ENDS[verdict] is State.SUCCEEDED and verdict is not Verdict.SUCCEEDED)
    after = Counter(run.id for run in cluster.runs)
    assert {after[one] - started[one] for one in ids} == {again}
    assert all(run.node == "b" for run in cluster.runs if run.id in moved and run.attempt > 1)
    assert a.node.handover.forwarding == a.node.stats.tally.stale == 0
    assert a.node.stats.stale_outcomes + b.node.stats.stale_outcomes == 0


async def test_a_target_may_take_the_work_while_its_shard_moves(cluster: Cluster) -> None:
    a = await cluster.start("a", always(Step(Verdict.LATER, takes_ms=15_000)))
    ids = await submit_some(a, 40)
    b = await joined(cluster)
    moved = [one for one in ids if cluster.row(one).shard in b.owned]
    await cluster.until(lambda: all(cluster.row(one).due_ms == cluster.row(one).claim_ms for one in ids))
    assert all(cluster.row(one).claim_boot == b.boot for one in moved)
    assert max(Counter(run.id for run in cluster.runs).values()) == 1


async def test_the_attempts_of_a_giver_that_dies_run_again_at_once(cluster: Cluster) -> None:
    a = await cluster.start("a", always(Step(takes_ms=25_000)))
    ids = await submit_some(a, 100)
    b = await joined(cluster)
    assert not cluster.database.finished
    await a.kill()
    died_ms = cluster.now_ms()
    cluster.members.remove(a)
    await cluster.ended(ids)
    assert cluster.now_ms() - died_ms < 10_000
    assert {cluster.state(one) for one in ids} == {State.SUCCEEDED}
    assert max(Counter(run.id for run in cluster.runs).values()) == 2
    assert {run.attempt for run in cluster.runs if run.node == "b"} == {2}
    assert b.node.stats.probe_finds == 0


async def test_an_attempt_whose_end_is_never_told_is_given_up_behind_its_deadline(cluster: Cluster) -> None:
    a = await cluster.start("a", always(Step(takes_ms=10**9)))
    (one,) = await submit_some(a, 1)
    await asyncio.sleep(1)
    for _ in range(2):  # into both nodes' hands
        await joined(cluster, "bc"[len(cluster.members) - 1])
        await asyncio.sleep(DWELL_MS / 1_000)
    deadline_ms = cluster.runs[0].at_ms + 30_000
    await cluster.until(
        lambda: cluster.row(one).last_error == "not completed in time" or cluster.row(one).attempt > 1, 60
    )
    assert cluster.now_ms() == pytest.approx(deadline_ms + OVERRUN_MS, abs=3_000)


async def test_it_may_move_on_twice_while_it_runs(cluster: Cluster) -> None:
    a = await cluster.start("a", always(Step(takes_ms=29_000)))
    ids = await submit_some(a, 200)
    await joined(cluster, "b")
    await asyncio.sleep(DWELL_MS / 1_000)
    await joined(cluster, "c")
    assert not cluster.database.finished
    owners = {cluster.database.shards[cluster.row(one).shard].owner for one in ids}
    assert len(owners) == 3
    await cluster.ended(ids)
    assert len(cluster.runs) == 200
    assert {cluster.state(one) for one in ids} == {State.SUCCEEDED}


async def test_it_is_given_away_as_quietly_the_second_time(cluster: Cluster) -> None:
    a = await cluster.start("a", always(Step(takes_ms=3_000)))
    b = await joined(cluster)
    moved = set(b.owned)
    await b.node.drain(5)
    await b.kill()
    cluster.members.remove(b)
    await cluster.until(lambda: len(a.owned) == SHARDS)
    await asyncio.sleep(DWELL_MS / 1_000)
    ids = [one for delay_ms in range(0, 4_000, 50) for one in await submit_some(a, 10, delay_ms=delay_ms)]
    again = await joined(cluster, script=always(Step(takes_ms=3_000)))
    assert again.owned.keys() == moved
    await cluster.ended(ids)
    assert Counter(run.id for run in cluster.runs) == Counter(ids)


async def test_a_drained_node_waits_for_its_attempts_and_tells_their_ends(cluster: Cluster) -> None:
    a = await cluster.start("a", always(Step(takes_ms=14_000)))
    b = await joined(cluster)
    ids = await submit_some(a, 100)
    await cluster.until(lambda: len(cluster.runs) == 100)
    assert await a.node.drain(30)
    await a.node.membership.leave()
    await cluster.ended(ids, 1 if b.owned else 0)
    assert len(cluster.runs) == 100


@pytest.mark.parametrize("apart_ms", [0, 20, 100, 300, 700])
@pytest.mark.parametrize("names", ["ab", "abc"])
async def test_all_leave_at_once_and_every_attempt_ends_and_is_told(
    cluster: Cluster, names: str, apart_ms: int
) -> None:
    members = [cluster.join(name, always(Step(takes_ms=800))) for name in names]
    await cluster.until(is_spread(*members))
    ids: list[str] = []
    for delay_ms in range(100, 3_000, 100):
        for member in members:
            ids += await submit_some(member, 20, delay_ms=delay_ms)
    await asyncio.sleep(1.5)

    async def leave(member: Member, after_ms: int) -> None:
        await asyncio.sleep(after_ms / 1_000)
        assert await member.node.drain(20)
        await member.node.membership.leave()

    began_ms = cluster.now_ms()
    async with asyncio.TaskGroup() as group:
        for number, member in enumerate(members):
            group.create_task(leave(member, number * apart_ms))
    assert cluster.now_ms() - began_ms < 5_000 + len(names) * apart_ms
    ended = {one for one in ids if cluster.runs_of(one)}
    assert {cluster.state(one) for one in ended} == {State.SUCCEEDED}
    assert len(cluster.runs) == len(ended) > 300


async def test_an_end_that_nobody_had_read_when_the_shard_went_is_told(cluster: Cluster) -> None:
    """It is in the shard's mail while the answer comes that it was given."""
    a = await cluster.start("a", always(Step(takes_ms=10**9)))
    ids = await submit_some(a, 300)
    await cluster.until(lambda: len(cluster.runs) == 300)
    gave = a.node.handover._gave

    def gave_amid(shard: int) -> None:
        for task in list(a.node.hand.actors[shard].state.holding.known.values()):
            now_ms = a.node.clock.now_ms()
            a.node.ended([Outcome(task, task.epoch, task.attempt, Verdict.SUCCEEDED, now_ms, now_ms)])
        gave(shard)

    a.node.handover._gave = gave_amid
    b = await joined(cluster)
    moved = {one for one in ids if cluster.row(one).shard in b.owned}
    await cluster.ended(moved, 5)
    assert {cluster.state(one) for one in moved} == {State.SUCCEEDED}
    assert a.node.handover.forwarding == 0
    assert len(cluster.runs) == 300


async def test_one_that_leaves_and_is_left_alone_amid_does_not_wait_for_its_grace_time(cluster: Cluster) -> None:
    a = await cluster.start("a")
    b = await joined(cluster)
    gate = a.wire.hold_next("give")
    async with asyncio.TaskGroup() as group:
        draining = group.create_task(a.node.drain(60))
        await gate.reached.wait()
        await b.node.membership.leave()
        gate.open()
        await asyncio.sleep(5)
        assert draining.done()
    await a.node.membership.leave()
    assert {row.owner for row in cluster.database.shards.values()} == {None}


# --- what is told


async def test_commands_find_the_next_owner(cluster: Cluster) -> None:
    a = await cluster.start("a")
    ids = await submit_some(a, 400, delay_ms=3_600_000)
    cluster.join("b")
    answers = 0
    for one in ids:
        change = await a.node.ask(Command(Move.CANCEL, one, None))
        answers += change is not None
        await asyncio.sleep(0.002 if a.node.stats.moves or not a.node.handover._closing else 0)
        if answers == 1:
            await cluster.until(lambda: bool(a.node.handover._closing))
    assert answers == 400
    assert a.node.stats.moves > 0
    assert {cluster.state(one) for one in ids} == {State.CANCELLED}


async def test_what_is_accepted_meanwhile_is_fired_at_once(cluster: Cluster) -> None:
    """Each shard gets a task at every step of its way; none is left for the probe."""
    a = await cluster.start("a")
    cluster.way_ms = lambda: 20
    b = cluster.join("b")
    await cluster.until(lambda: bool(a.node.handover._closing))
    for _ in range(60):
        await submit_some(a, 60)
    await cluster.until(is_spread(a, b))
    await cluster.until(lambda: not any(True for _ in cluster.database.live.all()))
    lateness = sorted(row.lateness_ms or 0 for row in cluster.database.finished.values())
    assert lateness[-1] < 1_000
    assert a.node.stats.probe_finds + b.node.stats.probe_finds == 0


# --- what goes wrong


@pytest.mark.parametrize("fault", list(Fault))
async def test_an_answer_that_is_lost_costs_nothing(cluster: Cluster, fault: Fault) -> None:
    a = await cluster.start("a")
    await submit_some(a, 500, delay_ms=30_000)
    for _ in range(3):
        a.wire.fail_next("give", fault)
    b = await joined(cluster)
    assert settled(cluster)
    await cluster.until(lambda: len(cluster.database.finished) == 500)
    assert len(cluster.runs) == 500
    assert a.node.stats.probe_finds + b.node.stats.probe_finds == 0


async def test_a_word_that_is_lost_costs_half_a_second(cluster: Cluster) -> None:
    a = await cluster.start("a")
    cluster.network.loses = lambda sender, to: True
    b = await joined(cluster)
    await asyncio.sleep(1)
    assert settled(cluster)
    ids = await submit_some(b, 100)
    await cluster.ended(ids)
    assert a.node.stats.probe_finds <= 100


async def test_a_database_that_goes_away_in_the_middle_is_waited_for(cluster: Cluster) -> None:
    a = await cluster.start("a", always(Step(takes_ms=200)))
    ids = await submit_some(a, 1_000, delay_ms=500)
    b = cluster.join("b")
    await cluster.until(lambda: bool(a.node.handover._closing))
    cluster.cut(away=True)
    await asyncio.sleep(10)
    cluster.cut(away=False)
    await cluster.ended(ids)
    await cluster.until(is_spread(a, b))
    assert settled(cluster)


async def test_an_heir_that_dies_at_once_is_inherited_from(cluster: Cluster) -> None:
    a = await cluster.start("a")
    ids = await submit_some(a, 500, delay_ms=20_000)
    b = cluster.join("b")
    await cluster.until(lambda: a.node.stats.moves > 0)
    await b.kill()
    cluster.members.remove(b)
    await cluster.ended(ids)
    assert len(a.owned) == SHARDS
    assert settled(cluster)


async def test_what_can_not_part_in_time_goes_later(cluster: Cluster) -> None:
    a = await cluster.start("a")
    gate = a.wire.hold_next("write")
    ids = await submit_some(a, 50)
    await gate.reached.wait()
    b = cluster.join("b")
    await asyncio.sleep(2 * PART_S)
    assert len(a.node.handover._closing) > 0
    gate.open()
    await cluster.until(is_spread(a, b))
    await cluster.ended(ids)
    assert len(cluster.runs) == 50


async def test_a_giver_that_is_stopped_in_the_middle_loses_what_it_had(cluster: Cluster) -> None:
    a = await cluster.start("a", always(Step(takes_ms=100)))
    ids = await submit_some(a, 500, delay_ms=400)
    b = cluster.join("b")
    await cluster.until(lambda: a.node.stats.moves > 0)
    a.process.stop()
    await asyncio.sleep(20)
    a.process.resume()
    await cluster.ended(ids)
    await cluster.until(is_spread(a, b))
    assert settled(cluster)
    assert a.node.stats.rejoins == 1


async def test_a_beat_that_was_under_way_does_not_bring_a_shard_back(cluster: Cluster) -> None:
    """It was answered before the shard was given, and arrives after that."""
    a = await cluster.start("a")
    b = cluster.join("b")
    await cluster.until(lambda: bool(a.node.handover._closing))
    own, seen = a.node.membership._owned, dict(a.owned)
    await cluster.until(lambda: a.node.stats.moves > 0)
    own(seen, ())
    assert all(not a.node.handover.is_past(shard, epoch) for shard, epoch in a.owned.items())
    await cluster.until(is_spread(a, b))


async def test_a_completion_under_an_old_fence_is_refused_by_the_next_owner(cluster: Cluster) -> None:
    a = await cluster.start("a", always(Step(takes_ms=20_000)))
    ids = await submit_some(a, 50)
    b = await joined(cluster)
    (one, *_) = [one for one in ids if cluster.row(one).shard in b.owned]
    run = cluster.runs_of(one)[0]
    now_ms = int(cluster.now_ms())
    old = Outcome(None, run.epoch, run.attempt + 1, Verdict.SUCCEEDED, now_ms, now_ms)  # type: ignore[arg-type]
    with pytest.raises(Conflict):
        await a.node.ask(Command(Move.SUCCEED, one, None, outcome=old))
    await cluster.ended(ids)
    assert cluster.state(one) is State.SUCCEEDED


async def test_an_operator_drains_a_node_and_takes_that_back(cluster: Cluster) -> None:
    a = await cluster.start("a")
    b = await joined(cluster)
    row = cluster.database.nodes[a.node.membership.boot]
    row.leaving = True
    await cluster.until(lambda: not a.owned and len(b.owned) == SHARDS, 2)
    assert a.node.may_fire()
    ids = await submit_some(a, 20)
    await cluster.ended(ids, 1)
    row.leaving = False
    await cluster.until(is_spread(a, b), 12)


# --- a shard that failed begins anew


async def fail(member: Member, shard: int) -> None:
    member.node._crashed(shard, ZeroDivisionError())
    assert shard not in member.owned


async def test_a_boot_that_gives_up_while_a_shard_begins_anew_goes_on(cluster: Cluster) -> None:
    a = await cluster.start("a")
    gate = a.wire.hold_next("give")
    await fail(a, 7)
    await gate.reached.wait()
    a.node.membership.rejoin()
    gate.open()
    await cluster.until(lambda: a.node.ready and len(a.owned) == SHARDS, 5)
    assert not a.ended.is_set()


async def test_a_shard_that_fails_again_before_its_first_answer_came_begins_anew_again(cluster: Cluster) -> None:
    """A beat showed it before the answer to the statement that gave it."""
    a = await cluster.start("a")
    give, late = a.node.handover._store.give, asyncio.Event()

    async def answered_late(boot: str, shards: Mapping[int, tuple[int, str]]) -> set[int]:
        given = await give(boot, shards)
        await late.wait()
        return given

    a.node.handover._store.give = answered_late  # type: ignore[method-assign]
    await fail(a, 7)
    await cluster.until(lambda: 7 in a.owned, 2)
    await fail(a, 7)
    late.set()
    await cluster.until(lambda: a.owned.get(7) == 3, 5)


async def test_a_shard_begins_anew_while_its_node_is_drained_too(cluster: Cluster) -> None:
    a = await cluster.start("a")
    cluster.database.nodes[a.node.membership.boot].leaving = True
    await asyncio.sleep(1)
    await fail(a, 7)
    await cluster.until(lambda: 7 in a.owned, 5)
    assert len(a.owned) == SHARDS
