"""The heir of a shard that was given: attempts that go on where they started are left alone, and end by a command."""

import pytest

from actors.core.errors import Conflict
from actors.core.events import Verdict
from actors.core.inherited import OVERRUN_MS
from actors.core.task import Move, Phase, State
from tests.actors.core.stage import EPOCH, Stage, live, over, row
from tests.support.builders import T0_MS


def test_an_attempt_of_a_living_boot_is_left_alone() -> None:
    stage = Stage(living=("boot-b",))
    task = stage.goes_on()
    assert (stage.records, stage.offers) == ([], [])
    assert (task.phase, task.started_ms, task.epoch) == (Phase.RUNNING, T0_MS, EPOCH - 1)
    share = stage.shard.holding.shares[task.queue.id]
    assert (share.held, share.offered) == (0, 0)
    stage.tick(30_000 + OVERRUN_MS - 1)
    assert stage.records == []
    stage.tick(1)
    [record] = stage.records
    assert record.outcome is not None
    assert (record.state, record.outcome.error) == (State.SCHEDULED, "not completed in time")


@pytest.mark.parametrize("verdict", [Verdict.SUCCEEDED, Verdict.FAILED, Verdict.NEVER, Verdict.UNSENT, Verdict.LATER])
@pytest.mark.parametrize("known", [True, False], ids=["read already", "not read yet"])
def test_its_end_is_told_by_a_command_under_the_fence_it_ran_under(verdict: Verdict, known: bool) -> None:
    stage = Stage(living=("boot-b",))
    task = stage.goes_on(due_in_ms=0 if known else 10**8)
    outcome = stage.outcome(row(task), verdict, epoch=EPOCH - 1, attempt=1, jitter=0.0)
    move = {Verdict.SUCCEEDED: Move.SUCCEED, Verdict.NEVER: Move.DIE}.get(verdict, Move.RETRY)
    command = stage.ask(task, move, outcome=outcome)
    if not known:
        stage.look((command, live(task, EPOCH - 1)))
    [record] = stage.records
    states = {Verdict.SUCCEEDED: State.SUCCEEDED, Verdict.NEVER: State.DEAD, Verdict.LATER: State.RUNNING}
    assert record.state is states.get(verdict, State.SCHEDULED)
    assert (record.epoch, record.attempt) == (EPOCH, 0 if verdict is Verdict.UNSENT else 1)
    stage.record()
    assert stage.error(command) is None


def test_an_end_whose_reply_was_lost_is_known_by_the_fence_that_its_claim_keeps() -> None:
    """Its target completes it later: the claim goes on under the epoch that the target was shown."""
    stage = Stage(living=("boot-b",))
    task = stage.goes_on()
    outcome = stage.outcome(row(task), Verdict.LATER, epoch=EPOCH - 1, attempt=1)
    command = stage.ask(task, Move.RETRY, outcome=outcome)
    [record] = stage.records
    left = row(task, rev=2, due_ms=record.due_ms, claim_ms=record.claim_ms)
    stage.refuse(record, live(left, EPOCH - 1))
    assert stage.error(command) is None
    assert (task.rev, task.epoch, stage.shard.lost) == (2, EPOCH - 1, False)
    done = stage.ask(task, Move.SUCCEED, outcome=stage.outcome(row(task, epoch=EPOCH - 1)))
    assert [each.state for each in stage.records] == [State.SUCCEEDED]
    stage.record()
    assert stage.error(done) is None


def test_an_end_that_is_told_twice_is_recorded_once() -> None:
    stage = Stage(living=("boot-b",))
    task = stage.goes_on()
    first = stage.ask(task, Move.SUCCEED, outcome=stage.outcome(row(task, epoch=EPOCH - 1)))
    [record] = stage.records
    second = stage.ask(task, Move.SUCCEED, outcome=stage.outcome(row(task, epoch=EPOCH - 1)))
    assert stage.answer(second) is None
    stage.record(record)
    assert (stage.error(first), stage.finds) == (None, [second])
    stage.look((second, over(row(task, rev=2))))
    assert isinstance(stage.error(second), Conflict)


def test_an_end_that_comes_too_late_changes_nothing() -> None:
    stage = Stage(living=("boot-b",))
    task = stage.goes_on()
    outcome = stage.outcome(row(task), epoch=EPOCH - 1, attempt=1)
    stage.see()
    stage.record()
    assert stage.offers == [task]
    stage.start(task)
    late = stage.ask(task, Move.SUCCEED, outcome=outcome)
    assert isinstance(stage.error(late), Conflict)
    assert (task.phase, task.attempt, task.epoch) == (Phase.RUNNING, 2, EPOCH)


def test_a_claim_of_a_boot_that_is_not_there_is_a_lost_attempt() -> None:
    for boot in ("boot-c", None):
        stage = Stage(living=("boot-b",))
        stage.read(row(stage.task(), rev=1, attempt=1, claim_ms=stage.now_ms + 30_000, claim_boot=boot))
        [record] = stage.records
        assert record.outcome is not None
        assert record.outcome.verdict is Verdict.LOST


def test_when_its_boot_dies_the_attempt_is_lost() -> None:
    stage = Stage(living=("boot-b", "boot-c"))
    task, other = stage.goes_on(), stage.goes_on(boot="boot-c")
    own = stage.claimed()
    stage.see("boot-b", "boot-c", "boot-d")
    assert stage.records == []
    stage.see("boot-c")
    [record] = stage.records
    assert record.outcome is not None
    assert (record.task, record.outcome.verdict, record.due_ms) == (task, Verdict.LOST, T0_MS)
    stage.see()
    assert [record.task for record in stage.records] == [other]
    assert own.phase is Phase.RUNNING
    stage.see()
    assert stage.records == []


def test_what_its_boot_wrote_before_it_died_is_lost_when_it_is_read_later() -> None:
    stage = Stage(living=("boot-b",))
    stage.see("boot-c")
    stage.goes_on()
    assert [record.state for record in stage.records] == [State.SCHEDULED]


def test_one_that_is_over_its_deadline_is_not_waited_for() -> None:
    stage = Stage(living=("boot-b",))
    task = row(stage.task(), rev=1, attempt=1, claim_ms=stage.now_ms - OVERRUN_MS, claim_boot="boot-b")
    stage.read(task)
    assert [record.task for record in stage.records] == [task]


def test_an_attempt_goes_on_although_the_heirs_clock_is_a_little_behind() -> None:
    """Whoever started it saw its time come; here it seems to be due in a moment."""
    stage = Stage(living=("boot-b",))
    task = stage.goes_on(due_in_ms=5)
    stage.tick(5)
    assert (stage.records, stage.offers) == ([], [])
    assert task.phase is Phase.RUNNING
    stage.see()
    assert [record.task for record in stage.records] == [task]


def test_what_its_target_completes_later_outlives_the_boot_that_wrote_it() -> None:
    stage = Stage(living=("boot-b",))
    task = row(stage.task(in_ms=30_000), rev=1, attempt=1, claim_ms=stage.now_ms + 30_000, claim_boot="boot-b")
    stage.read(task)
    stage.see()
    assert stage.records == []
    stage.tick(30_000)
    [record] = stage.records
    assert record.outcome is not None
    assert record.outcome.error == "not completed in time"
