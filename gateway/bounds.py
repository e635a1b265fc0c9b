"""Which texts the contract takes: each pattern once, for the decoder that checks it and the document that tells it.

`whole` compiles a pattern for the service; `published` writes one for the document, in the regular expressions that
JSON Schema shares with ECMAScript. What a pattern can't say (a calendar, a port's range) is left to the checks beside
it: the document may allow more than the service takes, never less.
"""

import re

END = r"(?![\s\S])"
"""`$` would let a newline follow."""

QUEUE = r"[A-Za-z0-9._-]{1,100}"
KEY = r"[ -~]{1,255}"
KEY_HEADER = r"[!-~](?:[ -~]{0,253}[!-~])?"
"""The same where HTTP takes the space off both ends."""
LABEL_NAME = r"[A-Za-z0-9._/-]{1,63}"
LABEL_VALUE = r"[^\x00-\x1f\x7f]{0,255}"
NODE = r"[^\x00-\x1f\x7f]{1,255}"
"""A node's name."""
MEDIA_TYPE = r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}(?:;[\t -~]{0,100})?"
FENCE = r"[0-9a-f]{8}\.[0-9]{10}\.[0-9]{6}"
TASK_ID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
CURSOR = r"[A-Za-z0-9_-]{1,80}={0,2}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
"""As answered."""

_POSSESSIVE = re.compile(r"([+*?}])\+")


def whole(pattern: str) -> re.Pattern[str]:
    """Matches nothing but all of a text."""
    return re.compile(pattern + END, re.ASCII)


def published(pattern: str) -> str:
    """The pattern as a JSON Schema has it: anchored, digits spelled out."""
    return f"^(?:{pattern.removesuffix(END)})$".replace(r"\d", "[0-9]")


def backtracking(pattern: str) -> str:
    """The pattern without possessive quantifiers, which only Python's engine knows; it matches the same and more."""
    return _POSSESSIVE.sub(r"\1", pattern.removesuffix(END))
