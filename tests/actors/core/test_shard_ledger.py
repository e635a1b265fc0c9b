"""What a shard makes of records that the ledger refused."""

import pytest

from actors.core.changes import version
from actors.core.errors import Unavailable
from actors.core.events import Op, Record, Refused, Verdict
from actors.core.task import Move, Phase, State, Task
from tests.actors.core.stage import EPOCH, Stage, live, nowhere, over, row
from tests.support.builders import T0_MS


def as_left(record: Record) -> Task:
    """The row as this record left it."""
    return row(
        record.task,
        rev=record.rev + 1,
        due_ms=record.due_ms,
        attempt=record.attempt,
        claim_ms=record.claim_ms,
    )


# --- its own mark: it was committed, the reply was lost


def test_a_finish_whose_reply_was_lost_is_published_once() -> None:
    stage = Stage()
    task = stage.writing()
    stage.refuse(stage.records[0], over(row(task, rev=1)))
    assert [(change.state, change.version) for change in stage.changes] == [(State.SUCCEEDED, version(1, 0))]
    assert (task.phase, stage.shard.lost) == (Phase.GONE, False)


def test_a_retry_whose_reply_was_lost_goes_on() -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task, Verdict.FAILED, jitter=0.0)
    stage.refuse(stage.records[0], live(as_left(stage.records[0])))
    assert stage.offers == [task]
    assert task.rev == 1


def test_a_claim_whose_reply_was_lost_holds() -> None:
    stage = Stage()
    task = stage.running()
    stage.tick(500)
    stage.refuse(stage.records[0], live(as_left(stage.records[0])))
    assert (task.phase, task.rev, task.claim_ms) == (Phase.RUNNING, 1, task.started_ms + 30_000)


def test_a_command_whose_reply_was_lost_is_answered_with_its_change() -> None:
    stage = Stage()
    task = stage.waiting()
    command = stage.ask(task, Move.CANCEL)
    stage.refuse(stage.records[0], over(row(task, rev=1), State.CANCELLED))
    answer = stage.answer(command)
    assert answer is not None
    assert answer.change is not None
    assert answer.change.state is State.CANCELLED


def test_a_redrive_whose_reply_was_lost_goes_on() -> None:
    stage = Stage()
    task = stage.task()
    command = stage.ask(task, Move.REDRIVE)
    stage.look((command, over(row(task, rev=3), State.DEAD)))
    [record] = stage.records
    stage.refuse(record, live(as_left(record)))
    assert stage.offers == [record.task]


@pytest.mark.parametrize(("state", "rev"), [(State.SUCCEEDED, 1), (State.CANCELLED, 2)])
def test_what_it_wrote_itself_in_another_record_is_not_the_mark_of_this_one(state: State, rev: int) -> None:
    """A command on what a look-up showed long ago is refused, since the task has ended under the same epoch."""
    stage = Stage()
    task = stage.task()
    command = stage.ask(task, Move.CANCEL)
    stage.look((command, live(row(task))))
    stage.refuse(stage.records[0], over(row(task, rev=rev), state))
    assert stage.changes == []
    assert isinstance(stage.error(command), Unavailable)


@pytest.mark.parametrize("other", [{"due_ms": T0_MS + 1}, {"attempt": 1}, {"claim_ms": T0_MS + 9}])
def test_a_row_that_is_not_as_the_record_left_it_is_not_its_mark(other: dict[str, int]) -> None:
    stage = Stage()
    task = stage.waiting()
    command = stage.ask(task, Move.RUN)
    left = {"due_ms": T0_MS} | other
    stage.refuse(stage.records[0], live(row(task, rev=1, **left)))
    assert isinstance(stage.error(command), Unavailable)


def test_a_row_that_ended_is_not_the_mark_of_a_move() -> None:
    stage = Stage()
    task = stage.waiting()
    command = stage.ask(task, Move.RUN)
    stage.refuse(stage.records[0], over(row(task, rev=1, due_ms=T0_MS)))
    assert isinstance(stage.error(command), Unavailable)


# --- another's write


def test_another_owners_finish_stands() -> None:
    stage = Stage()
    task = stage.writing()
    stage.refuse(stage.records[0], over(row(task, rev=5), epoch=EPOCH + 1))
    assert (stage.changes, task.phase, stage.shard.lost) == ([], Phase.GONE, False)
    stage.hint(row(task, rev=4))
    assert stage.offers == []


def test_what_another_owner_left_live_is_taken_from_the_tables() -> None:
    stage = Stage()
    task = stage.writing()
    other = row(task, rev=5, due_ms=stage.now_ms + 80)
    stage.refuse(stage.records[0], live(other, EPOCH + 1))
    assert (task.phase, other.phase) == (Phase.GONE, Phase.WAITING)
    stage.hint(row(task, rev=4))
    stage.tick(80)
    assert stage.offers == [other]
    assert not stage.shard.lost


def test_what_another_owner_put_off_is_not_brought_back_by_an_older_read() -> None:
    stage = Stage()
    task = stage.writing()
    stage.refuse(stage.records[0], live(row(task, rev=5, due_ms=stage.now_ms + 10**6), EPOCH + 1))
    assert not stage.shard.holding.known
    stage.hint(row(task, rev=4))
    assert stage.offers == []


def test_a_claim_of_another_owner_is_a_lost_attempt() -> None:
    stage = Stage()
    task = stage.writing()
    other = row(task, rev=5, claim_ms=stage.now_ms + 30_000, attempt=3)
    stage.refuse(stage.records[0], live(other, EPOCH + 1))
    [record] = stage.records
    assert (record.task, record.rev, record.attempt, record.state) == (other, 5, 3, State.SCHEDULED)


def test_the_same_revision_under_another_epoch_is_not_its_own_mark() -> None:
    stage = Stage()
    task = stage.writing()
    stage.refuse(stage.records[0], over(row(task, rev=1), epoch=EPOCH + 1))
    assert stage.changes == []
    assert task.phase is Phase.GONE


def test_an_outcome_that_waits_for_a_refused_claim_goes_with_it() -> None:
    stage = Stage()
    task = stage.running()
    stage.tick(500)
    [claim] = stage.records
    stage.end(task)
    other = row(task, rev=5)
    stage.refuse(claim, live(other, EPOCH + 1))
    assert (stage.records, stage.offers) == ([], [other])
    assert task.id not in stage.shard.claims


def test_a_refused_claim_ends_the_attempt_for_this_owner() -> None:
    stage = Stage()
    task = stage.running()
    stage.tick(500)
    stage.refuse(stage.records[0], over(row(task, rev=5), epoch=EPOCH + 1))
    stage.end(task)
    assert (stage.records, stage.shard.tally.stale) == ([], 1)


def test_a_refused_claim_of_an_attempt_that_was_claimed_before_leaves_the_wheel() -> None:
    stage = Stage()
    task = stage.claimed()
    stage.end(task, Verdict.LATER)
    stage.refuse(stage.records[0], nowhere(task))
    assert len(stage.shard.holding.timers) == 0


# --- the row is gone


def test_a_row_that_is_gone_is_forgotten_and_not_armed_again() -> None:
    stage = Stage()
    task = stage.writing()
    stage.refuse(stage.records[0], nowhere(task))
    assert (stage.changes, task.phase, stage.shard.lost) == ([], Phase.GONE, False)
    stage.hint(row(task, rev=0))
    assert stage.offers == []


# --- the fence


def test_a_row_that_nobody_changed_means_that_the_shard_is_lost() -> None:
    stage = Stage()
    task = stage.writing()
    stage.refuse(stage.records[0], live(row(task), EPOCH - 1))
    assert stage.shard.lost


def test_a_finished_row_that_nobody_changed_means_the_same() -> None:
    stage = Stage()
    task = stage.task()
    command = stage.ask(task, Move.REDRIVE)
    stage.look((command, over(row(task, rev=3), State.DEAD)))
    stage.refuse(stage.records[0], over(row(task, rev=3), State.DEAD))
    assert stage.shard.lost
    assert isinstance(stage.error(command), Unavailable)


def test_lost_stays_lost() -> None:
    stage = Stage()
    first, second = stage.running(), stage.running()
    stage.end(first)
    [one] = stage.records
    stage.end(second)
    [two] = stage.records
    stage.refuse(one, live(row(first), EPOCH - 1))
    stage.refuse(two, over(row(second, rev=9), epoch=EPOCH + 1))
    assert stage.shard.lost


# --- whoever waits


@pytest.mark.parametrize("state", [State.SUCCEEDED, None])
def test_a_command_that_was_overruled_is_told_to_try_again(state: State | None) -> None:
    stage = Stage()
    task = stage.waiting()
    command = stage.ask(task, Move.RUN)
    other = row(task, rev=5)
    stage.refuse(stage.records[0], live(other, EPOCH + 1) if state is None else over(other, state, EPOCH + 1))
    assert isinstance(stage.error(command), Unavailable)


def test_a_command_that_waited_for_a_refused_record_goes_on() -> None:
    stage = Stage()
    task = stage.writing()
    [finish] = stage.records
    command = stage.ask(task, Move.CANCEL)
    other = row(task, rev=5, due_ms=stage.now_ms + 80)
    stage.refuse(finish, live(other, EPOCH + 1))
    [record] = stage.records
    assert (record.task, record.op, record.state) == (other, Op.FINISH, State.CANCELLED)
    stage.record()
    assert stage.error(command) is None


def test_a_command_that_waited_for_a_row_that_is_gone_is_looked_up() -> None:
    stage = Stage()
    task = stage.writing()
    [finish] = stage.records
    command = stage.ask(task, Move.CANCEL)
    stage.refuse(finish, nowhere(task))
    assert stage.finds == [command]


def test_a_refusal_under_another_epoch_changes_nothing() -> None:
    stage = Stage()
    task = stage.writing()
    [record] = stage.records
    record.epoch = EPOCH - 1
    stage.apply(Refused([record], [nowhere(task)]))
    assert stage.effects == []
    assert stage.holds(task)


def test_one_answer_may_speak_of_many_records() -> None:
    stage = Stage()
    mine, others = stage.running(), stage.running()
    stage.end(mine)
    [first] = stage.records
    stage.end(others)
    [second] = stage.records
    stage.apply(Refused([first, second], [over(row(mine, rev=1)), over(row(others, rev=4))]))
    assert [change.id for change in stage.changes] == [mine.id]
    assert not stage.shard.holding.known
