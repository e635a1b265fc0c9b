"""What watchers are told of a task: a change for each committed record, and for each start."""

from actors.core.events import Change, Record
from actors.core.task import State, Task

_RUNNING = State.RUNNING


def recorded(record: Record) -> Change:
    """The change that a committed record made."""
    task, outcome, state = record.task, record.outcome, record.state
    status, error = (outcome.status, outcome.error) if outcome is not None else (None, None)
    return Change(
        task.id,
        task.queue,
        state,
        record.attempt,
        2 * (record.rev + 1) + (state is _RUNNING),
        record.at_ms,
        record.schedule_ms,
        record.due_ms,
        task.labels,
        status,
        error,
        record.lateness_ms,
    )


def started(task: Task) -> Change:
    """The change that the start of an attempt made, which nothing records."""
    return Change(
        task.id,
        task.queue,
        _RUNNING,
        task.attempt,
        2 * task.rev + 1,
        task.started_ms,
        task.schedule_ms,
        task.due_ms,
        task.labels,
        None,
        None,
        task.lateness_ms,
    )
