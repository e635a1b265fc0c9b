"""How an attempt's outcome changes its task: the one place that decides between retry, dead letter and hold."""

from actors.core.events import Op, Outcome, Record, Verdict
from actors.core.queue import Queue, Unheard
from actors.core.retry import RetryPolicy
from actors.core.spec import Spec
from actors.core.task import Move, State, Task, after

_FINISH = Op.FINISH
_SUCCESS = Verdict.SUCCEEDED
_SUCCEEDED = after(State.RUNNING, Move.SUCCEED)
_DEAD = after(State.RUNNING, Move.DIE)
_AGAIN = after(State.RUNNING, Move.RETRY)
HELD_MS = 253_402_300_799_999
"""The end of the year 9999, and of a claim that nobody but a person ends: one of the `later` kind, so that it costs no
memory, and a program that knows of no such thing leaves it alone, too."""


def retry_of(spec: Spec, queue: Queue) -> RetryPolicy:
    """The task's own policy, else its queue's."""
    return spec.retry or queue.retry


def deadline_ms_of(spec: Spec, queue: Queue) -> int:
    """The limit of one attempt: the task's own, else its queue's."""
    return spec.dispatch_deadline_ms or queue.dispatch_deadline_ms


def started_ms_of(task: Task) -> int | None:
    """When the attempt under way started; of one that another owner started, as its claim tells. None: unknown."""
    if task.started_ms or task.claim_ms is None or task.claim_ms == HELD_MS:
        return task.started_ms or None
    return task.claim_ms - deadline_ms_of(task.spec, task.queue)


def expiry_ms_of(task: Task) -> int | None:
    """When a task that has not started yet is given up, or None."""
    ttl_ms = task.spec.ttl_ms
    return None if ttl_ms is None or task.attempt else task.schedule_ms + ttl_ms


def finish(task: Task, epoch: int, to: State, now_ms: int, outcome: Outcome | None = None) -> Record:
    """The record that ends `task` in the terminal state `to`."""
    return Record(
        _FINISH,
        task,
        epoch,
        task.rev,
        to,
        now_ms,
        task.schedule_ms,
        task.due_ms,
        task.attempt,
        task.budget,
        task.lateness_ms,
        None,
        outcome,
    )


def move(task: Task, epoch: int, state: State, now_ms: int, due_ms: int, op: Op = Op.MOVE) -> Record:
    """The record that leaves `task` live, in `state` and next due at `due_ms`; all else stays as it is."""
    return Record(
        op,
        task,
        epoch,
        task.rev,
        state,
        now_ms,
        task.schedule_ms,
        due_ms,
        task.attempt,
        task.budget,
        task.lateness_ms,
    )


def claim(task: Task, epoch: int, now_ms: int, *, later: bool = False) -> Record:
    """The record that makes a running attempt durable, until its deadline.

    A claim of the `later` kind moves `due_ms` to the deadline: whether its owner lives or not, nothing happens before.
    """
    deadline_ms = (started_ms_of(task) or now_ms) + deadline_ms_of(task.spec, task.queue)
    claimed = move(task, epoch, State.RUNNING, now_ms, deadline_ms if later else task.due_ms)
    claimed.claim_ms = deadline_ms
    return claimed


def settle(task: Task, outcome: Outcome, epoch: int, now_ms: int) -> Record:
    """The record of a running task's outcome: done, waiting for its next attempt, or dead."""
    verdict = outcome.verdict
    if verdict is _SUCCESS:
        return finish(task, epoch, _SUCCEEDED, now_ms, outcome)
    if verdict is Verdict.LATER:
        return claim(task, epoch, now_ms, later=True)
    if verdict is Verdict.UNSENT:
        return _unsent(task, outcome, epoch, now_ms)
    if verdict is Verdict.SNOOZED:
        return _snooze(task, outcome, epoch, now_ms)
    if verdict is Verdict.LOST and task.queue.unknown is Unheard.HOLD:
        return _hold(task, outcome, epoch, now_ms)
    due_ms = _next_attempt_ms(task, outcome, now_ms)
    if due_ms is None:
        return finish(task, epoch, _DEAD, now_ms, outcome)
    again = move(task, epoch, _AGAIN, now_ms, due_ms)
    again.outcome = outcome
    return again


def _unsent(task: Task, outcome: Outcome, epoch: int, now_ms: int) -> Record:
    """Nothing was sent, so there was no attempt: the claim is taken back."""
    after_ms = outcome.retry_after_ms
    again = move(task, epoch, _AGAIN, now_ms, _at_once_ms(task, now_ms) if after_ms is None else now_ms + after_ms)
    again.attempt -= 1
    if not again.attempt:
        again.lateness_ms = None
    return again


def _snooze(task: Task, outcome: Outcome, epoch: int, now_ms: int) -> Record:
    """Its number is used up all the same, for fences only grow; so the budget has one more."""
    after_ms = outcome.retry_after_ms
    due_ms = _at_once_ms(task, now_ms) if after_ms is None else max(outcome.ended_ms + after_ms, now_ms)
    again = move(task, epoch, _AGAIN, now_ms, due_ms)
    again.budget += 1
    again.outcome = outcome
    return again


def _hold(task: Task, outcome: Outcome, epoch: int, now_ms: int) -> Record:
    """Nobody knows how it ended, and it may not run twice: it goes on until somebody says how it ended."""
    held = move(task, epoch, State.RUNNING, now_ms, HELD_MS)
    held.claim_ms = HELD_MS
    held.outcome = outcome
    return held


def _at_once_ms(task: Task, now_ms: int) -> int:
    """It keeps its place: that nobody did it is no reason to wait behind what came later."""
    return min(task.due_ms, now_ms)


def _next_attempt_ms(task: Task, outcome: Outcome, now_ms: int) -> int | None:
    if outcome.verdict is Verdict.NEVER or task.attempt >= task.budget:
        return None
    if outcome.verdict is Verdict.LOST:
        return _at_once_ms(task, now_ms)
    policy = retry_of(task.spec, task.queue)
    made = task.attempt - max(task.budget - policy.max_attempts, 0)
    delay_ms = policy.delay_ms(made, outcome.jitter)
    if outcome.retry_after_ms is not None:
        # A target's Retry-After asks for patience; a worker, or who completes an attempt, says when.
        delay_ms = outcome.retry_after_ms if outcome.status is None else max(delay_ms, outcome.retry_after_ms)
    due_ms = max(outcome.ended_ms + delay_ms, now_ms)
    limit_ms = policy.max_retry_duration_ms
    if limit_ms is not None and due_ms > task.schedule_ms + limit_ms:
        return None
    return due_ms
