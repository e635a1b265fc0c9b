from hypothesis import given
from hypothesis import strategies as st

from actors.core.retry import DEFAULT, RetryPolicy

policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 100),
    min_backoff_ms=st.integers(0, 10_000),
    max_backoff_ms=st.integers(0, 10**8),
    max_doublings=st.integers(0, 30),
)
attempts = st.integers(0, 200)
jitters = st.floats(0, 1, exclude_max=True)


def dumb_bound_ms(policy: RetryPolicy, attempt: int) -> int:
    bound = policy.min_backoff_ms
    for number in range(2, attempt + 1):
        if number - 1 <= policy.max_doublings:
            bound *= 2
    return min(bound, policy.max_backoff_ms)


def test_the_default_is_what_the_contract_says() -> None:
    assert RetryPolicy(5, 1_000, 3_600_000, 16, None) == DEFAULT
    assert [DEFAULT.bound_ms(attempt) for attempt in (1, 2, 3, 4)] == [1_000, 2_000, 4_000, 8_000]


@given(policies, attempts)
def test_the_bound_doubles_up_to_its_limits(policy: RetryPolicy, attempt: int) -> None:
    assert policy.bound_ms(attempt) == dumb_bound_ms(policy, attempt)


@given(policies, attempts)
def test_the_bound_never_shrinks(policy: RetryPolicy, attempt: int) -> None:
    assert policy.bound_ms(attempt) <= policy.bound_ms(attempt + 1)


@given(policies, attempts, jitters)
def test_the_wait_is_below_the_bound(policy: RetryPolicy, attempt: int, jitter: float) -> None:
    bound = policy.bound_ms(attempt)
    assert 0 <= policy.delay_ms(attempt, jitter) <= max(bound - 1, 0)


def test_the_wait_follows_the_dice() -> None:
    assert [DEFAULT.delay_ms(3, jitter) for jitter in (0.0, 0.25, 0.5)] == [0, 1_000, 2_000]


def test_no_attempt_number_is_too_large() -> None:
    assert DEFAULT.bound_ms(10**9) == 3_600_000
