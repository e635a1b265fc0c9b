"""Times and durations: against datetime and fractions, which are slow and right."""

from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.errors import Invalid
from gateway.times import MAX_DURATION_MS, duration_ms, schedule_ms, time_ms, time_text

NOW_MS = 1_790_000_000_000
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=ZONES)


@given(MOMENTS)
def test_a_time_is_rounded_up_to_the_millisecond(moment: datetime) -> None:
    exact = Fraction((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1), 1000)
    assert time_ms(moment.isoformat()) == ceil(exact)


@given(st.integers(0, 253_402_300_799_999))
def test_a_time_survives_the_way_out_and_back(at_ms: int) -> None:
    assert time_ms(time_text(at_ms)) == at_ms


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-01 01:00:00+01:00", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T00:00:00.001000000Z", 1),
        ("1969-12-31T23:59:59.9999Z", 0),
        ("2024-02-29T00:00:00-00:00", 1_709_164_800_000),
    ],
)
def test_times(text: str, at_ms: int) -> None:
    assert time_ms(text) == at_ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2027-01-01",
        "2027-01-01T00:00:00",
        "2027-01-01T00:00Z",
        "2027-01-01T00:00:00Z\n",
        "2027-01-01T00:00:00+1:00",
        "2027-01-01T00:00:00+24:00",
        "2027-01-01T00:00:00+01:60",
        "2027-01-01T24:00:00Z",
        "2027-01-01T00:00:60Z",
        "2027-02-29T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "20270101T000000Z",
        "２027-01-01T00:00:00Z",
        "2027-W01-1T00:00:00Z",
        "2027-01-01T00:00:00.Z",
    ],
)
def test_what_is_no_time_is_refused_with_its_pointer(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        time_ms(text, "/at")
    assert caught.value.pointer == "/at"


def test_a_schedule_reaches_a_hundred_years_ahead_and_one_back() -> None:
    for at_ms in (NOW_MS - 364 * 86_400_000, NOW_MS, NOW_MS + 99 * 365 * 86_400_000):
        assert schedule_ms(time_text(at_ms), NOW_MS, "") == at_ms
    for at_ms in (NOW_MS - 366 * 86_400_000, NOW_MS + 101 * 365 * 86_400_000):
        with pytest.raises(Invalid):
            schedule_ms(time_text(at_ms), NOW_MS, "")


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (0, 0),
        (5, 5_000),
        (0.07, 70),
        (0.0001, 1),
        (1e-9, 1),
        ("1h30m", 5_400_000),
        ("250ms", 250),
        ("1.5s", 1_500),
        ("0.5ms", 1),
        ("2d1h", 176_400_000),
        ("1s1s", 2_000),
        (MAX_DURATION_MS // 1000, MAX_DURATION_MS),
    ],
)
def test_durations(value: float | str, ms: int) -> None:
    assert duration_ms(value) == ms


@given(st.integers(0, MAX_DURATION_MS))
def test_a_duration_in_seconds_is_exact_to_the_millisecond(ms: int) -> None:
    assert duration_ms(ms / 1000) == duration_ms(f"{ms}ms") == ms


@pytest.mark.parametrize(
    "value",
    [
        *(-1, -0.001, float("nan"), float("inf"), 1e308, 2**70),
        *("", "5", "1x", "1 s", "-1s", "1s\n", "s", "1e3s", "١s", "9" * 15 + "d", "1s" * 40),
    ],
)
def test_what_is_no_duration_is_refused(value: float | str) -> None:
    with pytest.raises(Invalid):
        duration_ms(value, "/delay")
