"""Requests: what is sent, what is sent again, what is raised."""

import asyncio
import socket
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from aiohttp import web

from fake_service import Fake, answering
from ringwheel import (
    Client,
    Conflict,
    Draft,
    Forbidden,
    Http,
    Invalid,
    NotFound,
    Problem,
    RetryPolicy,
    RingwheelError,
    Unauthenticated,
    Unavailable,
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def body(draft: Draft) -> dict[str, Any]:
    return msgspec.json.decode(draft.encoded(None), type=dict[str, Any])


def test_a_draft_says_only_what_was_said() -> None:
    assert body(Draft("emails", {"to": "a"})) == {"queue": "emails", "payload": {"to": "a"}}
    at = datetime(2027, 1, 31, 9, tzinfo=UTC)
    draft = Draft(
        payload=b"\0\1",
        content_type="image/x",
        http="http://host/path",
        at=at,
        key="k",
        labels={"a": "b"},
        priority=1,
        retry=RetryPolicy(max_attempts=3, min_backoff=timedelta(minutes=1)),
        ttl="1h",
        deadline=timedelta(seconds=1.5),
    )
    assert body(draft) == {
        "payload_base64": "AAE=",
        "content_type": "image/x",
        "http": {"url": "http://host/path"},
        "schedule_time": "2027-01-31T09:00:00Z",
        "idempotency_key": "k",
        "labels": {"a": "b"},
        "priority": 1,
        "retry": {"max_attempts": 3, "min_backoff": 60.0},
        "ttl": "1h",
        "dispatch_deadline": 1.5,
    }
    assert body(Draft(http=Http("http://host", headers={"x": "y"})))["http"]["headers"] == {"x": "y"}


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a zone"):
        Draft(at=datetime(2027, 1, 31, 9))
    text: Any = "2027-01-31T09:00:00Z"
    with pytest.raises(TypeError, match=r"^at: expected a datetime, not a value of type str$"):
        Draft(at=text)


async def test_what_is_no_id_is_refused(fake: Fake, client: Client) -> None:
    for odd in (None, 5):
        task_id: Any = odd
        for method in (client.get, client.attempts, client.wait, client.cancel):
            with pytest.raises(TypeError, match=r"^task_id: expected the id of a task, not a value of type "):
                await method(task_id)
    assert not fake.requests


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), float("-inf")])
def test_a_time_that_json_can_t_say_is_refused_by_name(seconds: float) -> None:
    for name in ("delay", "ttl", "deadline"):
        with pytest.raises(ValueError, match=rf"^{name}: expected a finite number of seconds, not -?(nan|inf)$"):
            msgspec.structs.replace(Draft(), **{name: seconds})
    for name in ("min_backoff", "max_backoff", "max_retry_duration"):
        with pytest.raises(ValueError, match=f"^{name}: "):
            msgspec.structs.replace(RetryPolicy(), **{name: seconds})


@dataclass
class Measured:
    mean: float
    unit: str | None = None


@pytest.mark.parametrize("payload", [float("nan"), {"a": [1.0, float("inf")]}, Measured(float("-inf"))])
async def test_a_number_that_json_can_t_say_is_refused_before_anything_is_sent(
    fake: Fake, client: Client, payload: Any
) -> None:
    with pytest.raises(ValueError, match=r"^payload: NaN and infinite numbers are no JSON$"):
        await client.submit("emails", payload)
    with pytest.raises(ValueError, match=r"^result: "):
        await client.complete("t1", "f", result=payload)
    with pytest.raises(ValueError, match=r"^retry: "):
        await client.complete("t1", "f", error="no", retry=float("nan"))
    with pytest.raises(ValueError, match=r"^delay: "):
        await client.reschedule("t1", delay=float("nan"))
    assert not fake.requests
    await client.submit("emails", Measured(1.5))
    assert fake.tasks["t1"].body["payload"] == {"mean": 1.5, "unit": None}


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:7070",
        "ftp://host",
        ["http://host", "host"],
        "http://x:99999",
        "http://x:port",
        "http://",
        "http://[::1",
    ],
)
def test_what_is_no_url_is_refused(url: str | list[str]) -> None:
    with pytest.raises(ValueError, match="not a URL"):
        Client(url)


@pytest.mark.parametrize(("value", "leaf"), [(-1, ValueError), (float("nan"), ValueError), ("5s", TypeError)])
@pytest.mark.parametrize("name", ["patience", "timeout"])
def test_a_setting_that_can_t_work_is_refused_by_name(name: str, value: Any, leaf: type[Exception]) -> None:
    with pytest.raises(leaf, match=f"^{name}: "):
        Client("http://nowhere", **{name: value})


@pytest.mark.parametrize(
    ("key", "leaf"),
    [("rw_a\n", ValueError), (" rw_a", ValueError), ("rw_a ", ValueError), ("rw\0a", ValueError), (5, TypeError)],
)
def test_a_key_that_no_header_carries_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, key: Any, leaf: type[Exception]
) -> None:
    with pytest.raises(leaf, match=r"^key: ") as caught:
        Client("http://nowhere", key)
    assert "rw" not in str(caught.value)
    if isinstance(key, str) and "\0" not in key:
        monkeypatch.setenv("RINGWHEEL_KEY", key)
        with pytest.raises(ValueError, match=r"^key: "):
            Client("http://nowhere")


@pytest.mark.parametrize(("key", "leaf"), [("a\r\nX: y", ValueError), ("a\0", ValueError), (5, TypeError)])
async def test_an_idempotency_key_that_no_header_carries_is_refused(
    fake: Fake, client: Client, key: Any, leaf: type[Exception]
) -> None:
    with pytest.raises(leaf, match=r"^key: "):
        await client.submit("emails", key=key)
    assert not fake.requests


def test_where_the_service_is_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGWHEEL_URL", "http://one:1/, http://two:2")
    assert Client().transport.urls == ["http://one:1", "http://two:2"]
    monkeypatch.delenv("RINGWHEEL_URL")
    assert Client().transport.urls == ["http://127.0.0.1:7070"]


async def test_a_submit_is_answered_by_its_task(fake: Fake, client: Client) -> None:
    task = await client.submit("emails", {"to": "a"}, labels={"kind": "x"})
    assert (task.id, task.queue, task.state, task.labels) == ("t1", "emails", "scheduled", {"kind": "x"})
    assert fake.tasks["t1"].body["payload"] == {"to": "a"}
    assert fake.authorization == {"Bearer rw_test_key"}
    again = await client.submit(Draft("emails", 1, key="mine"), labels={"a": "b"})
    assert fake.keys["mine"] == again.id
    assert again.labels == {"a": "b"}


@pytest.mark.parametrize("fault", [0, 503, 500, 429, -500, -503, -502])
async def test_a_submit_without_an_answer_is_sent_again_and_makes_one_task(
    fake: Fake, client: Client, fault: int
) -> None:
    fake.faults.extend([lambda request: fault] * 2)
    task = await client.submit("emails")
    assert [*fake.tasks] == [task.id]
    assert fake.requests["/v1/tasks"] == 3


@pytest.mark.parametrize(
    ("status", "leaf"),
    [(400, Problem), (401, Unauthenticated), (403, Forbidden), (404, NotFound), (409, Conflict), (422, Invalid)],
)
async def test_a_refusal_is_raised_and_not_sent_again(
    fake: Fake, client: Client, status: int, leaf: type[Problem]
) -> None:
    fake.faults.append(lambda request: status)
    with pytest.raises(leaf, match=f"{status} A fault: as the test wants it") as caught:
        await client.submit("emails")
    assert (caught.value.status, caught.value.type) == (status, "test")
    assert fake.requests["/v1/tasks"] == 1


async def test_patience_ends(fake: Fake) -> None:
    async with Client(fake.url, patience=0.2) as client:
        fake.faults.extend([lambda request: 503] * 100)
        with pytest.raises(Unavailable, match="A fault") as caught:
            await client.submit("emails")
    assert isinstance(caught.value.__cause__, Problem)
    assert fake.requests["/v1/tasks"] >= 2
    async with Client(f"http://127.0.0.1:{free_port()}", patience=0) as nobody:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
            await nobody.get("t1")


async def test_a_try_that_takes_too_long_is_followed_by_another(fake: Fake) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    task = fake.add()
    async with answering(silent) as url, Client([url, fake.url], timeout=0.1) as client:
        assert (await client.get(task.id)).id == task.id
    async with answering(silent) as url, Client([url, fake.url], timeout=0.1, patience=0.1) as client:
        assert (await client.get(task.id)).id == task.id, "each node is asked once, when patience is over, too"
    async with answering(silent) as url, Client([url, url], timeout=0.1, patience=0.1) as client:
        with pytest.raises(Unavailable, match="TimeoutError"):
            await client.get(task.id)


async def test_another_node_is_asked_when_one_is_gone(fake: Fake) -> None:
    async with Client([f"http://127.0.0.1:{free_port()}", fake.url]) as client:
        for _ in range(3):
            await client.submit("emails")
        assert client.transport.url == fake.url
    assert len(fake.tasks) == 3


async def test_what_the_service_asks_for_is_waited_for() -> None:
    times: list[float] = []

    async def busy(request: web.Request) -> web.StreamResponse:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            return web.Response(status=503, headers={"Retry-After": "1"})
        return web.Response(text="no JSON")

    async with answering(busy) as url, Client(url) as client:
        with pytest.raises(RingwheelError, match="no answer of ringwheel"):
            await client.get("t1")
    assert times[1] - times[0] >= 1


async def test_what_one_node_asks_for_is_nothing_to_another(fake: Fake) -> None:
    async def busy(request: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "3600"})

    task = fake.add()
    async with answering(busy) as url, Client([url, fake.url], patience=1) as client:
        assert (await client.get(task.id)).id == task.id
    async with answering(busy) as url, Client([url, url + "/"], patience=1) as client:
        with pytest.raises(Unavailable, match="429"):
            await client.get(task.id)


async def test_a_client_closes_when_its_last_user_leaves(fake: Fake) -> None:
    client = Client(fake.url)
    async with client:
        async with client:
            await client.submit("emails")
        before = client.transport._session
        assert before is not None
        assert not before.closed
    assert before.closed


async def test_what_is_under_way_when_a_client_is_closed_ends() -> None:
    asked = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with answering(silent) as url, asyncio.TaskGroup() as group:
        client = Client(url)
        getting = [group.create_task(_end_of(client.get("t1"))) for _ in range(150)]  # some wait for a connection
        await asked.wait()
        await client.close()
        assert {str(await each) for each in getting} == {"the client was closed"}
        assert client.transport._session is None, "no new one was opened"


async def _end_of(work: Coroutine[Any, Any, object]) -> Exception:
    with pytest.raises(Unavailable) as caught:
        await work
    return caught.value


async def test_a_task_is_waited_for(fake: Fake, client: Client) -> None:
    with pytest.raises(NotFound):
        await client.wait("nothing")
    task = fake.add()
    task.state, task.ends = "succeeded", [{"result": {"a": 1}}]
    assert (await client.wait(task.id)).result == {"a": 1}
