"""How a handler says that its task did not simply succeed, and how the end of a handler becomes a result.

`Retry`, `Discard` and `Snooze` are raised; any other exception is a failure that the task's retry policy deals with.
A report of a failure is one line: what went wrong, then where, the innermost place first, in at most 1,000 characters.
"""

import concurrent.futures
import traceback
from pathlib import Path
from typing import Any

import msgspec

from ringwheel import finite
from ringwheel.depth import MOST_DEPTH, too_deep
from ringwheel.errors import RingwheelError
from ringwheel.frames import Delivery, LastWord, Result
from ringwheel.seconds import seconds as _checked

MOST_CHARS = 1_000
MOST_FRAMES = 5
RESULT_BYTES = 64 * 1024
"""The service takes no larger result."""
_NOT_THEIRS = str(Path(__file__).parent), str(Path(concurrent.futures.__file__).parent)


class Verdict(RingwheelError):
    """Root of what a handler may raise to say how its task goes on."""


class Retry(Verdict):
    """It failed; try again after so many seconds, or, without, when the retry policy says.

    Raises TypeError or ValueError when `after` is no number of seconds between 0 and 100 years.
    """

    def __init__(self, reason: str = "", *, after: float | None = None) -> None:
        super().__init__(reason or "asked to be tried again")
        self.after = None if after is None else _checked(after, "Retry(after)")


class Discard(Verdict):
    """It failed for good: it is dead at once."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class Snooze(Verdict):
    """Not now: it comes again after so many seconds, and this attempt does not count.

    Raises TypeError or ValueError when `seconds` is no number between 0 and 100 years.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = _checked(seconds, "Snooze(seconds)")
        super().__init__(f"not for {self.seconds:g} s")


def succeeded(task: Delivery, value: Any) -> Result:
    """With what the handler returned as JSON. What can't be kept fails for good: another attempt would end alike."""
    if value is None:
        return Result(task.id, task.lease, ok=True)
    if isinstance(value, bytes | bytearray | memoryview):
        return discarded(task, f"a result of type {type(value).__name__} is not JSON: return text")
    try:
        data = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        return discarded(task, f"the result can't be encoded as JSON: {error}")
    if len(data) > RESULT_BYTES:
        return discarded(task, f"the result has {len(data)} bytes, more than {RESULT_BYTES}")
    if too_deep(data):
        return discarded(task, f"the result is nested more than {MOST_DEPTH} deep")
    if finite.lost(value, data):
        return discarded(task, f"the result can't be encoded as JSON: {finite.WORDS}")
    return Result(task.id, task.lease, ok=True, result=msgspec.Raw(data))


def discarded(task: Delivery, words: str) -> Result:
    """It is dead."""
    return Result(task.id, task.lease, ok=False, error=_bounded(words), retry="never")


def in_place_of(result: Result, why: str) -> LastWord:
    """The attempt failed, for its result was refused; for good if it had succeeded, or all would be done again."""
    words = _bounded(f"the result was refused: {why}")
    return LastWord(result.id, result.lease, ok=False, error=words, retry="never" if result.ok else None)


def snoozed(task: Delivery, seconds: float) -> Result:
    """It comes again; the attempt does not count."""
    return Result(task.id, task.lease, snooze=seconds)


def failed(task: Delivery, error: BaseException) -> Result:
    """What an exception makes of it, whatever it is made of: one of the user's own may raise when it is looked at."""
    try:
        return _verdict(task, error) or Result(task.id, task.lease, ok=False, error=report(error))
    except BaseException:  # noqa: BLE001 - it is theirs
        words = f"{type(error).__qualname__}, which can't be put into words"
        return Result(task.id, task.lease, ok=False, error=_bounded(words))


def _verdict(task: Delivery, error: BaseException) -> Result | None:
    match error:
        case Snooze():
            return snoozed(task, _checked(error.seconds, "Snooze.seconds"))
        case Discard():
            return discarded(task, str(error))
        case Retry():
            after = None if error.after is None else _checked(error.after, "Retry.after")
            return Result(task.id, task.lease, ok=False, error=_bounded(str(error)), retry=after)
    return None


def report(error: BaseException) -> str:
    """An exception and the last places in the user's code, like `ValueError: too wide (in fit, images.py:12)`."""
    words = "".join(traceback.format_exception_only(error)).strip()
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_NOT_THEIRS)
    ]
    places = [
        f"in {frame.name}, {Path(frame.filename).name}:{frame.lineno}" for frame in frames[: -MOST_FRAMES - 1 : -1]
    ]
    where = f" ({'; '.join(places)})" if places else ""
    where = where if len(where) < MOST_CHARS // 2 else ""
    return _bounded(words, MOST_CHARS - len(where)) + where


def _bounded(words: str, most: int = MOST_CHARS) -> str:
    words = words.encode(errors="replace").decode()  # half a surrogate pair is no JSON
    return words if len(words) <= most else words[: most - 1] + "…"
