import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.events import Op, Outcome, Record, Verdict
from actors.core.queue import Queue
from actors.core.retry import RetryPolicy
from actors.core.settle import claim, deadline_ms_of, expiry_ms_of, finish, move, retry_of, settle
from actors.core.spec import Spec
from actors.core.task import State, Task
from tests.support.builders import T0_MS, make_task

POLICY = RetryPolicy(max_attempts=5, min_backoff_ms=1_000, max_backoff_ms=60_000)
NOW_MS = T0_MS + 300


def running(spec: Spec | None = None, *, attempt: int = 1, budget: int = 5) -> Task:
    task = make_task(1, Queue(1, "default", "q", retry=POLICY), spec=spec or Spec())
    task.attempt, task.budget, task.epoch, task.rev = attempt, budget, 3, 10
    task.started_ms, task.lateness_ms = T0_MS + 10, 10
    return task


def settled(
    task: Task, verdict: Verdict, *, jitter: float = 0.5, status: int | None = None, retry_after_ms: int | None = None
) -> Record:
    outcome = Outcome(task, 3, task.attempt, verdict, task.started_ms, T0_MS + 200, status, jitter=jitter)
    outcome.retry_after_ms = retry_after_ms
    return settle(task, outcome, 3, NOW_MS)


def values(record: Record) -> tuple[int | None, ...]:
    return record.schedule_ms, record.due_ms, record.attempt, record.budget, record.lateness_ms, record.claim_ms


def test_a_task_overrules_its_queue() -> None:
    own = RetryPolicy(max_attempts=2)
    queue = Queue(1, "default", "q", retry=POLICY, dispatch_deadline_ms=7)
    assert retry_of(Spec(), queue) is POLICY
    assert retry_of(Spec(retry=own), queue) is own
    assert deadline_ms_of(Spec(), queue) == 7
    assert deadline_ms_of(Spec(dispatch_deadline_ms=9), queue) == 9


def test_ttl_counts_from_the_schedule_until_the_first_start() -> None:
    task = running(Spec(ttl_ms=50), attempt=0)
    assert expiry_ms_of(task) == T0_MS + 50
    task.attempt = 1
    assert expiry_ms_of(task) is None
    assert expiry_ms_of(running(Spec(), attempt=0)) is None


def test_a_move_leaves_everything_else_as_it_is() -> None:
    task = running()
    moved = move(task, 3, State.SCHEDULED, NOW_MS, T0_MS + 900)
    assert (moved.op, moved.rev, moved.epoch, moved.at_ms, moved.state) == (Op.MOVE, 10, 3, NOW_MS, State.SCHEDULED)
    assert values(moved) == (T0_MS, T0_MS + 900, 1, 5, 10, None)
    assert (moved.outcome, moved.token) == (None, None)


def test_a_finish_leaves_everything_but_the_state_as_it_is() -> None:
    task = running()
    task.claim_ms = T0_MS + 5
    ended = finish(task, 3, State.CANCELLED, NOW_MS)
    assert (ended.op, ended.rev, ended.epoch, ended.at_ms, ended.state) == (Op.FINISH, 10, 3, NOW_MS, State.CANCELLED)
    assert values(ended) == (T0_MS, T0_MS, 1, 5, 10, None)


def test_success_ends_it() -> None:
    record = settled(running(), Verdict.SUCCEEDED)
    assert (record.op, record.state) == (Op.FINISH, State.SUCCEEDED)
    assert record.outcome is not None
    assert record.outcome.verdict is Verdict.SUCCEEDED


def test_failure_is_tried_again_after_the_back_off() -> None:
    record = settled(running(), Verdict.FAILED, jitter=0.25)
    assert (record.op, record.state) == (Op.MOVE, State.SCHEDULED)
    assert record.due_ms == T0_MS + 200 + 250
    assert (record.attempt, record.lateness_ms, record.claim_ms) == (1, 10, None)
    assert record.outcome is not None


def test_no_retry_is_planned_for_the_past() -> None:
    assert settled(running(), Verdict.FAILED, jitter=0.0).due_ms == NOW_MS


def test_the_back_off_doubles_with_each_attempt() -> None:
    assert settled(running(attempt=3), Verdict.FAILED, jitter=0.5).due_ms == T0_MS + 200 + 2_000


@pytest.mark.parametrize(("retry_after_ms", "due_ms"), [(9_000, 9_200), (100, 700)])
def test_the_longer_of_back_off_and_the_targets_wish_counts(retry_after_ms: int, due_ms: int) -> None:
    record = settled(running(), Verdict.FAILED, status=503, retry_after_ms=retry_after_ms)
    assert record.due_ms == T0_MS + due_ms


def test_who_ends_an_attempt_says_when_it_is_tried_again() -> None:
    """A worker, or who completes an attempt that goes on elsewhere."""
    assert settled(running(), Verdict.FAILED, retry_after_ms=100).due_ms == T0_MS + 300
    assert settled(running(), Verdict.FAILED, retry_after_ms=0).due_ms == NOW_MS


def test_the_budget_used_up_is_death() -> None:
    record = settled(running(attempt=5), Verdict.FAILED)
    assert (record.op, record.state, record.attempt) == (Op.FINISH, State.DEAD, 5)


def test_never_is_death_at_once() -> None:
    assert settled(running(), Verdict.NEVER).state is State.DEAD


@pytest.mark.parametrize(("limit_ms", "state"), [(700, State.SCHEDULED), (699, State.DEAD)])
def test_no_attempt_is_planned_beyond_the_retry_duration(limit_ms: int, state: State) -> None:
    policy = RetryPolicy(max_attempts=5, min_backoff_ms=1_000, max_retry_duration_ms=limit_ms)
    assert settled(running(Spec(retry=policy)), Verdict.FAILED).state is state


def test_after_a_redrive_back_off_starts_anew() -> None:
    """Attempt 6 with a budget of 10 is the first of its new life."""
    assert settled(running(attempt=6, budget=10), Verdict.FAILED, jitter=0.5).due_ms == T0_MS + 200 + 500


def test_a_smaller_budget_than_the_policys_counts_from_the_first() -> None:
    assert settled(running(attempt=2, budget=3), Verdict.FAILED, jitter=0.5).due_ms == T0_MS + 200 + 1_000


def test_lost_is_tried_again_at_once_and_keeps_its_place() -> None:
    record = settled(running(), Verdict.LOST)
    assert (record.state, record.due_ms, record.attempt) == (State.SCHEDULED, T0_MS, 1)


@pytest.mark.parametrize("verdict", [Verdict.LOST, Verdict.UNSENT, Verdict.SNOOZED])
def test_what_is_tried_again_at_once_is_due_by_then(verdict: Verdict) -> None:
    """A claim of the `later` kind is due at its deadline."""
    task = running()
    task.due_ms = NOW_MS + 30_000
    assert settled(task, verdict).due_ms == NOW_MS


def test_lost_counts_as_an_attempt() -> None:
    assert settled(running(attempt=5), Verdict.LOST).state is State.DEAD


@pytest.mark.parametrize("attempt", [1, 5])
def test_unsent_is_no_attempt(attempt: int) -> None:
    """Not even the last one: a lease that ended is no reason to die."""
    record = settled(running(attempt=attempt), Verdict.UNSENT)
    assert (record.op, record.state, record.due_ms) == (Op.MOVE, State.SCHEDULED, T0_MS)
    assert (record.attempt, record.claim_ms, record.outcome) == (attempt - 1, None, None)
    assert record.lateness_ms == (None if attempt == 1 else 10)


def test_unsent_may_ask_for_time() -> None:
    assert settled(running(), Verdict.UNSENT, retry_after_ms=400).due_ms == NOW_MS + 400


@pytest.mark.parametrize(("retry_after_ms", "due_ms"), [(None, T0_MS), (0, NOW_MS), (9_000, T0_MS + 9_200)])
def test_a_snooze_uses_its_number_but_no_attempt(retry_after_ms: int | None, due_ms: int) -> None:
    """Not even the last one; and its time counts from when it was said, but is not in the past. What was given back
    unused keeps its place.
    """
    record = settled(running(attempt=5), Verdict.SNOOZED, retry_after_ms=retry_after_ms)
    assert (record.op, record.state, record.due_ms) == (Op.MOVE, State.SCHEDULED, due_ms)
    assert (record.attempt, record.budget, record.claim_ms, record.lateness_ms) == (5, 6, None, 10)
    assert record.outcome is not None


def test_a_snooze_leaves_the_back_off_of_later_failures_as_it_was() -> None:
    """Attempt 2 with a budget of 6: the first one was no failure."""
    assert settled(running(attempt=2, budget=6), Verdict.FAILED, jitter=0.5).due_ms == T0_MS + 200 + 500


def test_a_claim_lasts_until_the_deadline() -> None:
    record = claim(running(Spec(dispatch_deadline_ms=2_000)), 3, NOW_MS)
    assert (record.op, record.state, record.rev) == (Op.MOVE, State.RUNNING, 10)
    assert (record.due_ms, record.claim_ms, record.attempt) == (T0_MS, T0_MS + 2_010, 1)


def test_later_is_a_claim_that_is_due_at_its_deadline() -> None:
    record = settled(running(), Verdict.LATER)
    assert (record.op, record.state) == (Op.MOVE, State.RUNNING)
    assert record.due_ms == record.claim_ms == T0_MS + 10 + 30_000


@given(
    verdict=st.sampled_from(Verdict),
    attempt=st.integers(1, 12),
    budget=st.integers(1, 12),
    jitter=st.floats(0, 1, exclude_max=True),
    wish_ms=st.none() | st.integers(0, 10**7),
)
def test_an_outcome_ends_a_task_or_leaves_it_a_time(
    verdict: Verdict, attempt: int, budget: int, jitter: float, wish_ms: int | None
) -> None:
    task = running(attempt=attempt, budget=budget)
    record = settled(task, verdict, jitter=jitter, retry_after_ms=wish_ms)
    assert record.task is task
    assert (record.epoch, record.rev, record.schedule_ms) == (3, 10, T0_MS)
    assert record.budget == budget + (verdict is Verdict.SNOOZED)
    assert record.attempt == attempt - (verdict is Verdict.UNSENT)
    if record.op is Op.FINISH:
        assert record.state in (State.SUCCEEDED, State.DEAD)
    else:
        at_once = verdict is Verdict.LOST or (wish_ms is None and verdict in (Verdict.UNSENT, Verdict.SNOOZED))
        assert record.due_ms == T0_MS if at_once else record.due_ms >= NOW_MS
        assert (record.claim_ms is None) == (record.state is State.SCHEDULED)
