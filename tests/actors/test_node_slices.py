"""What the shards of a node ask for in one slice of the hand: of each kind together, and in an order that holds."""

import asyncio
from collections.abc import Callable

import pytest

from actors.core.events import Change, Command, Ended, Outcome, Started, Verdict
from actors.core.task import Move, Phase, State
from actors.ledger import Ledger
from tests.support.cluster import Cluster, Member, submit_some

COUNT = 60


class Sinks:
    """The calls that hub, desk and ledger of a node got."""

    def __init__(self, member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, int]] = []
        self._patch = monkeypatch
        self._watch(member.node, "_publish", "publish")
        self._watch(member.node.desk, "put", "offer")
        self._watch(member.node.ledger, "put", "write")

    def _watch(self, target: object, name: str, kind: str) -> None:
        call: Callable[[list[object]], None] = getattr(target, name)

        def watched(items: list[object]) -> None:
            self.calls.append((kind, len(items)))
            call(items)

        self._patch.setattr(target, name, watched)


async def test_the_steps_of_many_shards_tasks_cost_one_call_each(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await cluster.start()
    ids = await submit_some(member, COUNT, delay_ms=500)
    assert len({cluster.row(task_id).shard for task_id in ids}) > COUNT // 2
    await asyncio.sleep(0.3)
    sinks = Sinks(member, monkeypatch)
    await cluster.ended(ids)
    counts = {kind: [number for name, number in sinks.calls if name == kind] for kind in ("offer", "publish")}
    assert counts == {"offer": [COUNT], "publish": [COUNT, COUNT]}
    assert sinks.calls.index(("offer", COUNT)) < sinks.calls.index(("publish", COUNT))


async def test_running_is_told_before_the_end_of_the_attempt_when_both_come_in_one_turn(cluster: Cluster) -> None:
    member = await cluster.start()
    member.dispatcher.working.clear()
    ids = await submit_some(member, COUNT)
    await asyncio.sleep(0.1)
    node = member.node
    taken = node.take(COUNT)
    assert {task.id for task in taken} == set(ids)
    told = [change.id for change in member.changes if change.state is State.RUNNING]
    assert sorted(told) == sorted(ids), "before whoever took them can end them"
    now_ms = node.clock.now_ms()
    node.ended([Outcome(task, task.epoch, 1, Verdict.SUCCEEDED, now_ms, now_ms) for task in taken])
    await cluster.ended(ids)
    for task_id in ids:
        states = [change.state for change in member.changes if change.id == task_id]
        assert states == [State.SCHEDULED, State.RUNNING, State.SUCCEEDED]


async def test_who_is_answered_finds_the_change_published(cluster: Cluster) -> None:
    member = await cluster.start()
    ids = await submit_some(member, COUNT, delay_ms=5_000)
    late: list[Change] = []

    async def cancel(task_id: str) -> None:
        change = await member.node.ask(Command(Move.CANCEL, task_id, None))
        assert change is not None
        if change not in member.changes:
            late.append(change)

    async with asyncio.TaskGroup() as group:
        for task_id in ids:
            group.create_task(cancel(task_id))
    assert late == []
    assert len(member.changes) == 2 * COUNT


async def test_a_shard_that_is_lost_in_a_slice_starts_nothing_and_the_others_go_on(cluster: Cluster) -> None:
    member = await cluster.start()
    member.dispatcher.working.clear()
    ids = await submit_some(member, COUNT)
    await asyncio.sleep(0.1)
    node = member.node
    shard = cluster.row(ids[0]).shard
    mine = [task_id for task_id in ids if cluster.row(task_id).shard == shard]
    known = node.hand.actors[shard].state.holding.known
    tasks = [known[task_id] for task_id in mine]
    node.hand.actors[shard].state.lost = True
    node.hand.apply([(shard, Ended([]))])
    assert shard not in member.owned
    assert {task.phase for task in tasks} == {Phase.GONE}
    assert node.stats.shard_losses == 1
    node.hand.apply([(shard, Started(tasks))])
    assert {task.id for task in node.take(2 * COUNT)} == set(ids) - set(mine)


async def test_what_comes_due_is_taken_in_the_call_that_finds_it_due(cluster: Cluster) -> None:
    member = await cluster.start()
    member.dispatcher.working.clear()
    node = member.node
    ids = await submit_some(member, COUNT, delay_ms=300)
    due_ms = min(cluster.row(task_id).due_ms for task_id in ids)
    taken: list[tuple[int, int]] = []
    node.serve(lambda: taken.append((len(node.take(2 * COUNT)), node.clock.now_ms())))
    await asyncio.sleep(0.2)
    assert sum(count for count, _ in taken) == 0
    await asyncio.sleep(0.2)
    assert (COUNT, due_ms) in taken


async def test_a_writer_that_fails_ends_the_node(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    member = await cluster.start()

    def fail(ledger: Ledger, records: list[object]) -> None:
        raise LookupError

    monkeypatch.setattr(Ledger, "put", fail)
    await submit_some(member, 1)
    assert isinstance(await member.failed(), LookupError)
