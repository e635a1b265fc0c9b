"""What can go wrong: one root, and a leaf for each thing that a caller does differently.

`Problem` is the service's own refusal (RFC 9457); sending the same again changes nothing. `Unavailable` is the absence
of an answer, after all tries: whether the request was carried out is not known.
"""

from typing import Any

import msgspec


class RingwheelError(Exception):
    """Root of all errors of this library."""


class Unavailable(RingwheelError):
    """No answer within the client's patience; `__cause__` is what the last try met.

    A task may or may not exist: submit it again under the same idempotency key to be sure.
    """


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field of a request."""

    pointer: str
    """JSON pointer (RFC 6901) to the field."""
    detail: str


class _Body(msgspec.Struct):
    title: str = ""
    type: str = ""
    status: int = 0
    detail: str = ""
    instance: str | None = None
    state: str | None = None
    errors: tuple[FieldError, ...] = ()


class Problem(RingwheelError):
    """The service refuses, and says why."""

    def __init__(self, status: int, body: _Body) -> None:
        super().__init__(_words(status, body))
        self.status = status
        """HTTP status."""
        self.type = body.type
        self.title = body.title
        self.detail = body.detail
        self.instance = body.instance
        self.errors = body.errors
        self.state = body.state
        """Of the task, where that is what forbids the command."""
        self.retry_after_s: float | None = None


class Unauthenticated(Problem):
    """401: the key is missing, unknown, expired or revoked."""


class Forbidden(Problem):
    """403: the key may not do this."""


class NotFound(Problem):
    """404: no such task."""


class Conflict(Problem):
    """409: the present state does not allow it."""


class Invalid(Problem):
    """422: the request breaks the contract, or its idempotency key was used for another one."""


_LEAVES = {401: Unauthenticated, 403: Forbidden, 404: NotFound, 409: Conflict, 422: Invalid}


def problem_of(status: int, body: bytes | dict[str, Any]) -> Problem:
    """The problem that an answer tells, whatever it holds."""
    try:
        read = msgspec.json.decode(body, type=_Body) if isinstance(body, bytes) else msgspec.convert(body, _Body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        read = _Body(title="Unexpected answer")  # of a proxy on the way, most likely
    return _LEAVES.get(status, Problem)(status, read)


def _words(status: int, body: _Body) -> str:
    fields = "; ".join(f"{error.pointer}: {error.detail}" for error in body.errors if error.pointer)
    return f"{status} {body.title}: {fields or body.detail}".rstrip(": ")
