"""Arguments that can't work are refused where they are given, in words that begin with their names.

Only what no service could take: which names it takes beyond that is for the service to say; a newer one may take more.
"""

from typing import TypeVar

T = TypeVar("T")


def of_type(value: object, kind: type[T], name: str, expected: str) -> T:
    """The value. Raises TypeError."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{name}: expected {expected}, not a value of type {_type(value)}")
    return value


def whole(value: object, name: str, most: int) -> int:
    """The number, from 1. Raises TypeError or ValueError."""
    number = of_type(value, int, name, f"a whole number from 1 to {most}")
    if not 1 <= number <= most:
        raise ValueError(f"{name}: expected 1 to {most}, not {number}")
    return number


def word(value: object, name: str) -> str:
    """Text with neither blanks nor what can't be printed, and not empty. Raises TypeError or ValueError."""
    text = of_type(value, str, name, "text")
    if not text or not text.isprintable() or any(map(str.isspace, text)):
        raise ValueError(f"{name}: expected text without blanks, not {text!r}")
    return text


def printable(value: object, name: str) -> str:
    """Text that can be printed, in a line. Raises TypeError or ValueError, which don't show it: it may be a secret."""
    text = of_type(value, str, name, "text")
    if not text.isprintable():
        raise ValueError(f"{name}: it has a character that can't be printed, like the end of a line")
    return text


def _type(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
