"""What workers say and hear, as types and bytes: over their link (`worker_link.py`), and by HTTP (`leases_api.py`).

A frame is decoded in one step. Where that fails for a result, the others of its frame are read one by one, so that a
bad result is refused alone. A lease is named as its fence is.
"""

import random
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import orjson

from actors.core.errors import Conflict, Invalid, RingwheelError, Unavailable, Unknown
from actors.core.events import Verdict
from actors.core.ids import ID
from actors.core.lease import Extension, Kept, Key, Lent, Report, Said, Word
from actors.core.task import fence, fence_parts
from gateway.commands_api import check_result, failure_of, line
from gateway.decode import check_queue
from gateway.faults import decoded
from gateway.problems import problem_of
from gateway.schema import MAX_DEADLINE_MS, ExtendedLease, HeldLease, WorkerResult, given
from gateway.times import MAX_DURATION_MS, duration_ms, time_text

CREDITS = 10_000
"""Of one worker and queue at once."""
NAME_CHARS = 128
LEASES = 10_000
"""That a worker may come back with, or extend in one message."""
RESULTS = 1_000
"""In one message."""


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="hello"):
    """I am here, again with these leases."""

    worker: str = ""
    leases: list[HeldLease] = []


class Ready(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="ready"):
    """I may be sent so many tasks more."""

    queue: str
    credits: int


class Done(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="done"):
    """These attempts ended."""

    results: list[WorkerResult]


class Extend(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="extend"):
    """These go on."""

    leases: list[ExtendedLease]


class Stop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="stop"):
    """Send nothing more, whatever I was ready for."""


class _Loose(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="done"):
    results: list[msgspec.Raw]


class _Name(msgspec.Struct):
    """As much of a bad result as its refusal needs."""

    id: str = ""
    lease: str = ""


Message = Hello | Ready | Done | Extend | Stop
_messages: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_loose: msgspec.json.Decoder[_Loose] = msgspec.json.Decoder(_Loose)
_result: msgspec.json.Decoder[WorkerResult] = msgspec.json.Decoder(WorkerResult)
_name: msgspec.json.Decoder[_Name] = msgspec.json.Decoder(_Name)

_SUCCEEDED = Verdict.SUCCEEDED.value
Refused = dict[str, Any]
"""A result or an extension that is refused: `id`, `lease`, `problem`."""


def read_message(text: str | bytes) -> tuple[Message, list[Refused]]:
    """The worker's message, and those of its results that can't be read. Raises Invalid or Problem."""
    data = text.encode() if isinstance(text, str) else text
    try:
        message = decoded(_messages, data)
    except Invalid as error:
        return _read_one_by_one(data, error)
    _check(message)
    return message, []


def _read_one_by_one(data: bytes, error: Exception) -> tuple[Message, list[Refused]]:
    try:
        raws = _loose.decode(data).results
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise error from None
    results: list[WorkerResult] = []
    refused: list[Refused] = []
    for raw in raws:
        try:
            results.append(decoded(_result, bytes(raw)))
        except Invalid as why:
            name = _named(raw)
            refused.append(refusal(name.id, name.lease, why))
    message = Done(results)
    _check(message)
    return message, refused


def _named(raw: msgspec.Raw) -> _Name:
    try:
        return _name.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _Name()


def _check(message: Message) -> None:
    match message:
        case Ready(queue, given_credits):
            check_queue(queue, "/queue")
            if not 1 <= given_credits <= CREDITS:
                raise Invalid(f"expected 1 to {CREDITS:,}", "/credits")
        case Done(results):
            _check_count(results, RESULTS, "/results")
        case Extend(leases):
            _check_count(leases, LEASES, "/leases")
        case Hello(worker, leases):
            _check_count(leases, LEASES, "/leases")
            if len(worker) > NAME_CHARS or not worker.isprintable():
                raise Invalid(f"expected at most {NAME_CHARS} characters that can be printed", "/worker")


def _check_count(items: Sequence[object], most: int, pointer: str) -> None:
    if len(items) > most:
        raise Invalid(f"expected at most {most:,}", pointer)


def lease_of(task_id: str, lease: str) -> tuple[str, int, int]:
    """The id, the epoch and the attempt of a lease. Raises Invalid."""
    if ID.fullmatch(task_id) is None:  # `valid`, without its call
        raise Invalid("not a task id: a UUID in its 36-character form is expected", "/id")
    parts = fence_parts(lease)
    if parts is None:
        raise Invalid("not a lease", "/lease")
    return task_id.lower(), parts[1], parts[2]


def report_of(result: WorkerResult) -> Report:
    """What a worker says of one attempt. Raises Invalid."""
    task_id, epoch, attempt = lease_of(result.id, result.lease)
    if result.ok and result.error is None and result.retry is None and result.snooze is None:
        data = given(result.result) if len(result.result) else b""
        if data:
            check_result(data)
        return Report(task_id, epoch, attempt, _SUCCEEDED, None, data or None)
    return _unsuccessful(result, task_id, epoch, attempt)


def _unsuccessful(result: WorkerResult, task_id: str, epoch: int, attempt: int) -> Report:
    if len(result.result) and given(result.result):
        raise Invalid("goes with ok: true", "/result")
    if result.ok:
        name = next(name for name in ("error", "retry", "snooze") if getattr(result, name) is not None)
        raise Invalid("goes without ok: true", f"/{name}")
    if result.snooze is not None:
        if result.ok is False or result.error is not None or result.retry is not None:
            raise Invalid("goes alone", "/snooze")
        after_ms = duration_ms(result.snooze, "/snooze", 0, MAX_DURATION_MS)
        return Report(task_id, epoch, attempt, Verdict.SNOOZED.value, retry_after_ms=after_ms)
    if result.ok is None:
        raise Invalid("ok or snooze is required", "/ok")
    verdict, wish_ms = failure_of(result.retry)
    return Report(
        task_id,
        epoch,
        attempt,
        verdict.value,
        None if result.error is None else line(result.error),
        None,
        wish_ms,
        random.random(),  # noqa: S311 - spreads retries, guards nothing
    )


def extension_of(lease: ExtendedLease) -> Extension:
    """What a worker says of an attempt that goes on. Raises Invalid."""
    task_id, epoch, attempt = lease_of(lease.id, lease.lease)
    by_ms = None if lease.by is None else duration_ms(lease.by, "/by", 1, MAX_DEADLINE_MS)
    return Extension(task_id, epoch, attempt, by_ms)


def taken_apart(
    said: Iterable[Any], read: Callable[[Any], Any], refused: list[Refused]
) -> tuple[list[Any], dict[Key, tuple[str, str]], list[Key | None]]:
    """What of `said` can be read, under which (id, lease) its answers go, and the key of each; of those that can't be
    read, which are added to `refused`, there is None.

    Of one attempt the first is taken: what came of two could not be told apart.
    """
    good: list[Any] = []
    names: dict[Key, tuple[str, str]] = {}
    keys: list[Key | None] = []
    for each in said:
        try:
            one = read(each)
            key = one.id, one.epoch, one.attempt
            if key in names:
                raise Invalid("was named before in this message", "/id")
        except Invalid as error:
            refused.append(refusal(each.id, each.lease, error))
            keys.append(None)
        else:
            good.append(one)
            names[key] = each.id, each.lease
            keys.append(key)
    return good, names, keys


def refusal(task_id: str, lease: str, error: Exception) -> Refused:
    """A result or an extension that was refused, and why."""
    return {"id": task_id, "lease": lease, "problem": problem_of(error).body()}


_WHY: dict[int, Callable[[str, str, str], RingwheelError]] = {
    Said.OVER: lambda _, state, detail: Conflict(detail or "the lease is over", state),
    Said.UNKNOWN: lambda task_id, _, __: Unknown(task_id),
    Said.UNSURE: lambda _, __, detail: Unavailable(detail or "it is not known whether it was recorded; say it again"),
}


def why_refused(said: Word | Kept) -> RingwheelError:
    """The error that stands for a word which is not RECORDED."""
    state, detail = (said.state, said.detail) if isinstance(said, Word) else ("", "")
    return _WHY[said.said](said.id, state, detail)


@lru_cache(maxsize=4096)  # a shard has one epoch for as long as it stays, and most attempts are first ones
def _lease_text(timeline: int, epoch: int, attempt: int, budget: int) -> str:
    lease = fence(timeline, epoch, attempt)
    return f'"attempt":{attempt},"max_attempts":{budget},"fence":"{lease}","lease":"{lease}","lease_expire_time":"'


@lru_cache(maxsize=256)
def _period_text(period_ms: int) -> str:
    return f'","lease_seconds":{period_ms / 1000:g},"schedule_time":"'


def task_bytes(task: Lent, queue: str, timeline: int) -> bytes:
    """A task as a worker gets it: a JSON object."""
    head = (
        f'{{"id":"{task.id}","queue":"{queue}",'
        f"{_lease_text(timeline, task.epoch, task.attempt, task.budget)}{time_text(task.until_ms)}"
        f'{_period_text(task.period_ms)}{time_text(task.schedule_ms)}"'
    )
    if task.labels is not None:
        head += f',"labels":{task.labels}'
    if task.trace is not None:
        head += f',"traceparent":"{task.trace}"'
    if task.payload is None:
        return head.encode() + b"}"
    if task.content_type is None:
        return b'%b,"payload":%b}' % (head.encode(), task.payload)
    kind, data = orjson.dumps(task.content_type), b64encode(task.payload)
    return b'%b,"payload_base64":"%b","content_type":%b}' % (head.encode(), data, kind)
