"""What clients send, as types: one C-level step decodes and checks shape, unknown fields and simple bounds.

`Raw` parts are looked at later (`decode.py`): a payload is kept as it came, and `http` and `retry` are read only when
their bytes were not seen before. A `Raw` is checked to be JSON, but not to be UTF-8.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from gateway.times import Duration

ABSENT = Raw()

MAX_ATTEMPTS = 100_000
MAX_DOUBLINGS = 62


class TaskRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body of `POST /v1/tasks`, and one item of a batch."""

    queue: str = "default"
    schedule_time: str | None = None
    delay: Duration | None = None
    http: Raw = ABSENT
    payload: Raw = ABSENT
    payload_base64: str | None = None
    content_type: str | None = None
    retry: Raw = ABSENT
    dispatch_deadline: Duration | None = None
    idempotency_key: str | None = None
    ttl: Duration | None = None
    labels: dict[str, str] | None = None
    priority: Annotated[int, Meta(ge=1, le=5)] = 3
    ordering_key: Raw = ABSENT
    flow_control: Raw = ABSENT
    fairness_key: Raw = ABSENT


class RetryRequest(msgspec.Struct, forbid_unknown_fields=True):
    """`retry` of a task. Durations in seconds or as text; the first attempt counts."""

    max_attempts: Annotated[int, Meta(ge=1, le=MAX_ATTEMPTS)] = 5
    min_backoff: Duration | None = None
    max_backoff: Duration | None = None
    max_doublings: Annotated[int, Meta(ge=0, le=MAX_DOUBLINGS)] = 16
    max_retry_duration: Duration | None = None


class Retention(msgspec.Struct, forbid_unknown_fields=True):
    """`retention` of a queue: how long finished tasks can be read; what is left out is as by default."""

    succeeded: Duration | None = None
    dead: Duration | None = None
    expired: Duration | None = None
    cancelled: Duration | None = None


class QueueRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PUT` and `PATCH /v1/queues/{q}`."""

    paused: bool | UnsetType = UNSET
    retry: Raw = ABSENT
    dispatch_deadline: Duration | UnsetType | None = UNSET
    retention: Retention | UnsetType | None = UNSET
    max_dispatches_per_second: Raw = ABSENT
    max_burst_size: Raw = ABSENT
    max_concurrent_dispatches: Raw = ABSENT
    unknown: Raw = ABSENT
    durability: Raw = ABSENT


class Reschedule(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `:reschedule`; exactly one of the two."""

    schedule_time: str | None = None
    delay: Duration | None = None


class Complete(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `:complete`: how the attempt under `fence` ended."""

    fence: str
    ok: bool = True
    result: Raw = ABSENT
    error: str | None = None
    retry: Literal["never"] | int | float | None = None


class Empty(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a command that takes nothing."""


def given(raw: Raw) -> bytes:
    """The bytes of an optional object; `null` is the same as leaving it out."""
    data = bytes(raw)
    return b"" if data == b"null" else data
