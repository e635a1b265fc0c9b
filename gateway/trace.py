"""`traceparent` (W3C Trace Context, level 1): read from the request that submits, sent on with every attempt.

ringwheel takes part in a trace without recording one: each attempt is a new parent under the trace of the request.
Promises: what is no valid value is ignored, as the specification says; a value of a later version is read as far as
this version goes. Refuses `tracestate`: nothing here would keep it true.
"""

import re
from random import getrandbits

from multidict import CIMultiDict, CIMultiDictProxy, istr

TRACEPARENT = istr("traceparent")

_VALUE = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-[!-~]*)?(?![\s\S])", re.ASCII
)
_KNOWN_FLAGS = 0x03
"""Sampled, and random trace id (level 2); the others are sent as 0."""


def trace_of(headers: "CIMultiDict[str] | CIMultiDictProxy[str]") -> str | None:
    """The trace that a request belongs to, as `traceparent` of version 00; None when it has none, or no valid one."""
    text = headers.get(TRACEPARENT)
    return None if text is None else _read(text, len(headers.getall(TRACEPARENT)))


def _read(text: str, lines: int) -> str | None:
    match = _VALUE.match(text)
    if match is None or lines > 1 or (match[1] == "00" and len(text) > 55):
        return None
    return f"00-{match[2]}-{match[3]}-{int(match[4], 16) & _KNOWN_FLAGS:02x}"


def child_of(trace: str) -> str:
    """`traceparent` of one attempt: the same trace and flags, a parent id of its own."""
    return f"{trace[:36]}{getrandbits(64) or 1:016x}{trace[52:]}"
