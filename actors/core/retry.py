"""How long to wait before the next attempt.

Exponential back-off with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): the
wait is uniform between 0 and a doubling bound, so that failures of one moment do not come back as one wave.
The random number is an argument: the core has no randomness.
"""

import msgspec


class RetryPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often and how fast a failed task is tried again. The first attempt counts."""

    max_attempts: int = 5
    min_backoff_ms: int = 1_000
    max_backoff_ms: int = 3_600_000
    max_doublings: int = 16
    max_retry_duration_ms: int | None = None
    """Counted from `schedule_time`; no attempt is planned beyond it."""

    def bound_ms(self, attempt: int) -> int:
        """Upper bound of the wait after failed attempt number `attempt` (1 = the first)."""
        doublings = min(max(attempt - 1, 0), self.max_doublings)
        return min(self.min_backoff_ms << doublings, self.max_backoff_ms)

    def delay_ms(self, attempt: int, jitter: float) -> int:
        """The wait after failed attempt number `attempt`; `jitter` is uniform in [0, 1)."""
        return int(self.bound_ms(attempt) * jitter)


DEFAULT = RetryPolicy()
