"""What a task asks for, apart from its payload: target, retry policy, limits.

A `Spec` is immutable and shared: tasks of one kind carry the same one, and its stored form is interned (`codec.py`).
`None` for a limit means "as the queue says".
"""

import msgspec

from actors.core.retry import RetryPolicy


class HttpTarget(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A webhook: where an attempt of a pushed task goes."""

    url: str
    method: str = "POST"
    headers: dict[str, str] = {}


class Spec(msgspec.Struct, frozen=True, omit_defaults=True):
    """The immutable request of a task, without its time, queue, labels and payload."""

    http: HttpTarget | None = None
    retry: RetryPolicy | None = None
    dispatch_deadline_ms: int | None = None
    ttl_ms: int | None = None
    content_type: str | None = None
    """Media type of the payload; None = application/json."""

    __hash__ = None  # type: ignore[assignment]  # headers are a dict; specs are interned by their bytes
