from actors.core import changes
from actors.core.events import Op, Verdict
from actors.core.queue import Queue
from actors.core.task import State, Task
from tests.support.builders import LABELS, T0_MS, make_outcome, make_record, make_task

QUEUE = Queue(1, "default", "q")


def test_a_record_says_what_it_made_of_the_task() -> None:
    task = make_task(1, QUEUE, labels=LABELS)
    task.rev = 3
    outcome = make_outcome(task, Verdict.FAILED, status=503, error="busy")
    record = make_record(Op.MOVE, task, 7, due_ms=T0_MS + 9, attempt=2, lateness_ms=4, outcome=outcome)
    assert changes.recorded(record) == (
        task.id,
        QUEUE,
        State.SCHEDULED,
        2,
        changes.version(4, 0),
        T0_MS,
        T0_MS,
        T0_MS + 9,
        LABELS,
        503,
        "busy",
        4,
    )


def test_a_record_without_an_attempt_has_no_status() -> None:
    change = changes.recorded(make_record(Op.FINISH, make_task(1, QUEUE), 7, state=State.CANCELLED))
    assert (change.state, change.status, change.error) == (State.CANCELLED, None, None)


def test_a_start_is_said_of_the_task_as_it_runs() -> None:
    task = make_task(1, QUEUE, labels=LABELS)
    task.rev, task.attempt, task.started_ms, task.lateness_ms = 3, 2, T0_MS + 5, 4
    task.step = 1
    expected = (task.id, QUEUE, State.RUNNING, 2, changes.version(3, 1), T0_MS + 5, T0_MS, T0_MS, LABELS, None, None, 4)
    assert changes.started(task) == expected


def test_versions_grow_through_a_life() -> None:
    """Scheduled, started, claimed, ended: whoever hears them out of order can put them in order."""
    task = make_task(1, QUEUE)
    task.step = 1
    start = changes.started(task)
    claim = changes.recorded(make_record(Op.MOVE, task, 7, state=State.RUNNING))
    task.rev = 1
    retry = changes.recorded(make_record(Op.MOVE, task, 7))
    task.rev, task.step = 2, 1
    first = changes.started(task)
    task.step = 2
    unsent = changes.taken_back(task, T0_MS)
    task.step = 3
    again = changes.started(task)
    end = changes.recorded(make_record(Op.FINISH, task, 7, state=State.SUCCEEDED))
    life = (start, claim, retry, first, unsent, again, end)
    assert [divmod(change.version, changes.STEPS) for change in life] == [
        (0, 1), (1, 1), (2, 0), (2, 1), (2, 2), (2, 3), (3, 0),
    ]  # fmt: skip
    assert [change.state for change in life if change.version % 2] == [State.RUNNING] * 4


def test_steps_beyond_a_revisions_room_take_turns() -> None:
    last = [changes.version(7, step) for step in range(changes.STEPS - 2, changes.STEPS + 4)]
    assert last == 3 * [8 * changes.STEPS - 2, 8 * changes.STEPS - 1]


def test_an_acceptance_is_the_first_of_a_tasks_changes() -> None:
    task = make_task(1, QUEUE, labels=LABELS)
    task.accept_us = T0_MS * 1_000 + 999
    change = changes.accepted(task)
    assert (change.state, change.attempt, change.version, change.at_ms) == (State.SCHEDULED, 0, 0, T0_MS)
    assert changes.follows(changes.started(make_started()).version, change.version)


def make_started() -> Task:
    task = make_task(1, QUEUE)
    task.step, task.attempt, task.started_ms = 1, 1, T0_MS
    return task


def test_what_follows_is_later_or_one_of_the_last_two_that_take_turns() -> None:
    low, high = (changes.version(7, step) for step in (changes.STEPS - 2, changes.STEPS - 1))
    assert [changes.follows(version, high) for version in (low, high, high + 1)] == [True, False, True]
    assert [changes.follows(version, low) for version in (low - 1, low, high)] == [False, False, True]
    assert not changes.follows(changes.version(7, 3), changes.version(7, 4))
