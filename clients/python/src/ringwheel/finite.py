"""Numbers that JSON can't say: msgspec writes NaN and the infinities as `null`, so that they would be lost unnoticed.

Cheap where it matters: what has no `null` when it is written is not looked at twice. A value that holds a `msgspec.Raw`
is not looked at.
"""

import json
from typing import Any

import msgspec

WORDS = "NaN and infinite numbers are no JSON"


def lost(value: Any, data: bytes) -> bool:
    """Whether such a number of the value is a `null` in `data`, which msgspec wrote of it."""
    if b"null" not in data:
        return False
    try:
        json.dumps(msgspec.to_builtins(value), skipkeys=True, allow_nan=False)
    except ValueError:
        return True
    except (TypeError, RecursionError, msgspec.MsgspecError):
        return False
    return False
