"""Quotas: the rule against a dumb bucket, and what clients see of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.problems import Problem
from gateway.quota import BURST_S, Quota
from tests.gateway.served import served


class Bucket:
    """A second's worth is filled in each second, never above the brim; what is owed is below nothing."""

    def __init__(self, rate_hz: float) -> None:
        self.rate_hz = rate_hz
        self.brim = max(rate_hz * BURST_S, 1.0)
        self.left = self.brim

    def fill(self, seconds: float) -> None:
        self.left = min(self.brim, self.left + seconds * self.rate_hz)

    def take(self, tasks: int) -> bool:
        if self.left < 1:
            return False
        self.left -= tasks
        return True


@given(
    st.sampled_from([0.25, 1.0, 4.0, 64.0]),
    st.lists(st.tuples(st.sampled_from([0.0, 0.25, 1.0, 5.0]), st.integers(1, 300)), max_size=60),
)
def test_as_a_bucket(rate_hz: float, steps: list[tuple[float, int]]) -> None:
    now_s = 1_000.0
    quota, bucket = Quota(rate_hz, monotonic=lambda: now_s), Bucket(rate_hz)
    for seconds, tasks in steps:
        now_s += seconds
        bucket.fill(seconds)
        may = bucket.take(tasks)
        if may:
            headers = quota.take("t", tasks)
            assert headers["RateLimit"].split(";")[1] == f"r={max(0, int(bucket.left))}"
            continue
        with pytest.raises(Problem) as refusal:
            quota.take("t", tasks)
        headers = refusal.value.headers
        wait_s = int(headers["Retry-After"])
        assert wait_s >= 1
        assert bucket.left + wait_s * rate_hz >= 1, "who waits as told is let in"
        assert (refusal.value.status, headers["RateLimit"].split(";")[1]) == (429, "r=0")


def test_each_tenant_has_its_own() -> None:
    quota = Quota(1, {"large": 100}, monotonic=lambda: 5.0)
    quota.take("small", 2)
    with pytest.raises(Problem):
        quota.take("small", 1)
    quota.take("other", 1)
    assert quota.take("large", 150)["RateLimit-Policy"] == '"tenant";q=200;w=2'
    assert quota.refused == 1
    assert Quota().take("any", 10_000) == {}
    assert Quota(None, {"small": 1}).take("any", 10_000) == {}


async def test_clients_are_told() -> None:
    async with served() as world:
        world.gateway.quota = Quota(5, monotonic=lambda: 7.0)
        answer = await world.post("/v1/tasks", {"delay": "1h"})
        assert (answer.status, answer.headers["RateLimit"]) == (201, '"tenant";r=9;t=1')
        answer = await world.post("/v1/tasks:batch", [{"delay": "1h"}] * 12)
        assert (answer.status, answer.headers["RateLimit"]) == (200, '"tenant";r=0;t=3')
        for path, body in (("/v1/tasks", {"delay": "1h"}), ("/v1/tasks:batch", [{"delay": "1h"}])):
            answer = await world.post(path, body)
            assert (answer.status, answer.json["type"], answer.headers["Retry-After"]) == (429, "overloaded", "1")
            assert answer.headers["RateLimit-Policy"] == '"tenant";q=10;w=2'
        assert world.intake.batches == 2
