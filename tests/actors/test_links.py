"""Two nodes, one of which owns the tasks that the other is asked about: hints and commands find their way."""

import asyncio

import pytest

from actors.asking import LOOK_LIMIT_S, OWNER_WAIT_S
from actors.core.errors import Conflict, Unavailable, Unknown
from actors.core.events import Change, Command, Event, Outcome, Submitted, Verdict
from actors.core.holding import GENERATION_MS
from actors.core.ids import shard_of
from actors.core.task import Move, State
from actors.node import HORIZON_MS
from tests.support.builders import task_id
from tests.support.cluster import Cluster, Member, submit_some
from tests.support.scripted import Step, always

HOUR_MS = 3_600_000


async def pair(cluster: Cluster) -> tuple[Member, Member]:
    """The owner of everything, and another node that knows of it."""
    owner = await cluster.start("a")
    owner.keep()
    other = await cluster.start("b")
    await cluster.until(lambda: len(other.node.membership.holders) == 256)
    assert not other.owned
    return owner, other


async def ask(member: Member, move: Move, id: str, **more: object) -> Change | None:  # noqa: A002
    return await member.node.ask(Command(move, id, None, **more))  # type: ignore[arg-type]


async def test_what_another_node_accepts_is_fired_at_once(cluster: Cluster) -> None:
    owner, other = await pair(cluster)
    hints: list[tuple[int, int]] = []
    post = owner.node.hand.post

    def note(shard: int, event: Event) -> bool:
        if isinstance(event, Submitted):
            hints.append((owner.owned[shard], event.epoch))
        return post(shard, event)

    owner.node.hand.post = note  # type: ignore[method-assign]
    ids = await submit_some(other, 50)
    await cluster.ended(ids)
    assert hints
    assert all(epoch == told for epoch, told in hints), "they can be trusted: nothing is read from the tables"
    assert {run.node for run in cluster.runs} == {"a"}
    assert all(run.at_ms - run.schedule_ms < 20 for run in cluster.runs)
    assert owner.node.stats.probe_finds == 0


async def test_its_watchers_hear_of_the_acceptance_before_the_start(cluster: Cluster) -> None:
    owner, other = await pair(cluster)
    ids = await submit_some(other, 3)
    far = await submit_some(other, 1, delay_ms=HORIZON_MS + 1_000)
    await cluster.ended(ids)
    for each in ids:
        told = [change.state for change in owner.changes if change.id == each]
        assert told == [State.SCHEDULED, State.RUNNING, State.SUCCEEDED]
    assert [change.id for change in other.changes] == far, "no owner has loaded it: who accepted it tells"


async def test_a_hint_that_is_lost_costs_time_alone(cluster: Cluster) -> None:
    owner, other = await pair(cluster)
    cluster.network.loses = lambda sender, to: True
    ids = await submit_some(other, 20)
    await cluster.ended(ids)
    assert owner.node.stats.probe_finds == 20
    assert all(run.at_ms - run.schedule_ms < 6_000 for run in cluster.runs)


async def test_what_a_node_accepts_that_does_not_know_yet_that_it_is_dead_is_told_to_its_owner(
    cluster: Cluster,
) -> None:
    zombie, other = await pair(cluster)
    async with asyncio.TaskGroup() as group:
        zombie.wire.hang()
        submitting = group.create_task(submit_some(zombie, 50))
        await cluster.until(lambda: len(other.owned) == 256)
        zombie.wire.flow()
        ids = await submitting
    await cluster.ended(ids)
    assert {run.node for run in cluster.runs} == {"b"}
    assert other.node.stats.probe_finds == 0


async def test_an_answer_to_a_commit_that_comes_late_brings_nothing_back(small: Cluster) -> None:
    """What was accepted has been found, carried out and forgotten meanwhile."""
    owner, other = await small.start("a"), await small.start("b")
    for delay_ms in range(0, 3 * GENERATION_MS, 1_000):
        await submit_some(owner, 50, delay_ms=delay_ms)  # time passes for all shards
    small.way_ms = lambda: 50.0
    async with asyncio.TaskGroup() as group:
        rows = sum(1 for _ in small.database.live.all())
        submitting = group.create_task(submit_some(other, 3))
        await small.until(lambda: sum(1 for _ in small.database.live.all()) > rows)
        other.process.stop()
        await asyncio.sleep(3 * GENERATION_MS / 1_000)
        other.process.resume()
        ids = await submitting
    await small.until(lambda: other.node.ready)
    await asyncio.sleep(1)
    assert sorted(run.id for run in small.runs if run.id in ids) == sorted(ids)


async def test_a_hint_by_a_clock_that_was_set_back_brings_nothing_back_at_the_next_owner(small: Cluster) -> None:
    """It seems younger there than the shard, which came from another owner, where its tasks were carried out."""
    _, other = await small.start("a"), await small.start("b")
    ways_ms = iter([1.0, 1_900.0])
    small.network.doubles, small.network.way_ms = lambda: True, lambda: next(ways_ms, 0.2)
    ids = await submit_some(other, 40)
    await small.ended(ids)
    small.network.doubles = lambda: False
    small.step_ms = -1_700
    heir = small.join("c")
    await small.until(lambda: bool(heir.owned))
    assert {run.node for run in small.runs if shard_of(run.id, 8) in heir.owned} == {"a"}
    await asyncio.sleep(2)
    assert sorted(run.id for run in small.runs) == sorted(ids)


async def test_commands_go_to_the_owner(cluster: Cluster) -> None:
    owner, other = await pair(cluster)
    one, two, three = await submit_some(other, 3, delay_ms=HOUR_MS)
    change = await ask(other, Move.CANCEL, one)
    assert change is not None
    assert change.state is State.CANCELLED
    assert change.version in [told.version for told in owner.changes if told.id == one]
    assert await ask(other, Move.CANCEL, one) is None, "it was so already"
    await ask(other, Move.RUN, two)
    await cluster.ended([two])
    await ask(other, Move.RESCHEDULE, three, due_ms=int(cluster.now_ms()) + 500)
    await cluster.ended([three])
    with pytest.raises(Conflict) as refusal:
        await ask(other, Move.CANCEL, two)
    assert refusal.value.state == "succeeded"
    with pytest.raises(Unknown):
        await ask(other, Move.CANCEL, task_id(77))
    with pytest.raises(Unknown):
        await ask(other, Move.CANCEL, one, tenant="stranger")


async def test_an_owner_that_is_stopped_is_not_waited_for(cluster: Cluster) -> None:
    owner, other = await pair(cluster)
    (one,) = await submit_some(other, 1, delay_ms=HOUR_MS)
    owner.process.stop()
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable):
        await ask(other, Move.CANCEL, one)
    assert asyncio.get_running_loop().time() - began == pytest.approx(OWNER_WAIT_S)
    owner.process.resume()


async def test_a_link_that_is_cut_may_come_back_in_time(cluster: Cluster) -> None:
    _, other = await pair(cluster)
    one, two = await submit_some(other, 2, delay_ms=HOUR_MS)
    cluster.network.loses = lambda sender, to: True
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable):
        await ask(other, Move.CANCEL, one)
    assert asyncio.get_running_loop().time() - began == pytest.approx(OWNER_WAIT_S)
    asyncio.get_running_loop().call_later(1, setattr, cluster.network, "loses", lambda sender, to: False)
    assert await ask(other, Move.CANCEL, two) is not None


async def test_who_took_over_is_asked_next(cluster: Cluster) -> None:
    """The owner as of the last heartbeat has lost the task by now."""
    owner, other = await pair(cluster)
    (one,) = await submit_some(other, 1, delay_ms=HOUR_MS)
    await cluster.until(lambda: other.wire.sent[-1] == "beat")
    owner.node.membership.rejoin()
    change = await ask(other, Move.CANCEL, one)
    assert change is not None
    assert change.state is State.CANCELLED


async def test_a_completion_travels_with_its_outcome(cluster: Cluster) -> None:
    owner, other = await pair(cluster)
    owner.dispatcher.script = always(Step(Verdict.LATER))
    (one,) = await submit_some(other, 1)
    await cluster.until(lambda: cluster.row(one).claim_ms is not None)
    (run,) = cluster.runs
    now_ms = int(cluster.now_ms())
    outcome = Outcome(None, run.epoch, run.attempt, Verdict.SUCCEEDED, now_ms, now_ms, result=b"7")  # type: ignore[arg-type]
    change = await ask(other, Move.SUCCEED, one, outcome=outcome)
    assert change is not None
    assert change.state is State.SUCCEEDED
    assert cluster.row(one).result == b"7"


async def test_another_node_sees_what_runs(cluster: Cluster) -> None:
    owner, other = await pair(cluster)
    owner.dispatcher.script = always(Step(takes_ms=400))
    (one,) = await submit_some(other, 1)
    await cluster.until(lambda: bool(cluster.runs))
    there, here = await other.node.look([one]), await owner.node.look([one])
    assert there == here
    assert there[one].runs
    assert other.node.fence_of(there[one]) == cluster.runs[0].fence
    await cluster.ended([one])
    assert (await other.node.look([one]))[one].rev == 1, "a row of before is told from a new one"
    assert await other.node.look([task_id(77)]) == {}


async def test_of_an_owner_that_does_not_answer_nothing_is_known(cluster: Cluster) -> None:
    owner, other = await pair(cluster)
    (one,) = await submit_some(other, 1, delay_ms=30_000)
    await asyncio.sleep(0.01)
    assert one in await other.node.look([one])
    cluster.network.loses = lambda sender, to: True
    assert await other.node.look([one]) == {}
    cluster.network.loses = lambda sender, to: False
    owner.process.stop()
    began = asyncio.get_running_loop().time()
    assert await other.node.look([one]) == {}
    assert asyncio.get_running_loop().time() - began == pytest.approx(LOOK_LIMIT_S)
    owner.process.resume()
