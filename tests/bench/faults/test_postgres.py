import pytest

from bench.faults.postgres import Outage, _again_s, _stray


def test_calls_after_every_lease_has_ended_are_strays() -> None:
    outage = Outage("away", gone_ms=1_000, released_ms=9_000, back_ms=9_500)
    assert _stray([outage], [900, 4_900, 5_000, 5_050, 9_000, 9_400]) == 0
    assert _stray([outage], [5_051, 8_999]) == 2


@pytest.mark.parametrize(
    ("arrived_ms", "again_s"),
    [
        ([900.0, *range(1_000, 3_000, 100)], 0.0),
        ([1_000.0, *range(3_000, 5_000, 100)], 2.0),
        ([900.0, 1_000.0, 3_000.0], float("inf")),
    ],
)
def test_throughput_is_back_with_the_first_window_that_is_full(arrived_ms: list[float], again_s: float) -> None:
    assert _again_s(arrived_ms, 1_000.0, rate_hz=10) == again_s
