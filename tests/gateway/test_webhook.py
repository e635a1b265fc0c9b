from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from actors.core.errors import Invalid
from actors.core.events import Verdict
from actors.core.spec import HttpTarget, Spec
from gateway import webhook as module
from gateway.webhook import AGENT, MAX_RETRY_AFTER_MS, Plan, Plans, retry_after_ms, rfc3339, verdict_of
from tests.support.dispatch import NOW_MS, webhook


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
    letter = Plan(task.spec).letter(task, "fence", NOW_MS)
    assert letter.body == b'{"a":1}'
    assert list(letter.head.items()) == [
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
    ]


def test_without_payload_there_is_no_content_type() -> None:
    task = webhook("http://u.example/", None, method="GET")
    letter = Plan(task.spec).letter(task, "fence", NOW_MS)
    assert letter.body is None
    assert "content-type" not in letter.head


def test_the_users_agent_and_the_specs_content_type_are_taken() -> None:
    task = webhook("http://u.example/", b"x", headers={"User-Agent": "mine"}, content_type="text/plain")
    letter = Plan(task.spec).letter(task, "fence", NOW_MS)
    assert letter.head.getall("user-agent") == ["mine"]
    assert letter.head.getall("content-type") == ["text/plain"]


def test_letters_of_one_plan_share_nothing() -> None:
    task = webhook("http://u.example/")
    plan = Plan(task.spec)
    plan.letter(task, "first", NOW_MS).head["extra"] = "1"
    assert "extra" not in plan.letter(task, "second", NOW_MS).head


def test_the_host_is_scheme_name_and_port() -> None:
    hosts = [
        Plan(webhook(url).spec).host for url in ("http://A.example/x", "http://a.example:80/y", "https://a.example/")
    ]
    assert hosts == ["http://a.example", "http://a.example", "https://a.example"]


def test_tasks_of_one_spec_share_a_plan() -> None:
    plans = Plans()
    spec = webhook("http://u.example/").spec
    assert plans.of(spec) is plans.of(spec)


@pytest.mark.parametrize("url", ["http://[::1", "http://u.example:99999/", "http://u:1:2/", "/relative", ""])
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
