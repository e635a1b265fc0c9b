"""Attempts that outlive half a second, and those that their target completes later."""

import pytest

from actors.core.changes import version
from actors.core.events import Loaded, Op, Verdict
from actors.core.inherited import OVERRUN_MS
from actors.core.task import Phase, State
from tests.actors.core.stage import Stage, row
from tests.support.builders import T0_MS

# --- claims


def test_an_attempt_is_claimed_after_half_a_second() -> None:
    stage = Stage()
    task = stage.running()
    assert stage.shard.next_ms(stage.now_ms) == stage.now_ms + 500
    stage.tick(499)
    assert stage.records == []
    stage.tick(1)
    [record] = stage.records
    assert (record.op, record.state, record.claim_ms) == (Op.MOVE, State.RUNNING, T0_MS + 30_000)
    assert record.due_ms == T0_MS
    stage.record()
    assert (task.phase, task.claim_ms, task.rev) == (Phase.RUNNING, T0_MS + 30_000, 1)
    assert [(change.state, change.version) for change in stage.changes] == [(State.RUNNING, version(1, 1))]


def test_an_attempt_that_ended_sooner_is_not_claimed() -> None:
    stage = Stage()
    stage.writing()
    stage.tick(500)
    assert stage.records == []


def test_an_attempt_that_ended_behind_one_that_goes_on_is_not_claimed() -> None:
    stage = Stage()
    older, ended = stage.running(), stage.running()
    stage.end(ended)
    stage.tick(500)
    assert [record.task for record in stage.records] == [older]


def test_an_attempt_that_ended_sooner_asks_for_no_visit() -> None:
    stage = Stage()
    first, second = stage.running(), stage.running()
    stage.now_ms += 100
    stage.end(second)
    assert stage.shard.next_ms(stage.now_ms) == T0_MS + 500
    stage.end(first)
    assert stage.shard.next_ms(stage.now_ms) > T0_MS + 500


def test_a_claim_is_written_once() -> None:
    stage = Stage()
    stage.running()
    stage.tick(500)
    assert len(stage.records) == 1
    stage.tick(500)
    assert stage.records == []


def test_an_attempt_that_started_anew_under_its_number_is_claimed_in_its_own_time() -> None:
    stage = Stage()
    task = stage.running()
    stage.now_ms += 100
    stage.end(task, Verdict.UNSENT)
    stage.start(task)
    stage.tick(400)
    assert stage.records == []
    stage.tick(100)
    assert [record.claim_ms for record in stage.records] == [T0_MS + 100 + 30_000]


def test_an_attempt_that_started_anew_within_a_millisecond_is_claimed_once() -> None:
    stage = Stage()
    older = stage.running()
    task = stage.running()
    stage.end(task, Verdict.UNSENT)
    stage.start(task)
    stage.tick(500)
    assert [record.task for record in stage.records] == [older, task]


def test_success_while_the_claim_is_under_way_waits_for_it() -> None:
    stage = Stage()
    task = stage.running()
    stage.tick(500)
    [claim] = stage.records
    stage.end(task, status=200)
    assert stage.records == []
    stage.record(claim)
    [record] = stage.records
    assert (record.op, record.state, record.rev) == (Op.FINISH, State.SUCCEEDED, 1)
    stage.record()
    assert [change.version for change in stage.changes] == [version(2, 0)]


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        (Verdict.FAILED, State.SCHEDULED),
        (Verdict.NEVER, State.DEAD),
        (Verdict.LATER, State.RUNNING),
        (Verdict.UNSENT, State.SCHEDULED),
        (Verdict.LOST, State.SCHEDULED),
    ],
)
def test_every_other_verdict_waits_for_the_claim_too(verdict: Verdict, state: State) -> None:
    stage = Stage()
    task = stage.running()
    stage.tick(500)
    [claim] = stage.records
    stage.end(task, verdict)
    assert stage.records == []
    stage.record(claim)
    assert [record.state for record in stage.records] == [state]


def test_a_claimed_attempt_that_nobody_reports_on_has_failed() -> None:
    stage = Stage()
    task = stage.claimed()
    stage.tick(30_000 + OVERRUN_MS - 501)
    assert stage.records == []
    stage.tick(1)
    [record] = stage.records
    assert record.outcome is not None
    assert (record.outcome.verdict, record.outcome.error) == (Verdict.FAILED, "not completed in time")
    assert record.outcome.started_ms == T0_MS
    stage.end(task)
    assert stage.shard.tally.stale == 1


def test_the_end_of_a_claimed_attempt_takes_its_deadline_away() -> None:
    stage = Stage()
    task = stage.claimed()
    stage.end(task)
    stage.record()
    assert len(stage.shard.holding.timers) == 0


# --- later: the target completes it by itself


def test_later_is_a_claim_until_the_deadline() -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task, Verdict.LATER)
    [record] = stage.records
    assert (record.state, record.due_ms, record.claim_ms) == (State.RUNNING, T0_MS + 30_000, T0_MS + 30_000)
    stage.record()
    assert (task.phase, task.due_ms, task.claim_ms) == (Phase.WAITING, T0_MS + 30_000, T0_MS + 30_000)


def test_later_that_is_not_completed_in_time_has_failed() -> None:
    stage = Stage()
    task = stage.later()
    stage.tick(29_999)
    assert stage.records == []
    stage.tick(1)
    [record] = stage.records
    assert record.state is State.SCHEDULED
    assert record.outcome is not None
    assert record.outcome.error == "not completed in time"
    stage.record()
    assert (task.claim_ms, task.started_ms) == (None, 0)


def test_later_of_an_attempt_that_is_claimed_already() -> None:
    stage = Stage()
    task = stage.claimed()
    stage.end(task, Verdict.LATER)
    stage.record()
    assert (task.rev, task.phase) == (2, Phase.WAITING)
    stage.tick(29_500)
    assert [record.state for record in stage.records] == [State.SCHEDULED]


def test_tasks_that_complete_later_are_bounded_like_those_that_wait() -> None:
    stage = Stage(limit=10)
    for _ in range(10):
        tasks = [stage.task(payload=b"x") for _ in range(10)]
        stage.hint(*tasks)
        stage.start(*tasks)
        for task in tasks:
            stage.end(task, Verdict.LATER)
            stage.record()
    assert len(stage.shard.holding.known) <= 20
    assert all(task.payload is None for task in stage.shard.holding.known.values())


def test_later_whose_deadline_has_passed_when_it_is_recorded_is_not_offered() -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task, Verdict.LATER)
    stage.now_ms += 31_000
    stage.record()
    assert stage.offers == []
    assert [(record.state, record.outcome.started_ms) for record in stage.records if record.outcome] == [
        (State.SCHEDULED, T0_MS)
    ]


def test_a_claim_of_an_earlier_owner_tells_when_its_attempt_started() -> None:
    stage = Stage()
    task = row(stage.later())
    successor = Stage(loaded=False)
    successor.tick(30_000)
    [page] = successor.pages
    successor.apply(Loaded(page, [task], {}))
    [record] = successor.records
    assert record.outcome is not None
    assert (record.outcome.started_ms, record.outcome.ended_ms) == (T0_MS, T0_MS + 30_000)


def test_later_is_not_claimed_again_when_half_a_second_has_passed() -> None:
    stage = Stage()
    stage.later()
    stage.tick(500)
    assert stage.records == []
