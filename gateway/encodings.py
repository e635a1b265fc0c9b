"""Content codings: which one a client takes for an answer (RFC 9110, 12.5.3)."""

import re
from collections.abc import Iterable

_CODING = re.compile(
    r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*(?:;\s*[Qq]\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?", re.ASCII
)


def takes_gzip(fields: Iterable[str]) -> bool:
    """Whether these values of Accept-Encoding allow gzip. What can't be read allows nothing; none given: no."""
    weights: dict[str, float] = {}
    for member in ",".join(fields).split(","):
        match = _CODING.fullmatch(member)
        if match is not None:
            weights[match[1].lower()] = float(match[2] or 1)
    for name in ("gzip", "x-gzip", "*"):
        if name in weights:
            return weights[name] > 0
    return False
