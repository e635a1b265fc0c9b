"""Whole nodes that die, or give their shards away, in mid-attempt, and what their queues want to come of it."""

import asyncio
from dataclasses import replace

import pytest

from actors.core.events import Command, Outcome, Recorded, Verdict
from actors.core.inherited import OVERRUN_MS
from actors.core.queue import Unheard
from actors.core.settle import HELD_MS
from actors.core.task import Move, State
from tests.actors.test_handover import is_spread, joined
from tests.actors.test_node_life import Poison
from tests.support.cluster import Cluster, Member, submit_some
from tests.support.scripted import Step, always

DEADLINE_MS = 30_000
AHEAD = pytest.mark.parametrize("unknown", [Unheard.WAIT_DEADLINE, Unheard.HOLD])


async def set_policy(cluster: Cluster, member: Member, unknown: Unheard) -> None:
    """For the queue `emails`; every node has read it when this returns."""
    queue = await member.queues.ensure("default", "emails")
    assert await member.queues.change(queue, queue.version, replace(queue.settings, unknown=unknown))
    for other in cluster.members:
        await other.queues.refresh()


def is_held(cluster: Cluster, task_id: str) -> bool:
    return cluster.row(task_id).claim_ms == HELD_MS


async def complete(cluster: Cluster, member: Member, task_id: str, verdict: Verdict = Verdict.SUCCEEDED) -> None:
    """Say how a held task's attempt ended."""
    row, now_ms = cluster.row(task_id), int(cluster.now_ms())
    outcome = Outcome(None, row.epoch, row.attempt, verdict, now_ms, now_ms)  # type: ignore[arg-type]
    move = Move.SUCCEED if verdict is Verdict.SUCCEEDED else Move.RETRY
    await member.node.ask(Command(move, task_id, None, outcome=outcome))


# --- one node


@AHEAD
async def test_each_attempt_is_claimed_before_its_request_is_written(cluster: Cluster, unknown: Unheard) -> None:
    member = await cluster.start()
    await set_policy(cluster, member, unknown)
    claims: list[int | None] = []
    cluster.observe = lambda member, run, task: claims.append(cluster.row(run.id).claim_ms)
    ids = await submit_some(member, 300)
    await cluster.ended(ids, within_s=1)
    assert len(cluster.runs) == len(ids)
    assert None not in claims
    assert member.node.stats.tally.ahead == set()


async def test_what_is_claimed_ahead_is_no_more_than_dispatchers_have_room_for(cluster: Cluster) -> None:
    member = await cluster.start()
    await set_policy(cluster, member, Unheard.HOLD)
    member.dispatcher.limit = 10
    most = 0

    def look(*_: object) -> None:
        nonlocal most
        most = max(most, len(member.node.stats.tally.ahead))

    cluster.observe = look
    gate = member.wire.hold_next("write")
    ids = await submit_some(member, 500)
    await gate.reached.wait()
    await asyncio.sleep(0.2)
    look()
    gate.open()
    await cluster.ended(ids)
    assert (most, len(cluster.runs)) == (10, 500)


async def test_tasks_of_other_queues_start_beside_them(cluster: Cluster) -> None:
    member = await cluster.start()
    await set_policy(cluster, member, Unheard.HOLD)
    gate = member.wire.hold_next("write")
    (held,) = await submit_some(member, 1)
    await gate.reached.wait()
    (other,) = await submit_some(member, 1, "other")
    await cluster.until(lambda: [run.id for run in cluster.runs] == [other], within_s=1)
    gate.open()
    await cluster.ended([held, other])


async def test_draining_lets_what_is_claimed_run_to_its_end(cluster: Cluster) -> None:
    member = await cluster.start(script=always(Step(takes_ms=300)))
    await set_policy(cluster, member, Unheard.HOLD)
    gate = member.wire.hold_next("write")
    ids = await submit_some(member, 20)
    await gate.reached.wait()
    asyncio.get_running_loop().call_later(0.1, gate.open)
    assert await member.node.drain(5)
    assert {cluster.state(task_id) for task_id in ids} == {State.SUCCEEDED}
    assert len(cluster.runs) == 20


async def test_what_was_ready_before_it_was_ready_again_is_handed_out_once(cluster: Cluster) -> None:
    member = await cluster.start()
    await set_policy(cluster, member, Unheard.HOLD)
    member.dispatcher.working.clear()
    ids = await submit_some(member, 2)
    await asyncio.sleep(0.1)
    assert member.node.take(2) == []
    await cluster.until(lambda: all(cluster.row(task_id).claim_ms for task_id in ids))
    await asyncio.sleep(0.1)
    first, second = [task.id for task, _ in member.node._claimed.waiting]
    await complete(cluster, member, first)
    await complete(cluster, member, second, Verdict.FAILED)
    await asyncio.sleep(2)
    assert member.node.take(1) == [], "it is claimed again"
    await asyncio.sleep(0.1)
    assert [(task.id, task.attempt) for task in member.node.take(9)] == [(second, 2)]


async def test_nothing_is_handed_out_without_a_lease_and_nothing_is_held_for_it(cluster: Cluster) -> None:
    member = await cluster.start()
    await set_policy(cluster, member, Unheard.HOLD)
    member.dispatcher.working.clear()
    ids = await submit_some(member, 5)
    await asyncio.sleep(0.1)
    member.node.take(5)
    await cluster.until(lambda: all(cluster.row(task_id).claim_ms for task_id in ids))
    cluster.cut(away=True)
    await asyncio.sleep(4.5)
    assert member.node.take(5) == []
    member.dispatcher.working.set()
    cluster.cut(away=False)
    await cluster.ended(ids)
    assert len(cluster.runs) == 5, "their claims are too old by now, and made anew"


async def test_a_shard_that_fails_gives_back_what_it_had_not_sent(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await cluster.start()
    await set_policy(cluster, member, Unheard.HOLD)
    ids = await submit_some(member, 300, delay_ms=200)
    await asyncio.sleep(0.1)
    poison = Poison(monkeypatch, Recorded)
    await cluster.ended(ids, within_s=5)
    assert (poison.left, member.node.stats.shard_failures) == (0, 1)
    assert len(cluster.runs) == 300


# --- killed


async def test_a_task_of_a_killed_node_is_held_until_somebody_says_how_it_ended(cluster: Cluster) -> None:
    a = await cluster.start("a", always(Step(takes_ms=60_000)))
    await set_policy(cluster, a, Unheard.HOLD)
    ids = await submit_some(a, 3)
    await cluster.until(lambda: len(cluster.runs) == 3)
    await a.kill()
    b = await cluster.start("b")
    await cluster.until(lambda: all(is_held(cluster, task_id) for task_id in ids), within_s=20)
    await asyncio.sleep(600)
    assert len(cluster.runs) == 3
    assert (b.node.stats.held, [b.task(task_id) for task_id in ids]) == (3, [None] * 3)
    done, failed, waits = ids
    await complete(cluster, b, done)
    await complete(cluster, b, failed, Verdict.FAILED)
    await cluster.ended([done, failed])
    assert [len(cluster.runs_of(task_id)) for task_id in ids] == [1, 2, 1]
    assert is_held(cluster, waits)


async def test_a_task_of_a_killed_node_runs_again_after_its_deadline(cluster: Cluster) -> None:
    a = await cluster.start("a", always(Step(takes_ms=600_000)))
    await set_policy(cluster, a, Unheard.WAIT_DEADLINE)
    (task_id,) = await submit_some(a, 1)
    await cluster.until(lambda: len(cluster.runs) == 1)
    await a.kill()
    await cluster.start("b")
    await cluster.ended([task_id])
    first, second = cluster.runs
    assert DEADLINE_MS <= second.at_ms - first.at_ms <= DEADLINE_MS + OVERRUN_MS + 30
    assert (second.attempt, first.fence < second.fence) == (2, True)


@AHEAD
async def test_a_node_that_dies_before_its_claim_is_written_sent_nothing(cluster: Cluster, unknown: Unheard) -> None:
    a = await cluster.start("a")
    await set_policy(cluster, a, unknown)
    gate = a.wire.hold_next("write")
    (task_id,) = await submit_some(a, 1)
    await gate.reached.wait()
    await a.kill()
    await cluster.start("b")
    await cluster.ended([task_id], within_s=20)
    assert [(run.node, run.attempt) for run in cluster.runs] == [("b", 1)]


async def test_a_node_that_dies_between_claim_and_request_leaves_a_held_task(cluster: Cluster) -> None:
    """Nobody can know that nothing was sent."""
    a = await cluster.start("a")
    await set_policy(cluster, a, Unheard.HOLD)
    a.dispatcher.working.clear()
    (task_id,) = await submit_some(a, 1)
    await asyncio.sleep(0.1)
    a.node.take(1)
    await cluster.until(lambda: cluster.row(task_id).claim_ms is not None)
    await a.kill()
    b = await cluster.start("b")
    await cluster.until(lambda: is_held(cluster, task_id), within_s=20)
    assert cluster.runs == []
    await complete(cluster, b, task_id, Verdict.FAILED)
    await cluster.ended([task_id])
    assert [run.attempt for run in cluster.runs] == [2]


# --- given away


async def test_nothing_is_sent_twice_or_held_while_shards_move(cluster: Cluster) -> None:
    a = await cluster.start("a", always(Step(takes_ms=700)))
    await set_policy(cluster, a, Unheard.HOLD)
    cluster.way_ms = lambda: 15.0
    a.dispatcher.limit = 40
    ids = await submit_some(a, 400)
    b = cluster.join("b", always(Step(takes_ms=700)))
    await cluster.until(is_spread(a, b))
    assert await a.node.drain(30)
    await cluster.ended(ids)
    assert len(cluster.runs) == 400
    assert {run.node for run in cluster.runs} == {"a", "b"}
    assert a.node.stats.held + b.node.stats.held == 0


async def test_a_shard_that_is_given_takes_its_ready_attempts_back(cluster: Cluster) -> None:
    a = await cluster.start("a")
    await set_policy(cluster, a, Unheard.HOLD)
    a.dispatcher.working.clear()
    ids = await submit_some(a, 200)
    await asyncio.sleep(0.1)
    a.node.take(200)
    await cluster.until(lambda: all(cluster.row(task_id).claim_ms for task_id in ids))
    b = await joined(cluster)
    theirs = {task_id for task_id in ids if cluster.row(task_id).shard in b.owned}
    await cluster.ended(theirs, within_s=1)
    assert theirs == {run.id for run in cluster.runs}
    assert {cluster.row(task_id).attempt for task_id in theirs} == {1}
    a.dispatcher.working.set()
    await cluster.ended(ids)
    assert len(cluster.runs) == 200
