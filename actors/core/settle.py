"""How an attempt's outcome changes its task: the one place that decides between retry and dead letter."""

from actors.core.events import Op, Outcome, Record, Verdict
from actors.core.queue import Queue
from actors.core.retry import RetryPolicy
from actors.core.spec import Spec
from actors.core.task import Move, State, Task, after

CLAIM_AFTER_MS = 500
"""An attempt that outlives this is claimed durably; most do not, and cost one write less."""


def retry_of(spec: Spec, queue: Queue) -> RetryPolicy:
    """The task's own policy, else its queue's."""
    return spec.retry or queue.retry


def deadline_ms_of(spec: Spec, queue: Queue) -> int:
    """The limit of one attempt: the task's own, else its queue's."""
    return spec.dispatch_deadline_ms or queue.dispatch_deadline_ms


def expiry_ms_of(task: Task) -> int | None:
    """When a task that has not started yet is given up, or None."""
    ttl_ms = task.spec.ttl_ms
    return None if ttl_ms is None or task.attempt else task.schedule_ms + ttl_ms


def record(
    task: Task,
    epoch: int,
    op: Op,
    state: State,
    now_ms: int,
    due_ms: int,
    *,
    claim_ms: int | None = None,
    outcome: Outcome | None = None,
) -> Record:
    """A record that leaves everything of `task` as it is, but for what is named."""
    rev, schedule_ms = task.rev, task.schedule_ms
    attempt, budget, lateness_ms = task.attempt, task.budget, task.lateness_ms
    return Record(
        op, task, epoch, rev, state, now_ms, schedule_ms, due_ms, attempt, budget, lateness_ms, claim_ms, outcome
    )


def finish(task: Task, epoch: int, move: Move, now_ms: int, state: State, outcome: Outcome | None = None) -> Record:
    """The record that ends `task`, being in `state`, by `move`."""
    return record(task, epoch, Op.FINISH, after(state, move), now_ms, task.due_ms, outcome=outcome)


def claim(task: Task, epoch: int, now_ms: int, *, later: bool = False) -> Record:
    """The record that makes a running attempt durable, until its deadline.

    A claim of the `later` kind moves `due_ms` to the deadline: whether its owner lives or not, nothing happens before.
    """
    deadline_ms = task.started_ms + deadline_ms_of(task.spec, task.queue)
    due_ms = deadline_ms if later else task.due_ms
    return record(task, epoch, Op.MOVE, State.RUNNING, now_ms, due_ms, claim_ms=deadline_ms)


def settle(task: Task, outcome: Outcome, epoch: int, now_ms: int) -> Record:
    """The record of a running task's outcome: done, waiting for its next attempt, or dead."""
    verdict = outcome.verdict
    if verdict is Verdict.SUCCEEDED:
        return finish(task, epoch, Move.SUCCEED, now_ms, State.RUNNING, outcome)
    if verdict is Verdict.LATER:
        return claim(task, epoch, now_ms, later=True)
    due_ms = _next_attempt_ms(task, outcome, now_ms)
    if due_ms is None:
        return finish(task, epoch, Move.DIE, now_ms, State.RUNNING, outcome)
    return record(task, epoch, Op.MOVE, after(State.RUNNING, Move.RETRY), now_ms, due_ms, outcome=outcome)


def _next_attempt_ms(task: Task, outcome: Outcome, now_ms: int) -> int | None:
    if outcome.verdict is Verdict.NEVER or task.attempt >= task.budget:
        return None
    if outcome.verdict in (Verdict.LOST, Verdict.UNSENT):
        return now_ms
    policy = retry_of(task.spec, task.queue)
    made = task.attempt - max(task.budget - policy.max_attempts, 0)
    delay_ms = max(policy.delay_ms(made, outcome.jitter), outcome.retry_after_ms or 0)
    due_ms = max(outcome.ended_ms + delay_ms, now_ms)
    limit_ms = policy.max_retry_duration_ms
    if limit_ms is not None and due_ms > task.schedule_ms + limit_ms:
        return None
    return due_ms
