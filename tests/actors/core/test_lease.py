"""Leases of one shard: how they begin, go on, and end; what workers say of them, and what they hear."""

import pytest

from actors.core.events import Op, Verdict
from actors.core.lease import LAPSED, LEAST_MS, Kept, Said, lent
from actors.core.queue import Unheard
from actors.core.settle import HELD_MS
from actors.core.spec import Spec
from actors.core.task import Phase, State
from tests.actors.core.lease_stage import PERIOD_MS, LeaseStage
from tests.actors.core.stage import EPOCH
from tests.support.builders import SPEC, T0_MS

# --- a lease begins


@pytest.mark.parametrize(("deadline_ms", "period_ms"), [(None, PERIOD_MS), (9_000, 9_000), (200, LEAST_MS)])
def test_an_attempt_that_is_pulled_begins_with_a_full_period(deadline_ms: int | None, period_ms: int) -> None:
    stage = LeaseStage()
    task = stage.task(spec=Spec(dispatch_deadline_ms=deadline_ms))
    stage.hint(task)
    stage.now_ms += 70
    stage.start(task)
    assert task.lease_ms == T0_MS + 70 + period_ms
    given = lent(task)
    assert (given.id, given.queue, given.epoch, given.attempt, given.budget) == (task.id, 1, EPOCH, 1, 5)
    assert (given.schedule_ms, given.until_ms, given.period_ms) == (T0_MS, task.lease_ms, period_ms)


def test_a_webhook_has_no_lease() -> None:
    stage = LeaseStage()
    task = stage.task(spec=SPEC)
    stage.hint(task)
    stage.start(task)
    assert task.lease_ms == 0


def test_a_lease_is_claimed_after_half_a_second_and_looked_at_when_it_ends() -> None:
    stage = LeaseStage()
    task = stage.running()
    assert stage.shard.next_ms(stage.now_ms) == T0_MS + 500
    stage.tick(500)
    [record] = stage.records
    assert (record.op, record.state, record.due_ms) == (Op.MOVE, State.RUNNING, T0_MS)
    assert record.claim_ms == T0_MS + PERIOD_MS
    stage.record()
    assert (task.phase, task.wake_ms) == (Phase.RUNNING, task.lease_ms)


# --- a lease runs out


def test_a_lease_lapses_at_its_time_and_the_task_is_due_again() -> None:
    stage = LeaseStage()
    task = stage.claimed()
    stage.tick(PERIOD_MS - 501)
    assert (stage.records, stage.shard.tally.lapsed) == ([], 0)
    stage.tick(1)
    [record] = stage.records
    assert (record.op, record.state, record.due_ms) == (Op.MOVE, State.SCHEDULED, T0_MS)
    assert (record.attempt, record.claim_ms, stage.shard.tally.lapsed) == (1, None, 1)
    assert record.outcome is not None
    assert (record.outcome.verdict, record.outcome.error) == (Verdict.LOST, LAPSED)
    stage.record()
    assert (stage.offers, task.lease_ms, task.last) == ([task], 0, (None, LAPSED))
    stage.start(task)
    assert (task.attempt, task.lease_ms) == (2, stage.now_ms + PERIOD_MS)


def test_the_last_attempts_lease_lapses_into_death() -> None:
    stage = LeaseStage()
    stage.claimed(budget=1)
    stage.tick(PERIOD_MS)
    [record] = stage.records
    assert (record.op, record.state) == (Op.FINISH, State.DEAD)


def test_a_lease_that_ends_while_its_claim_is_written_lapses_then() -> None:
    stage = LeaseStage()
    stage.running()
    stage.tick(500)
    [claim] = stage.records
    stage.tick(PERIOD_MS)
    assert stage.records == []
    stage.record(claim)
    stage.tick(1)
    [record] = stage.records
    assert record.outcome is not None
    assert record.outcome.verdict is Verdict.LOST


def test_a_lease_that_lapses_in_a_queue_that_holds_is_held() -> None:
    stage = LeaseStage(unknown=Unheard.HOLD)
    task = stage.sent()
    stage.tick(PERIOD_MS)
    [record] = stage.records
    assert (record.state, record.claim_ms, record.due_ms) == (State.RUNNING, HELD_MS, HELD_MS)
    stage.record()
    assert (stage.shard.tally.held, task.phase) == (1, Phase.GONE)


def test_a_lease_that_lapses_in_a_queue_that_waits_has_waited() -> None:
    stage = LeaseStage(unknown=Unheard.WAIT_DEADLINE)
    task = stage.sent()
    stage.tick(PERIOD_MS)
    [record] = stage.records
    assert (record.state, record.due_ms) == (State.SCHEDULED, T0_MS)
    stage.record()
    assert stage.offers == [task]


@pytest.mark.parametrize("unknown", [Unheard.HOLD, Unheard.WAIT_DEADLINE])
def test_what_no_worker_got_has_no_lease_that_lapses(unknown: Unheard) -> None:
    stage = LeaseStage(unknown=unknown)
    task = stage.ready()
    stage.tick(PERIOD_MS)
    [record] = stage.records
    assert (record.state, record.attempt, stage.shard.tally.lapsed) == (State.SCHEDULED, 0, 0)
    stage.record()
    assert (stage.offers, task.lease_ms) == ([task], 0)


def test_what_is_claimed_ahead_has_a_full_period_from_when_it_is_handed_out() -> None:
    stage = LeaseStage(unknown=Unheard.HOLD)
    task = stage.ready()
    stage.now_ms += 1_500
    stage.hand_out(task)
    assert lent(task).until_ms == stage.now_ms + PERIOD_MS
    stage.tick(PERIOD_MS - 1)
    assert (stage.records, task.phase) == ([], Phase.RUNNING)
    stage.tick(1)
    assert len(stage.records) == stage.shard.tally.lapsed == 1


def test_an_attempt_that_is_taken_back_has_no_lease() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.end(task, Verdict.UNSENT)
    assert (task.lease_ms, task.attempt, stage.offers) == (0, 0, [task])


# --- a lease is extended


def test_an_extended_lease_ends_a_period_later() -> None:
    stage = LeaseStage()
    task = stage.claimed()
    stage.tick(20_000)
    until_ms = stage.now_ms + PERIOD_MS
    assert stage.extend(task) == Kept(task.id, EPOCH, 1, Said.RECORDED, until_ms)
    assert stage.records == []
    stage.tick(PERIOD_MS - 20_500)
    assert (stage.records, task.phase, task.wake_ms) == ([], Phase.RUNNING, until_ms)
    stage.now_ms = until_ms - 1
    stage.tick()
    assert stage.records == []
    stage.tick(1)
    assert len(stage.records) == stage.shard.tally.lapsed == 1


def test_a_lease_may_be_extended_again_and_again() -> None:
    stage = LeaseStage()
    task = stage.claimed()
    for _ in range(50):
        stage.tick(PERIOD_MS - 1_000)
        assert stage.extend(task).said == Said.RECORDED
    assert (task.attempt, task.phase, stage.shard.tally.lapsed) == (1, Phase.RUNNING, 0)


@pytest.mark.parametrize(("by_ms", "lasts_ms"), [(90_000, 90_000), (2_000, 2_000), (1, LEAST_MS)])
def test_a_lease_is_extended_by_what_is_asked_for(by_ms: int, lasts_ms: int) -> None:
    stage = LeaseStage()
    task = stage.claimed()
    assert stage.extend(task, by_ms).until_ms == stage.now_ms + lasts_ms
    stage.tick(lasts_ms - 1)
    assert (stage.records, stage.shard.tally.lapsed) == ([], 0)
    stage.tick(1)
    assert len(stage.records) == stage.shard.tally.lapsed == 1


@pytest.mark.parametrize("by_ms", [2_000, 90_000])
def test_a_lease_that_is_extended_before_it_is_claimed_lasts_as_long(by_ms: int) -> None:
    stage = LeaseStage()
    task = stage.running()
    until_ms = stage.extend(task, by_ms).until_ms
    stage.tick(500)
    stage.record()
    assert (until_ms, task.wake_ms) == (T0_MS + by_ms, T0_MS + by_ms)


def test_a_lease_is_extended_while_its_claim_is_written() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.tick(500)
    [claim] = stage.records
    assert stage.extend(task, 90_000).said == Said.RECORDED
    stage.record(claim)
    assert task.wake_ms == T0_MS + 500 + 90_000


def test_under_another_fence_there_is_nothing_to_extend() -> None:
    stage = LeaseStage()
    task = stage.claimed()
    before_ms = task.lease_ms
    for epoch, attempt in ((EPOCH - 1, 1), (EPOCH, 2), (EPOCH, 0)):
        assert stage.extend(task, 90_000, epoch=epoch, attempt=attempt) == Kept(task.id, epoch, attempt, Said.OVER)
    assert task.lease_ms == before_ms


def test_what_does_not_run_is_not_extended() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.report(task)
    assert stage.extend(task).said == Said.OVER
    waiting = stage.waiting()
    assert stage.extend(waiting).said == Said.OVER


def test_a_lease_of_a_task_that_went_a_moment_ago_is_over() -> None:
    stage = LeaseStage(loaded=False)
    stage.tick()
    task = stage.task()
    stage.hint(task)
    stage.start(task)
    stage.report(task)
    stage.record()
    assert stage.extend(task).said == Said.OVER


def test_what_would_be_in_memory_if_it_ran_is_over() -> None:
    assert LeaseStage().extend(LeaseStage().task(), epoch=EPOCH, attempt=1).said == Said.OVER


def test_a_lease_is_unsure_until_all_that_may_run_was_read() -> None:
    stage = LeaseStage(loaded=False)
    assert stage.extend(stage.task()).said == Said.UNSURE
    stage.tick()
    assert stage.extend(stage.task()).said == Said.UNSURE


def test_a_lease_is_unsure_while_a_backlog_rests_in_the_tables() -> None:
    stage = LeaseStage(limit=2)
    stage.hint(*[stage.task() for _ in range(6)])
    assert stage.shard.holding.spilled
    assert stage.extend(stage.task()).said == Said.UNSURE
