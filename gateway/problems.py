"""Problem details (RFC 9457): the one form of every error that a client sees.

Promises: `type title status detail instance errors[{pointer, detail}]` in each, pointers as in RFC 6901, `Retry-After`
with every 429 and 503. Refuses to show what went wrong inside: an unexpected exception becomes a 500 that carries the
id under which it was logged, and nothing else.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import msgspec
import orjson
from aiohttp import ClientConnectionResetError, hdrs, web

from actors.core.errors import (
    Conflict,
    Invalid,
    KeyReused,
    NotSupported,
    Overloaded,
    RingwheelError,
    Unavailable,
    Unknown,
)
from gateway.ready import written

MEDIA_TYPE = "application/problem+json"

TYPES: dict[str, tuple[int, str]] = {
    "malformed": (400, "The request is not valid HTTP"),
    "unreadable": (400, "The body could not be read"),
    "not-json": (400, "The body is not JSON"),
    "unauthenticated": (401, "Not authenticated"),
    "forbidden": (403, "Not allowed"),
    "not-found": (404, "Not found"),
    "method-not-allowed": (405, "Method not allowed"),
    "too-slow": (408, "The request took too long to arrive"),
    "conflict": (409, "Not possible in the present state"),
    "too-large": (413, "Too large"),
    "unsupported-media-type": (415, "Unsupported media type"),
    "invalid": (422, "The request breaks the contract"),
    "not-supported": (422, "Not supported yet"),
    "key-reused": (422, "The idempotency key was used for another request"),
    "overloaded": (429, "Too much at once"),
    "head-too-large": (431, "The head of the request is too large"),
    "internal": (500, "Internal error"),
    "unavailable": (503, "Not available now"),
}
"""Problem type -> status and title."""

GOING_AWAY = "this node is going away"

_BY_STATUS = {400: "unreadable", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}
_AT = re.compile(r"(.*) - at `\$?(.*)`\Z", re.DOTALL)
_STEP = re.compile(r"\[\.\.\.\]|\.([^.\[]+)|\[(\d+)\]")  # [...] is some key of a mapping
_FIELD = re.compile(r"Object (?:contains unknown|missing required) field `(.*)`\Z", re.DOTALL)
_DETAIL_CHARS = 300
_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Problem(RingwheelError):
    """A refusal of one of `TYPES`, ready to be answered."""

    def __init__(
        self,
        kind: str,
        detail: str,
        pointer: str | None = None,
        *,
        headers: dict[str, str] | None = None,
        state: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.pointer = pointer
        self.headers = headers or {}
        self.state = state
        """Of the task that refused a command."""

    @property
    def status(self) -> int:
        """HTTP status."""
        return TYPES[self.kind][0]

    def body(self, instance: str | None = None) -> dict[str, Any]:
        """The problem as a JSON object; `instance` names what it happened to."""
        status, title = TYPES[self.kind]
        errors = [] if self.pointer is None else [{"pointer": self.pointer, "detail": self.detail}]
        body: dict[str, Any] = {"type": self.kind, "title": title, "status": status, "detail": self.detail}
        if instance is not None:
            body["instance"] = instance
        if self.state is not None:
            body["state"] = self.state
        return body | {"errors": errors}

    def response(self, instance: str) -> web.Response:
        """The problem as an HTTP answer."""
        response = web.Response(
            body=orjson.dumps(self.body(instance)),
            status=self.status,
            headers=self.headers | {"Content-Type": MEDIA_TYPE},
        )
        if "Connection" in self.headers:
            response.force_close()
        return response

    def written(self, instance: str | None = None) -> bytes:
        """The same as bytes, for where there is no request to answer."""
        return written(self.status, orjson.dumps(self.body(instance)), self.headers, MEDIA_TYPE)


def problem_of(error: Exception) -> Problem:
    """The problem that stands for an error; what is not expected is logged and becomes `internal`."""
    match error:
        case Problem():
            return error
        case NotSupported():
            return Problem("not-supported", error.detail, error.pointer)
        case Invalid():
            return Problem("invalid", error.detail, error.pointer)
        case msgspec.ValidationError():
            invalid = invalid_of(error)
            return Problem("invalid", invalid.detail, invalid.pointer)
        case msgspec.DecodeError():
            return Problem("not-json", str(error), "")
        case UnicodeDecodeError():
            return Problem("not-json", "the text is not UTF-8", "")
        case RecursionError():
            return Problem("invalid", "is nested too deeply", "")
        case Unknown():
            return Problem("not-found", "no such task")
        case Conflict():
            return Problem("conflict", error.detail, state=error.state or None)
        case KeyReused():
            return Problem("key-reused", "the idempotency key was used before with another request")
        case Overloaded():
            return Problem("overloaded", error.detail, headers=_retry_after(error.retry_after_ms))
        case Unavailable():
            return Problem("unavailable", error.detail, headers=_retry_after(error.retry_after_ms))
        case web.HTTPException():
            return Problem(_BY_STATUS.get(error.status, "unreadable"), error.reason)
    return _internal(error)


def invalid_of(error: msgspec.ValidationError, under: str = "", data: bytes | msgspec.Raw = b"") -> Invalid:
    """A decoder's refusal of `data` with its path as a JSON pointer, which is put below `under`."""
    text = str(error)
    at = _AT.match(text)
    detail, path = at.groups() if at else (text, "")
    field = _FIELD.match(detail)
    steps = [name or index for name, index in _STEP.findall(path) if name or index]
    steps += [field[1]] if field else []
    if path.endswith("[...]"):
        steps += _key_at_fault(data, steps)
    return Invalid(detail[:_DETAIL_CHARS], under + "".join(f"/{escape(step[:_DETAIL_CHARS])}" for step in steps))


def _key_at_fault(data: bytes | msgspec.Raw, steps: list[str]) -> list[str]:
    """Which key of a mapping of texts has a value that is none: the decoder does not say. [] when it can't be told."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    for step in steps:
        found = found.get(step) if isinstance(found, dict) else None
    items = found.items() if isinstance(found, dict) else ()
    return [key for key, value in items if not isinstance(value, str)][:1]


def escape(step: str) -> str:
    """One reference token of a JSON pointer (RFC 6901, 3)."""
    return step.replace("~", "~0").replace("/", "~1")


def answering(handler: Handler) -> Handler:
    """The handler, with every exception turned into a problem."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ClientConnectionResetError:  # the client has gone: nobody will see this, and nothing is wrong here
            return Problem("unreadable", "the connection was closed").response(request.raw_path)
        except Exception as error:  # noqa: BLE001 - the last line of defence: it is logged by problem_of
            response = problem_of(error).response(request.raw_path)
            if hdrs.EXPECT in request.headers and not request.content.is_eof():
                response.force_close()  # nobody knows whether the body comes now
            return response

    return answer


async def no_route(request: web.Request) -> web.StreamResponse:
    """Answers what no route matched: 405 when the path has other methods, else 404."""
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        allowed |= (await resource.resolve(request))[1]
    allowed.discard("*")
    if allowed:
        raise Problem(
            "method-not-allowed",
            f"{request.method} is not one of {', '.join(sorted(allowed))}",
            headers={"Allow": ", ".join(sorted(allowed))},
        )
    raise Problem("not-found", "there is nothing at this path")


def _retry_after(retry_after_ms: int) -> dict[str, str]:
    return {"Retry-After": str(max(1, -(-retry_after_ms // 1000)))}


def _internal(error: Exception) -> Problem:
    log_id = uuid4().hex
    _log.error(f"unexpected error {log_id}", exc_info=error)  # in the words: texts beside them are not shown
    return Problem("internal", f"an unexpected error was logged as {log_id}")
