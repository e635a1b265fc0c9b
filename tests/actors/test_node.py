"""The way of a task through one node: accepted, fired, tried again, finished; and what the node refuses."""

import asyncio
from collections import Counter
from itertools import pairwise

import pytest

from actors import hand, ledger, node
from actors.core.changes import version
from actors.core.draft import Receipt
from actors.core.errors import Invalid, KeyReused, Overloaded, Unavailable
from actors.core.events import Ended, Outcome, Verdict
from actors.core.retry import RetryPolicy
from actors.core.spec import Spec
from actors.core.task import Phase, State, Task
from actors.hand import SLICE_EVENTS
from actors.node import HORIZON_MS
from actors.ports.reader import TaskRow
from storage.memory import Fault
from tests.support.builders import OTHER_HASH, SPEC
from tests.support.cluster import Cluster, Member, draft, submit, submit_some
from tests.support.scripted import Step, always, in_turn

FAILED = Step(Verdict.FAILED, error="HTTP 500")
HOUR_MS = 3_600_000


async def test_a_task_runs_at_once_and_is_finished(cluster: Cluster) -> None:
    member = await cluster.start()
    queue = await member.queues.ensure("default", "emails")
    (receipt,) = await submit(member, [draft(queue, payload=b"hello")])
    await cluster.ended([receipt.id])
    (run,) = cluster.runs
    assert (run.id, run.payload, run.attempt) == (receipt.id, b"hello", 1)
    assert run.at_ms - receipt.schedule_ms < 5
    row = cluster.row(receipt.id)
    assert (row.state, row.attempt, row.rev) == (State.SUCCEEDED, 1, 1)
    assert [(change.state, change.version) for change in member.changes] == [
        (State.SCHEDULED, version(0, 0)),
        (State.RUNNING, version(0, 1)),
        (State.SUCCEEDED, version(1, 0)),
    ]
    assert member.node.stats.accepted == member.node.stats.finished[State.SUCCEEDED] == 1
    assert member.node.stats.attempts[Verdict.SUCCEEDED] == 1
    assert sum(member.node.stats.lateness_counts) == 1


@pytest.mark.parametrize("delay_ms", [1, 20, 999, 59_000, HORIZON_MS + 1, HOUR_MS])
async def test_a_delayed_task_runs_at_its_time(small: Cluster, delay_ms: int) -> None:
    cluster = small
    member = await cluster.start()
    queue = await member.queues.ensure("default", "emails")
    (receipt,) = await submit(member, [draft(queue, delay_ms=delay_ms, payload=b"x" * 100)])
    await cluster.ended([receipt.id], within_s=delay_ms / 1_000 + 5)
    (run,) = cluster.runs
    assert 0 <= run.at_ms - receipt.schedule_ms <= 10
    assert run.payload == b"x" * 100
    assert member.node.stats.probe_finds == 0


async def test_far_tasks_cost_no_memory(small: Cluster) -> None:
    cluster = small
    member = await cluster.start()
    ids = await submit_some(member, 500, delay_ms=HOUR_MS)
    await asyncio.sleep(600)
    assert sum(len(actor.state.holding.known) for actor in member.node.hand.actors.values()) == 0
    assert member.task(ids[0]) is None
    await cluster.ended(ids, within_s=3_100)
    assert len(cluster.runs) == 500


async def test_failures_are_tried_again_until_the_budget_is_used(cluster: Cluster) -> None:
    member = await cluster.start(script=always(FAILED))
    (task_id,) = await submit_some(member, 1)
    await cluster.ended([task_id])
    runs = cluster.runs_of(task_id)
    assert [run.attempt for run in runs] == [1, 2, 3, 4, 5]
    waits = [round(after.at_ms - before.at_ms, -2) for before, after in pairwise(runs)]
    assert waits == [500, 1_000, 2_000, 4_000]
    assert cluster.state(task_id) is State.DEAD
    assert [run.fence for run in runs] == sorted({run.fence for run in runs})


async def test_a_retry_succeeds(cluster: Cluster) -> None:
    member = await cluster.start(script=in_turn(FAILED, FAILED, Step(result=b"done")))
    (task_id,) = await submit_some(member, 1)
    await cluster.ended([task_id])
    row = cluster.row(task_id)
    assert (row.state, row.attempt, row.result) == (State.SUCCEEDED, 3, b"done")
    assert member.node.stats.attempts[Verdict.FAILED] == 2


async def test_a_target_that_says_never_ends_its_task(cluster: Cluster) -> None:
    member = await cluster.start(script=always(Step(Verdict.NEVER)))
    (task_id,) = await submit_some(member, 1)
    await cluster.ended([task_id])
    assert len(cluster.runs) == 1
    assert cluster.state(task_id) is State.DEAD


async def test_what_was_not_sent_is_offered_again_and_costs_no_attempt(cluster: Cluster) -> None:
    steps = iter([Step(Verdict.UNSENT), Step(Verdict.UNSENT, retry_after_ms=3_000), Step()])
    member = await cluster.start(script=lambda task: next(steps))
    (task_id,) = await submit_some(member, 1)
    started_ms = cluster.now_ms()
    await cluster.ended([task_id])
    (run,) = cluster.runs
    assert run.attempt == 1
    assert 3_000 <= run.at_ms - started_ms <= 3_020


async def test_a_task_that_nobody_takes_in_time_expires(cluster: Cluster) -> None:
    member = await cluster.start()
    member.dispatcher.working.clear()
    queue = await member.queues.ensure("default", "emails")
    (receipt,) = await submit(member, [draft(queue, spec=Spec(http=SPEC.http, ttl_ms=2_000))])
    await cluster.ended([receipt.id])
    row = cluster.row(receipt.id)
    assert row.state is State.EXPIRED
    assert row.finish_ms is not None
    assert 2_000 <= row.finish_ms - row.schedule_ms <= 2_010
    assert cluster.runs == []


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 1_000_000])
@pytest.mark.parametrize("delay_ms", [None, 1_500, 30_000])
async def test_a_payload_is_there_when_its_task_starts(cluster: Cluster, size: int, delay_ms: int | None) -> None:
    member = await cluster.start()
    queue = await member.queues.ensure("default", "emails")
    payload = bytes(size)
    (receipt,) = await submit(member, [draft(queue, payload=payload, delay_ms=delay_ms)])
    await cluster.ended([receipt.id])
    (run,) = cluster.runs
    assert run.payload == payload


async def test_a_slow_attempt_is_claimed_after_half_a_second_on_an_idle_node(cluster: Cluster) -> None:
    member = await cluster.start(script=always(Step(takes_ms=3_000)))
    (task_id,) = await submit_some(member, 1)
    await cluster.until(lambda: bool(cluster.runs))
    started_ms = cluster.now_ms()
    await cluster.until(lambda: cluster.row(task_id).claim_ms is not None)
    assert 500 <= cluster.now_ms() - started_ms <= 510
    await cluster.ended([task_id])
    assert cluster.row(task_id).rev == 2


async def test_a_long_backlog_is_taken_as_fast_as_it_is_asked_for(cluster: Cluster) -> None:
    member = await cluster.start()
    member.dispatcher.limit = 10
    started_ms = cluster.now_ms()
    ids = await submit_some(member, 2_000)
    await cluster.ended(ids)
    assert len(cluster.runs) == 2_000
    assert cluster.now_ms() - started_ms < 100


async def test_a_dispatcher_is_told_until_nothing_is_left(cluster: Cluster) -> None:
    member = await cluster.start()
    member.dispatcher.working.clear()
    told = asyncio.Event()
    member.node.serve(told.set)
    await submit_some(member, 3)
    taken: list[int] = []
    async with asyncio.timeout(0.05):
        while sum(taken) < 3:
            await told.wait()
            told.clear()
            taken.append(len(member.node.take(2)))
    assert [count for count in taken if count] == [2, 1]
    await asyncio.sleep(0.05)
    assert not told.is_set()
    assert member.node.take(2) == []


async def test_a_dispatcher_that_comes_late_is_told_and_one_that_left_is_not(cluster: Cluster) -> None:
    member = await cluster.start()
    member.dispatcher.working.clear()
    await submit_some(member, 1)
    await asyncio.sleep(0.05)
    told = asyncio.Event()
    member.node.serve(told.set)
    async with asyncio.timeout(0.01):
        await told.wait()
    assert len(member.node.take(2)) == 1
    told.clear()
    member.node.serve(None)
    await submit_some(member, 1)
    await asyncio.sleep(0.05)
    assert not told.is_set()


# --- idempotency keys


async def test_one_key_sent_64_times_at_once_is_one_task_that_runs_once(cluster: Cluster) -> None:
    member = await cluster.start()
    queue = await member.queues.ensure("default", "emails")
    async with asyncio.TaskGroup() as group:
        sent = [group.create_task(submit(member, [draft(queue, key="k")])) for _ in range(64)]
    receipts = [receipt for one in sent for receipt in one.result()]
    assert len({receipt.id for receipt in receipts}) == 1
    assert sum(receipt.new for receipt in receipts) == 1
    await cluster.ended([receipts[0].id])
    await asyncio.sleep(60)
    assert len(cluster.runs) == 1
    assert member.node.stats.replayed == 63


async def test_200_keys_sent_again_and_again_while_they_finish_run_once_each(cluster: Cluster) -> None:
    member = await cluster.start(script=lambda task: Step(takes_ms=hash(task.id) % 20))
    queue = await member.queues.ensure("default", "emails")
    keys = [f"key-{number}" for number in range(200)]
    seen: dict[str, set[str]] = {key: set() for key in keys}
    new: Counter[str] = Counter()

    async def send() -> None:
        for receipt, key in zip(await submit(member, [draft(queue, key=key) for key in keys]), keys, strict=True):
            seen[key].add(receipt.id)
            new[key] += receipt.new

    async with asyncio.TaskGroup() as group:
        for delay in range(40):
            await asyncio.sleep(delay / 1_000)
            group.create_task(send())
    await cluster.ended([task_id for ids in seen.values() for task_id in ids])
    await asyncio.sleep(30)
    assert all(len(ids) == 1 for ids in seen.values())
    assert set(new.values()) == {1}
    assert Counter(run.id for run in cluster.runs) == Counter(task_id for ids in seen.values() for task_id in ids)
    assert member.node.stats.probe_finds == 0


async def test_a_key_is_remembered_after_its_task_finished(cluster: Cluster) -> None:
    member = await cluster.start()
    queue = await member.queues.ensure("default", "emails")
    (first,) = await submit(member, [draft(queue, key="k")])
    await cluster.ended([first.id])
    (again,) = await submit(member, [draft(queue, key="k")])
    assert (again.id, again.new, again.state) == (first.id, False, State.SUCCEEDED)
    (other,) = await member.node.intake.submit([draft(queue, key="k", key_hash=OTHER_HASH)])
    assert isinstance(other, KeyReused)


async def test_a_mixed_batch_is_answered_in_order_and_bad_items_are_refused_alone(cluster: Cluster) -> None:
    member = await cluster.start()
    queue = await member.queues.ensure("default", "emails")
    drafts = [draft(queue, key=f"k{n}" if n % 3 else None, payload=str(n).encode()) for n in range(30)]
    drafts[4].labels = drafts[9].labels = '{"a":"\\u0000"}'
    answers = await member.node.intake.submit(drafts)
    assert [n for n, answer in enumerate(answers) if isinstance(answer, Invalid)] == [4, 9]
    good = [(n, answer) for n, answer in enumerate(answers) if isinstance(answer, Receipt)]
    assert len(good) == 28
    await cluster.ended([receipt.id for _, receipt in good])
    payloads = {run.id: run.payload for run in cluster.runs}
    assert payloads == {receipt.id: str(n).encode() for n, receipt in good}


@pytest.mark.parametrize("statement", ["accept", "accept_keyed"])
@pytest.mark.parametrize("fault", list(Fault))
async def test_a_lost_commit_is_answered_unavailable_and_the_same_key_gives_one_task(
    cluster: Cluster, statement: str, fault: Fault
) -> None:
    member = await cluster.start()
    queue = await member.queues.ensure("default", "emails")
    key = "k" if statement == "accept_keyed" else None
    member.wire.fail_next(statement, fault)
    with pytest.raises(Unavailable):
        await member.node.intake.submit([draft(queue, key=key)])
    (receipt,) = await submit(member, [draft(queue, key=key)])
    await asyncio.sleep(30)
    accepted = 2 if fault is Fault.REPLY_LOST and key is None else 1
    assert len(cluster.database.finished) == accepted
    assert receipt.id in cluster.database.finished
    assert len(cluster.runs) == accepted


async def test_tasks_of_one_ring_key_share_a_shard(cluster: Cluster) -> None:
    member = await cluster.start()
    queue = await member.queues.ensure("default", "emails")
    drafts = [draft(queue, ring_key="user-7", key=f"k{n}" if n % 2 else None) for n in range(20)]
    assert len({receipt.shard for receipt in await submit(member, drafts)}) == 1


# --- pauses


async def pause(cluster: Cluster, paused: bool) -> None:
    """As an operator's command on some other node."""
    for row in cluster.database.queues.values():
        row.paused = paused
        row.version += 1
    cluster.database.settings_version += 1


@pytest.mark.parametrize("lost", [0, 3])
async def test_a_paused_queue_waits_and_goes_on_a_second_later_at_most(cluster: Cluster, lost: int) -> None:
    member = await cluster.start()
    await member.queues.ensure("default", "emails")
    await pause(cluster, True)
    for _ in range(lost):
        member.wire.fail_next("refresh")
    await asyncio.sleep(0.6 + lost * 0.5)
    ids = await submit_some(member, 10)
    other = await submit_some(member, 1, "others")
    await cluster.ended(other)
    await asyncio.sleep(20)
    assert [run.id for run in cluster.runs] == other
    await pause(cluster, False)
    await cluster.ended(ids, within_s=1)


# --- hints, and the probe


async def test_without_any_hint_the_probe_finds_all_within_six_seconds(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await cluster.start()
    monkeypatch.setattr(member.node.intake, "_hint", lambda tasks, at_ms: None)
    await asyncio.sleep(1.3)
    ids = await submit_some(member, 300)
    await cluster.ended(ids)
    assert max(run.at_ms - run.schedule_ms for run in cluster.runs) <= 6_000
    assert len(cluster.runs) == member.node.stats.probe_finds == 300


async def test_a_full_probe_finds_what_is_older_than_the_usual_stretch(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await cluster.start()
    monkeypatch.setattr(member.node.intake, "_hint", lambda tasks, at_ms: None)
    await asyncio.sleep(1)
    queue = await member.queues.ensure("default", "emails")
    (receipt,) = await submit(member, [draft(queue)])
    cluster.row(receipt.id).due_ms -= 10 * HOUR_MS
    await cluster.ended([receipt.id], within_s=66)
    assert member.node.stats.probe_finds == 1


async def test_the_probe_survives_an_outage(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    member = await cluster.start()
    monkeypatch.setattr(member.node.intake, "_hint", lambda tasks, at_ms: None)
    await asyncio.sleep(1)
    ids = await submit_some(member, 20)
    for _ in range(64):
        member.wire.fail_next("load")
    await asyncio.sleep(6)
    assert not cluster.runs
    await cluster.ended(ids, within_s=5)


async def test_a_healthy_node_under_load_has_nothing_for_the_probe(cluster: Cluster) -> None:
    member = await cluster.start(script=lambda task: Step(takes_ms=hash(task.id) % 900))
    ids: list[str] = []
    for number in range(60):
        ids += await submit_some(member, 40, delay_ms=number * 37 % 9_000)
        await asyncio.sleep(0.4)
    await cluster.ended(ids)
    assert len(cluster.runs) == 2_400
    assert member.node.stats.probe_finds == 0
    assert max(run.at_ms - run.schedule_ms for run in cluster.runs) < 20


# --- limits


def held(member: Member) -> int:
    return sum(len(actor.state.holding.known) for actor in member.node.hand.actors.values())


async def test_of_many_due_pull_tasks_that_nobody_takes_most_stay_in_the_tables(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "HELD", 8_192)
    member = await cluster.start()
    queue = await member.queues.ensure("default", "pulled")
    for _ in range(20):
        await submit(member, [draft(queue, spec=Spec(), payload=b"x" * 50) for _ in range(2_000)])
    await asyncio.sleep(120)
    assert held(member) <= 2 * node.HELD
    emails = await submit_some(member, 10)
    started_ms = cluster.now_ms()
    await cluster.ended(emails)
    assert cluster.now_ms() - started_ms < 100
    assert len(cluster.database.live._by_id) == 40_000


async def test_what_a_node_holds_is_shared_among_the_queues_in_use(cluster: Cluster) -> None:
    member = await cluster.start()
    actors = member.node.hand.actors.values()
    limit = node.HELD // 256
    assert {actor.state.holding.limit for actor in actors} == {limit}
    for number in range(8):
        await submit_some(member, 64, f"queue-{number}", delay_ms=5_000)
    await asyncio.sleep(1)
    assert {actor.state.holding.limit for actor in actors} == {
        node.HELD // sum(len(actor.state.holding.shares) for actor in actors)
    }
    await asyncio.sleep(60)
    assert {actor.state.holding.limit for actor in actors} == {limit}


async def test_a_backlog_of_many_payloads_is_read_ahead_and_not_all_at_once(cluster: Cluster) -> None:
    member = await cluster.start()
    member.dispatcher.working.clear()
    queue = await member.queues.ensure("default", "emails")
    payload = bytes(100_000)
    ids = [
        receipt.id
        for _ in range(10)
        for receipt in await submit(member, [draft(queue, payload=payload, delay_ms=5_000) for _ in range(200)])
    ]
    await asyncio.sleep(10)
    member.dispatcher.working.set()
    member.dispatcher.limit = 8
    most = 0
    while len(cluster.runs) < 2_000:
        known = (task for actor in member.node.hand.actors.values() for task in actor.state.holding.known.values())
        most = max(most, sum(len(task.payload or b"") for task in known if task.phase is Phase.OFFERED))
        cluster.changed.clear()
        await cluster.changed.wait()
    assert most <= 100 * 1024 * 1024
    assert all(run.payload == payload for run in cluster.runs)
    await cluster.ended(ids)


async def test_a_payload_that_can_not_be_read_yet_delays_its_task_only(cluster: Cluster) -> None:
    member = await cluster.start()
    queue = await member.queues.ensure("default", "emails")
    (receipt,) = await submit(member, [draft(queue, payload=bytes(20_000), delay_ms=3_000)])
    for _ in range(3):
        member.wire.fail_next("payloads")
    await cluster.ended([receipt.id])
    (run,) = cluster.runs
    assert 1_500 <= run.at_ms - run.schedule_ms <= 2_100


async def test_a_task_whose_row_is_gone_when_its_payload_is_read_is_dropped(cluster: Cluster) -> None:
    member = await cluster.start()
    queue = await member.queues.ensure("default", "emails")
    (receipt,) = await submit(member, [draft(queue, payload=bytes(20_000), delay_ms=3_000)])
    cluster.database.live.pop(receipt.id)
    await asyncio.sleep(10)
    assert cluster.runs == []
    assert member.task(receipt.id) is None


async def test_what_the_api_asks_of_a_live_task(cluster: Cluster) -> None:
    member = await cluster.start(script=always(Step(takes_ms=200)))
    (task_id,) = await submit_some(member, 1, delay_ms=1_000)
    await asyncio.sleep(0.1)
    task = member.task(task_id)
    assert task is not None
    phases = [task.phase]
    await cluster.until(lambda: bool(cluster.runs))
    phases.append(task.phase)
    assert phases == [Phase.WAITING, Phase.RUNNING]
    assert member.node.fence_of(task) == cluster.runs[0].fence == "00000001.0000000001.000001"


async def has_passed(member: Member, row: TaskRow) -> bool:
    live = (await member.node.look([row.id])).get(row.id)
    return live is not None and live.rev > row.rev


async def test_a_row_that_was_read_before_the_last_commit_is_told_from_a_new_one(cluster: Cluster) -> None:
    member = await cluster.start(script=always(Step(takes_ms=700)))
    (task_id,) = await submit_some(member, 1)
    before = await member.reader.get("default", task_id)
    assert before is not None
    await cluster.until(lambda: bool(cluster.runs))
    assert not await has_passed(member, before)
    task = member.task(task_id)
    assert task is not None
    await cluster.until(lambda: task.claim_ms is not None)
    claimed = await member.reader.get("default", task_id)
    assert claimed is not None
    assert await has_passed(member, before)
    assert not await has_passed(member, claimed)
    await cluster.ended([task_id])
    await cluster.until(lambda: member.task(task_id) is None)
    assert await has_passed(member, claimed)
    ended = await member.reader.get("default", task_id)
    assert ended is not None
    assert not await has_passed(member, ended)


async def test_nothing_starts_while_the_ledger_is_full(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "WAITING_RECORDS", 3)
    member = await cluster.start()
    gate = member.wire.hold_next("write")
    ids = await submit_some(member, 3) + await submit_some(member, 6, delay_ms=50)
    await cluster.until(lambda: member.node.ledger.full)
    await asyncio.sleep(0.1)
    assert member.node.desk
    assert member.node.take(1) == []
    assert len(cluster.runs) == 3
    gate.open()
    await cluster.ended(ids)
    assert len(cluster.runs) == 9


async def test_nothing_starts_while_ends_wait_to_be_read(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand, "ENDS", 1)
    member = await cluster.start()
    refused: list[bool] = []

    def take(limit: int) -> list[Task]:
        full, some = member.node.hand.full, bool(member.node.desk)
        tasks = take_any(limit)
        assert not (full and tasks)
        refused.append(full and some)
        return tasks

    take_any, member.node.take = member.node.take, take  # type: ignore[method-assign]
    ids = await submit_some(member, 3, delay_ms=50)
    await cluster.until(lambda: member.task(ids[0]) is not None)
    task = member.task(ids[0])
    assert task is not None
    stale = Ended([Outcome(task, 0, 1, Verdict.SUCCEEDED, 0, 0)])
    for _ in range(60):
        for _ in range(SLICE_EVENTS + 1):
            member.node.hand.post(task.shard, stale)
        await asyncio.sleep(0.001)
    assert any(refused)
    await asyncio.sleep(0.01)
    assert len(cluster.runs) == 3, "as soon as they are read, and not with the next heartbeat"
    await cluster.ended(ids)


async def test_before_the_first_beat_everything_is_unavailable(cluster: Cluster) -> None:
    cluster.way_ms = lambda: 500.0
    member = cluster.join()
    assert not member.node.ready
    assert member.node.take(1) == []
    assert member.task("00000001-0000-7000-8000-000000000080") is None
    with pytest.raises(Unavailable):
        await member.node.intake.submit([])


async def test_a_batch_larger_than_the_bound_is_refused(cluster: Cluster) -> None:
    member = await cluster.start()
    queue = await member.queues.ensure("default", "emails")
    with pytest.raises(Overloaded):
        await member.node.intake.submit([draft(queue)] * 50_001)


async def test_a_policy_of_its_own_bounds_a_tasks_retries(cluster: Cluster) -> None:
    member = await cluster.start(script=always(FAILED))
    queue = await member.queues.ensure("default", "emails")
    spec = Spec(http=SPEC.http, retry=RetryPolicy(max_attempts=2, min_backoff_ms=10))
    (receipt,) = await submit(member, [draft(queue, spec=spec)])
    await cluster.ended([receipt.id])
    assert len(cluster.runs) == 2


async def test_lateness_is_counted_once_when_the_first_attempt_was_sent(cluster: Cluster) -> None:
    unsent = Step(Verdict.UNSENT, retry_after_ms=1_000)
    steps = iter([unsent, unsent, FAILED, Step()])
    member = await cluster.start(script=lambda task: next(steps))
    (task_id,) = await submit_some(member, 1)
    await cluster.ended([task_id], within_s=10)
    stats = member.node.stats
    assert sum(stats.lateness_counts) == 1
    assert 2_000 <= stats.lateness_sum_ms < 2_100
