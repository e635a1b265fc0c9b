"""Webhook targets as clients give them: where a task may be pushed, and with which headers.

Accepts: an absolute ASCII URL (RFC 3986) with http or https, a host and no user; methods that HTTP defines; field
lines of RFC 9110. Refuses: what would let a request break out of its line, and the fields that ringwheel or HTTP's
framing own.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

import msgspec

from actors.core.errors import Invalid
from actors.core.spec import HttpTarget
from gateway.problems import Problem, escape, invalid_of

MAX_URL_CHARS = 2048
MAX_HEADERS = 50
MAX_HEADER_CHARS = 16_384
"""Names and values together."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

RESERVED = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Field names that belong to the framing of the request or to the task's `content_type`."""

RESERVED_PREFIXES = ("proxy-", "ringwheel-", "webhook-")

URL = re.compile(
    r"[Hh][Tt][Tt][Pp][Ss]?+://(?:([A-Za-z0-9_-]{1,63}+(?:\.[A-Za-z0-9_-]{1,63}+)*+\.?+)|\[([0-9A-Fa-f:.]+)\])"
    r"(?::(\d{1,5}))?+"
    r"(?:[/?#][!#-;=?-\[\]_a-z~%{|}]*+)?+(?![\s\S])",
    re.ASCII,
)
_NUMERIC = re.compile(r"(?:\A|\.)(?:\d+|0[xX][0-9A-Fa-f]*)\.?\Z", re.ASCII)
"""A host that ends in a number is an address, never a name (WHATWG URL, 3.5): short and hexadecimal forms of one are
read in different ways, and so refused."""
NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}(?![\s\S])", re.ASCII)
VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?(?![\s\S])", re.ASCII)
_decoder = msgspec.json.Decoder(HttpTarget)


def read_target(data: bytes, pointer: str = "/http") -> HttpTarget:
    """The target that `data` describes, decoded and checked. Raises Invalid, or Problem when it is no text."""
    try:
        target = _decoder.decode(data)
    except msgspec.ValidationError as error:
        raise invalid_of(error, pointer, data) from error
    except UnicodeDecodeError as error:
        raise Problem("not-json", "the text is not UTF-8", pointer) from error
    _check_url(target.url, f"{pointer}/url")
    check_method(target.method, f"{pointer}/method")
    if target.headers:
        _check_headers(target.headers, f"{pointer}/headers")
    return target


def check_method(method: str, pointer: str) -> None:
    """Raises Invalid when a webhook can't be sent with this method."""
    if method not in METHODS:
        raise Invalid(f"expected one of {', '.join(sorted(METHODS))}", pointer)


def check_field(name: str, value: str) -> None:
    """Raises Invalid when this is not one field line of HTTP, whoever owns its name."""
    if NAME.match(name) is None:
        raise Invalid("not the name of a header")
    if VALUE.match(value) is None:
        raise Invalid("expected printable ASCII without space at the ends")


def is_owned(name: str) -> bool:
    """Whether ringwheel or HTTP's framing owns the header: the user's own, should there be one, is not sent."""
    lower = name.lower()
    return lower in RESERVED or lower.startswith(RESERVED_PREFIXES)


def _check_url(url: str, pointer: str) -> None:
    if len(url) > MAX_URL_CHARS:
        raise Invalid(f"is longer than {MAX_URL_CHARS} characters", pointer)
    match = URL.match(url)
    if match is None:
        raise Invalid("expected an absolute http or https URL in ASCII, with a host and without a user", pointer)
    name, address, port = match.groups()
    if port is not None and not 0 < int(port) < 65_536:
        raise Invalid("the port is not between 1 and 65535", pointer)
    if address is not None:
        _check_address(IPv6Address, address, pointer)
    elif _NUMERIC.search(name) is not None:
        _check_address(IPv4Address, name, pointer)


def _check_address(kind: type[IPv4Address] | type[IPv6Address], address: str, pointer: str) -> None:
    try:
        kind(address)
    except ValueError as error:
        raise Invalid(f"the host is not an {kind.__name__.removesuffix('Address')} address", pointer) from error


def _check_headers(headers: dict[str, str], pointer: str) -> None:
    if len(headers) > MAX_HEADERS:
        raise Invalid(f"more than {MAX_HEADERS} headers", pointer)
    if sum(map(len, headers)) + sum(map(len, headers.values())) > MAX_HEADER_CHARS:
        raise Invalid(f"more than {MAX_HEADER_CHARS} characters of headers", pointer)
    if len({_field(name, value, pointer) for name, value in headers.items()}) != len(headers):
        raise Invalid("a header is given twice", pointer)


def _field(name: str, value: str, pointer: str) -> str:
    try:
        return _checked(name, value)
    except Invalid as error:
        raise Invalid(error.detail, f"{pointer}/{escape(name)}") from error


@lru_cache(maxsize=1024)
def _checked(name: str, value: str) -> str:
    """The name in lower case. Cached, because the headers of one client's tasks are mostly the same."""
    check_field(name, value)
    if is_owned(name):
        raise Invalid("this header is set by ringwheel")
    return name.lower()
