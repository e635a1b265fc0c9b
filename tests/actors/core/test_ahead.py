"""Attempts that are claimed before they are sent, and what becomes of those whose end nobody knows."""

import pytest

from actors.core.ahead import READY_MS
from actors.core.changes import version
from actors.core.errors import Conflict
from actors.core.events import Loaded, Op, Record, Verdict
from actors.core.inherited import OVERRUN_MS
from actors.core.queue import Unheard
from actors.core.settle import HELD_MS
from actors.core.task import Move, Phase, State, Task
from tests.actors.core.stage import EPOCH, Stage, live, nowhere, over, row
from tests.support.builders import T0_MS

RETRY, WAIT, HOLD = Unheard
AHEAD = pytest.mark.parametrize("unknown", [WAIT, HOLD])
LOST = "its owner was lost during the attempt"


def is_taken_back(record: Record, task: Task) -> bool:
    """Whether this is the record by which the task's first attempt has not started."""
    left = (record.op, record.state, record.attempt, record.claim_ms, record.lateness_ms)
    return record.task is task and record.outcome is None and left == (Op.MOVE, State.SCHEDULED, 0, None, None)


# --- claimed, ready, handed out


@AHEAD
def test_an_attempt_is_claimed_before_it_may_be_sent(unknown: Unheard) -> None:
    stage = Stage(unknown=unknown)
    task = stage.running()
    [claim] = stage.records
    assert (claim.op, claim.state, claim.attempt) == (Op.MOVE, State.RUNNING, 1)
    assert (claim.due_ms, claim.claim_ms) == (T0_MS, T0_MS + 30_000)
    assert (task.phase, stage.changes, stage.made_ready) == (Phase.WRITING, [], [])
    stage.record()
    assert (stage.made_ready, task.phase, stage.records) == ([task], Phase.RUNNING, [])
    assert [(change.state, change.attempt, change.version) for change in stage.changes] == [
        (State.RUNNING, 1, version(1, 1))
    ]
    stage.hand_out(task)
    assert (stage.effects, task.phase, stage.shard.tally.ahead) == ([], Phase.RUNNING, set())
    stage.tick(500)
    assert stage.records == [], "it is claimed already"
    stage.end(task)
    [done] = stage.records
    assert (done.op, done.state, done.rev) == (Op.FINISH, State.SUCCEEDED, 1)
    stage.record()
    assert not stage.shard.holding.known


def test_a_queue_that_retries_claims_nothing_ahead() -> None:
    stage = Stage()
    task = stage.running()
    assert (stage.records, stage.shard.tally.ahead, task.phase) == ([], set(), Phase.RUNNING)


def test_tasks_of_both_kinds_start_together() -> None:
    stage = Stage(unknown=HOLD)
    held, other = stage.task(), stage.task()
    other.queue = type(stage.queue)(2, "default", "other")
    stage.hint(held, other)
    stage.start(held, other)
    assert ([record.task for record in stage.records], [change.id for change in stage.changes]) == ([held], [other.id])
    assert (held.phase, other.phase) == (Phase.WRITING, Phase.RUNNING)


@AHEAD
@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.NEVER, Verdict.LATER])
def test_an_end_that_is_known_is_what_it_is_everywhere(unknown: Unheard, verdict: Verdict) -> None:
    stage, other = Stage(unknown=unknown), Stage()
    for each, task in ((stage, stage.sent()), (other, other.claimed())):
        each.now_ms = T0_MS + 600
        each.end(task, verdict, status=500, jitter=0.0)
    [record], [usual] = stage.records, other.records
    assert (record.state, record.due_ms, record.claim_ms) == (usual.state, usual.due_ms, usual.claim_ms)


@AHEAD
def test_what_turns_out_not_to_have_been_sent_is_taken_back_and_tried_anew(unknown: Unheard) -> None:
    stage = Stage(unknown=unknown)
    task = stage.sent()
    stage.end(task, Verdict.UNSENT)
    assert [is_taken_back(record, task) for record in stage.records] == [True]
    stage.record()
    assert (stage.offers, task.claim_ms, task.attempt) == ([task], None, 0)
    stage.start(task)
    assert [(record.attempt, record.rev) for record in stage.records] == [(1, 2)]


def test_a_claim_whose_answer_was_lost_makes_it_ready_too() -> None:
    stage = Stage(unknown=HOLD)
    task = stage.running()
    [claim] = stage.records
    stage.refuse(claim, live(row(task, rev=1, claim_ms=claim.claim_ms)))
    assert (stage.made_ready, task.phase) == ([task], Phase.RUNNING)


@pytest.mark.parametrize("outcome", ["finished", "live", "gone"])
def test_a_claim_that_is_refused_makes_nothing_ready(outcome: str) -> None:
    stage = Stage(unknown=HOLD)
    task = stage.running()
    [claim] = stage.records
    moved = row(task, rev=4, attempt=0)
    found = {"finished": over(row(task, rev=4)), "live": live(moved), "gone": nowhere(task)}[outcome]
    stage.refuse(claim, found)
    assert (stage.made_ready, stage.shard.tally.ahead, task.phase) == ([], set(), Phase.GONE)
    assert stage.offers == ([moved] if outcome == "live" else [])


# --- not handed out


@AHEAD
def test_what_nobody_takes_in_time_is_claimed_anew(unknown: Unheard) -> None:
    stage = Stage(unknown=unknown)
    early, late = stage.ready(), stage.ready()
    stage.now_ms += READY_MS
    stage.hand_out(early)
    assert (stage.records, early.phase) == ([], Phase.RUNNING)
    stage.now_ms += 1
    stage.hand_out(late)
    assert [is_taken_back(record, late) for record in stage.records] == [True]
    assert (late.phase, stage.shard.tally.ahead) == (Phase.WRITING, set())


@AHEAD
def test_what_nobody_takes_at_all_is_taken_back_after_its_deadline(unknown: Unheard) -> None:
    stage = Stage(unknown=unknown)
    task = stage.ready()
    stage.tick(30_000 + OVERRUN_MS - 1)
    assert stage.records == []
    stage.tick(1)
    assert [is_taken_back(record, task) for record in stage.records] == [True]
    stage.hand_out(task)
    assert (stage.effects, task.phase) == ([], Phase.WRITING)


def test_what_was_handed_out_is_not_handed_out_again() -> None:
    stage = Stage(unknown=HOLD)
    task = stage.sent()
    stage.now_ms += READY_MS + 1
    stage.hand_out(task)
    assert (stage.records, task.phase) == ([], Phase.RUNNING)


def test_commands_wait_for_the_claim() -> None:
    stage = Stage(unknown=HOLD)
    task = stage.running()
    [claim] = stage.records
    command = stage.ask(task, Move.CANCEL)
    assert stage.answer(command) is None
    stage.record(claim)
    assert isinstance(stage.error(command), Conflict)
    assert stage.made_ready == [task]


def test_what_is_completed_before_it_was_handed_out_is_not_sent() -> None:
    stage = Stage(unknown=HOLD)
    task = stage.ready()
    command = stage.ask(task, Move.SUCCEED, outcome=stage.outcome(row(task, epoch=EPOCH)))
    assert stage.shard.tally.ahead == set()
    [done] = stage.records
    stage.hand_out(task)
    assert (stage.effects, task.phase) == ([], Phase.WRITING)
    stage.record(done)
    assert stage.error(command) is None


# --- closed


@AHEAD
@pytest.mark.parametrize("ready", [True, False], ids=["ready", "claim under way"])
def test_closing_takes_back_what_was_not_handed_out(unknown: Unheard, ready: bool) -> None:
    stage = Stage(unknown=unknown)
    sent = stage.sent()
    task = stage.ready() if ready else stage.running()
    claims = stage.records
    stage.close()
    assert stage.parted == 0
    if not ready:
        assert stage.records == []
        stage.record(*claims)
        assert (stage.made_ready, stage.parted) == ([], 0)
    assert [is_taken_back(record, task) for record in stage.records] == [True]
    back = stage.records
    stage.hand_out(task)
    assert (stage.effects, task.phase) == ([], Phase.WRITING)
    stage.record(*back)
    assert (stage.parted, stage.offers, stage.shard.tally.ahead) == (1, [], set())
    assert (task.claim_ms, task.phase, sent.claim_ms) == (None, Phase.GONE, T0_MS + 30_000)


def test_an_end_after_closing_is_written_or_passed_on() -> None:
    stage = Stage(unknown=HOLD)
    first, second = stage.sent(), stage.sent()
    stage.end(first)
    done = stage.records
    stage.close()
    stage.record(*done)
    assert stage.parted == 1
    stage.end(second)
    assert [outcome.task for outcome in stage.forwarded] == [second]


# --- the next owner: a claim that was recorded, whether its attempt was sent or not


def test_what_was_not_claimed_yet_was_not_sent_and_runs() -> None:
    """Its node died before the claim was committed."""
    stage = Stage(unknown=HOLD, living=())
    task = stage.task()
    stage.read(task)
    assert stage.offers == [task]


@pytest.mark.parametrize("when", ["before it is read", "while it goes on"])
def test_a_lost_attempt_is_held(when: str) -> None:
    stage = Stage(unknown=HOLD, living=("boot-b",) if when == "while it goes on" else ())
    task = stage.goes_on()
    if when == "while it goes on":
        assert stage.records == []
        stage.see()
    [record] = stage.records
    assert (record.state, record.due_ms, record.claim_ms, record.attempt) == (State.RUNNING, HELD_MS, HELD_MS, 1)
    assert record.outcome is not None
    assert (record.outcome.verdict, record.outcome.error) == (Verdict.LOST, LOST)
    stage.record()
    assert [(change.state, change.error) for change in stage.changes] == [(State.RUNNING, LOST)]
    assert (task.phase, stage.shard.tally.held) == (Phase.GONE, 1)
    assert not stage.shard.holding.known, "it costs no memory"


def test_one_that_its_living_owner_tells_nothing_of_is_held() -> None:
    stage = Stage(unknown=HOLD, living=("boot-b",))
    tasks = [stage.goes_on(), stage.sent()]
    stage.tick(30_000 + OVERRUN_MS)
    assert {(record.task, record.due_ms) for record in stage.records} == {(task, HELD_MS) for task in tasks}


def test_a_held_task_is_loaded_by_nobody_and_never_due() -> None:
    stage = Stage(unknown=HOLD, loaded=False)
    stage.tick()
    [page] = stage.pages
    task = row(stage.task(), rev=2, attempt=1, due_ms=HELD_MS, claim_ms=HELD_MS, claim_boot="boot-b")
    stage.apply(Loaded(page, [task], {}))
    stage.tick(10**9)
    assert (stage.records, stage.offers, task.phase) == ([], [], Phase.GONE)


def test_what_its_target_completes_later_is_not_held() -> None:
    """That its time has passed is known."""
    stage = Stage(unknown=HOLD)
    task = stage.sent()
    stage.end(task, Verdict.LATER)
    stage.record()
    stage.tick(30_000)
    assert [(record.state, record.claim_ms) for record in stage.records] == [(State.SCHEDULED, None)]


@pytest.mark.parametrize("when", ["before it is read", "while it goes on"])
def test_a_lost_attempt_is_waited_for_until_its_deadline(when: str) -> None:
    stage = Stage(unknown=WAIT, living=("boot-b",) if when == "while it goes on" else ())
    task = stage.goes_on()
    stage.see()
    assert (stage.records, stage.offers, task.phase) == ([], [], Phase.RUNNING)
    stage.tick(30_000 + OVERRUN_MS - 1)
    assert stage.records == []
    stage.tick(1)
    [record] = stage.records
    assert record.outcome is not None
    assert (record.state, record.due_ms, record.outcome.error) == (State.SCHEDULED, T0_MS, LOST)
    assert record.outcome.verdict is Verdict.LOST
    stage.record()
    assert stage.offers == [task]


def test_one_whose_deadline_has_passed_already_runs_again_at_once() -> None:
    stage = Stage(unknown=WAIT)
    claim_ms = stage.now_ms - OVERRUN_MS
    stage.read(row(stage.task(), rev=1, attempt=1, claim_ms=claim_ms, claim_boot="boot-b", epoch=EPOCH - 1))
    assert [record.state for record in stage.records] == [State.SCHEDULED]


def test_what_is_waited_for_is_completed_under_its_fence() -> None:
    stage = Stage(unknown=WAIT)
    task = stage.goes_on()
    command = stage.ask(task, Move.SUCCEED, outcome=stage.outcome(row(task, epoch=EPOCH - 1)))
    assert [record.state for record in stage.records] == [State.SUCCEEDED]
    stage.record()
    assert stage.error(command) is None


def test_what_is_waited_for_keeps_nobody_from_parting() -> None:
    stage = Stage(unknown=WAIT)
    stage.goes_on()
    stage.close()
    assert (stage.parted, stage.records) == (1, [])


def test_the_policy_is_the_one_of_the_moment_in_which_the_end_is_found_unknown() -> None:
    stage = Stage(living=("boot-b",))
    task = stage.goes_on()
    task.queue.unknown = HOLD
    stage.see()
    assert [record.due_ms for record in stage.records] == [HELD_MS]


# --- held: somebody decides


@pytest.mark.parametrize(
    ("verdict", "move", "state"),
    [
        (Verdict.SUCCEEDED, Move.SUCCEED, State.SUCCEEDED),
        (Verdict.NEVER, Move.DIE, State.DEAD),
        (Verdict.FAILED, Move.RETRY, State.SCHEDULED),
    ],
)
def test_a_held_task_is_completed_under_its_fence(verdict: Verdict, move: Move, state: State) -> None:
    stage = Stage(unknown=HOLD)
    held = row(stage.task(), rev=2, attempt=1, due_ms=HELD_MS, claim_ms=HELD_MS, claim_boot="boot-b", epoch=3)
    outcome = stage.outcome(row(held, epoch=3), verdict, started_ms=T0_MS, jitter=0.0, retry_after_ms=0)
    command = stage.ask(held, move, outcome=outcome)
    stage.look((command, live(held, 3)))
    [record] = stage.records
    assert (record.state, record.claim_ms, record.attempt) == (state, None, 1)
    assert record.outcome is not None
    assert record.outcome.started_ms == T0_MS, "not reckoned from the end of time"
    stage.record()
    assert stage.error(command) is None
    assert stage.offers == ([held] if state is State.SCHEDULED else [])


def test_a_held_task_is_refused_other_commands_like_any_that_runs() -> None:
    stage = Stage(unknown=HOLD)
    held = row(stage.task(), rev=2, attempt=1, due_ms=HELD_MS, claim_ms=HELD_MS, epoch=3)
    for move in (Move.CANCEL, Move.RUN, Move.REDRIVE, Move.RESCHEDULE):
        command = stage.ask(held, move)
        stage.look((command, live(held, 3)))
        assert isinstance(stage.error(command), Conflict), move
    wrong = stage.ask(held, Move.SUCCEED, outcome=stage.outcome(row(held, epoch=4)))
    stage.look((wrong, live(held, 3)))
    assert isinstance(stage.error(wrong), Conflict)
    assert stage.records == []
