"""A task to be, as the caller says it; encoded by msgspec, so payloads may hold dataclasses, structs, datetimes, UUIDs.

Refuses what only this side can see: a time without a zone, numbers that JSON can't say, a key that no header can carry.
Everything else is the service's to check, so that an older client can say whatever a newer service takes.
"""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict

import msgspec

from ringwheel import finite
from ringwheel.arguments import of_type, printable

Duration = float | str | timedelta
"""Seconds, text like `"1h30m"`, or a timedelta."""


class Http(msgspec.Struct, omit_defaults=True):
    """A webhook: where a task is pushed to."""

    url: str
    method: str = "POST"
    headers: Mapping[str, str] = {}


class RetryPolicy(msgspec.Struct, omit_defaults=True, kw_only=True):
    """When a task is tried again: exponential back-off with full jitter. What is left out is as its queue says."""

    max_attempts: int | None = None
    """The first one counts."""
    min_backoff: Duration | None = None
    max_backoff: Duration | None = None
    max_doublings: int | None = None
    max_retry_duration: Duration | None = None

    def __post_init__(self) -> None:
        self.min_backoff = plain(self.min_backoff, "min_backoff")
        self.max_backoff = plain(self.max_backoff, "max_backoff")
        self.max_retry_duration = plain(self.max_retry_duration, "max_retry_duration")


class Options(TypedDict, total=False):
    """What may be said of a task besides its queue and payload; `Draft` says what it means."""

    http: Http | str | None
    delay: Duration | None
    at: datetime | None
    key: str | None
    labels: Mapping[str, str]
    priority: int
    retry: RetryPolicy | None
    ttl: Duration | None
    deadline: Duration | None
    content_type: str | None


class Draft(
    msgspec.Struct,
    omit_defaults=True,
    rename={"at": "schedule_time", "key": "idempotency_key", "deadline": "dispatch_deadline"},
):
    """A task to be."""

    queue: str = "default"
    payload: Any = None
    """Any JSON, the argument of the worker or the body of the webhook; bytes go as they are. None: there is none."""
    http: Http | str | None = None
    """A webhook, or its URL; without, the task waits for a worker."""
    delay: Duration | None = None
    at: datetime | None = None
    """When, instead of `delay`; neither: now."""
    key: str | None = None
    """Idempotency key: a second task under the same one is the first."""
    labels: Mapping[str, str] = {}
    priority: int = 3
    """1 is first, 5 last."""
    retry: RetryPolicy | None = None
    ttl: Duration | None = None
    """Give up when not started so long after its time."""
    deadline: Duration | None = None
    """Limit of one attempt; for workers the period of the lease, which they extend by themselves."""
    content_type: str | None = None
    """Of bytes."""
    payload_base64: bytes | None = None
    """Where bytes that are given as `payload` end up."""

    def __post_init__(self) -> None:
        if self.key is not None:
            printable(self.key, "key")
        if self.at is not None and of_type(self.at, datetime, "at", "a datetime").utcoffset() is None:
            raise ValueError("a time needs a zone: datetime.now(UTC), or .astimezone() for local time")
        if isinstance(self.payload, bytes | bytearray | memoryview):
            self.payload, self.payload_base64 = None, bytes(self.payload)
        if isinstance(self.http, str):
            self.http = Http(self.http)
        self.delay, self.ttl = plain(self.delay, "delay"), plain(self.ttl, "ttl")
        self.deadline = plain(self.deadline, "deadline")

    def encoded(self, key: str | None) -> bytes:
        """As JSON; `key` is its idempotency key if it has none. One draft may be submitted many times.

        Raises ValueError when the payload has a number that JSON can't say.
        """
        data = _encoder.encode(self if self.key is not None or key is None else msgspec.structs.replace(self, key=key))
        if finite.lost(self.payload, data):
            raise ValueError(f"payload: {finite.WORDS}")
        return data


_encoder = msgspec.json.Encoder()


def plain(duration: Duration | None, name: str) -> float | str | None:
    """As JSON says it. Raises ValueError, which begins with `name`: no JSON says it."""
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, float) and not math.isfinite(duration):
        raise ValueError(f"{name}: expected a finite number of seconds, not {duration:g}")
    return duration
