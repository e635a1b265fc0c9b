"""The primary's clock as a node knows it: never ahead, never back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.clock import SAMPLES, SLEW_MS, Clock, boot_ms
from actors.core.errors import Unavailable
from tests.support.builders import T0_MS


class Local:
    """A node's own clock, moved by hand."""

    def __init__(self, at_ms: float = 5_000.0) -> None:
        self.at_ms = at_ms

    def __call__(self) -> float:
        return self.at_ms


def test_before_the_first_sample_there_is_no_time() -> None:
    clock = Clock()
    assert not clock.known
    with pytest.raises(Unavailable):
        clock.now_ms()
    with pytest.raises(Unavailable):
        clock.ms_until(T0_MS)


def test_the_boot_clock_counts_milliseconds() -> None:
    before = boot_ms()
    assert 0 <= boot_ms() - before < 60_000


def test_time_goes_on_between_samples_and_is_rounded_down() -> None:
    local = Local()
    clock = Clock(local)
    clock.observe(T0_MS, local.at_ms)
    local.at_ms += 400.9
    assert clock.known
    assert clock.now_ms() == T0_MS + 400
    assert clock.ms_until(T0_MS + 1_000) == pytest.approx(599.1, abs=0.25)
    assert clock.ms_until(T0_MS + 300) == pytest.approx(-100.9, abs=0.25)


def test_the_fastest_of_the_last_answers_counts() -> None:
    local = Local()
    clock = Clock(local)
    for way_ms in (30, 5, 40, 20):
        local.at_ms += 500
        clock.observe(T0_MS + local.at_ms - way_ms, local.at_ms)
    assert T0_MS + local.at_ms - 5 - clock.now_ms() == pytest.approx(0.5, abs=0.5)


def test_a_correction_is_slewed() -> None:
    local = Local()
    clock = Clock(local)
    clock.observe(T0_MS + local.at_ms, local.at_ms)
    clock.observe(T0_MS + local.at_ms + 1_000, local.at_ms)
    assert clock.now_ms() == T0_MS + local.at_ms + SLEW_MS


def test_after_the_primary_stepped_back_time_stands_still_until_it_is_right() -> None:
    local = Local()
    clock = Clock(local)
    clock.observe(T0_MS + local.at_ms, local.at_ms)
    seen = [clock.now_ms()]
    for _ in range(SAMPLES + 40):
        local.at_ms += 10
        clock.observe(T0_MS + local.at_ms - 1_000, local.at_ms)
        seen.append(clock.now_ms())
    assert seen == sorted(seen)
    assert seen[-1] == seen[SAMPLES]
    local.at_ms += 1_000
    clock.observe(T0_MS + local.at_ms - 1_000, local.at_ms)
    assert T0_MS + local.at_ms - 1_000 - clock.now_ms() in (0, 1)


@pytest.mark.parametrize("drift_ppm", [-200, 0, 200])
@pytest.mark.parametrize("outage_s", [0, 60, 3_600])
def test_it_is_not_ahead_of_the_primary_when_the_nodes_clock_runs_fast(drift_ppm: int, outage_s: int) -> None:
    local = Local()
    clock = Clock(local)
    primary_ms = float(T0_MS)
    for beat in range(200):
        passed_ms = 500.0 if beat != 100 else outage_s * 1_000
        for _ in range(10):
            primary_ms += passed_ms / 10
            local.at_ms += passed_ms / 10 * (1 + drift_ppm / 1e6)
            if beat != 100 and clock.known:
                assert clock.now_ms() <= primary_ms
        clock.observe(primary_ms, local.at_ms)
        assert clock.now_ms() <= primary_ms
    assert primary_ms - clock.now_ms() < 2


@given(
    ways=st.lists(st.floats(0, 400), min_size=1, max_size=60),
    gaps=st.lists(st.floats(1, 2_000), min_size=60, max_size=60),
)
def test_with_any_delays_it_is_never_ahead_and_never_goes_back(ways: list[float], gaps: list[float]) -> None:
    local = Local(0)
    clock = Clock(local)
    last = 0
    for way_ms, gap_ms in zip(ways, gaps, strict=False):
        local.at_ms += gap_ms
        clock.observe(T0_MS + local.at_ms - way_ms, local.at_ms)
        now = clock.now_ms()
        assert last <= now <= T0_MS + local.at_ms
        last = now
