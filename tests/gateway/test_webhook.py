from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from actors.core.errors import Invalid
from actors.core.events import Verdict
from actors.core.queue import Queue
from actors.core.spec import HttpTarget, Spec
from gateway import webhook as module
from gateway.http_target import METHODS, RESERVED, RESERVED_PREFIXES
from gateway.webhook import AGENT, MAX_RETRY_AFTER_MS, Plan, Plans, retry_after_ms, rfc3339, verdict_of
from tests.support.dispatch import NOW_MS, webhook
from tests.support.letters import opened, unsigned


def head(**headers: str) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
def test_2xx_is_success(status: int) -> None:
    assert verdict_of(status, head()) is Verdict.SUCCEEDED


@pytest.mark.parametrize("status", [300, 301, 304, 308, 400, 404, 409, 429, 500, 503, 599])
def test_all_else_is_a_failure(status: int) -> None:
    assert verdict_of(status, head()) is Verdict.FAILED
    assert verdict_of(status, head(ringwheel_retry="NEVER ")) is Verdict.NEVER


def test_410_is_the_end() -> None:
    assert verdict_of(410, head()) is Verdict.NEVER


def test_later_needs_202_and_the_word() -> None:
    assert verdict_of(202, head(ringwheel_complete="later")) is Verdict.LATER
    assert verdict_of(200, head(ringwheel_complete="later")) is Verdict.SUCCEEDED
    assert verdict_of(202, head(ringwheel_complete="now")) is Verdict.SUCCEEDED
    assert verdict_of(500, head(ringwheel_complete="later")) is Verdict.FAILED


def test_never_does_not_undo_a_success() -> None:
    assert verdict_of(200, head(ringwheel_retry="never")) is Verdict.SUCCEEDED


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds(status: int) -> None:
    assert retry_after_ms(status, head(retry_after=" 120 "), NOW_MS) == 120_000


def test_retry_after_as_a_date() -> None:
    now = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    later = format_datetime(now + timedelta(seconds=90), usegmt=True)
    wish_ms = retry_after_ms(503, head(retry_after=later), NOW_MS)
    assert wish_ms is not None
    assert 89_000 <= wish_ms <= 90_000
    assert retry_after_ms(503, head(retry_after="Sun, 06 Nov 1994 08:49:37 GMT"), NOW_MS) == 0


@pytest.mark.parametrize("text", ["9" * 400, "86401", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_retry_after_is_bounded(text: str) -> None:
    assert retry_after_ms(429, head(retry_after=text), NOW_MS) == MAX_RETRY_AFTER_MS


@pytest.mark.parametrize(
    "text", ["", "soon", "-5", "1.5", "\u0661", f"Mon, 01 Jan {10**20} 00:00:00 GMT", "Mon, 01 Jan 2029 25:00:00 GMT"]
)
def test_retry_after_that_cannot_be_read_is_none(text: str) -> None:
    assert retry_after_ms(429, head(retry_after=text), NOW_MS) is None


@pytest.mark.parametrize("status", [200, 301, 400, 500, 502])
def test_retry_after_counts_for_429_and_503_only(status: int) -> None:
    assert retry_after_ms(status, head(retry_after="5"), NOW_MS) is None


@given(st.text())
def test_whatever_retry_after_says_the_wish_is_bounded(text: str) -> None:
    wish_ms = retry_after_ms(429, head(retry_after=text), NOW_MS)
    assert wish_ms is None or 0 <= wish_ms <= MAX_RETRY_AFTER_MS


@given(st.integers(0, 253_402_300_799_999))
def test_times_are_rfc_3339_with_milliseconds(at_ms: int) -> None:
    text = rfc3339(at_ms)
    assert len(text) == 24
    assert text.endswith("Z")
    assert datetime.fromisoformat(text) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)


def test_a_letter_has_the_attempts_marks_and_the_users_headers() -> None:
    task = webhook("http://u.example:81/a?b=c#d", headers={"X-App": "1"})
    letter = opened(task)
    assert letter.line == "POST /a?b=c HTTP/1.1"
    assert letter.body == b'{"a":1}'
    assert letter.fields == [
        ("Host", "u.example:81"),
        ("X-App", "1"),
        ("user-agent", AGENT),
        ("content-type", "application/json"),
        ("webhook-id", task.id),
        ("webhook-timestamp", str(NOW_MS // 1000)),
        ("ringwheel-attempt", "2"),
        ("ringwheel-fence", "fence"),
        ("ringwheel-queue", "emails"),
        ("ringwheel-schedule-time", rfc3339(NOW_MS)),
        ("content-length", "7"),
    ]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_without_payload_there_is_no_content_type(method: str) -> None:
    letter = opened(webhook("http://u.example/", None, method=method))
    assert letter.line == f"{method} / HTTP/1.1"
    assert letter.body == b""
    assert letter.named("content-type") == []
    assert letter.named("content-length") == ([] if method in {"GET", "HEAD", "OPTIONS"} else ["0"])


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("payload", [b"", b"x", b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 1024])
def test_a_payload_is_the_body_whatever_the_method(method: str, payload: bytes) -> None:
    letter = opened(webhook("http://u.example/", payload, method=method))
    assert letter.body == payload
    assert letter.named("content-length") == [str(len(payload))]
    assert letter.named("content-type") == ["application/json"]


def test_the_users_agent_and_the_specs_content_type_are_taken() -> None:
    letter = opened(webhook("http://u.example/", b"x", headers={"User-Agent": "mine"}, content_type="text/plain"))
    assert letter.named("user-agent") == ["mine"]
    assert letter.named("content-type") == ["text/plain"]


def test_of_headers_that_are_ringwheels_its_own_are_sent_alone() -> None:
    """The gateway takes none of them: as in rows that another version wrote."""
    names = [
        *RESERVED,
        *(prefix + "x" for prefix in RESERVED_PREFIXES),
        "webhook-id",
        "Webhook-Timestamp",
        "WEBHOOK-SIGNATURE",
        "Ringwheel-Attempt",
        "ringwheel-fence",
        "ringwheel-queue",
        "ringwheel-schedule-time",
    ]
    task = webhook("http://u.example/", b"x", headers=dict.fromkeys([*names, *map(str.upper, RESERVED)], "evil"))
    letter = opened(task, sign=lambda *_: "v1,good")
    assert "evil" not in [value for _, value in letter.fields]
    found = [name.lower() for name, _ in letter.fields]
    assert len(found) == len(set(found))
    assert letter.named("host") == ["u.example"]
    assert letter.named("content-length") == ["1"]
    assert letter.named("webhook-signature") == ["v1,good"]


def test_the_trace_of_the_request_goes_before_the_users_own() -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    own = {"Traceparent": "mine"}
    plan = Plan(webhook("http://u.example/", headers=own).spec)
    assert opened(webhook("http://u.example/"), plan).named("traceparent") == ["mine"]
    (sent,) = opened(webhook("http://u.example/", trace=trace), plan).named("traceparent")
    assert (sent[:36], sent[52:], sent == trace) == (trace[:36], trace[52:], False)


def test_what_is_signed_is_what_is_sent() -> None:
    asked: list[tuple[str, str, str, bytes | None]] = []

    def sign(tenant: str, message_id: str, timestamp: str, body: bytes | None) -> str:
        asked.append((tenant, message_id, timestamp, body))
        return "v1,a v1,b"

    for payload in (b"x", None):
        task = webhook("http://u.example/", payload)
        letter = opened(task, sign=sign)
        assert letter.named("webhook-signature") == ["v1,a v1,b"]
        assert asked.pop() == ("default", letter.named("webhook-id")[0], letter.named("webhook-timestamp")[0], payload)


@pytest.mark.parametrize("control", [chr(code) for code in (*range(9), *range(10, 32), 127)], ids=ascii)
def test_no_name_of_a_task_breaks_out_of_its_line(control: str) -> None:
    text = f"a{control}X-Evil: 1"
    plan = Plan(webhook("http://u.example/").spec)
    named = webhook("http://u.example/", queue=Queue(7, "default", text))
    traced = webhook("http://u.example/", trace=text)
    numbered = webhook("http://u.example/")
    numbered.id = text
    for task in (named, traced, numbered):
        with pytest.raises(ValueError, match="control character"):
            plan.letter(task, "fence", NOW_MS, unsigned)
    with pytest.raises(ValueError, match="control character"):
        plan.letter(webhook("http://u.example/"), text, NOW_MS, unsigned)


def test_letters_of_one_plan_share_nothing_that_changes() -> None:
    plan = Plan(webhook("http://u.example/").spec)
    first, second = (opened(webhook("http://u.example/", n=n), plan, fence=f"fence-{n}") for n in (1, 2))
    assert (first.named("ringwheel-fence"), second.named("ringwheel-fence")) == (["fence-1"], ["fence-2"])
    assert first.named("webhook-id") != second.named("webhook-id")


@given(
    st.builds(
        lambda path, query: f"http://u.example/{path}?{query}",
        st.text(max_size=40),
        st.text(max_size=40),
    )
)
def test_whatever_a_url_holds_the_request_line_is_one_of_three_parts(url: str) -> None:
    task = webhook("http://u.example/")
    task.spec = Spec(http=HttpTarget(url))
    try:
        plan = Plan(task.spec)
    except Invalid:
        return
    line = opened(task, plan).line
    assert line.isascii()
    assert line.isprintable()
    assert line.startswith("POST /")
    assert (line.count(" "), line.endswith(" HTTP/1.1")) == (2, True)


def test_the_host_is_scheme_name_and_port() -> None:
    hosts = [
        Plan(webhook(url).spec).host for url in ("http://A.example/x", "http://a.example:80/y", "https://a.example/")
    ]
    assert hosts == ["http://a.example", "http://a.example", "https://a.example"]


def test_tasks_of_one_spec_share_a_plan() -> None:
    plans = Plans()
    spec = webhook("http://u.example/").spec
    assert plans.of(spec) is plans.of(spec)


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "http://u.example:99999/", "http://u:1:2/", "/relative", "", "http://a\0b/", "http://a\x0bb/"],
)
def test_a_url_that_cannot_be_called_has_no_plan(url: str) -> None:
    plans = Plans()
    spec = Spec(http=HttpTarget(url))
    assert isinstance(plans.of(spec), Invalid)
    assert plans.of(spec) is plans.of(spec)


def test_plans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_PLANS", 3)
    plans = Plans()
    specs = [webhook(f"http://u.example/{n}").spec for n in range(10)]
    for spec in specs:
        found = plans.of(spec)
        assert isinstance(found, Plan)
        assert found.url.path == f"/{specs.index(spec)}"
        assert len(plans) <= 3
