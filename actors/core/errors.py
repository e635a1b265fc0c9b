"""Errors: one root, few leaves.

Every error that a caller may meet on purpose derives from `RingwheelError`. Anything else that surfaces is a bug.
"""


class RingwheelError(Exception):
    """Root of all errors that ringwheel raises on purpose."""


class Invalid(RingwheelError):
    """A value breaks the contract; `pointer` is the JSON pointer (RFC 6901) of the field at fault."""

    def __init__(self, detail: str, pointer: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer


class NotSupported(Invalid):
    """The field is part of the contract, but this version does not carry it out yet."""


class Unknown(RingwheelError):
    """No such task, queue or schedule (or it belongs to another tenant)."""


class Conflict(RingwheelError):
    """The command is not legal in the state that the task is in."""

    def __init__(self, detail: str, state: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.state = state


class KeyReused(RingwheelError):
    """The idempotency key was used before with another request."""


class Overloaded(RingwheelError):
    """A bounded buffer is full; try again after `retry_after_ms`."""

    def __init__(self, detail: str, retry_after_ms: int = 1000) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_ms = retry_after_ms


class Unavailable(RingwheelError):
    """The database or the owner of a shard can't be reached now: outcome unknown, try again with the same key."""

    def __init__(self, detail: str, retry_after_ms: int = 1000) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_ms = retry_after_ms


class Elsewhere(RingwheelError):
    """Not carried out: the task's shard is being handed over, its next owner is to be asked. No client sees it."""


class Misconfigured(RingwheelError):
    """The service can't run like this; the message names the setting and the cure."""
