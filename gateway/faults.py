"""What is wrong with bytes that a decoder refuses: in words, with the place, as a problem.

Promises: each has a pointer; what the decoder does not tell (which key of a mapping, what it took for an early end) is
looked for in the bytes, once they are refused.
"""

import re
from typing import TypeVar

import msgspec

from gateway.problems import Problem, invalid_of

T = TypeVar("T")

_BYTE = re.compile(r" \(byte (\d+)\)\Z")
_CUT = re.compile("truncated|hex escape|surrogate")
_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*(?:\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..))", re.DOTALL)
"""A surrogate pair as escapes, or (the group) half of one."""


def decoded(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """What the bytes say. Raises Invalid, Problem or RecursionError."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise invalid_of(error, data=data) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise malformed(error, data) from error


def malformed(error: Exception, data: bytes | msgspec.Raw) -> Problem:
    """What stands for a decoder's refusal of bytes that are no JSON; says where it stopped, when that is known."""
    if isinstance(error, UnicodeDecodeError):
        return Problem("not-json", "the text is not UTF-8", "")
    return Problem("not-json", _words(str(error), data), "")


def _words(words: str, data: bytes | msgspec.Raw) -> str:
    if _CUT.search(words) is None:
        return _BYTE.sub(r" at byte \1", words)
    text = bytes(data)
    if not text.strip():
        return "expected JSON, but there is nothing"
    for found in _ESCAPE.finditer(text):
        if found[1] is not None:
            return f"half a surrogate pair, which is no text, at byte {found.start(1)}"
    return f"the JSON ends too early, at byte {len(text)}" if "truncated" in words else _BYTE.sub(r" at byte \1", words)
