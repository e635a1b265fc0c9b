"""What clients send, as types: one C-level step decodes and checks shape, unknown fields and simple bounds.

`Raw` parts are looked at later (`decode.py`): a payload is kept as it came, and `http` and `retry` are read only when
their bytes were not seen before. A `Raw` is checked to be JSON, but not to be UTF-8.

What `decode.py` checks by hand stands in `extra_json_schema`: the decoder passes over it (it costs no task anything),
and the document of the API is built from it (`openapi.py`).
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from actors.core.queue import MAX_RETENTION_MS, MIN_RETENTION_MS, Unheard
from gateway import bounds
from gateway.bounds import backtracking, published
from gateway.http_target import MAX_HEADERS, MAX_URL_CHARS, METHODS, NAME, URL, VALUE
from gateway.times import DAY_MS, DURATION, MAX_DURATION_CHARS, MAX_DURATION_MS, TIME, YEAR_MS

ABSENT = Raw()

MAX_ATTEMPTS = 100_000
MAX_DOUBLINGS = 62
MAX_LABELS = 16
MAX_DEADLINE_MS = DAY_MS


def _text(pattern: str, **more: Any) -> Meta:
    return Meta(extra_json_schema={"pattern": published(pattern), **more})


def _seconds(least_ms: int = 0, most_ms: int = MAX_DURATION_MS) -> Meta:
    return Meta(extra_json_schema={"minimum": least_ms / 1000, "maximum": most_ms // 1000})


def _says(words: str) -> Meta:
    return Meta(description=words)


def _either(name: str, words: str) -> Meta:
    """An object that is read later, or null."""
    either = [{"$ref": f"#/components/schemas/{name}"}, {"type": "null"}]
    return Meta(description=words, extra_json_schema={"anyOf": either})


_DURATION = _text(DURATION.pattern, maxLength=MAX_DURATION_CHARS)

QueueName = Annotated[str, _text(bounds.QUEUE)]
Key = Annotated[str, _text(bounds.KEY)]
MediaType = Annotated[str, _text(bounds.MEDIA_TYPE)]
FenceText = Annotated[str, _text(bounds.FENCE)]
At = Annotated[str, _text(TIME.pattern, format="date-time")]
Long = Annotated[int, _seconds()] | Annotated[float, _seconds()] | Annotated[str, _DURATION]
"""A `Duration`, any; `Some` is above nothing, `OneDay` no longer than that."""
Some = Annotated[int, _seconds(1)] | Annotated[float, _seconds(1)] | Annotated[str, _DURATION]
OneDay = (
    Annotated[int, _seconds(1, MAX_DEADLINE_MS)]
    | Annotated[float, _seconds(1, MAX_DEADLINE_MS)]
    | Annotated[str, _DURATION]
)
OneYear = Annotated[int, _seconds(0, YEAR_MS)] | Annotated[float, _seconds(0, YEAR_MS)] | Annotated[str, _DURATION]
Kept = (
    Annotated[int, _seconds(MIN_RETENTION_MS, MAX_RETENTION_MS)]
    | Annotated[float, _seconds(MIN_RETENTION_MS, MAX_RETENTION_MS)]
    | Annotated[str, _DURATION]
)
Again = Annotated[
    Literal["never"] | Annotated[int, _seconds()] | Annotated[float, _seconds()] | None,
    _says('Seconds until the next attempt, or "never"; with `ok: false`.'),
]
Labels = Annotated[
    dict[str, Annotated[str, _text(bounds.LABEL_VALUE)]],
    Meta(
        extra_json_schema={
            "maxProperties": MAX_LABELS,
            "propertyNames": {"pattern": published(bounds.LABEL_NAME)},
        }
    ),
]

LabelQuery = Annotated[
    dict[str, Annotated[str, _text(bounds.LABEL_VALUE)]],
    Meta(
        extra_json_schema={
            "maxProperties": MAX_LABELS,
            "propertyNames": {"pattern": published(rf"label\.{bounds.LABEL_NAME}")},
            "example": {"label.customer": "7"},
        }
    ),
]
"""Labels in a query: each property is a parameter of its own, `label.customer=7` (style `form`, exploded)."""

_AT = _says("When: RFC 3339 with a zone; from a year ago to 100 years ahead.")
_DEADLINE = (
    "Limit of one attempt, from its start to its answer, or, after a 202 with `ringwheel-complete: later`, to its "
    "completion: up to a day. Without, as its queue says: 30 s by default."
)
_PRIORITY = "1 is first; without a decimal point. Others than 3 are not supported yet."
_NOT_YET = Meta(description="Not supported yet.", extra_json_schema={"type": "null"})


class TaskRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A task to be: the body of `POST /v1/tasks`, and one item of a batch."""

    queue: Annotated[QueueName, _says("Made on first use, unless it is `.` or `..`.")] = "default"
    schedule_time: Annotated[At | None, _AT] = None
    delay: Annotated[Long | None, _says("When, from now on.")] = None
    http: Annotated[Raw, _either("HttpTarget", "Where it is pushed; without, it waits for a worker.")] = ABSENT
    payload: Annotated[Raw, _says("Any JSON: the body of the webhook, the argument of the worker.")] = ABSENT
    payload_base64: Annotated[str | None, _says("A payload of bytes, instead of `payload`.")] = None
    content_type: Annotated[MediaType | None, _says("Of `payload_base64`.")] = None
    retry: Annotated[Raw, _either("RetryRequest", "When it is tried again; without, as its queue says.")] = ABSENT
    dispatch_deadline: Annotated[OneDay | None, _says(_DEADLINE)] = None
    idempotency_key: Annotated[Key | None, _says("As the header, which may not say another.")] = None
    ttl: Annotated[Some | None, _says("Give up when not started so long after its time.")] = None
    labels: Annotated[Labels | None, _says("Pairs to find it by.")] = None
    priority: Annotated[int, Meta(ge=1, le=5, description=_PRIORITY)] = 3
    ordering_key: Annotated[Raw, _NOT_YET] = ABSENT
    flow_control: Annotated[Raw, _NOT_YET] = ABSENT
    fairness_key: Annotated[Raw, _NOT_YET] = ABSENT


class RetryRequest(msgspec.Struct, forbid_unknown_fields=True):
    """When a task is tried again: exponential back-off with full jitter. Durations in seconds or as text."""

    max_attempts: Annotated[int, Meta(ge=1, le=MAX_ATTEMPTS, description="The first attempt counts.")] = 5
    min_backoff: Annotated[Long | None, _says("Most before the second attempt.")] = None
    max_backoff: Annotated[Long | None, _says("Most between any two; not below `min_backoff`.")] = None
    max_doublings: Annotated[int, Meta(ge=0, le=MAX_DOUBLINGS)] = 16
    max_retry_duration: Annotated[Long | None, _says("No attempt so long after the first.")] = None


class Retention(msgspec.Struct, forbid_unknown_fields=True):
    """`retention` of a queue: how long finished tasks can be read; what is left out is as by default.

    As text, too, from a day to a week.
    """

    succeeded: Kept | None = None
    dead: Kept | None = None
    expired: Kept | None = None
    cancelled: Kept | None = None


class QueueRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A queue's settings: `PUT` sets all of them, `PATCH` those that it names; null is the default."""

    paused: Annotated[bool | UnsetType | None, _says("Nothing of it starts.")] = UNSET
    retry: Annotated[Raw, _either("RetryRequest", "For tasks that bring none of their own.")] = ABSENT
    dispatch_deadline: Annotated[
        OneDay | UnsetType | None, _says("For tasks that bring none: up to a day, 30 s by default.")
    ] = UNSET
    retention: Annotated[Retention | UnsetType | None, _says("How long what is over can be read.")] = UNSET
    unknown: Annotated[
        Unheard | UnsetType | None,
        _says(
            "What becomes of an attempt whose node was lost: `retry` at once (the default), after its deadline "
            "(`wait_deadline`), or never by itself (`hold`): then somebody says how it ended (`:complete`)."
        ),
    ] = UNSET
    max_dispatches_per_second: Annotated[Raw, _NOT_YET] = ABSENT
    max_burst_size: Annotated[Raw, _NOT_YET] = ABSENT
    max_concurrent_dispatches: Annotated[Raw, _NOT_YET] = ABSENT
    durability: Annotated[Raw, _NOT_YET] = ABSENT


class NamedNode(msgspec.Struct, forbid_unknown_fields=True):
    """Which node."""

    node: Annotated[str, _text(bounds.NODE)]


class Reschedule(msgspec.Struct, forbid_unknown_fields=True):
    """A new time: exactly one of the two."""

    schedule_time: Annotated[At | None, _AT] = None
    delay: Annotated[Long | None, _says("When, from now on.")] = None


class Complete(msgspec.Struct, forbid_unknown_fields=True):
    """How the attempt under `fence` ended: with a result, or with an error."""

    fence: Annotated[FenceText, _says("Of the attempt, from its header `ringwheel-fence`.")]
    ok: bool = True
    result: Annotated[Raw, _says("Any JSON, up to 64 KiB; with `ok: true`.")] = ABSENT
    error: Annotated[str | None, _says("What went wrong; with `ok: false`.")] = None
    retry: Again = None


class LeaseRequest(msgspec.Struct, forbid_unknown_fields=True):
    """How many tasks are wanted, and how long to wait for the first."""

    max: Annotated[int, Meta(ge=1, le=1_000)] = 1
    wait: Annotated[int, Meta(ge=0, le=60)] | Annotated[float, Meta(ge=0, le=60)] = 0


class HeldLease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lease that a worker has."""

    id: Annotated[str, _says("Of the task.")]
    lease: Annotated[str, _says("As it came with the task.")]


class ExtendedLease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lease that is to last longer."""

    id: Annotated[str, _says("Of the task.")]
    lease: Annotated[str, _says("As it came with the task.")]
    by: Annotated[OneDay | None, _says("It ends so long from now, at least a second; by default its full period.")] = (
        None
    )


class WorkerResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an attempt ended: `ok`, with a result or an error; or `snooze`."""

    id: Annotated[str, _says("Of the task.")]
    lease: Annotated[str, _says("As it came with the task.")]
    ok: bool | None = None
    result: Annotated[Raw, _says("Any JSON, up to 64 KiB; with `ok: true`.")] = ABSENT
    error: Annotated[str | None, _says("What went wrong; with `ok: false`.")] = None
    retry: Again = None
    snooze: Annotated[
        Annotated[int, _seconds()] | Annotated[float, _seconds()] | None,
        _says("The task comes again after so many seconds, and no attempt is used up."),
    ] = None


class Results(msgspec.Struct, forbid_unknown_fields=True):
    """How attempts ended."""

    results: Annotated[list[WorkerResult], Meta(max_length=1_000)]


class Leases(msgspec.Struct, forbid_unknown_fields=True):
    """Leases that are to last longer."""

    leases: Annotated[list[ExtendedLease], Meta(max_length=10_000)]


class Advance(msgspec.Struct, forbid_unknown_fields=True):
    """How far the clock is set forward."""

    by: Annotated[OneYear, _says("At most a year.")]


class Empty(msgspec.Struct, forbid_unknown_fields=True):
    """Nothing: an empty object, or no body at all."""


_NULL = {"type": "null"}
_GIVEN = {"not": _NULL}
_NOT_BOTH = {"not": {"required": ["schedule_time", "delay"], "properties": {"schedule_time": _GIVEN, "delay": _GIVEN}}}
_ONE_PAYLOAD = {"not": {"required": ["payload", "payload_base64"], "properties": {"payload_base64": _GIVEN}}}
_TYPE_OF_BYTES = {
    "anyOf": [
        {"properties": {"content_type": _NULL}},
        {"required": ["payload_base64"], "properties": {"payload_base64": _GIVEN}},
    ]
}

RULES: dict[str, dict[str, Any]] = {
    "HttpTarget": {
        "description": "Where an attempt goes. Names of headers that HTTP or ringwheel set are refused.",
        "properties": {
            "url": {
                "type": "string",
                "format": "uri",
                "maxLength": MAX_URL_CHARS,
                "pattern": published(backtracking(URL.pattern)),
            },
            "method": {"enum": sorted(METHODS), "default": "POST"},
            "headers": {
                "type": "object",
                "maxProperties": MAX_HEADERS,
                "propertyNames": {"pattern": published(NAME.pattern)},
                "additionalProperties": {"type": "string", "pattern": published(VALUE.pattern)},
                "default": {},
            },
        },
    },
    "TaskRequest": {"allOf": [_NOT_BOTH, _ONE_PAYLOAD, _TYPE_OF_BYTES]},
    "Reschedule": {
        **_NOT_BOTH,
        "anyOf": [
            {"required": ["schedule_time"], "properties": {"schedule_time": _GIVEN}},
            {"required": ["delay"], "properties": {"delay": _GIVEN}},
        ],
    },
    "Complete": {
        "anyOf": [
            {"properties": {"ok": {"const": True}, "error": _NULL, "retry": _NULL}},
            {"required": ["ok"], "properties": {"ok": {"const": False}, "result": _NULL}},
        ]
    },
}
"""What the type of a component can't say: rules over several fields, and the bounds of a type that the core owns."""


def given(raw: Raw) -> bytes:
    """The bytes of an optional object; `null` is the same as leaving it out."""
    data = bytes(raw)
    return b"" if data == b"null" else data
