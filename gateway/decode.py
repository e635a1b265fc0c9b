"""A task as a client wrote it, to a `Draft`: decoded in one step, checked, its spec interned.

Promises: what passes can be stored and carried out as it is; what does not is refused with the pointer of the field
at fault. Specs are looked up by the bytes of `http` and `retry` first, so that a client's many tasks of one kind are
checked once. Refuses fields whose feature does not exist yet (NotSupported), never silently.
"""

import binascii
from functools import lru_cache

import msgspec
import orjson
from aiohttp import web

from actors.core.codec import SpecCodec
from actors.core.draft import Draft
from actors.core.errors import Invalid, NotSupported, RingwheelError
from actors.core.ids import request_hash
from actors.core.queue import Queue, QueueBook, check_new
from actors.core.retry import RetryPolicy
from actors.core.spec import Spec
from actors.ports.queues import QueueStore
from gateway import bounds
from gateway.bodies import Item
from gateway.faults import malformed
from gateway.http_target import read_target
from gateway.patience import Patience
from gateway.problems import Problem, escape, invalid_of
from gateway.schema import MAX_DEADLINE_MS, MAX_LABELS, RetryRequest, TaskRequest, given
from gateway.times import Duration, duration_ms, schedule_ms

MAX_KEY_CHARS = 255
KEPT_SPECS = 4096
"""Specs remembered by the bytes they came in; all are forgotten when it is full."""
KEPT_SPEC_BYTES = 2048
"""Longer ones are read anew each time."""

_QUEUE = bounds.whole(bounds.QUEUE)
_KEY = bounds.whole(bounds.KEY)
_LABEL_NAME = bounds.whole(bounds.LABEL_NAME)
_LABEL_VALUE = bounds.whole(bounds.LABEL_VALUE)
_MEDIA_TYPE = bounds.whole(bounds.MEDIA_TYPE)

_request = msgspec.json.Decoder(TaskRequest)
_retry = msgspec.json.Decoder(RetryRequest)


class QueueMissing(RingwheelError):
    """The draft is in order, but this process does not know its queue."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class TaskDecoder:
    """Reads tasks of any tenant. One a process."""

    def __init__(
        self,
        queues: QueueBook,
        queue_store: QueueStore,
        codec: SpecCodec,
        payload_bytes: int,
        patience: Patience | None = None,
    ) -> None:
        self._patience = patience or Patience()
        self._queues = queues
        self._queue_store = queue_store
        self._codec = codec
        self._payload_bytes = payload_bytes
        self._specs: dict[tuple[object, ...], tuple[Spec, bytes]] = {}

    async def draft(self, data: Item, tenant: str, now_ms: int, key: str | None) -> Draft:
        """The draft of one task, its queue made when it is new. Raises whatever is wrong with it.

        `key`: the idempotency key that came beside it; a key inside goes first.
        """
        try:
            return self.read(data, tenant, now_ms, key)
        except QueueMissing as missing:
            async with self._patience.wait():
                await self._queue_store.ensure(tenant, missing.name)
            return self.read(data, tenant, now_ms, key)

    def read(self, data: Item, tenant: str, now_ms: int, key: str | None) -> Draft:
        """The same, with QueueMissing raised when everything but the queue is there."""
        try:
            request = _request.decode(data)
        except msgspec.ValidationError as error:
            raise invalid_of(error, data=data) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise malformed(error, data) from error
        if request.schedule_time is not None or request.delay is not None:
            at_ms, delay_ms = when(request.schedule_time, request.delay, now_ms)
        else:
            at_ms = delay_ms = None
        _check_supported(request)
        spec, stored = self._spec(request)
        payload = self._payload(request)
        labels = None if not request.labels else _labels(request.labels)
        if request.idempotency_key is not None:
            key = request.idempotency_key
            check_key(key, "/idempotency_key")
        queue = self._queue(tenant, request.queue)
        draft = Draft(queue, spec, at_ms, delay_ms, payload, labels)
        if key is not None:
            draft.key = key
            draft.key_hash = _hash(draft, stored)
        return draft

    def _queue(self, tenant: str, name: str) -> Queue:
        queue = self._queues.by_name(tenant, name)
        if queue is not None:
            return queue
        check_queue(name, "/queue")
        check_new(name)
        raise QueueMissing(name)

    def _spec(self, request: TaskRequest) -> tuple[Spec, bytes]:
        http, retry = given(request.http), given(request.retry)
        if request.content_type is None and request.payload_base64 is None:
            content_type = None
        else:
            content_type = _content_type(request)
        kind = (http, retry, request.dispatch_deadline, request.ttl, content_type)
        known = self._specs.get(kind)
        if known is None:
            known = self._codec.intern(_read_spec(http, retry, request.dispatch_deadline, request.ttl, content_type))
            if len(http) + len(retry) <= KEPT_SPEC_BYTES:
                self._keep(kind, known)
        return known

    def _keep(self, kind: tuple[object, ...], spec: tuple[Spec, bytes]) -> None:
        if len(self._specs) >= KEPT_SPECS:
            self._specs.clear()
        self._specs[kind] = spec

    def _payload(self, request: TaskRequest) -> bytes | None:
        payload = bytes(request.payload)
        pointer = "/payload"
        if request.payload_base64 is not None:
            if payload:
                raise Invalid("payload and payload_base64 exclude each other", "/payload_base64")
            payload, pointer = _base64(request.payload_base64), "/payload_base64"
        if len(payload) > self._payload_bytes:
            raise Problem("too-large", f"the payload is larger than {self._payload_bytes} bytes", pointer)
        if request.payload_base64 is None and not payload.isascii():
            _check_utf8(payload)
        return payload or None


DECODER: web.AppKey[TaskDecoder] = web.AppKey("decoder", TaskDecoder)


def when(schedule_time: str | None, delay: Duration | None, now_ms: int) -> tuple[int | None, int | None]:
    """(schedule_ms, delay_ms), one of them None. Raises Invalid when both are given."""
    if delay is None:
        return (None if schedule_time is None else schedule_ms(schedule_time, now_ms, "/schedule_time")), None
    if schedule_time is not None:
        raise Invalid("schedule_time and delay exclude each other", "/delay")
    return None, duration_ms(delay, "/delay")


def check_queue(name: str, pointer: str) -> None:
    """Raises Invalid when no queue can have this name."""
    if _QUEUE.match(name) is None:
        raise Invalid("expected 1 to 100 of A-Z a-z 0-9 . _ -", pointer)


def check_key(key: str, pointer: str) -> None:
    """Raises Invalid when `key` can't be an idempotency key."""
    if _KEY.match(key) is None:
        raise Invalid(f"expected 1 to {MAX_KEY_CHARS} printable ASCII characters", pointer)


def check_label(name: str, value: str, pointer: str) -> None:
    """Raises Invalid when no task can have this label."""
    if _LABEL_NAME.match(name) is None:
        raise Invalid("the name is not 1 to 63 of A-Z a-z 0-9 . _ / -", pointer)
    if _LABEL_VALUE.match(value) is None:
        raise Invalid("the value is not up to 255 characters without controls", pointer)


def check_labels(labels: dict[str, str], pointer: str) -> None:
    """Raises Invalid when no task can have these labels."""
    if len(labels) > MAX_LABELS:
        raise Invalid(f"more than {MAX_LABELS} labels", pointer)
    for name, value in labels.items():
        check_label(name, value, f"{pointer}/{escape(name[:MAX_KEY_CHARS])}")


def _check_supported(request: TaskRequest) -> None:
    if request.priority != 3:
        raise NotSupported("priorities other than 3 are not supported yet", "/priority")
    if request.ordering_key or request.flow_control or request.fairness_key:
        for name in ("ordering_key", "flow_control", "fairness_key"):
            if given(getattr(request, name)):
                raise NotSupported(f"{name} is not supported yet", f"/{name}")


def _read_spec(
    http: bytes, retry: bytes, deadline: Duration | None, ttl: Duration | None, content_type: str | None
) -> Spec:
    return Spec(
        http=read_target(http) if http else None,
        retry=read_retry(retry) if retry else None,
        dispatch_deadline_ms=_optional_ms(deadline, "/dispatch_deadline", 1, MAX_DEADLINE_MS),
        ttl_ms=_optional_ms(ttl, "/ttl", 1),
        content_type=content_type,
    )


@lru_cache(maxsize=64)
def read_retry(data: bytes) -> RetryPolicy:
    """A `retry` object. Raises Invalid or Problem with pointers below `/retry`."""
    try:
        request = _retry.decode(data)
    except msgspec.ValidationError as error:
        raise invalid_of(error, "/retry") from error
    except UnicodeDecodeError as error:
        raise Problem("not-json", "the text is not UTF-8", "/retry") from error
    default = RetryPolicy()
    least_ms = _optional_ms(request.min_backoff, "/retry/min_backoff")
    most_ms = _optional_ms(request.max_backoff, "/retry/max_backoff")
    if least_ms is not None and most_ms is not None and most_ms < least_ms:
        raise Invalid("is shorter than min_backoff", "/retry/max_backoff")
    least_ms = default.min_backoff_ms if least_ms is None else least_ms
    return RetryPolicy(
        max_attempts=request.max_attempts,
        min_backoff_ms=least_ms,
        max_backoff_ms=max(default.max_backoff_ms, least_ms) if most_ms is None else most_ms,
        max_doublings=request.max_doublings,
        max_retry_duration_ms=_optional_ms(request.max_retry_duration, "/retry/max_retry_duration"),
    )


def _optional_ms(value: Duration | None, pointer: str, least_ms: int = 0, most_ms: int | None = None) -> int | None:
    if value is None:
        return None
    return duration_ms(value, pointer, least_ms) if most_ms is None else duration_ms(value, pointer, least_ms, most_ms)


def _content_type(request: TaskRequest) -> str:
    if request.payload_base64 is None:
        raise Invalid("goes with payload_base64 only: a payload is application/json", "/content_type")
    if request.content_type is None:
        return "application/octet-stream"
    if _MEDIA_TYPE.match(request.content_type) is None:
        raise Invalid("not a media type", "/content_type")
    return request.content_type


def _base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise Invalid(f"not base64: {error}", "/payload_base64") from error


def _check_utf8(payload: bytes) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        raise Problem("not-json", "the payload is not UTF-8", "/payload") from error


def _labels(labels: dict[str, str]) -> str:
    check_labels(labels, "/labels")
    return orjson.dumps(labels, option=orjson.OPT_SORT_KEYS).decode()


def _hash(draft: Draft, spec: bytes) -> bytes:
    """Of all that a client asked for: a delay counts as it was asked, not as the time that it led to."""
    time = f"{draft.schedule_ms} {draft.delay_ms}".encode()
    return request_hash(draft.queue.name.encode(), time, spec, draft.payload or b"", (draft.labels or "").encode())
