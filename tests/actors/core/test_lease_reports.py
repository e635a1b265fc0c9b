"""What workers say of the ends of their attempts, and what they hear: at once, said again, too late, and cancelled."""

import pytest

from actors.core.errors import Conflict, Elsewhere, Unknown
from actors.core.events import Acknowledge, Ended, Op, Publish, Reply, Verdict
from actors.core.task import Move, Phase, State
from tests.actors.core.lease_stage import PERIOD_MS, TAKER, LeaseStage
from tests.actors.core.stage import EPOCH, live, nowhere, over, row
from tests.support.builders import SPEC, T0_MS

# --- a report is recorded


@pytest.mark.parametrize(
    ("verdict", "state", "due_in_ms"),
    [
        (Verdict.SUCCEEDED, State.SUCCEEDED, None),
        (Verdict.NEVER, State.DEAD, None),
        (Verdict.FAILED, State.SCHEDULED, 9_000),
        (Verdict.SNOOZED, State.SCHEDULED, 9_000),
        (Verdict.LOST, State.SCHEDULED, 0),
    ],
)
def test_a_report_is_acknowledged_once_when_it_is_committed(
    verdict: Verdict, state: State, due_in_ms: int | None
) -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.report(task, verdict, error="why", retry_after_ms=9_000)
    [record] = stage.records
    assert (record.state, stage.acknowledged, stage.answers) == (state, [], [])
    if due_in_ms is not None:
        assert record.due_ms == T0_MS + due_in_ms
    stage.record()
    assert stage.acknowledged == [(task.id, 1, state.value)]
    kinds = [type(effect) for effect in stage.effects]
    assert kinds.index(Publish) < kinds.index(Acknowledge)
    assert stage.answers == []


def test_where_nobody_watches_an_end_is_counted_and_acknowledged_all_the_same() -> None:
    stage = LeaseStage()
    stage.shard.tally.watched = lambda: False
    task, cancelled = stage.running(), stage.running()
    stage.report(task)
    stage.record()
    assert (stage.changes, stage.acknowledged) == ([], [(task.id, 1, "succeeded")])
    assert stage.shard.tally.finished[State.SUCCEEDED] == 1
    command = stage.ask(cancelled, Move.CANCEL)
    stage.record()
    answer = stage.answer(command)
    assert answer is not None
    assert answer.change is not None, "who asked is told"


def test_reports_are_acknowledged_together() -> None:
    stage = LeaseStage()
    tasks = [stage.running() for _ in range(3)]
    stage.apply(Ended([stage.outcome(task, reply=TAKER) for task in tasks]))
    stage.record()
    assert stage.acknowledged == [(task.id, 1, "succeeded") for task in tasks]


def test_what_nobody_waits_for_is_not_acknowledged() -> None:
    stage = LeaseStage()
    stage.end(stage.running())
    stage.record()
    assert (stage.acknowledged, stage.answers) == ([], [])


def test_a_report_while_the_claim_is_written_waits_for_it() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.tick(500)
    [claim] = stage.records
    stage.report(task)
    assert (stage.records, stage.acknowledged, stage.answers) == ([], [], [])
    stage.record(claim)
    [record] = stage.records
    assert (record.op, stage.acknowledged) == (Op.FINISH, [])
    stage.record(record)
    assert stage.acknowledged == [(task.id, 1, "succeeded")]


def test_a_snoozed_task_comes_again_under_the_next_fence_and_has_as_many_attempts_left() -> None:
    stage = LeaseStage()
    task = stage.running(budget=1)
    stage.report(task, Verdict.SNOOZED, retry_after_ms=2_000)
    stage.record()
    stage.tick(2_000)
    assert stage.offers == [task]
    stage.start(task)
    assert (task.attempt, task.budget) == (2, 2)


def test_a_report_is_unsure_when_the_task_changed_hands() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.report(task)
    [record] = stage.records
    stage.refuse(record, live(row(task, rev=3, claim_ms=T0_MS + 1), EPOCH + 1))
    assert isinstance(stage.told.token, Reply)
    assert stage.told.token == Reply(TAKER, task.id, EPOCH, 1)
    assert stage.told.error is not None


def test_a_report_that_was_kept_is_unsure_when_the_claim_is_refused() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.tick(500)
    [claim] = stage.records
    stage.report(task)
    stage.refuse(claim, nowhere(task))
    assert (stage.told.token, type(stage.told.error)) == (Reply(TAKER, task.id, EPOCH, 1), Elsewhere)


def test_a_record_whose_answer_was_lost_is_acknowledged() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.report(task)
    [record] = stage.records
    stage.refuse(record, over(row(task, rev=1), State.SUCCEEDED))
    assert stage.acknowledged == [(task.id, 1, "succeeded")]


# --- a report is said again


ENDS = [(Verdict.SUCCEEDED, State.SUCCEEDED, None), (Verdict.NEVER, State.DEAD, "broken")]


@pytest.mark.parametrize(("verdict", "state", "error"), ENDS)
def test_a_report_of_a_finished_task_that_is_said_again_is_recorded_before(
    verdict: Verdict, state: State, error: str | None
) -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.report(task, verdict, error=error)
    stage.record()
    stage.ask_report(task, verdict, error=error)
    stage.find(over(row(task, last=(None, error)), state))
    assert (stage.told.error, stage.told.changed, stage.records) == (None, False, [])


def test_a_report_that_is_said_again_while_it_is_written_waits_for_the_commit() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.report(task)
    [record] = stage.records
    stage.report(task)
    assert (stage.records, stage.answers) == ([], [])
    stage.record(record)
    assert stage.acknowledged == [(task.id, 1, "succeeded")]
    assert (stage.told.token, stage.told.error, stage.records) == (Reply(TAKER, task.id, EPOCH, 1), None, [])
    assert stage.finds == [], "where much is late, nothing is looked up for it"


def test_what_is_said_otherwise_while_an_end_is_written_is_looked_up() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.report(task)
    [record] = stage.records
    stage.report(task, Verdict.NEVER, error="broken")
    stage.report(task, error="a success with words")
    stage.ask_report(task).tenant = "other"
    stage.record(record)
    assert stage.answers == []
    assert [command.tenant for command in stage.finds] == ["default", "default", "other"]


def test_who_waits_for_a_record_with_a_report_is_known_when_the_shard_goes() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.report(task)
    stage.report(task)
    stage.ask(task, Move.CANCEL)
    [waiting] = stage.shard.commands.reported()
    assert waiting.token == Reply(TAKER, task.id, EPOCH, 1)


def test_a_report_that_was_said_twice_at_once_has_one_record() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.apply(Ended([stage.outcome(task, reply=TAKER), stage.outcome(task, reply=TAKER)]))
    assert len(stage.records) == 1


@pytest.mark.parametrize(
    ("verdict", "error"), [(Verdict.FAILED, "busy"), (Verdict.SNOOZED, None), (Verdict.LOST, "its worker went away")]
)
def test_a_report_of_a_task_that_waits_again_is_recorded_before(verdict: Verdict, error: str | None) -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.report(task, verdict, error=error, retry_after_ms=9_000)
    stage.record()
    stage.report(task, verdict, error=error, epoch=EPOCH, attempt=1)
    assert (stage.told.error, stage.told.changed, stage.records) == (None, False, [])


def test_a_report_of_a_task_that_waits_far_away_is_recorded_before() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.report(task, Verdict.FAILED, error="busy", retry_after_ms=10**7)
    stage.record()
    assert not stage.holds(task)
    stage.ask_report(task, Verdict.FAILED, error="busy")
    stage.find(live(row(task, last=(None, "busy"))))
    assert (stage.told.error, stage.told.changed, stage.records) == (None, False, [])


@pytest.mark.parametrize(
    ("verdict", "state", "error", "said"),
    [
        (Verdict.SUCCEEDED, State.DEAD, "broken", None),
        (Verdict.NEVER, State.DEAD, "broken", "something else"),
        (Verdict.NEVER, State.SUCCEEDED, None, None),
        (Verdict.FAILED, State.CANCELLED, None, None),
    ],
)
def test_what_ended_otherwise_was_not_recorded_before(
    verdict: Verdict, state: State, error: str | None, said: str | None
) -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.report(task)
    stage.record()
    stage.ask_report(task, verdict, error=said)
    stage.find(over(row(task, last=(None, error)), state))
    assert isinstance(stage.told.error, Conflict)
    assert (stage.told.error.state, stage.records) == (state.value, [])


@pytest.mark.parametrize(("epoch", "attempt"), [(EPOCH, 1), (EPOCH - 1, 2)])
def test_a_finished_task_knows_what_was_said_under_another_fence_for_late(epoch: int, attempt: int) -> None:
    stage = LeaseStage()
    task = stage.task()
    task.attempt = 2
    stage.ask_report(task, epoch=epoch, attempt=attempt)
    stage.find(over(row(task), State.SUCCEEDED))
    assert isinstance(stage.told.error, Conflict)


# --- a report is late


def test_a_report_after_its_lease_lapsed_is_refused() -> None:
    stage = LeaseStage()
    task = stage.claimed()
    stage.tick(PERIOD_MS)
    stage.record()
    stage.report(task, epoch=EPOCH, attempt=1)
    assert isinstance(stage.told.error, Conflict)
    stage.start(task)
    stage.report(task, epoch=EPOCH, attempt=1)
    assert isinstance(stage.told.error, Conflict)
    assert (stage.records, stage.shard.tally.stale, task.attempt) == ([], 0, 2)


def test_a_report_under_the_next_fence_counts() -> None:
    stage = LeaseStage()
    task = stage.claimed()
    stage.tick(PERIOD_MS)
    stage.record()
    stage.start(task)
    stage.report(task)
    stage.record()
    assert stage.acknowledged == [(task.id, 2, "succeeded")]


def test_a_report_under_an_older_epoch_is_refused() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.report(task, epoch=EPOCH - 1)
    assert isinstance(stage.told.error, Conflict)
    assert (task.phase, stage.records) == (Phase.RUNNING, [])


def test_a_report_of_an_attempt_that_failed_otherwise_is_refused() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.report(task, Verdict.FAILED, error="busy")
    stage.record()
    stage.report(task, Verdict.SUCCEEDED, epoch=EPOCH, attempt=1)
    assert isinstance(stage.told.error, Conflict)
    assert stage.records == []


def test_a_report_of_what_is_nowhere_is_unknown() -> None:
    stage = LeaseStage()
    stage.ask_report(stage.task())
    stage.find(nowhere(stage.task()))
    assert isinstance(stage.told.error, Unknown)


def test_a_report_of_anothers_task_is_unknown() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.queue.tenant = "other"
    stage.ask_report(task)
    assert isinstance(stage.told.error, Unknown)
    assert task.phase is Phase.RUNNING


def test_a_report_of_a_claim_that_memory_has_not_read_yet_counts() -> None:
    """The shard has just been taken over, and the worker was faster than the load."""
    stage = LeaseStage(loaded=False)
    task = row(stage.task(), rev=1, attempt=1, claim_ms=T0_MS + PERIOD_MS, claim_boot="boot-b", epoch=EPOCH - 1)
    stage.ask_report(task, result=b"3")
    stage.find(live(task, EPOCH - 1))
    [record] = stage.records
    assert (record.op, record.state, record.rev) == (Op.FINISH, State.SUCCEEDED, 1)
    stage.record()
    assert stage.told.error is None
    assert stage.told.change is not None
    assert stage.told.change.state is State.SUCCEEDED


# --- a running task is cancelled


@pytest.mark.parametrize("claimed", [False, True])
def test_a_cancel_reaches_the_worker_and_its_late_report_is_refused(claimed: bool) -> None:
    stage = LeaseStage()
    task = stage.claimed() if claimed else stage.running()
    command = stage.ask(task, Move.CANCEL)
    [record] = stage.records
    assert (record.op, record.state, stage.revoked) == (Op.FINISH, State.CANCELLED, [])
    stage.record()
    assert (stage.error(command), stage.revoked) == (None, [task])
    stage.report(task)
    stage.find(over(row(task), State.CANCELLED))
    assert isinstance(stage.told.error, Conflict)
    assert (stage.told.error.state, stage.records) == ("cancelled", [])


def test_a_report_while_the_cancel_is_written_is_refused() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.ask(task, Move.CANCEL)
    [record] = stage.records
    stage.report(task)
    assert stage.records == []
    stage.record(record)
    stage.find(over(row(task), State.CANCELLED))
    assert isinstance(stage.told.error, Conflict)


def test_a_cancel_while_the_claim_is_written_waits_for_it() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.tick(500)
    [claim] = stage.records
    stage.ask(task, Move.CANCEL)
    stage.record(claim)
    [record] = stage.records
    assert (record.state, record.rev) == (State.CANCELLED, 1)
    stage.record(record)
    assert stage.revoked == [task]


def test_a_task_that_waits_is_cancelled_without_a_word_to_workers() -> None:
    stage = LeaseStage()
    stage.ask(stage.waiting(), Move.CANCEL)
    stage.record()
    assert stage.revoked == []


def test_a_webhook_that_runs_is_not_cancelled() -> None:
    stage = LeaseStage()
    task = stage.task(spec=SPEC)
    stage.hint(task)
    stage.start(task)
    command = stage.ask(task, Move.CANCEL)
    assert isinstance(stage.error(command), Conflict)
    assert (stage.records, task.phase) == ([], Phase.RUNNING)
