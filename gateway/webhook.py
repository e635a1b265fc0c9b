"""What a webhook says to its target, and what the target's answer means. Pure: no I/O.

A request is the user's own headers, then those that say which attempt this is; the payload is its body. What does not
change between tasks of one kind is worked out once a `Spec` and kept (`Plans`), as the text that goes over the wire.

Promises: an answer has exactly one verdict; ringwheel's own headers win over the user's, and none comes twice.
Refuses: what yarl can't parse, and what would break out of its line. All else about a target was checked when the task
was accepted (`http_target.py`).
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from multidict import CIMultiDictProxy, istr
from yarl import URL

from actors.core.errors import Invalid
from actors.core.events import Verdict
from actors.core.spec import Spec
from actors.core.task import Task
from gateway.http_target import check_field, check_method, is_owned
from gateway.letter import Address, Letter
from gateway.trace import child_of

MAX_RETRY_AFTER_MS = 86_400_000
"""A target can't put a task off by more than a day."""
KEPT_PLANS = 4096

COMPLETE = istr("ringwheel-complete")
RETRY = istr("ringwheel-retry")
RETRY_AFTER = istr("retry-after")

_JSON = "application/json"
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods whose requests need not say that they have no body."""
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""What may stand in no line of a head (RFC 9110, 5.5)."""

Sign = Callable[[str, str, str, bytes | None], str | None]
"""`Signer.signatures`: of tenant, message, timestamp and body."""


def _version() -> str:
    try:
        return version("ringwheel")
    except PackageNotFoundError:
        return "unknown"


AGENT = f"ringwheel/{_version()}"


class Plan:
    """The part of a request that all tasks of one `Spec` share."""

    __slots__ = ("_address", "_first", "_no_length", "_own_trace", "_type", "host", "url")

    def __init__(self, spec: Spec) -> None:
        """Raises Invalid when there is no way to call the target."""
        assert spec.http is not None
        method, content_type = spec.http.method, spec.content_type or _JSON
        try:
            self.url = URL(spec.http.url).with_fragment(None)
            self._address = Address(self.url, method)
            name = self.url.host_port_subcomponent or ""
        except ValueError as error:
            raise Invalid(f"not a URL that can be called: {error}", "/http/url") from error
        path = self.url.raw_path_qs
        if _CONTROL.search(f"{path}{name}") is not None:
            raise Invalid("not a URL that can be called: a control character", "/http/url")
        check_method(method, "/http/method")
        for field in (*spec.http.headers.items(), ("content-type", content_type)):
            check_field(*field)
        self.host = self._address.host
        """Whom it calls: tasks of one host share its connections and its part of the callers."""
        own = [(text, value) for text, value in spec.http.headers.items() if not is_owned(text)]
        if all(text.lower() != "user-agent" for text, _ in own):
            own.append(("user-agent", AGENT))
        self._first = f"{method} {path} HTTP/1.1\r\nHost: {name}\r\n"
        self._first += "".join(_line(*field) for field in own if field[0].lower() != "traceparent")
        self._own_trace = "".join(_line(*field) for field in own if field[0].lower() == "traceparent")
        """Sent when the request that brought the task had none."""
        self._type = _line("content-type", content_type)
        self._no_length = "" if method in _BODILESS else _line("content-length", "0")

    def letter(self, task: Task, fence: str, now_ms: int, sign: Sign) -> Letter:
        """What this attempt of `task` sends. Raises ValueError when a name of the task would break out of its line."""
        payload = task.payload
        timestamp = str(now_ms // 1000)
        queue, trace = task.queue, task.trace
        trace_line = self._own_trace if trace is None else f"traceparent: {child_of(trace)}\r\n"
        signatures = sign(queue.tenant, task.id, timestamp, payload)
        # The gateway takes no such names, but rows are read unchecked. All else is made of numbers here.
        names = f"{task.id}{fence}{queue.name}{trace}"
        if not names.isprintable() and _CONTROL.search(names) is not None:
            raise ValueError("a stored name has a control character")
        head = (
            f"{self._first}{'' if payload is None else self._type}webhook-id: {task.id}\r\n"
            f"webhook-timestamp: {timestamp}\r\nringwheel-attempt: {task.attempt}\r\nringwheel-fence: {fence}\r\n"
            f"ringwheel-queue: {queue.name}\r\nringwheel-schedule-time: {rfc3339(task.schedule_ms)}\r\n{trace_line}"
            f"{'' if signatures is None else _line('webhook-signature', signatures)}"
        )
        if payload is None:
            return Letter(self._address, f"{head}{self._no_length}\r\n".encode(), task)
        return Letter(self._address, f"{head}content-length: {len(payload)}\r\n\r\n".encode() + payload, task)


def _line(name: str, value: str) -> str:
    return f"{name}: {value}\r\n"


class Plans:
    """Plans by spec. Specs are interned, so the object itself is the key; at most `KEPT_PLANS`, then begun anew."""

    def __init__(self) -> None:
        self._plans: dict[int, Plan | Invalid] = {}
        self._specs: list[Spec] = []  # held, so that no other spec can get the same identity

    def __len__(self) -> int:
        return len(self._plans)

    def of(self, spec: Spec) -> Plan | Invalid:
        """The plan, or why there is none."""
        plan = self._plans.get(id(spec))
        return self._make(spec) if plan is None else plan

    def _make(self, spec: Spec) -> Plan | Invalid:
        if len(self._specs) >= KEPT_PLANS:
            self._plans.clear()
            self._specs.clear()
        self._specs.append(spec)
        try:
            plan: Plan | Invalid = Plan(spec)
        except Invalid as error:
            plan = error
        self._plans[id(spec)] = plan
        return plan


def rfc3339(at_ms: int) -> str:
    """UTC, with milliseconds and Z."""
    seconds, rest_ms = divmod(at_ms, 1000)
    return f"{_to_second(seconds)}.{rest_ms:03d}Z"


@lru_cache(maxsize=256)  # due tasks crowd in few seconds
def _to_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def verdict_of(status: int, headers: CIMultiDictProxy[str]) -> Verdict:
    """What the head of an answer means."""
    if 200 <= status < 300:
        if status == 202 and headers.get(COMPLETE, "").strip().lower() == "later":
            return Verdict.LATER
        return Verdict.SUCCEEDED
    if status == 410 or headers.get(RETRY, "").strip().lower() == "never":
        return Verdict.NEVER
    return Verdict.FAILED


def retry_after_ms(status: int, headers: CIMultiDictProxy[str], now_ms: int) -> int | None:
    """The target's wish in a 429 or 503: seconds or an HTTP date (RFC 9110, 10.2.3), cut at `MAX_RETRY_AFTER_MS`.

    None when there is none, or none that can be read.
    """
    if status not in (429, 503):
        return None
    text = headers.get(RETRY_AFTER, "").strip()
    if text.isascii() and text.isdigit():
        wish_ms = int(text[:12]) * 1000
    else:
        until_ms = _http_date_ms(text)
        if until_ms is None:
            return None
        wish_ms = until_ms - now_ms
    return min(max(wish_ms, 0), MAX_RETRY_AFTER_MS)


def _http_date_ms(text: str) -> int | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return int(date.timestamp() * 1000)
