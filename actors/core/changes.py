"""What watchers are told of a task: that it was accepted, each committed record, each start, each that was taken back.

A change's version grows with every change of its task: it counts the task's revisions, and within one the starts that
nothing records (`Task.step`, which begins anew with each revision). It is odd exactly while the task runs.
"""

from actors.core.events import Change, Record
from actors.core.task import State, Task

_RUNNING, _SCHEDULED = State.RUNNING, State.SCHEDULED
STEPS = 1_024
"""Versions of one revision: half as many starts can be told apart, then the last two take turns."""


def version(rev: int, step: int) -> int:
    """The version of step `step` of revision `rev`; odd = running."""
    return STEPS * rev + (step if step < STEPS else STEPS - 2 + step % 2)


def follows(version: int, known: int) -> bool:
    """Whether a change of this version can come after one that is known."""
    return version > known or (version == known - 1 and version % STEPS == STEPS - 2)


def recorded(record: Record) -> Change:
    """The change that a committed record made."""
    task, outcome, state = record.task, record.outcome, record.state
    status, error = (outcome.status, outcome.error) if outcome is not None else task.last
    return Change(
        task.id,
        task.queue,
        state,
        record.attempt,
        version(record.rev + 1, state is _RUNNING),
        record.at_ms,
        record.schedule_ms,
        record.due_ms,
        task.labels,
        status,
        error,
        record.lateness_ms,
    )


def accepted(task: Task) -> Change:
    """The change that made the task."""
    return _unrecorded(task, _SCHEDULED, task.accept_us // 1_000)


def started(task: Task) -> Change:
    """The change that the start of an attempt made, which nothing records."""
    return _unrecorded(task, _RUNNING, task.started_ms)


def taken_back(task: Task, now_ms: int) -> Change:
    """The change when an attempt turns out not to have been sent: the task waits again, as if it had not started."""
    return _unrecorded(task, _SCHEDULED, now_ms)


def _unrecorded(task: Task, state: State, at_ms: int) -> Change:
    return Change(
        task.id,
        task.queue,
        state,
        task.attempt,
        version(task.rev, task.step),
        at_ms,
        task.schedule_ms,
        task.due_ms,
        task.labels,
        *task.last,
        task.lateness_ms,
    )
