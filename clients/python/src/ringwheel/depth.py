"""How deeply JSON is nested: very deep nesting is not read by the service, nor by most of those who ask for a result.

Cheap where it matters: what has few brackets is not looked at twice.
"""

import re
from itertools import accumulate

MOST_DEPTH = 500
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes({*range(256)} - {*_STEPS})


def too_deep(data: bytes) -> bool:
    """Whether this JSON is nested more than `MOST_DEPTH` deep."""
    if data.count(b"[") + data.count(b"{") <= MOST_DEPTH:
        return False
    brackets = _TEXT.sub(b"", data).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MOST_DEPTH
