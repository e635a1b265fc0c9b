"""The life of a task in its shard: hints, starts, ends, ttl."""

import pytest

from actors.core.changes import version
from actors.core.events import Ended, Loaded, Op, Probed, Verdict
from actors.core.shard import AHEAD_MS, HINT_MS
from actors.core.task import Move, Phase, State, Task
from tests.actors.core.stage import EPOCH, HORIZON_MS, Stage, row
from tests.support.builders import T0_MS

# --- hints


def test_a_due_hint_is_offered_at_once() -> None:
    stage = Stage()
    task = stage.task()
    stage.hint(task)
    assert stage.offers == [task]
    assert task.phase is Phase.OFFERED


def test_a_hint_waits_until_it_is_due() -> None:
    stage = Stage()
    task = stage.waiting(in_ms=5_000)
    assert (stage.offers, task.phase) == ([], Phase.WAITING)
    stage.tick(4_999)
    assert stage.offers == []
    stage.tick(1)
    assert stage.offers == [task]


def test_the_shard_says_when_its_next_task_is_due() -> None:
    stage = Stage()
    stage.waiting(in_ms=40)
    assert stage.now_ms < stage.shard.next_ms(stage.now_ms) <= stage.now_ms + 40


def test_a_hint_beyond_the_horizon_costs_no_memory() -> None:
    stage = Stage()
    task = stage.waiting(in_ms=HORIZON_MS + 1)
    assert task.phase is Phase.GONE
    assert not stage.shard.holding.known


def test_a_hint_that_comes_twice_changes_nothing() -> None:
    stage = Stage()
    task, later = stage.offered(), stage.waiting()
    stage.hint(task, later)
    assert (task.phase, later.phase, stage.offers) == (Phase.OFFERED, Phase.WAITING, [])
    assert stage.shard.holding.shares[1].held == 2


def test_a_copy_of_a_hint_is_let_go() -> None:
    stage = Stage()
    task = stage.waiting()
    copy = row(task)
    stage.hint(copy)
    assert copy.phase is Phase.GONE
    assert stage.holds(task)


def test_a_hint_of_a_finished_task_is_not_armed() -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task)
    stage.record()
    stage.hint(row(task, rev=0))
    assert stage.offers == []


def test_a_hint_of_two_seconds_is_armed() -> None:
    stage = Stage()
    stage.now_ms += HINT_MS
    task = stage.task()
    stage.hint(task, late_ms=HINT_MS)
    assert stage.offers == [task]


def test_a_hint_by_a_clock_that_is_a_little_ahead_is_armed() -> None:
    stage = Stage()
    task = stage.task()
    stage.hint(task, late_ms=-AHEAD_MS)
    assert stage.offers == [task]


@pytest.mark.parametrize(
    ("late_ms", "epoch"), [(HINT_MS + 1, EPOCH), (-AHEAD_MS - 1, EPOCH), (0, EPOCH - 1), (0, EPOCH + 1), (0, 0)]
)
def test_a_hint_that_may_be_of_an_earlier_owner_is_read_from_the_tables_instead(late_ms: int, epoch: int) -> None:
    """As is one by a clock that was set back since, and one of whose sender did not know that the shard had come to
    this epoch, however young it seems: the owner before may have run it.
    """
    stage = Stage()
    stage.now_ms += 5_000
    task = stage.task()
    stage.hint(task, late_ms=late_ms, epoch=epoch)
    assert stage.offers == []
    [page] = stage.pages
    assert (page.queue_id, page.after_due_ms) == (1, task.due_ms - 1)
    fresh = row(task)
    stage.apply(Loaded(page, [fresh], {}))
    assert stage.offers == [fresh]


def test_an_older_hint_of_a_task_that_is_known_or_far_off_asks_for_nothing() -> None:
    stage = Stage()
    task = stage.waiting()
    stage.hint(task, stage.task(in_ms=HORIZON_MS + 1), late_ms=HINT_MS + 1)
    assert stage.pages == []
    assert stage.holds(task)


# --- starts


def test_a_start_counts_an_attempt_and_is_published() -> None:
    stage = Stage()
    task = stage.offered()
    stage.now_ms += 30
    stage.start(task)
    assert (task.phase, task.attempt, task.epoch, task.started_ms) == (Phase.RUNNING, 1, EPOCH, stage.now_ms)
    assert task.lateness_ms == 30
    [change] = stage.changes
    assert (change.id, change.state, change.attempt, change.version) == (task.id, State.RUNNING, 1, 1)
    assert (change.at_ms, change.lateness_ms, change.schedule_ms) == (stage.now_ms, 30, T0_MS)


def test_lateness_is_that_of_the_first_attempt() -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task, Verdict.FAILED, jitter=0.0)
    stage.record()
    stage.now_ms += 99
    stage.start(task)
    assert (task.attempt, task.lateness_ms) == (2, 0)


def test_a_task_that_was_run_before_its_time_is_not_late() -> None:
    stage = Stage()
    task = stage.task()
    task.schedule_ms += 5_000
    stage.hint(task)
    stage.start(task)
    assert task.lateness_ms == 0


def not_offered(stage: Stage) -> list[Task]:
    gone = stage.waiting(in_ms=HORIZON_MS + 1)
    return [stage.waiting(), stage.running(), stage.writing(), gone]


def test_only_what_is_offered_starts() -> None:
    stage = Stage()
    tasks = not_offered(stage)
    phases = [task.phase for task in tasks]
    assert phases == [Phase.WAITING, Phase.RUNNING, Phase.WRITING, Phase.GONE]
    stage.start(*tasks)
    assert [task.phase for task in tasks] == phases
    assert stage.changes == []


# --- ends


def test_success_is_recorded_then_published_then_forgotten() -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task, status=201)
    [record] = stage.records
    assert (record.op, record.state, record.epoch, record.rev) == (Op.FINISH, State.SUCCEEDED, EPOCH, 0)
    assert (task.phase, stage.changes) == (Phase.WRITING, [])
    stage.record()
    [change] = stage.changes
    assert (change.state, change.version, change.status, change.error) == (State.SUCCEEDED, version(1, 0), 201, None)
    assert task.phase is Phase.GONE
    assert not stage.shard.holding.known


def test_failure_waits_for_its_retry() -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task, Verdict.FAILED, status=500, error="boom")
    [record] = stage.records
    assert (record.op, record.due_ms) == (Op.MOVE, stage.now_ms + 500)
    stage.record()
    [change] = stage.changes
    assert (change.state, change.status, change.error) == (State.SCHEDULED, 500, "boom")
    assert (task.phase, task.rev, task.due_ms, task.started_ms) == (Phase.WAITING, 1, T0_MS + 500, 0)
    stage.tick(499)
    assert stage.offers == []
    stage.tick(1)
    assert stage.offers == [task]
    stage.start(task)
    assert task.attempt == 2


def test_a_retry_is_told_with_what_is_known_of_the_attempt_before() -> None:
    stage = Stage()
    task = stage.running()
    assert stage.changes[0][9:11] == (None, None)
    stage.end(task, Verdict.FAILED, status=503, error="busy")
    stage.record()
    stage.tick(3_600_000)
    stage.start(task)
    assert [(change.state, change.status, change.error) for change in stage.changes] == [(State.RUNNING, 503, "busy")]
    stage.end(task, Verdict.UNSENT)
    assert [(change.state, change.status, change.error) for change in stage.changes] == [(State.SCHEDULED, 503, "busy")]
    stage.ask(task, Move.CANCEL)
    stage.record()
    assert [(change.state, change.status, change.error) for change in stage.changes] == [(State.CANCELLED, 503, "busy")]


def test_a_retry_beyond_the_horizon_is_left_to_the_tables() -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task, Verdict.FAILED, retry_after_ms=HORIZON_MS + 1)
    stage.record()
    assert task.phase is Phase.GONE
    assert not stage.shard.holding.known


def test_an_older_read_does_not_bring_a_retry_back_before_its_time() -> None:
    """Read before the retry was written, answered after: the row's old due time has passed."""
    stage = Stage()
    task = stage.running()
    stage.tick(HORIZON_MS // 2)
    [page] = stage.pages
    stale = row(task)
    stage.record()
    stage.end(task, Verdict.FAILED, retry_after_ms=2 * HORIZON_MS)
    stage.record()
    stage.apply(Loaded(page, [stale], {}))
    assert stage.offers == []
    stage.apply(Probed([row(task, rev=0)], stage.now_ms))
    assert (stage.offers, stage.shard.tally.found) == ([], 0)


def test_a_newer_read_brings_the_retry_in() -> None:
    stage = Stage(limit=2)
    task = stage.running()
    stage.hint(*(stage.task(in_ms=10) for _ in range(5)))
    stage.end(task, Verdict.FAILED, retry_after_ms=2_000)
    stage.record()
    assert task.phase is Phase.GONE
    stage.apply(Probed([fresh := row(task, due_ms=stage.now_ms)], stage.now_ms))
    assert stage.offers == [fresh]


@pytest.mark.parametrize("verdict", [Verdict.NEVER, Verdict.FAILED])
def test_death_is_final(verdict: Verdict) -> None:
    stage = Stage()
    task = stage.running(budget=1)
    stage.end(task, verdict)
    assert [record.state for record in stage.records] == [State.DEAD]
    stage.record()
    assert not stage.shard.holding.known


def test_unsent_goes_back_to_the_desk_and_no_attempt_is_used() -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task, Verdict.UNSENT)
    assert (stage.offers, stage.records) == ([task], [])
    assert (task.phase, task.attempt, task.lateness_ms) == (Phase.OFFERED, 0, None)


def test_unsent_keeps_the_lateness_of_an_earlier_attempt() -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task, Verdict.FAILED, jitter=0.0)
    stage.record()
    stage.start(task)
    stage.end(task, Verdict.UNSENT)
    assert (task.attempt, task.lateness_ms) == (1, 0)


def test_unsent_may_ask_for_time() -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task, Verdict.UNSENT, retry_after_ms=300)
    assert (stage.offers, task.phase) == ([], Phase.WAITING)
    stage.tick(299)
    assert stage.offers == []
    stage.tick(1)
    assert stage.offers == [task]


def test_unsent_of_a_claimed_attempt_is_written_and_no_attempt_is_used() -> None:
    stage = Stage()
    task = stage.claimed(budget=1)
    stage.end(task, Verdict.UNSENT)
    [record] = stage.records
    assert (record.state, record.attempt, record.claim_ms) == (State.SCHEDULED, 0, None)
    stage.record()
    assert stage.offers == [task]
    assert (task.attempt, task.claim_ms, task.lateness_ms) == (0, None, None)


def test_an_outcome_under_another_attempt_or_epoch_is_stale() -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task, attempt=2)
    stage.end(task, epoch=EPOCH - 1)
    assert (stage.records, task.phase, stage.shard.tally.stale) == ([], Phase.RUNNING, 2)


def test_an_outcome_of_what_does_not_run_is_stale() -> None:
    stage = Stage()
    tasks = [stage.waiting(), stage.offered(), stage.writing(), stage.waiting(in_ms=HORIZON_MS + 1)]
    stage.apply(Ended([stage.outcome(task) for task in tasks]))
    assert (stage.records, stage.shard.tally.stale) == ([], 4)


def test_an_outcome_that_is_told_twice_counts_once() -> None:
    stage = Stage()
    task = stage.running()
    stage.apply(Ended([stage.outcome(task), stage.outcome(task)]))
    assert len(stage.records) == 1
    assert stage.shard.tally.stale == 1


# --- ttl


def test_ttl_that_ends_at_the_desk_expires_the_task() -> None:
    stage = Stage()
    task = stage.offered(ttl_ms=700)
    stage.tick(699)
    assert stage.records == []
    stage.tick(1)
    [record] = stage.records
    assert (record.op, record.state, record.outcome, task.phase) == (Op.FINISH, State.EXPIRED, None, Phase.WRITING)
    stage.start(task)
    assert task.attempt == 0
    stage.record(record)
    assert [change.state for change in stage.changes] == [State.EXPIRED]


def test_ttl_that_was_over_when_the_task_came_expires_it_unoffered() -> None:
    stage = Stage()
    late, fine = stage.task(in_ms=-701, ttl_ms=700), stage.task()
    stage.hint(late, fine)
    assert stage.offers == [fine]
    assert [(record.task, record.state) for record in stage.records] == [(late, State.EXPIRED)]


def test_ttl_that_was_over_when_the_only_task_came_offers_nothing() -> None:
    stage = Stage()
    stage.hint(stage.task(in_ms=-700, ttl_ms=700))
    assert stage.offers == []
    assert len(stage.records) == 1


def test_ttl_does_not_hold_for_what_has_started() -> None:
    stage = Stage()
    task = stage.running(ttl_ms=700)
    stage.tick(400)
    stage.end(task, Verdict.FAILED, jitter=0.0)
    stage.record()
    assert stage.offers == [task]
    stage.tick(300)
    assert stage.records == []


def test_ttl_that_ends_while_unsent_waits_expires_the_task() -> None:
    stage = Stage()
    task = stage.running(ttl_ms=700)
    stage.end(task, Verdict.UNSENT, retry_after_ms=900)
    stage.tick(900)
    assert [record.state for record in stage.records] == [State.EXPIRED]


def test_an_attempt_that_was_not_sent_is_taken_back_before_those_who_watch() -> None:
    stage = Stage()
    task = stage.running()
    assert [(change.state, change.version) for change in stage.changes] == [(State.RUNNING, version(0, 1))]
    stage.end(task, Verdict.UNSENT, retry_after_ms=1_000)
    [change] = stage.changes
    assert (change.state, change.attempt, change.version, change.lateness_ms) == (
        State.SCHEDULED,
        0,
        version(0, 2),
        None,
    )
    stage.tick(1_000)
    stage.start(task)
    assert [(change.state, change.version) for change in stage.changes] == [(State.RUNNING, version(0, 3))]
    stage.end(task)
    stage.record()
    assert [(change.state, change.version) for change in stage.changes] == [(State.SUCCEEDED, version(1, 0))]
