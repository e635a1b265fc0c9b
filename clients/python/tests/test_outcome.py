"""How the end of a handler becomes a result."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from ringwheel import Discard, Retry, Snooze
from ringwheel.depth import MOST_DEPTH
from ringwheel.frames import Result
from ringwheel.outcome import MOST_CHARS, failed, report, succeeded
from ringwheel.seconds import MOST_S
from test_handler import delivered


def nested(deep: int) -> Any:
    value: Any = "[["
    for place in range(deep):
        value = [value] if place % 2 else {"a": value}
    return value


def fall(words: str, deep: int = 0) -> None:
    if deep:
        fall(words, deep - 1)
    raise ValueError(words)


def caught(words: str, deep: int = 0) -> ValueError:
    try:
        fall(words, deep)
    except ValueError as error:
        return error
    raise AssertionError


def test_what_is_raised_says_how_it_goes_on() -> None:
    task = delivered()
    assert failed(task, Snooze(2)) == Result("t1", "l", snooze=2)
    assert failed(task, Discard("no such picture")) == Result(
        "t1", "l", ok=False, error="no such picture", retry="never"
    )
    assert failed(task, Retry("busy", after=7)) == Result("t1", "l", ok=False, error="busy", retry=7)
    assert failed(task, Retry()).retry is None
    result = failed(task, caught("too wide"))
    assert result.ok is False
    assert result.retry is None
    assert str(result.error).startswith("ValueError: too wide (in fall, test_outcome.py:")


@pytest.mark.parametrize("seconds", [-1, -1e-9, float("nan"), float("inf"), 1e30, MOST_S + 1, 10**400, -(10**400)])
def test_what_is_no_time_is_refused_where_it_is_said(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"^Snooze\(seconds\): expected 0 to 3153600000 seconds, not "):
        Snooze(seconds)
    with pytest.raises(ValueError, match=r"^Retry\(after\): expected 0 to 3153600000 seconds, not "):
        Retry(after=seconds)


@pytest.mark.parametrize(
    ("seconds", "kind"), [("5s", "str"), (True, "bool"), (timedelta(1), "timedelta"), (Decimal(1), "Decimal")]
)
def test_what_is_no_number_is_refused_where_it_is_said(seconds: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=rf"^Snooze\(seconds\): .* not a value of type {kind}$"):
        Snooze(seconds)
    with pytest.raises(TypeError, match=r"^Retry\(after\): expected a number"):
        Retry(after=seconds)
    with pytest.raises(TypeError, match=r"^Snooze\(seconds\): expected a number"):
        Snooze(None)  # type: ignore[arg-type]


def test_any_time_within_a_hundred_years_will_do() -> None:
    class Number(int):
        """As libraries have them."""

    for seconds in (0, 0.0, 0.5, MOST_S, Number(7)):
        assert Snooze(seconds).seconds == Retry(after=seconds).after == seconds
    assert type(Snooze(Number(7)).seconds) is float


def test_what_was_changed_afterwards_is_refused_too() -> None:
    retry, snooze = Retry("busy"), Snooze(1)
    retry.after = snooze.seconds = object()  # type: ignore[assignment]
    for verdict in (retry, snooze):
        result = failed(delivered(), verdict)
        assert (result.ok, result.retry, result.snooze) == (False, None, None)
        assert type(verdict).__name__ in str(result.error)


def test_a_report_is_short() -> None:
    words = report(caught("deep", 50))
    assert words.count("test_outcome.py") == 5
    assert len(report(caught("x" * 5_000))) == MOST_CHARS
    assert "test_outcome.py" in report(caught("x" * 5_000))
    assert report(caught("half a pair \ud800")).startswith("ValueError: half a pair ?")
    assert len(str(failed(delivered(), Discard("x" * 5_000)).error)) == MOST_CHARS


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "can't be encoded"),
        ("x" * 70_000, "more than 65536"),
        (b"\xff", "a result of type bytes is not JSON"),
        (bytearray(), "a result of type bytearray is not JSON"),
        (memoryview(b"x"), "a result of type memoryview is not JSON"),
        (nested(MOST_DEPTH + 1), "nested more than 500 deep"),
        (nested(100_000), "can't be encoded"),
        (float("nan"), "NaN and infinite numbers are no JSON"),
        ({"mean": [None, float("-inf")]}, "NaN and infinite numbers are no JSON"),
    ],
)
def test_a_result_that_can_t_be_kept_fails_for_good(value: Any, words: str) -> None:
    result = succeeded(delivered(), value)
    assert (result.ok, result.retry) == (False, "never")
    assert words in str(result.error)


def test_a_result_is_json() -> None:
    assert bytes(succeeded(delivered(), {"day": delivered().schedule_time}).result) == b'{"day":"2027-01-31T00:00:00Z"}'
    assert bytes(succeeded(delivered(), ["null", None]).result) == b'["null",null]'
    assert bytes(succeeded(delivered(), [msgspec.Raw(b"null")]).result) == b"[null]"
    assert succeeded(delivered(), None) == Result("t1", "l", ok=True)
    assert bytes(succeeded(delivered(), {"a": b"bytes within"}).result) == b'{"a":"Ynl0ZXMgd2l0aGlu"}'


@pytest.mark.parametrize(
    "value", [nested(MOST_DEPTH), [[{}] * 50] * 50, "[" * 5_000, ['"[{\\', "\\", '\\"['] * 2_000, {"[": ["{" * 1_000]}]
)
def test_a_result_may_be_nested_as_deeply_as_anybody_reads(value: Any) -> None:
    assert msgspec.json.decode(succeeded(delivered(), value).result) == value
