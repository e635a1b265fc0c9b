"""What a webhook says to its target, and what the target's answer means. Pure: no I/O.

A request is the user's own headers, then those that say which attempt this is; the payload is its body. What does not
change between tasks of one kind is worked out once a `Spec` and kept (`Plans`).

Promises: an answer has exactly one verdict; ringwheel's own headers win over the user's.
Refuses: what yarl can't parse, and what would break out of its line. All else about a target was checked when the task
was accepted (`http_target.py`).
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from multidict import CIMultiDict, CIMultiDictProxy, istr
from yarl import URL

from actors.core.errors import Invalid
from actors.core.events import Verdict
from actors.core.spec import Spec
from actors.core.task import Task
from gateway.client import Letter
from gateway.http_target import check_field, check_method
from gateway.trace import child_of

MAX_RETRY_AFTER_MS = 86_400_000
"""A target can't put a task off by more than a day."""
KEPT_PLANS = 4096

HOST = istr("Host")
ID = istr("webhook-id")
TIMESTAMP = istr("webhook-timestamp")
SIGNATURE = istr("webhook-signature")
TRACEPARENT = istr("traceparent")
ATTEMPT = istr("ringwheel-attempt")
FENCE = istr("ringwheel-fence")
QUEUE = istr("ringwheel-queue")
SCHEDULE_TIME = istr("ringwheel-schedule-time")
CONTENT_TYPE = istr("content-type")
USER_AGENT = istr("user-agent")
COMPLETE = istr("ringwheel-complete")
RETRY = istr("ringwheel-retry")
RETRY_AFTER = istr("retry-after")

_JSON = "application/json"


def _version() -> str:
    try:
        return version("ringwheel")
    except PackageNotFoundError:
        return "unknown"


AGENT = f"ringwheel/{_version()}"


class Plan:
    """The part of a request that all tasks of one `Spec` share."""

    __slots__ = ("_empty", "_full", "host", "method", "url")

    def __init__(self, spec: Spec) -> None:
        """Raises Invalid when there is no way to call the target."""
        assert spec.http is not None
        try:
            self.url = URL(spec.http.url).with_fragment(None)
            self.host = str(self.url.origin())
            """Whom it calls: tasks of one host share its connections and its part of the callers."""
            name = self.url.host_port_subcomponent or ""
        except ValueError as error:
            raise Invalid(f"not a URL that can be called: {error}", "/http/url") from error
        check_method(spec.http.method, "/http/method")
        for field in (*spec.http.headers.items(), (CONTENT_TYPE, spec.content_type or _JSON)):
            check_field(*field)
        self.method = spec.http.method
        self._empty: CIMultiDict[str] = CIMultiDict({HOST: name})
        self._empty.update(spec.http.headers)
        self._empty.setdefault(USER_AGENT, AGENT)
        self._full = self._empty.copy()
        self._full.setdefault(CONTENT_TYPE, spec.content_type or _JSON)

    def letter(self, task: Task, fence: str, now_ms: int) -> Letter:
        """What this attempt of `task` sends."""
        payload = task.payload
        head = (self._empty if payload is None else self._full).copy()
        head[ID] = task.id
        head[TIMESTAMP] = str(now_ms // 1000)
        head[ATTEMPT] = str(task.attempt)
        head[FENCE] = fence
        head[QUEUE] = task.queue.name
        head[SCHEDULE_TIME] = rfc3339(task.schedule_ms)
        if task.trace is not None:
            head[TRACEPARENT] = child_of(task.trace)
        return Letter(head, payload, task)


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
