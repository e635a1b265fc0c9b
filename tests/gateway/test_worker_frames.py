"""What workers say and hear, as bytes: every field, every refusal, and that one bad result spoils no other."""

from base64 import b64decode
from typing import Any

import msgspec
import orjson
import pytest

from actors.core.errors import Conflict, Invalid, RingwheelError, Unavailable, Unknown
from actors.core.events import Verdict
from actors.core.lease import Extension, Lent, Report, Said
from actors.core.task import State
from gateway.answers import LeasedTask
from gateway.commands_api import MAX_RESULT_BYTES
from gateway.problems import Problem, problem_of
from gateway.schema import ExtendedLease, HeldLease, WorkerResult
from gateway.times import DAY_MS, MAX_DURATION_MS, time_text
from gateway.worker_frames import (
    CREDITS,
    LEASES,
    RESULTS,
    Done,
    Extend,
    Hello,
    Message,
    Ready,
    Refused,
    Stop,
    extension_of,
    lease_of,
    read_message,
    refusal,
    report_of,
    taken_apart,
    task_bytes,
    why_refused,
)
from tests.gateway.lent import EPOCH, PERIOD_MS, a_kept, a_lent, a_word, held, lease_text
from tests.support.builders import LABELS, T0_MS, TRACE, task_id

DEEP = b"[" * 20_000 + b"]" * 20_000


def read(kind: str, **fields: Any) -> tuple[Message, list[Refused]]:
    return read_message(orjson.dumps({"type": kind, **fields}))


def refused(data: bytes | str) -> tuple[int, str, list[str]]:
    """Status, words and pointers with which a message is refused."""
    with pytest.raises(RingwheelError) as caught:
        read_message(data)
    body = problem_of(caught.value).body()
    return body["status"], body["detail"], [error["pointer"] for error in body["errors"]]


# --- messages


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"type": "hello"}, Hello()),
        ({"type": "hello", "worker": "w-1 ü", "leases": []}, Hello("w-1 ü")),
        ({"type": "hello", "leases": [held(1)]}, Hello(leases=[HeldLease(task_id(1), lease_text())])),
        ({"type": "ready", "queue": "emails", "credits": 1}, Ready("emails", 1)),
        ({"type": "ready", "queue": "a" * 100, "credits": CREDITS}, Ready("a" * 100, CREDITS)),
        ({"type": "done", "results": []}, Done([])),
        ({"type": "extend", "leases": [held(1, by="1m")]}, Extend([ExtendedLease(task_id(1), lease_text(), "1m")])),
        ({"type": "stop"}, Stop()),
    ],
)
def test_what_a_worker_may_say(said: dict[str, Any], meant: Message) -> None:
    data = orjson.dumps(said)
    assert read_message(data) == read_message(data.decode()) == (meant, [])


@pytest.mark.parametrize(
    ("data", "status", "pointers"),
    [
        (b"", 400, [""]),
        (b"nonsense", 400, [""]),
        (b'{"type":"ready"', 400, [""]),
        (b'{"type":"hello","worker":"\xff"}', 400, [""]),
        (b"5", 422, [""]),
        (b"[]", 422, [""]),
        (b"{}", 422, ["/type"]),
        (b'{"type":7}', 422, ["/type"]),
        (b'{"type":"reedy"}', 422, ["/type"]),
        (b'{"type":"stop","more":1}', 422, ["/more"]),
        (b'{"type":"ready","queue":"a"}', 422, ["/credits"]),
        (b'{"type":"ready","queue":"a/b","credits":1}', 422, ["/queue"]),
        (b'{"type":"ready","queue":"a","credits":0}', 422, ["/credits"]),
        (b'{"type":"ready","queue":"a","credits":10001}', 422, ["/credits"]),
        (b'{"type":"ready","queue":"a","credits":1.5}', 422, ["/credits"]),
        (b'{"type":"ready","queue":"a","credits":1180591620717411303424}', 422, ["/credits"]),
        (b'{"type":"done"}', 422, ["/results"]),
        (b'{"type":"done","results":7}', 422, ["/results"]),
        (b'{"type":"extend","leases":[{"id":"x"}]}', 422, ["/leases/0/lease"]),
        (b'{"type":"extend","leases":[{"id":"x","lease":"y","by":[]}]}', 422, ["/leases/0/by"]),
        (b'{"type":"hello","leases":[{"id":"x","lease":"y","by":1}]}', 422, ["/leases/0/by"]),
        (b'{"type":"hello","worker":"a\\n"}', 422, ["/worker"]),
    ],
)
def test_what_can_not_be_read_is_refused_with_its_place(data: bytes, status: int, pointers: list[str]) -> None:
    assert (refused(data)[0], refused(data)[2]) == (status, pointers)


def test_a_message_that_is_nested_without_end_is_refused() -> None:
    for data in (DEEP, b'{"type":"done","results":' + DEEP + b"}", b'{"type":"hello","worker":' + DEEP + b"}"):
        with pytest.raises((RingwheelError, RecursionError)):
            read_message(data)


def test_names_have_a_bound() -> None:
    assert read("hello", worker="w" * 128)[0] == Hello("w" * 128)
    assert refused(orjson.dumps({"type": "hello", "worker": "w" * 129}))[2] == ["/worker"]


@pytest.mark.parametrize(
    ("kind", "field", "item", "most"),
    [
        ("done", "results", {"id": "x", "lease": "y", "ok": True}, RESULTS),
        ("extend", "leases", {"id": "x", "lease": "y"}, LEASES),
        ("hello", "leases", {"id": "x", "lease": "y"}, LEASES),
    ],
)
def test_lists_have_a_bound(kind: str, field: str, item: dict[str, Any], most: int) -> None:
    message, _ = read(kind, **{field: [item] * most})
    assert len(getattr(message, field)) == most
    status, words, pointers = refused(orjson.dumps({"type": kind, field: [item] * (most + 1)}))
    assert (status, words, pointers) == (422, f"expected at most {most:,}", [f"/{field}"])


# --- a bad result


@pytest.mark.parametrize(
    ("bad", "name", "pointer"),
    [
        (held(2, ok="yes"), (task_id(2), lease_text()), "/ok"),
        (held(2, ok=True, more=1), (task_id(2), lease_text()), "/more"),
        ({"id": task_id(2), "ok": True}, (task_id(2), ""), "/lease"),
        ({"lease": lease_text(), "ok": True}, ("", lease_text()), "/id"),
        ({"id": 5, "lease": lease_text(), "ok": True}, ("", ""), "/id"),
        (held(2, ok=False, error=5), (task_id(2), lease_text()), "/error"),
        (held(2, ok=False, retry="later"), (task_id(2), lease_text()), "/retry"),
        (held(2, snooze="1m"), (task_id(2), lease_text()), "/snooze"),
        (5, ("", ""), ""),
        (None, ("", ""), ""),
    ],
)
def test_a_bad_result_is_refused_alone(bad: Any, name: tuple[str, str], pointer: str) -> None:
    message, wrong = read("done", results=[held(1, ok=True), bad, held(3, ok=False)])
    assert isinstance(message, Done)
    assert [result.id for result in message.results] == [task_id(1), task_id(3)]
    (refusal_,) = wrong
    assert (refusal_["id"], refusal_["lease"]) == name
    assert refusal_["problem"]["status"] == 422
    assert [error["pointer"] for error in refusal_["problem"]["errors"]] == [pointer]


def test_results_that_are_read_one_by_one_have_the_same_bound() -> None:
    good = {"id": "x", "lease": "y", "ok": True}
    assert refused(orjson.dumps({"type": "done", "results": [good] * (RESULTS + 1) + [5]}))[2] == ["/results"]


def test_a_message_whose_head_is_bad_is_refused_whole() -> None:
    assert refused(orjson.dumps({"type": "done", "results": [held(1, ok=5)], "more": 1}))[0] == 422


# --- results


def report(**said: Any) -> Report:
    return report_of(msgspec.convert(held(1) | said, WorkerResult))


def of_bytes(result: bytes) -> Report:
    return report_of(WorkerResult(task_id(1), lease_text(), ok=True, result=msgspec.Raw(result)))


@pytest.mark.parametrize(
    ("said", "verdict", "more"),
    [
        ({"ok": True}, Verdict.SUCCEEDED, {}),
        ({"ok": False}, Verdict.FAILED, {}),
        ({"ok": False, "error": "a\nb\0c"}, Verdict.FAILED, {"error": "a b c"}),
        ({"ok": False, "error": "x" * 2_000}, Verdict.FAILED, {"error": "x" * 1_000}),
        ({"ok": False, "retry": 0}, Verdict.FAILED, {"retry_after_ms": 0}),
        ({"ok": False, "retry": 2.5}, Verdict.FAILED, {"retry_after_ms": 2_500}),
        ({"ok": False, "error": "x", "retry": "never"}, Verdict.NEVER, {"error": "x"}),
        ({"snooze": 0}, Verdict.SNOOZED, {"retry_after_ms": 0}),
        ({"snooze": 1.5}, Verdict.SNOOZED, {"retry_after_ms": 1_500}),
        ({"snooze": MAX_DURATION_MS // 1000}, Verdict.SNOOZED, {"retry_after_ms": MAX_DURATION_MS}),
    ],
)
def test_what_a_result_means(said: dict[str, Any], verdict: Verdict, more: dict[str, Any]) -> None:
    told = report(**said)
    assert (told.id, told.epoch, told.attempt, told.verdict) == (task_id(1), EPOCH, 1, verdict)
    assert (told.error, told.retry_after_ms, told.result) == (more.get("error"), more.get("retry_after_ms"), None)
    assert 0 <= told.jitter < 1


@pytest.mark.parametrize(
    ("said", "pointer"),
    [
        ({}, "/ok"),
        ({"error": "x"}, "/ok"),
        ({"ok": True, "error": "x"}, "/error"),
        ({"ok": True, "retry": 1}, "/retry"),
        ({"ok": True, "snooze": 1}, "/snooze"),
        ({"ok": False, "snooze": 1}, "/snooze"),
        ({"snooze": 1, "error": "x"}, "/snooze"),
        ({"snooze": 1, "retry": "never"}, "/snooze"),
        ({"snooze": -1}, "/snooze"),
        ({"snooze": 1 << 70}, "/snooze"),
        ({"ok": False, "retry": -0.1}, "/retry"),
        ({"ok": False, "retry": 1e300}, "/retry"),
        ({"id": "x", "ok": True}, "/id"),
        ({"id": task_id(1)[:-1], "ok": True}, "/id"),
        ({"lease": "x", "ok": True}, "/lease"),
        ({"lease": lease_text() + "\n", "ok": True}, "/lease"),
    ],
)
def test_a_result_that_breaks_the_contract_has_a_pointer(said: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        report(**said)
    assert caught.value.pointer == pointer


def test_a_result_is_kept_as_it_came() -> None:
    for data in (b'{"a": [1, 2.50]}', b"false", b"0", b'""'):
        assert of_bytes(data).result == data
    assert of_bytes(b"null").result is None, "as if there were none"


@pytest.mark.parametrize("data", [b'"' + b"x" * MAX_RESULT_BYTES + b'"', b'"\xff"', b'"\\ud800"', DEEP])
def test_a_result_that_can_not_be_kept_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        of_bytes(data)
    assert caught.value.pointer == "/result"


def test_the_largest_result_is_kept() -> None:
    data = b'"' + b"x" * (MAX_RESULT_BYTES - 2) + b'"'
    assert of_bytes(data).result == data


@pytest.mark.parametrize("ok", [False, None])
def test_a_failure_has_no_result(ok: bool | None) -> None:
    result = WorkerResult(task_id(1), lease_text(), ok=ok, result=msgspec.Raw(b"1"), snooze=None if ok is False else 1)
    with pytest.raises(Invalid) as caught:
        report_of(result)
    assert caught.value.pointer == "/result"
    empty = msgspec.structs.replace(result, result=msgspec.Raw(b"null"))
    assert report_of(empty).result is None


def test_an_id_may_be_written_in_capitals() -> None:
    number = 0xABCDEF
    assert report(id=task_id(number).upper(), ok=True).id == task_id(number)
    assert lease_of(task_id(number).upper(), lease_text(3)) == (task_id(number), EPOCH, 3)


# --- extensions


@pytest.mark.parametrize(
    ("by", "by_ms"), [(None, None), (1, 1_000), (0.001, 1), ("1m", 60_000), (DAY_MS / 1000, DAY_MS)]
)
def test_what_an_extension_means(by: Any, by_ms: int | None) -> None:
    assert extension_of(ExtendedLease(task_id(1), lease_text(2), by)) == Extension(task_id(1), EPOCH, 2, by_ms)


@pytest.mark.parametrize("by", [0, -1, "1", "", "2d", 86_401, float("inf")])
def test_an_extension_has_bounds(by: Any) -> None:
    with pytest.raises(Invalid) as caught:
        extension_of(ExtendedLease(task_id(1), lease_text(), by))
    assert caught.value.pointer == "/by"


# --- names


def test_answers_go_under_the_names_that_the_worker_used() -> None:
    number = 0xABCDEF
    said = [msgspec.convert(one, WorkerResult) for one in (held(1, ok=True), held(2), held(number, 4, snooze=1))]
    said[2] = msgspec.structs.replace(said[2], id=task_id(number).upper())
    wrong: list[Refused] = []
    good, names, keys = taken_apart(said, report_of, wrong)
    assert [one.id for one in good] == [task_id(1), task_id(number)]
    assert names == {
        (task_id(1), EPOCH, 1): (task_id(1), lease_text()),
        (task_id(number), EPOCH, 4): (task_id(number).upper(), lease_text(4)),
    }
    assert keys == [(task_id(1), EPOCH, 1), None, (task_id(number), EPOCH, 4)]
    assert [(one["id"], one["problem"]["errors"][0]["pointer"]) for one in wrong] == [(task_id(2), "/ok")]


def test_of_one_attempt_the_first_word_counts() -> None:
    said = [
        msgspec.convert(one, WorkerResult)
        for one in (held(1, ok=True), held(1, ok=False), held(1, 2, ok=True), held(1) | {"ok": True, "id": task_id(1)})
    ]
    wrong: list[Refused] = []
    good, _, keys = taken_apart(said, report_of, wrong)
    assert [(one.attempt, one.verdict) for one in good] == [(1, Verdict.SUCCEEDED), (2, Verdict.SUCCEEDED)]
    assert keys == [(task_id(1), EPOCH, 1), None, (task_id(1), EPOCH, 2), None]
    assert [one["problem"]["status"] for one in wrong] == [422, 422]


# --- what came of it


@pytest.mark.parametrize(
    ("said", "kind", "status"),
    [
        (a_word(1, Said.OVER), Conflict, 409),
        (a_word(1, Said.UNKNOWN), Unknown, 404),
        (a_word(1, Said.UNSURE), Unavailable, 503),
        (a_kept(1, Said.OVER), Conflict, 409),
        (a_kept(1, Said.UNKNOWN), Unknown, 404),
        (a_kept(1, Said.UNSURE), Unavailable, 503),
    ],
)
def test_a_word_that_is_no_record_is_a_problem(said: Any, kind: type[Exception], status: int) -> None:
    error = why_refused(said)
    assert isinstance(error, kind)
    shown = refusal(task_id(1), lease_text(), error)
    assert (shown["id"], shown["lease"], shown["problem"]["status"]) == (task_id(1), lease_text(), status)
    assert shown["problem"].keys() >= {"type", "title", "status", "detail"}


def test_a_conflict_says_what_the_owner_said() -> None:
    body = problem_of(why_refused(a_word(1, Said.OVER, state=State.CANCELLED, detail="it was cancelled"))).body()
    assert (body["detail"], body["state"]) == ("it was cancelled", "cancelled")
    assert problem_of(why_refused(a_word(1, Said.OVER))).body()["detail"] == "the lease is over"


# --- tasks


def shown(task: Lent) -> dict[str, Any]:
    data = task_bytes(task, "mail", 1)
    msgspec.json.decode(data, type=LeasedTask)
    body: dict[str, Any] = orjson.loads(data)
    return body


def test_a_task_without_anything() -> None:
    assert shown(a_lent(1, attempt=3)) == {
        "id": task_id(1),
        "queue": "mail",
        "attempt": 3,
        "max_attempts": 5,
        "fence": lease_text(3),
        "lease": lease_text(3),
        "lease_expire_time": time_text(T0_MS + PERIOD_MS),
        "lease_seconds": 30,
        "schedule_time": time_text(T0_MS),
    }


@pytest.mark.parametrize("payload", [b'{"a": "\xc3\xbc"}', b"[]", b"0", b'""', b"null", b"false"])
def test_a_payload_goes_out_as_it_came_in(payload: bytes) -> None:
    task = a_lent(1, payload=payload, labels=LABELS, trace=TRACE)
    assert payload in task_bytes(task, "mail", 1)
    body = shown(task)
    assert body["payload"] == orjson.loads(payload)
    assert (body["labels"], body["traceparent"]) == (orjson.loads(LABELS), TRACE)
    assert "payload_base64" not in body


@pytest.mark.parametrize("payload", [b"", b"\x00\xff", b"text", bytes(range(256)) * 10])
def test_bytes_go_out_as_base64_with_their_type(payload: bytes) -> None:
    body = shown(a_lent(1, payload=payload, content_type='text/plain; charset="x"'))
    assert b64decode(body["payload_base64"]) == payload
    assert body["content_type"] == 'text/plain; charset="x"'
    assert "payload" not in body


@pytest.mark.parametrize(("period_ms", "seconds"), [(1_000, 1), (1_500, 1.5), (86_400_000, 86_400), (30_001, 30.001)])
def test_the_period_of_a_lease_is_told_in_seconds(period_ms: int, seconds: float) -> None:
    assert shown(msgspec.structs.replace(a_lent(1), period_ms=period_ms))["lease_seconds"] == seconds


def test_a_fence_is_of_the_database_s_timeline() -> None:
    assert orjson.loads(task_bytes(a_lent(1), "mail", 3))["lease"].startswith("00000003.")


def test_a_problem_that_is_no_json_stays_one() -> None:
    with pytest.raises(Problem):
        read_message(b"\xff")
