"""Times and durations as clients write them, to integer milliseconds and back.

Times are RFC 3339 with a zone; a fraction of a millisecond is rounded up, so that nothing runs early. Durations are a
number of seconds or text made of units (`1h30m`, `250ms`). Answers are UTC with `Z` and milliseconds.
Refuses, with Invalid: times without a zone, leap seconds, what no calendar has, and durations that are negative,
not finite or longer than `MAX_DURATION_MS`.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import ceil

from actors.core.errors import Invalid

DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS
MAX_DURATION_MS = 100 * YEAR_MS
MAX_DURATION_CHARS = 64
PAST_MS = YEAR_MS
"""A schedule time further back than this is a mistake, not a task."""

Duration = int | float | str

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,18}))?"
    r"(?:[Zz]|([+-](?:[01]\d|2[0-3]):[0-5]\d))(?![\s\S])",
    re.ASCII,
)
_PART = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)(ms|s|m|h|d)", re.ASCII)
DURATION = re.compile(rf"(?:{_PART.pattern})+(?![\s\S])", re.ASCII)
_JUST_BELOW = 1 - 2**-51
"""Takes off what two roundings of a float may have added."""
_FRACTIONS = tuple(f".{ms:03d}Z" for ms in range(1000))
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": DAY_MS}


def time_ms(text: str, pointer: str = "") -> int:
    """Milliseconds since 1970 of an RFC 3339 time, rounded up. Raises Invalid."""
    match = TIME.match(text)
    if match is None:
        raise Invalid("expected an RFC 3339 time with a zone, like 2027-01-31T09:00:00Z", pointer)
    day, clock, fraction, zone = match.groups()
    try:
        whole_ms = _second_ms(day, clock, zone)
    except (ValueError, OverflowError) as error:
        raise Invalid(f"not a time: {error}", pointer) from error
    return whole_ms if fraction is None else whole_ms + _fraction_ms(fraction)


@lru_cache(maxsize=4096)  # the times of one client crowd in few seconds
def _second_ms(day: str, clock: str, zone: str | None) -> int:
    return (datetime.fromisoformat(f"{day}T{clock}{zone or '+00:00'}") - _EPOCH) // _MS


def schedule_ms(text: str, now_ms: int, pointer: str) -> int:
    """The same for a time at which something is to run: at most a year ago, at most 100 years ahead."""
    at_ms = time_ms(text, pointer)
    if at_ms > now_ms + MAX_DURATION_MS:
        raise Invalid("is more than 100 years ahead", pointer)
    if at_ms < now_ms - PAST_MS:
        raise Invalid("is more than a year in the past", pointer)
    return at_ms


def duration_ms(value: Duration, pointer: str = "", least_ms: int = 0, most_ms: int = MAX_DURATION_MS) -> int:
    """Milliseconds of a duration, rounded up. Raises Invalid."""
    length_ms = _text_ms(value, pointer) if isinstance(value, str) else value * 1000
    if not least_ms <= length_ms <= most_ms:  # false for NaN too
        raise Invalid(f"expected a duration between {least_ms / 1000:g} and {most_ms / 1000:.15g} seconds", pointer)
    return ceil(length_ms * _JUST_BELOW)  # 0.07 s is 70 ms, not 70.00000000000001


def time_text(at_ms: int) -> str:
    """RFC 3339, UTC, milliseconds."""
    return _second_text(at_ms // 1000) + _FRACTIONS[at_ms % 1000]


@lru_cache(maxsize=4096)
def _second_text(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]


def _fraction_ms(digits: str) -> int:
    scale: int = 10 ** len(digits)
    return -(-int(digits) * 1000 // scale)


def _text_ms(text: str, pointer: str) -> float:
    if len(text) > MAX_DURATION_CHARS or DURATION.match(text) is None:
        raise Invalid('expected a number of seconds, or text like "1h30m" or "250ms"', pointer)
    return sum(_number(number) * _UNIT_MS[unit] for number, unit in _PART.findall(text))


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)
