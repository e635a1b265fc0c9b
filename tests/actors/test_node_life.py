"""How a node starts, drains, fails and begins anew."""

import asyncio

import pytest

from actors import hints
from actors.core.events import Change, Effect, Ended, Event, Recorded, Started, Ticked, Verdict
from actors.core.shard import ShardState
from actors.core.task import State
from storage.memory import Fault
from tests.support.cluster import Cluster, draft, submit, submit_some
from tests.support.scripted import Step, always

HOUR_MS = 3_600_000


# --- start


async def test_a_database_that_is_away_at_the_start_is_waited_for(cluster: Cluster) -> None:
    member = cluster.join()
    member.wire.away = True
    await asyncio.sleep(20)
    assert not member.node.ready
    assert not member.ended.is_set()
    member.wire.away = False
    await cluster.until(lambda: member.node.ready, within_s=2)


async def test_partitions_are_made_before_anything_can_finish(cluster: Cluster) -> None:
    member = cluster.join()
    for _ in range(5):
        member.wire.fail_next("make_partitions")
    await cluster.until(lambda: member.node.may_fire() and not member.node.membership.orphans)
    (task_id,) = await submit_some(member, 1)
    await asyncio.sleep(3.5)
    assert cluster.state(task_id) is State.SCHEDULED
    assert not member.node.ready
    await cluster.ended([task_id], within_s=3)
    assert member.node.ready


async def test_a_child_that_fails_ends_the_node(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    member = await cluster.start()

    def fail(changes: list[Change]) -> None:
        if changes[0].state is State.RUNNING:
            raise ZeroDivisionError

    monkeypatch.setattr(member.node, "_publish", fail)
    await submit_some(member, 1)
    assert isinstance(await member.failed(), ZeroDivisionError)


# --- drain


async def test_an_idle_node_is_drained_at_once(cluster: Cluster) -> None:
    member = await cluster.start()
    before_ms = cluster.now_ms()
    assert await member.node.drain(10)
    assert cluster.now_ms() - before_ms <= 1  # the way to the database, once
    assert not member.node.ready


async def test_draining_lets_running_attempts_end_and_records_them(cluster: Cluster) -> None:
    member = await cluster.start(script=lambda task: Step(takes_ms=hash(task.id) % 3_000))
    ids = await submit_some(member, 50)
    await cluster.until(lambda: len(cluster.runs) == 50)
    later = await submit_some(member, 5, delay_ms=100)
    assert await member.node.drain(10)
    assert cluster.database.finished.keys() == set(ids)
    assert all(cluster.state(task_id) is State.SCHEDULED for task_id in later)
    await asyncio.sleep(10)
    assert len(cluster.runs) == 50


async def test_a_drain_that_takes_longer_than_the_grace_time_is_given_up(cluster: Cluster) -> None:
    member = await cluster.start(script=always(Step(takes_ms=5_000)))
    await submit_some(member, 1)
    await cluster.until(lambda: bool(cluster.runs))
    before_ms = cluster.now_ms()
    assert not await member.node.drain(2)
    assert cluster.now_ms() - before_ms == pytest.approx(2_000)
    assert member.node.take(10) == []


async def test_draining_waits_for_what_is_being_written(cluster: Cluster) -> None:
    member = await cluster.start()
    gate = member.wire.hold_next("write")
    (task_id,) = await submit_some(member, 1)
    await gate.reached.wait()
    asyncio.get_running_loop().call_later(1, gate.open)
    assert await member.node.drain(2)
    assert cluster.state(task_id) is State.SUCCEEDED


async def test_draining_waits_for_submits_under_way(cluster: Cluster) -> None:
    member = await cluster.start()
    queue = await member.queues.ensure("default", "emails")
    gate = member.wire.hold_next("accept")
    async with asyncio.TaskGroup() as group:
        sent = group.create_task(submit(member, [draft(queue)]))
        await gate.reached.wait()
        asyncio.get_running_loop().call_later(1, gate.open)
        assert await member.node.drain(2)
    assert sent.result()[0].new


async def test_draining_does_not_wait_for_completions_that_may_come_hours_later(cluster: Cluster) -> None:
    member = await cluster.start(script=always(Step(Verdict.LATER)))
    (task_id,) = await submit_some(member, 1)
    await cluster.until(lambda: cluster.row(task_id).claim_ms is not None)
    await asyncio.sleep(0.1)
    assert await member.node.drain(2)


async def test_draining_does_not_wait_for_shards_that_went(cluster: Cluster) -> None:
    member = await cluster.start(script=always(Step(takes_ms=HOUR_MS)))
    await submit_some(member, 1)
    await cluster.until(lambda: bool(cluster.runs))
    async with asyncio.TaskGroup() as group:
        drained = group.create_task(member.node.drain(60))
        await asyncio.sleep(1)
        cluster.give_away("somebody-else")
        await asyncio.sleep(1)
        assert drained.done()
    assert drained.result()


# --- a shard's own code fails


class Poison:
    """Makes a shard fail on an event, so many times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: type[Event], times: int = 1) -> None:
        self.left = times
        apply = ShardState.apply

        def poisoned(state: ShardState, event: Event, now_ms: int) -> list[Effect]:
            if isinstance(event, kind) and self.left:
                self.left -= 1
                raise ZeroDivisionError
            return apply(state, event, now_ms)

        monkeypatch.setattr(ShardState, "apply", poisoned)


@pytest.mark.parametrize("kind", [Ticked, Started, Ended, Recorded])
async def test_a_shard_that_fails_begins_anew_and_no_other_does(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, kind: type[Event]
) -> None:
    member = await cluster.start(script=always(Step(takes_ms=20)))
    ids = await submit_some(member, 400, delay_ms=500)
    await asyncio.sleep(0.3)
    poison = Poison(monkeypatch, kind)
    await cluster.ended(ids, within_s=2)
    assert poison.left == 0
    assert not member.ended.is_set()
    assert member.node.membership.boot == member.boot
    assert member.node.stats.shard_failures == 1
    await cluster.until(lambda: len(member.owned) == 256, within_s=2)
    assert sorted(row.epoch for row in cluster.database.shards.values()) == [1] * 255 + [2]
    assert max(len(cluster.runs_of(task_id)) for task_id in ids) <= 2
    assert member.node.stats.probe_finds == 0


async def test_nothing_that_was_not_started_is_handed_out(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    member = await cluster.start()
    member.dispatcher.working.clear()
    ids = await submit_some(member, 400)
    await asyncio.sleep(0.1)
    Poison(monkeypatch, Started)
    (failed,) = {shard for shard, row in cluster.database.shards.items()} - {
        task.shard for task in member.node.take(400)
    } & {cluster.row(task_id).shard for task_id in ids}
    assert failed not in member.owned
    assert member.node.may_fire()


async def test_a_shard_that_fails_again_and_again_is_left_alone_for_longer_each_time(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a row that its code can't bear: the others do not feel it."""
    member = await cluster.start()
    apply = ShardState.apply

    def fails(state: ShardState, event: Event, now_ms: int) -> list[Effect]:
        if state.shard == 7:
            raise ZeroDivisionError
        return apply(state, event, now_ms)

    monkeypatch.setattr(ShardState, "apply", fails)
    member.node.hand.post(7, Ticked())
    ids = [task_id for task_id in await submit_some(member, 400) if cluster.row(task_id).shard != 7]
    await cluster.ended(ids, within_s=1)
    await asyncio.sleep(120)
    assert 8 <= member.node.stats.shard_failures <= 14
    assert member.owned.keys() | {7} == set(range(256))
    monkeypatch.setattr(ShardState, "apply", apply)
    await cluster.until(lambda: 7 in member.owned, within_s=31)
    assert not member.node.membership.orphans


async def test_a_shard_that_fails_while_the_database_is_away_begins_anew_when_it_is_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await cluster.start()
    ids = await submit_some(member, 400, delay_ms=8_000)
    cluster.cut(away=True)
    Poison(monkeypatch, Ticked)
    await asyncio.sleep(11)
    assert member.node.stats.shard_failures == 1
    cluster.cut(away=False)
    await cluster.ended(ids)
    assert len(member.owned) == 256


async def test_a_beat_under_way_does_not_bring_the_old_boot_back(cluster: Cluster) -> None:
    member = await cluster.start()
    await asyncio.sleep(0.1)
    gate = member.wire.hold_next("beat")
    await gate.reached.wait()
    member.node.membership.rejoin()
    gate.open()
    await asyncio.sleep(0.01)
    assert not member.node.may_fire()
    assert member.owned == {}
    await cluster.until(lambda: member.node.ready)


async def test_a_sweep_under_way_does_not_bring_the_old_boot_back(cluster: Cluster) -> None:
    member = cluster.join()
    gate = member.wire.hold_next("sweep")
    await gate.reached.wait()
    member.node.membership.rejoin()
    gate.open()
    await asyncio.sleep(0.01)
    assert member.owned == {}
    await cluster.until(lambda: member.node.ready)


# --- leave


async def test_who_left_fires_nothing_and_does_not_come_back(cluster: Cluster) -> None:
    member = await cluster.start()
    await submit_some(member, 10, delay_ms=3_000)
    gate = member.wire.hold_next("beat")
    await gate.reached.wait()
    await member.node.membership.leave()
    gate.open()
    await asyncio.sleep(60)
    assert not member.node.may_fire()
    assert member.owned == {}
    assert len(cluster.database.nodes) == 1
    assert set(cluster.owners().values()) == {None}
    assert cluster.runs == []


async def test_a_beat_whose_answer_comes_after_leaving_does_not_renew_the_lease(cluster: Cluster) -> None:
    cluster.way_ms = lambda: 20.0
    member = await cluster.start()
    beats = member.wire.sent.count("beat")
    await cluster.until(lambda: member.wire.sent.count("beat") > beats)
    await member.node.membership.leave()
    await asyncio.sleep(1)
    assert not member.node.may_fire()
    assert member.owned == {}


@pytest.mark.parametrize("fault", list(Fault))
async def test_leaving_that_fails_fires_nothing_all_the_same(cluster: Cluster, fault: Fault) -> None:
    member = await cluster.start()
    member.wire.fail_next("leave", fault)
    with pytest.raises(Exception, match="leave"):
        await member.node.membership.leave()
    await submit_some(member, 10)
    await asyncio.sleep(10)
    assert not member.node.may_fire()
    assert cluster.runs == []


async def test_what_nobody_is_told_of_for_want_of_room_is_counted_and_found(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "KEPT", 2)
    member = await cluster.start()
    gate = member.wire.hold_next("beat")
    await gate.reached.wait()
    monkeypatch.setattr(member.node.membership, "_fire_until_ms", 0.0)  # as if no beat had come through for a while
    ids = await submit_some(member, 2)
    ids += await submit_some(member, 3)
    assert member.node.dropped_hints == 3
    gate.open()
    await cluster.ended(ids)
    assert member.node.stats.probe_finds == 3


# --- a write tells that a shard is somebody else's


async def test_a_refused_write_retires_its_shard_before_the_next_beat(cluster: Cluster) -> None:
    member = await cluster.start(script=always(Step(takes_ms=100)))
    gate = member.wire.hold_next("beat")
    await gate.reached.wait()
    (task_id,) = await submit_some(member, 1)
    await cluster.until(lambda: bool(cluster.runs))
    cluster.give_away("somebody-else")
    await cluster.until(lambda: bool(member.node.stats.stale_writes))
    await asyncio.sleep(0.01)
    assert cluster.row(task_id).shard not in member.owned
    assert len(member.owned) == 255
    assert cluster.state(task_id) is State.SCHEDULED
    gate.open()
