"""What goes over a worker's link, as types: decoded and encoded in one step each, a batch at a time."""

from datetime import datetime
from typing import Any

import msgspec

MOST_RESULTS = 1_000
"""In one frame."""
MOST_LEASES = 10_000
"""In one `hello`; and the most credits of a queue."""
NONE = msgspec.Raw()
"""No payload, no result."""


class Delivery(msgspec.Struct, gc=False):
    """A task that is leased to this worker."""

    id: str
    queue: str
    attempt: int
    max_attempts: int
    fence: str
    lease: str
    lease_expire_time: datetime
    lease_seconds: float
    schedule_time: datetime
    payload: msgspec.Raw = NONE
    payload_base64: bytes | None = None
    content_type: str | None = None
    labels: dict[str, str] = {}
    traceparent: str | None = None


class Lease(msgspec.Struct, gc=False, omit_defaults=True):
    """A lease that is asked for or told of."""

    id: str
    lease: str
    by: float | None = None


class Result(msgspec.Struct, gc=False, omit_defaults=True):
    """How an attempt ended: `ok` or not, or, with `snooze`, not at all."""

    id: str
    lease: str
    ok: bool | None = None
    result: msgspec.Raw = NONE
    error: str | None = None
    retry: float | str | None = None
    snooze: float | None = None


class LastWord(Result, gc=False, omit_defaults=True):
    """What is said in the place of a result that was refused; nothing takes its own place."""


class Refused(msgspec.Struct):
    """A result, or an extension, that the service did not take."""

    id: str
    lease: str = ""
    problem: dict[str, Any] = {}

    @property
    def status(self) -> int:
        """As in HTTP."""
        status = self.problem.get("status")
        return status if isinstance(status, int) else 0

    @property
    def words(self) -> str:
        """Why."""
        return str(self.problem.get("detail") or self.problem.get("title") or self.problem)


class Frame(msgspec.Struct):
    """Any frame of the service; the type says which fields are there. A newer one may have others: they are ignored."""

    type: str
    tasks: list[Delivery] = []
    ids: list[str] = []
    leases: list[Lease] = []
    results: list[Refused] = []
    detail: str = ""
    errors: list[dict[str, Any]] = []

    @property
    def words(self) -> str:
        """Of an `error`: what is wrong, and where."""
        places = [f"{error.get('pointer')}: {error.get('detail')}" for error in self.errors if error.get("pointer")]
        return "; ".join(places) or self.detail


class Hello(msgspec.Struct, tag_field="type", tag="hello"):
    """Who this is, and what it still works on."""

    worker: str
    leases: list[Lease]


class Ready(msgspec.Struct, tag_field="type", tag="ready"):
    """So many more may come."""

    queue: str
    credits: int


class Done(msgspec.Struct, tag_field="type", tag="done"):
    """How attempts ended."""

    results: list[Result]


STOP = b'{"type":"stop"}'
read = msgspec.json.Decoder(Frame).decode
write = msgspec.json.Encoder().encode
