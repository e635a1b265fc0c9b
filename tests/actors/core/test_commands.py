"""Commands of clients: each in every state against the table, while a record is under way, and out of memory."""

import pytest

from actors.core.commands import WAITING
from actors.core.errors import Conflict, Overloaded, Unknown
from actors.core.events import Asked, Command, Looked, Op, Outcome, Verdict
from actors.core.retry import RetryPolicy
from actors.core.spec import Spec
from actors.core.task import MOVES, TERMINAL, Move, Phase, State, Task
from tests.actors.core.stage import EPOCH, HORIZON_MS, Stage, live, nowhere, over, row
from tests.support.builders import T0_MS

CLIENTS = (Move.CANCEL, Move.RUN, Move.RESCHEDULE, Move.REDRIVE)
COMPLETIONS = (Move.SUCCEED, Move.RETRY, Move.DIE)
PHASES: dict[str, State] = {
    "waiting": State.SCHEDULED,
    "offered": State.SCHEDULED,
    "running": State.RUNNING,
    "claimed": State.RUNNING,
    "later": State.RUNNING,
}


def completion(
    stage: Stage, task: Task, move: Move, *, epoch: int | None = None, attempt: int | None = None
) -> Command:
    """The command of a target that completes the task; its fence is the current one unless told otherwise."""
    outcome = Outcome(
        row(task),
        task.epoch if epoch is None else epoch,
        task.attempt if attempt is None else attempt,
        {Move.RETRY: Verdict.FAILED, Move.DIE: Verdict.NEVER}.get(move, Verdict.SUCCEEDED),
        stage.now_ms,
        stage.now_ms,
        jitter=0.0,
        result=b"1",
    )
    return stage.command(task, move, outcome=outcome)


def conflict(stage: Stage, command: Command, state: State) -> bool:
    error = stage.error(command)
    return isinstance(error, Conflict) and error.state == state.value


# --- in memory, against the table


@pytest.mark.parametrize("move", CLIENTS)
@pytest.mark.parametrize("phase", PHASES)
def test_on_a_task_in_memory_the_table_decides(phase: str, move: Move) -> None:
    stage = Stage()
    task: Task = getattr(stage, phase)()
    state, before = PHASES[phase], task.phase
    command = stage.ask(task, move)
    to = MOVES.get((state, move))
    if to is None:
        assert conflict(stage, command, state)
        assert (stage.records, task.phase) == ([], before)
        return
    [record] = stage.records
    assert (record.state, record.op) == (to, Op.FINISH if to in TERMINAL else Op.MOVE)
    assert (stage.answer(command), task.phase) == (None, Phase.WRITING)
    stage.record()
    answer = stage.answer(command)
    assert answer is not None
    assert (answer.change, answer.error, answer.changed) == (stage.changes[0], None, True)
    assert stage.changes[0].state is to


@pytest.mark.parametrize("move", COMPLETIONS)
@pytest.mark.parametrize("phase", PHASES)
def test_only_what_runs_can_be_completed(phase: str, move: Move) -> None:
    stage = Stage()
    task: Task = getattr(stage, phase)()
    command = completion(stage, task, move)
    stage.apply(Asked([command]))
    if PHASES[phase] is State.SCHEDULED:
        assert conflict(stage, command, State.SCHEDULED)
        return
    [record] = stage.records
    assert record.state is MOVES[State.RUNNING, move]
    assert record.outcome is not None
    assert (record.outcome.task, record.outcome.started_ms) == (task, T0_MS)
    stage.record()
    assert stage.error(command) is None


@pytest.mark.parametrize("fence", [{"attempt": 2}, {"attempt": 0}, {"epoch": EPOCH - 1}, {"epoch": EPOCH + 1}])
def test_a_completion_under_another_fence_is_refused(fence: dict[str, int]) -> None:
    stage = Stage()
    task = stage.later()
    command = completion(stage, task, Move.SUCCEED, **fence)
    stage.apply(Asked([command]))
    assert conflict(stage, command, State.RUNNING)
    assert (task.phase, task.claim_ms is not None) == (Phase.WAITING, True)


def test_the_dispatchers_report_after_a_completion_is_stale() -> None:
    stage = Stage()
    task = stage.running()
    stage.apply(Asked([completion(stage, task, Move.SUCCEED)]))
    stage.end(task, Verdict.FAILED)
    assert (stage.records, stage.shard.tally.stale) == ([], 1)


def test_a_completion_that_failed_is_tried_again() -> None:
    stage = Stage()
    task = stage.later()
    stage.apply(Asked([completion(stage, task, Move.RETRY)]))
    stage.record()
    assert stage.offers == [task]
    assert (task.claim_ms, task.due_ms) == (None, stage.now_ms)


# --- what they do


def test_cancel_takes_a_task_out_of_the_wheel_and_off_the_desk() -> None:
    stage = Stage()
    waiting, offered = stage.waiting(), stage.offered()
    stage.ask(waiting, Move.CANCEL)
    stage.ask(offered, Move.CANCEL)
    stage.start(offered)
    assert offered.attempt == 0
    assert len(stage.shard.holding.timers) == 0


def test_run_makes_a_task_due_now_and_leaves_its_schedule() -> None:
    stage = Stage()
    task = stage.waiting(in_ms=5_000)
    stage.now_ms += 100
    stage.ask(task, Move.RUN)
    [record] = stage.records
    assert (record.due_ms, record.schedule_ms) == (stage.now_ms, T0_MS + 5_000)
    stage.record()
    assert stage.offers == [task]


def test_reschedule_moves_due_and_schedule() -> None:
    stage = Stage()
    task = stage.offered()
    stage.ask(task, Move.RESCHEDULE, due_ms=T0_MS + 700)
    stage.record()
    assert (task.due_ms, task.schedule_ms, task.phase) == (T0_MS + 700, T0_MS + 700, Phase.WAITING)
    stage.tick(700)
    assert stage.offers == [task]


@pytest.mark.parametrize("due_ms", [None, T0_MS - 1])
def test_reschedule_to_the_past_is_now(due_ms: int | None) -> None:
    stage = Stage()
    task = stage.waiting()
    stage.ask(task, Move.RESCHEDULE, due_ms=due_ms)
    stage.record()
    assert (stage.offers, task.schedule_ms) == ([task], T0_MS)


def test_reschedule_beyond_the_horizon_lets_the_task_go() -> None:
    stage = Stage()
    task = stage.waiting()
    command = stage.ask(task, Move.RESCHEDULE, due_ms=T0_MS + 10 * HORIZON_MS)
    stage.record()
    assert (task.phase, stage.error(command)) == (Phase.GONE, None)


# --- while a record is under way


@pytest.mark.parametrize("move", CLIENTS)
def test_a_command_waits_for_the_record_under_way(move: Move) -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task, Verdict.FAILED)
    [retry] = stage.records
    command = stage.ask(task, move)
    assert (stage.effects, stage.answer(command)) == ([], None)
    stage.record(retry)
    if move is Move.REDRIVE:
        assert conflict(stage, command, State.SCHEDULED)
    else:
        assert [record.state for record in stage.records] == [MOVES[State.SCHEDULED, move]]
        stage.record()
        assert stage.error(command) is None


def test_commands_that_wait_are_decided_one_after_the_other() -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task, Verdict.FAILED)
    [retry] = stage.records
    first, second, third = (stage.ask(task, move) for move in (Move.RUN, Move.CANCEL, Move.CANCEL))
    stage.record(retry)
    [run] = stage.records
    stage.record(run)
    assert stage.error(first) is None
    [cancel] = stage.records
    assert (cancel.state, stage.answer(second)) == (State.CANCELLED, None)
    stage.record(cancel)
    assert stage.error(second) is None
    assert stage.finds == [third]
    stage.look((third, over(row(task), State.CANCELLED)))
    answer = stage.answer(third)
    assert answer is not None
    assert (answer.changed, answer.error) == (False, None)


def test_a_command_that_waits_for_a_finish_is_looked_up() -> None:
    stage = Stage()
    task = stage.writing()
    [finish] = stage.records
    command = stage.ask(task, Move.CANCEL)
    stage.record(finish)
    assert stage.finds == [command]
    stage.look((command, over(row(task))))
    assert conflict(stage, command, State.SUCCEEDED)


def test_a_command_waits_while_a_claim_is_under_way() -> None:
    stage = Stage()
    task = stage.running()
    stage.tick(500)
    [claim] = stage.records
    command = stage.ask(task, Move.CANCEL)
    assert stage.answer(command) is None
    stage.record(claim)
    assert conflict(stage, command, State.RUNNING)


def test_a_command_waits_for_the_record_that_follows_a_claim() -> None:
    """The outcome came while the claim was under way: its record is written next, and the command waits on."""
    stage = Stage()
    task = stage.running()
    stage.tick(500)
    [claim] = stage.records
    stage.end(task, Verdict.FAILED)
    command = stage.ask(task, Move.CANCEL)
    stage.record(claim)
    assert stage.answer(command) is None
    stage.record()
    assert [record.state for record in stage.records] == [State.CANCELLED]


def test_too_many_commands_for_one_record_are_turned_away() -> None:
    stage = Stage()
    task = stage.writing()
    [finish] = stage.records
    commands = [stage.ask(task, Move.CANCEL) for _ in range(WAITING + 1)]
    assert isinstance(stage.error(commands[-1]), Overloaded)
    stage.record(finish)
    assert stage.finds == commands[:-1]


# --- not in memory


def test_a_task_that_is_not_in_memory_is_looked_up() -> None:
    stage = Stage()
    command = stage.ask(stage.task(), Move.CANCEL)
    assert stage.finds == [command]


def test_what_the_tables_do_not_know_is_unknown() -> None:
    stage = Stage()
    task = stage.task()
    command = stage.ask(task, Move.CANCEL)
    stage.look((command, nowhere(task)))
    assert isinstance(stage.error(command), Unknown)


@pytest.mark.parametrize("move", CLIENTS)
def test_on_a_task_far_from_due_the_table_decides(move: Move) -> None:
    stage = Stage()
    task = stage.task(in_ms=10 * HORIZON_MS)
    command = stage.ask(task, move)
    stage.look((command, live(task)))
    to = MOVES.get((State.SCHEDULED, move))
    if to is None:
        assert conflict(stage, command, State.SCHEDULED)
        assert not stage.shard.holding.known
        return
    [record] = stage.records
    assert (record.state, task.phase, stage.holds(task)) == (to, Phase.WRITING, True)
    stage.record()
    assert stage.error(command) is None
    assert stage.offers == ([task] if to is State.SCHEDULED else [])


@pytest.mark.parametrize("move", CLIENTS + COMPLETIONS)
@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_on_a_finished_task_the_table_decides(state: State, move: Move) -> None:
    stage = Stage()
    task = stage.task(in_ms=-50)
    task.rev, task.attempt, task.budget = 9, 5, 5
    command = stage.ask(task, move)
    stage.look((command, over(task, state)))
    to = MOVES.get((state, move))
    if to is None:
        assert conflict(stage, command, state)
    elif to is state:
        answer = stage.answer(command)
        assert answer is not None
        assert (answer.changed, answer.change, answer.error) == (False, None, None)
    else:
        [record] = stage.records
        assert (record.op, record.rev, record.budget, record.attempt) == (Op.REDRIVE, 9, 10, 5)
        stage.record()
        assert stage.error(command) is None
        assert stage.offers == [task]
        return
    assert (stage.records, stage.shard.holding.known) == ([], {})


@pytest.mark.parametrize("move", CLIENTS)
def test_a_claim_in_the_tables_is_a_running_task(move: Move) -> None:
    stage = Stage()
    task = stage.task(in_ms=10 * HORIZON_MS)
    task.claim_ms, task.attempt = task.due_ms, 1
    command = stage.ask(task, move)
    stage.look((command, live(task)))
    assert conflict(stage, command, State.RUNNING)
    assert not stage.shard.holding.known


@pytest.mark.parametrize("move", COMPLETIONS)
def test_a_completion_outlives_the_owner(move: Move) -> None:
    """The claim was written under an earlier epoch, and its task is not in memory."""
    stage = Stage()
    task = stage.task(in_ms=10 * HORIZON_MS)
    task.claim_ms, task.attempt = task.due_ms, 1
    task.epoch = EPOCH - 3
    command = completion(stage, task, move)
    task.epoch = 0
    stage.apply(Asked([command]))
    stage.look((command, live(task, EPOCH - 3)))
    [record] = stage.records
    assert (record.state, record.epoch) == (MOVES[State.RUNNING, move], EPOCH)
    stage.record()
    assert stage.error(command) is None


def test_a_completion_of_what_is_not_claimed_in_the_tables_is_refused() -> None:
    stage = Stage()
    task = stage.task(in_ms=10 * HORIZON_MS)
    command = completion(stage, task, Move.SUCCEED)
    stage.apply(Asked([command]))
    stage.look((command, live(task)))
    assert conflict(stage, command, State.SCHEDULED)


def test_a_task_that_came_into_memory_meanwhile_is_decided_there() -> None:
    stage = Stage()
    task = stage.task()
    command = stage.ask(task, Move.CANCEL)
    stage.hint(task)
    stage.look((command, nowhere(task)))
    assert [record.task for record in stage.records] == [task]


def test_two_commands_on_one_task_out_of_memory_are_decided_one_after_the_other() -> None:
    stage = Stage()
    task = stage.task(in_ms=10 * HORIZON_MS)
    run, cancel = stage.command(task, Move.RUN), stage.command(task, Move.CANCEL)
    stage.apply(Asked([run, cancel]))
    assert stage.finds == [run, cancel]
    found = live(task)
    stage.apply(Looked([run, cancel], [found, found]))
    assert [record.state for record in stage.records] == [State.SCHEDULED]
    stage.record()
    assert [record.state for record in stage.records] == [State.CANCELLED]
    stage.record()
    assert (stage.error(run), stage.error(cancel)) == (None, None)


def test_a_look_up_that_the_tasks_end_overtook_is_made_again() -> None:
    stage = Stage()
    task = stage.task()
    command = stage.ask(task, Move.CANCEL)
    stale = live(row(task))
    stage.hint(task)
    stage.start(task)
    stage.end(task)
    stage.record()
    stage.look((command, stale))
    assert (stage.records, stage.finds) == ([], [command])
    stage.look((command, over(row(task))))
    assert conflict(stage, command, State.SUCCEEDED)


def test_a_look_up_that_a_redrive_overtook_is_made_again() -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task, Verdict.NEVER)
    stage.record()
    stale = over(row(task), State.DEAD)
    stage.look((stage.ask(task, Move.REDRIVE), over(redriven := row(task), State.DEAD)))
    [redrive] = stage.records
    command = stage.ask(task, Move.REDRIVE)
    stage.record(redrive)
    assert conflict(stage, command, State.SCHEDULED)
    late = stage.command(task, Move.REDRIVE)
    stage.ask(redriven, Move.RESCHEDULE, due_ms=T0_MS + 10 * HORIZON_MS)
    stage.record()
    stage.look((late, stale))
    assert (stage.records, stage.finds) == ([], [late])


# --- redrive is a new life


@pytest.mark.parametrize("state", [State.DEAD, State.EXPIRED, State.CANCELLED])
def test_a_redriven_task_runs_again_under_the_attempts_that_follow(state: State) -> None:
    stage = Stage()
    task = stage.task(in_ms=-90_000, ttl_ms=1_000)
    task.rev, task.attempt, task.lateness_ms = 4, 0 if state is State.EXPIRED else 5, 3
    command = stage.ask(task, Move.REDRIVE)
    stage.look((command, over(task, state)))
    stage.record()
    assert stage.offers == [task]
    assert (task.schedule_ms, task.rev) == (stage.now_ms, 5)
    attempt = task.attempt
    stage.now_ms += 8
    stage.start(task)
    assert (task.attempt, task.lateness_ms) == (attempt + 1, 8)


def test_a_redriven_task_has_its_retry_duration_before_it() -> None:
    stage = Stage()
    policy = RetryPolicy(max_retry_duration_ms=5_000)
    task = stage.task(in_ms=-90_000, spec=Spec(retry=policy))
    stage.look((stage.ask(task, Move.REDRIVE), over(task, State.DEAD)))
    stage.record()
    stage.start(task)
    stage.end(task, Verdict.FAILED)
    assert [record.state for record in stage.records] == [State.SCHEDULED]


def test_a_task_that_was_finished_a_moment_ago_can_be_redriven() -> None:
    """Its id is remembered as over, and a read of its former life is still no reason to arm it."""
    stage = Stage()
    task = stage.running()
    former = row(task)
    stage.end(task, Verdict.NEVER)
    stage.record()
    finished = row(task)
    stage.look((stage.ask(task, Move.REDRIVE), over(finished, State.DEAD)))
    stage.record()
    assert stage.offers == [finished]
    stage.start(finished)
    stage.end(finished)
    stage.record()
    stage.hint(former, row(finished, rev=2))
    assert stage.offers == []


# --- other tenants


@pytest.mark.parametrize("move", CLIENTS)
def test_another_tenants_task_is_unknown(move: Move) -> None:
    stage = Stage()
    task = stage.waiting()
    command = stage.ask(task, move, tenant="other")
    assert isinstance(stage.error(command), Unknown)
    assert task.phase is Phase.WAITING


@pytest.mark.parametrize("state", [None, State.DEAD])
def test_another_tenants_task_out_of_memory_is_unknown(state: State | None) -> None:
    stage = Stage()
    task = stage.task(in_ms=10 * HORIZON_MS)
    command = stage.ask(task, Move.CANCEL, tenant="other")
    stage.look((command, live(task) if state is None else over(task, state)))
    assert isinstance(stage.error(command), Unknown)
    assert not stage.shard.holding.known


def test_another_tenants_task_that_is_being_written_is_unknown_afterwards() -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task, Verdict.FAILED)
    [retry] = stage.records
    command = stage.ask(task, Move.CANCEL, tenant="other")
    stage.record(retry)
    assert isinstance(stage.error(command), Unknown)
    assert (stage.records, task.phase) == ([], Phase.WAITING)


# --- answers


def test_one_event_may_bring_many_commands() -> None:
    stage = Stage()
    held, written, away = stage.waiting(), stage.writing(), stage.task()
    commands = [
        stage.command(held, Move.CANCEL),
        stage.command(written, Move.CANCEL),
        stage.command(away, Move.CANCEL),
        stage.command(held, Move.RUN),
        stage.command(held, Move.RUN, tenant="other"),
    ]
    stage.apply(Asked(commands))
    assert [record.task for record in stage.records] == [held]
    assert stage.finds == [commands[2]]
    assert stage.answers == []
