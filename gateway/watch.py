"""What a client of the stream may say, and what one task looks like on it.

Messages are decoded and checked in one step; an unknown field is an error, a bad message never ends a connection.
Refuses, with `not-supported`: a filter on schedules.
"""

import msgspec
import orjson

from actors.core.errors import Invalid, NotSupported
from actors.core.events import Change
from actors.core.ids import canonical, valid
from actors.core.task import State
from gateway.decode import check_labels, check_queue
from gateway.faults import decoded
from gateway.times import time_text
from gateway.topics import Labelled, Topic

SUB_CHARS = 64


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to watch: a task, or all tasks of a queue, with some labels, or both."""

    id: str | None = None
    queue: str | None = None
    labels: dict[str, str] | None = None
    schedule: msgspec.Raw = msgspec.Raw()


class Subscribe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="subscribe"):
    """Watch something under the name `sub`; go on after cursor `from_` where memory reaches that far back."""

    sub: str
    filter: Filter
    from_: str | None = msgspec.field(name="from", default=None)


class Unsubscribe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="unsubscribe"):
    """Stop watching."""

    sub: str


class Authenticate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="authenticate"):
    """The first message of who could send no header."""

    key: str


_first: msgspec.json.Decoder[Authenticate] = msgspec.json.Decoder(Authenticate)
_messages: msgspec.json.Decoder[Subscribe | Unsubscribe] = msgspec.json.Decoder(Subscribe | Unsubscribe)


def read_key(text: str | bytes) -> str:
    """The key in a first message. Raises msgspec's errors, or RecursionError."""
    return _first.decode(text).key


def read_message(text: str | bytes) -> Subscribe | Unsubscribe:
    """The client's message. Raises Invalid, Problem or RecursionError."""
    message = decoded(_messages, text.encode() if isinstance(text, str) else text)
    if not 1 <= len(message.sub) <= SUB_CHARS:
        raise Invalid(f"expected 1 to {SUB_CHARS} characters", "/sub")
    return message


def sub_of(text: str | bytes) -> str | None:
    """The name in a message that is refused, as far as there is one: the refusal goes under it."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    sub = found.get("sub") if isinstance(found, dict) else None
    return sub if isinstance(sub, str) and 1 <= len(sub) <= SUB_CHARS else None


def topic_of(wanted: Filter, tenant: str) -> Topic:
    """What the filter stands for. Raises Invalid or NotSupported."""
    if len(wanted.schedule) > 0:
        raise NotSupported("watching by schedule is not supported yet", "/filter/schedule")
    if (wanted.id is None) == (wanted.queue is None and wanted.labels is None):
        raise Invalid("expected an id, or a queue or labels or both", "/filter")
    if wanted.id is not None:
        if not valid(wanted.id):
            raise Invalid("expected the id of a task", "/filter/id")
        return canonical(wanted.id)
    if wanted.queue is not None:
        check_queue(wanted.queue, "/filter/queue")
    if wanted.labels is None:
        assert wanted.queue is not None
        return tenant, wanted.queue
    if not wanted.labels:
        raise Invalid("expected a label at least", "/filter/labels")
    check_labels(wanted.labels, "/filter/labels")
    return Labelled(tenant, wanted.queue, tuple(sorted(wanted.labels.items())))


def task_json(change: Change) -> bytes:
    """A task as the stream shows it."""
    seen = change.status is not None or change.error is not None
    return orjson.dumps(
        {
            "id": change.id,
            "queue": change.queue.name,
            "state": change.state,
            "attempt": change.attempt,
            "version": change.version,
            "time": time_text(change.at_ms),
            "schedule_time": time_text(change.schedule_ms),
            "next_attempt_time": time_text(change.due_ms) if change.state is State.SCHEDULED else None,
            "lateness_ms": change.lateness_ms,
            "last_attempt": {"status": change.status, "error": change.error} if seen else None,
            "labels": {} if change.labels is None else orjson.Fragment(change.labels),
        }
    )
