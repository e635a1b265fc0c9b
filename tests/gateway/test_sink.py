from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request

from gateway.sink import KEPT, Sink

Client = TestClient[Request, Application]


@pytest.fixture
async def sink() -> Sink:
    return Sink()


@pytest.fixture
async def client(sink: Sink) -> AsyncIterator[Client]:
    async with TestClient(TestServer(sink.app())) as made:
        yield made


async def statuses(client: Client, path: str, *tasks: str) -> list[int]:
    return [(await client.post(path, data=b"{}", headers={"webhook-id": task})).status for task in tasks]


async def test_ok_and_slow_answer_200(client: Client) -> None:
    assert await statuses(client, "/ok", "a") == [200]
    assert await statuses(client, "/slow?ms=1", "a") == [200]


async def test_flaky_fails_the_first_attempts_of_each_task(client: Client) -> None:
    assert await statuses(client, "/flaky", "a", "a", "b", "a", "b", "b", "a") == [500, 500, 500, 200, 500, 200, 500]
    assert await statuses(client, "/flaky?failures=0", "c") == [200]


async def test_later_says_so(client: Client) -> None:
    answer = await client.post("/later")
    assert (answer.status, answer.headers["ringwheel-complete"]) == (202, "later")


@pytest.mark.parametrize("code", [200, 204, 304, 410, 429, 503])
async def test_status_answers_what_is_asked_for(client: Client, code: int) -> None:
    assert (await client.get(f"/status/{code}")).status == code


async def test_deliveries_are_shown_newest_first(client: Client) -> None:
    await client.post("/ok?n=1", data=b"<one>", headers={"webhook-id": "first", "ringwheel-attempt": "1"})
    await client.post("/status/500", data=b"\xff", headers={"webhook-id": "second"})
    shown = await (await client.get("/", headers={"accept": "application/json"})).json()
    assert shown["total"] == 2
    assert [delivery["task"] for delivery in shown["deliveries"]] == ["second", "first"]
    page = await (await client.get("/")).text()
    assert "&lt;one&gt;" in page
    assert "<one>" not in page


async def test_memory_is_bounded(sink: Sink, client: Client) -> None:
    for n in range(KEPT + 20):
        await client.post("/flaky", data=b"x" * 2_000, headers={"webhook-id": str(n)})
    assert sink.total == KEPT + 20
    assert len(sink.deliveries) == KEPT
    assert len(sink.deliveries[-1]["body"]) == 1_000  # type: ignore[arg-type]
    assert len(sink._failures) == KEPT
