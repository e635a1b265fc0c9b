"""Commands through a node: on every state, against firing, and when nobody is there to carry them out."""

import asyncio
from collections import Counter

import pytest

from actors.asking import ASK_LIMIT_S, OWNER_WAIT_S
from actors.core.changes import version
from actors.core.errors import Conflict, Overloaded, RingwheelError, Unavailable, Unknown
from actors.core.events import Change, Command, Outcome, Verdict
from actors.core.spec import Spec
from actors.core.task import MOVES, Move, State
from storage.memory import Fault
from tests.support.builders import SPEC, task_id
from tests.support.cluster import Cluster, Member, draft, submit, submit_some
from tests.support.scripted import Step, always, succeed

COMMANDS = [Move.CANCEL, Move.RUN, Move.RESCHEDULE, Move.REDRIVE, Move.SUCCEED, Move.RETRY, Move.DIE]
LATER_MS = 3_600_000


async def ask(member: Member, move: Move, id: str, **more: object) -> Change | None:  # noqa: A002
    return await member.node.ask(Command(move, id, None, **more))  # type: ignore[arg-type]


def completion(cluster: Cluster, id: str, verdict: Verdict = Verdict.SUCCEEDED) -> Outcome:  # noqa: A002
    """As its target sends it: with the fence of the task's last run, if there was one."""
    runs = cluster.runs_of(id)
    epoch, attempt = (runs[-1].epoch, runs[-1].attempt) if runs else (1, 1)
    now_ms = int(cluster.now_ms())
    return Outcome(None, epoch, attempt, verdict, now_ms, now_ms, jitter=0.5)  # type: ignore[arg-type]


async def in_state(cluster: Cluster, member: Member, state: str) -> str:
    """A task that is in that state, and stays in it for an hour unless a command comes."""
    steps = {
        "running": Step(takes_ms=LATER_MS),
        "claimed": Step(takes_ms=LATER_MS),
        "later": Step(Verdict.LATER),
        "succeeded": Step(),
        "dead": Step(Verdict.NEVER),
    }
    queue = await member.queues.ensure("default", "emails")
    ttl_ms = 1_000 if state == "expired" else None
    spec = Spec(http=SPEC.http, dispatch_deadline_ms=3 * LATER_MS, ttl_ms=ttl_ms)
    member.dispatcher.script = always(steps.get(state, Step()))
    if state in ("offered", "expired"):
        member.dispatcher.working.clear()
    delay_ms = {"waiting": 30_000, "far": 2 * LATER_MS, "cancelled": 30_000}.get(state)
    (receipt,) = await submit(member, [draft(queue, spec=spec, delay_ms=delay_ms)])
    if state == "cancelled":
        await ask(member, Move.CANCEL, receipt.id)
    if state in ("succeeded", "dead", "expired"):
        await cluster.ended([receipt.id])
    if state in ("claimed", "later"):
        await cluster.until(lambda: cluster.row(receipt.id).claim_ms is not None)
    await asyncio.sleep(0.1)
    member.dispatcher.script = succeed
    return receipt.id


PUBLIC = {
    "waiting": State.SCHEDULED,
    "far": State.SCHEDULED,
    "offered": State.SCHEDULED,
    "running": State.RUNNING,
    "claimed": State.RUNNING,
    "later": State.RUNNING,
    "succeeded": State.SUCCEEDED,
    "dead": State.DEAD,
    "expired": State.EXPIRED,
    "cancelled": State.CANCELLED,
}


@pytest.mark.parametrize("move", COMMANDS)
@pytest.mark.parametrize("state", PUBLIC)
async def test_every_command_on_every_state_does_what_the_table_says(state: str, move: Move) -> None:
    async with Cluster(shards=16) as cluster:
        member = await cluster.start()
        id = await in_state(cluster, member, state)  # noqa: A001
        more: dict[str, object] = {}
        if move in (Move.SUCCEED, Move.RETRY, Move.DIE):
            verdicts = {Move.RETRY: Verdict.FAILED, Move.DIE: Verdict.NEVER}
            more["outcome"] = completion(cluster, id, verdicts.get(move, Verdict.SUCCEEDED))
        if move is Move.RESCHEDULE:
            more["due_ms"] = int(cluster.now_ms()) + 5_000
        before = cluster.row(id).rev
        asked_ms = cluster.now_ms()
        to = MOVES.get((PUBLIC[state], move))
        if to is None:
            with pytest.raises(Conflict) as refused:
                await ask(member, move, id, **more)
            assert refused.value.state == PUBLIC[state]
            assert cluster.row(id).rev == before
            return
        change = await ask(member, move, id, **more)
        assert cluster.now_ms() - asked_ms < 10
        if to is PUBLIC[state] and to is not State.SCHEDULED:
            assert change is None
            return
        assert change is not None
        assert change.state is to
        assert cluster.row(id).rev == before + 1
        assert change.version == version(before + 1, 0)
        assert change in member.changes
        if to is State.SCHEDULED and state != "expired":
            member.dispatcher.working.set()
            await cluster.ended([id])
            assert cluster.state(id) is State.SUCCEEDED


async def test_an_id_that_nobody_knows_is_unknown(cluster: Cluster) -> None:
    member = await cluster.start()
    with pytest.raises(Unknown):
        await ask(member, Move.CANCEL, task_id(7, 200))


@pytest.mark.parametrize("delay_ms", [20_000, LATER_MS])
async def test_a_task_of_another_tenant_is_unknown(cluster: Cluster, delay_ms: int) -> None:
    member = await cluster.start()
    (id,) = await submit_some(member, 1, delay_ms=delay_ms)  # noqa: A001
    with pytest.raises(Unknown):
        await ask(member, Move.CANCEL, id, tenant="other")
    assert cluster.state(id) is State.SCHEDULED


async def test_a_cancelled_task_never_runs(cluster: Cluster) -> None:
    member = await cluster.start()
    ids = await submit_some(member, 50, delay_ms=2_000)
    for id in ids[:25]:  # noqa: A001
        await ask(member, Move.CANCEL, id)
    await cluster.ended(ids)
    assert {run.id for run in cluster.runs} == set(ids[25:])
    assert member.node.stats.finished[State.CANCELLED] == 25


async def test_cancels_against_firing_either_win_or_meet_a_conflict(cluster: Cluster) -> None:
    member = await cluster.start(script=lambda task: Step(takes_ms=hash(task.id) % 4))
    ids = await submit_some(member, 300, delay_ms=500)
    won: set[str] = set()
    lost: set[str] = set()

    async def cancel(id: str, after_s: float) -> None:  # noqa: A002
        await asyncio.sleep(after_s)
        try:
            await ask(member, Move.CANCEL, id)
        except Conflict:
            lost.add(id)
        else:
            won.add(id)

    async with asyncio.TaskGroup() as group:
        for number, id in enumerate(ids):  # noqa: A001
            group.create_task(cancel(id, 0.494 + number / 30_000))
    await cluster.ended(ids)
    assert won
    assert lost
    assert {run.id for run in cluster.runs} == lost
    assert {one for one in ids if cluster.state(one) is State.CANCELLED} == won


async def test_commands_on_one_task_are_carried_out_one_after_the_other(cluster: Cluster) -> None:
    member = await cluster.start()
    (id,) = await submit_some(member, 1, delay_ms=30_000)  # noqa: A001
    answers: list[object] = []

    async def reschedule(number: int) -> None:
        try:
            answers.append(await ask(member, Move.RESCHEDULE, id, due_ms=int(cluster.now_ms()) + 40_000 + number))
        except RingwheelError as error:
            answers.append(error)

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(reschedule(number))
    kinds = Counter(type(answer) for answer in answers)
    assert kinds == {Change: 65, Overloaded: 35}
    versions = [answer.version for answer in answers if isinstance(answer, Change)]
    assert versions == [version(number, 0) for number in range(1, 66)]
    await cluster.ended([id])
    assert len(cluster.runs) == 1


async def test_run_and_reschedule_move_the_time(cluster: Cluster) -> None:
    member = await cluster.start()
    now, soon, far = await submit_some(member, 3, delay_ms=LATER_MS)
    asked_ms = cluster.now_ms()
    await ask(member, Move.RUN, now)
    await ask(member, Move.RESCHEDULE, soon, due_ms=int(asked_ms) + 9_000)
    await ask(member, Move.RESCHEDULE, far, due_ms=int(asked_ms) + 300_000)
    await cluster.ended([now, soon, far], within_s=400)
    waited = {run.id: run.at_ms - asked_ms for run in cluster.runs}
    assert waited[now] < 10
    assert 9_000 <= waited[soon] < 9_010
    assert 300_000 <= waited[far] < 300_010


async def test_a_completion_under_an_old_fence_is_refused(cluster: Cluster) -> None:
    member = await cluster.start(script=lambda task: Step(Verdict.LATER if task.attempt == 2 else Verdict.FAILED))
    (id,) = await submit_some(member, 1)  # noqa: A001
    await cluster.until(lambda: bool(cluster.runs))
    old = completion(cluster, id)
    await cluster.until(lambda: cluster.row(id).claim_ms is not None)
    with pytest.raises(Conflict):
        await ask(member, Move.SUCCEED, id, outcome=old)
    change = await ask(member, Move.SUCCEED, id, outcome=completion(cluster, id))
    assert change is not None
    assert change.state is State.SUCCEEDED


async def test_a_completion_that_never_comes_fails_the_attempt_at_its_deadline(cluster: Cluster) -> None:
    member = await cluster.start(script=lambda task: Step(Verdict.LATER if task.attempt == 1 else Verdict.SUCCEEDED))
    (id,) = await submit_some(member, 1)  # noqa: A001
    await cluster.ended([id])
    first, second = cluster.runs_of(id)
    assert 30_000 <= second.at_ms - first.at_ms <= 31_010


# --- nobody is there


async def test_without_an_owner_a_command_is_unavailable_after_two_seconds(cluster: Cluster) -> None:
    member = await cluster.start()
    (id,) = await submit_some(member, 1, delay_ms=LATER_MS)  # noqa: A001
    cluster.give_away("somebody-else")
    await asyncio.sleep(0.6)
    asked_ms = cluster.now_ms()
    with pytest.raises(Unavailable):
        await ask(member, Move.CANCEL, id)
    assert cluster.now_ms() - asked_ms == pytest.approx(OWNER_WAIT_S * 1_000)


async def test_a_command_waits_for_its_owner_to_come(cluster: Cluster) -> None:
    member = await cluster.start()
    (id,) = await submit_some(member, 1, delay_ms=LATER_MS)  # noqa: A001
    cluster.give_away("somebody-else")
    await asyncio.sleep(0.6)
    cluster.give_away(member.boot)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(member, Move.RUN, id)) for _ in range(2)]
    assert all(one.result() is not None for one in asked)


async def test_a_command_whose_outcome_stays_unknown_is_answered_within_the_limit(cluster: Cluster) -> None:
    member = await cluster.start()
    (id,) = await submit_some(member, 1, delay_ms=30_000)  # noqa: A001
    asked_ms = cluster.now_ms()
    gate = member.wire.hold_next("write")
    with pytest.raises(Unavailable):
        await ask(member, Move.CANCEL, id)
    assert cluster.now_ms() - asked_ms == pytest.approx(ASK_LIMIT_S * 1_000, abs=5)
    gate.open()
    await cluster.ended([id])
    assert cluster.state(id) is State.CANCELLED


async def test_waiting_for_an_owner_counts_towards_the_limit(cluster: Cluster) -> None:
    member = await cluster.start()
    (id,) = await submit_some(member, 1, delay_ms=30_000)  # noqa: A001
    actors = dict(member.node.hand.actors)
    member.node.hand.actors.clear()
    gate = member.wire.hold_next("write")

    async def come() -> None:
        await asyncio.sleep(OWNER_WAIT_S - 0.1)
        member.node.hand.actors.update(actors)
        member.node.asking._owning.set()

    asked_ms = cluster.now_ms()
    member.wire.hold_next("beat")
    async with asyncio.TaskGroup() as group:
        group.create_task(come())
        with pytest.raises(Unavailable):
            await ask(member, Move.CANCEL, id)
    assert cluster.now_ms() - asked_ms <= ASK_LIMIT_S * 1_000 + 1
    gate.open()


async def test_a_look_up_that_fails_is_answered_unavailable(cluster: Cluster) -> None:
    member = await cluster.start()
    (id,) = await submit_some(member, 1, delay_ms=LATER_MS)  # noqa: A001
    member.wire.fail_next("find")
    with pytest.raises(Unavailable):
        await ask(member, Move.CANCEL, id)
    assert await ask(member, Move.CANCEL, id) is not None


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_command_whose_commit_is_lost_is_carried_out_once_all_the_same(cluster: Cluster, fault: Fault) -> None:
    member = await cluster.start()
    (id,) = await submit_some(member, 1, delay_ms=30_000)  # noqa: A001
    member.wire.fail_next("write", fault)
    change = await ask(member, Move.CANCEL, id)
    assert change is not None
    assert change.state is State.CANCELLED
    assert cluster.row(id).rev == 1


async def test_a_shard_that_goes_answers_its_waiting_commands(cluster: Cluster) -> None:
    member = await cluster.start()
    ids = await submit_some(member, 8, delay_ms=30_000)
    gate = member.wire.hold_next("write")
    asked_ms = cluster.now_ms()
    async with asyncio.TaskGroup() as group:

        async def refused(id: str) -> None:  # noqa: A002
            with pytest.raises(Unavailable):
                await ask(member, Move.CANCEL, id)

        for id in ids:  # noqa: A001
            group.create_task(refused(id))
        await gate.reached.wait()
        for row in cluster.database.shards.values():
            row.owner, row.epoch = None, row.epoch + 1
    assert cluster.now_ms() - asked_ms < 600
    gate.open()
    await asyncio.sleep(5)
    assert {cluster.state(one) for one in ids} == {State.SCHEDULED}
    assert await ask(member, Move.CANCEL, ids[0]) is not None


async def test_a_client_that_goes_away_leaves_nothing_behind(cluster: Cluster) -> None:
    member = await cluster.start()
    (id,) = await submit_some(member, 1, delay_ms=30_000)  # noqa: A001
    gate = member.wire.hold_next("write")
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(ask(member, Move.CANCEL, id))
        await gate.reached.wait()
        asking.cancel()
    gate.open()
    await cluster.ended([id])
    assert member.node.asking._waiting == {}


async def test_a_look_up_that_was_overtaken_by_the_tasks_end_is_a_conflict(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await cluster.start()
    await asyncio.sleep(1)
    monkeypatch.setattr(member.node.intake, "_hint", lambda tasks, at_ms: None)
    (id,) = await submit_some(member, 1)  # noqa: A001
    await asyncio.sleep(3)
    slow = iter([0.1, 4_000.0])
    cluster.way_ms = lambda: next(slow, 0.5)
    with pytest.raises(Conflict):
        await ask(member, Move.CANCEL, id)
    assert cluster.state(id) is State.SUCCEEDED
    assert [change.state for change in member.changes] == [State.RUNNING, State.SUCCEEDED]
