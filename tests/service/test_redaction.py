"""A canary sent through every door of a running process: it is in no line of its log, and in no metric."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.service.api import Api, Tables
from tests.service.hook import LATER, Hook
from tests.service.programs import Program, ringwheel, serve
from tests.service.served import ready
from tests.support.raw_target import answers, says

CANARY = "canary0f7e3a91"
SOON = {"max_attempts": 2, "min_backoff": 0.01, "max_backoff": 0.01}


@asynccontextmanager
async def watched(dsn: str) -> AsyncIterator[tuple[Program, Api]]:
    """A process whose every word is looked at once it has ended."""
    async with ringwheel(*serve(dsn), PYTHONASYNCIODEBUG="1") as program, aiohttp.ClientSession() as session:
        api = Api(await program.url(), session)
        await ready(api)
        yield program, api
        metrics = await api.call("GET", "/metrics")
        assert b"ringwheel_queue_attempts_total{" in metrics.body
        assert CANARY.encode() not in metrics.body.lower()
    await program.ended()
    await program.heard.wait()
    assert "took shards over" in program.output
    assert CANARY not in program.output.lower()


async def raw(api: Api, request: bytes) -> None:
    """Bytes to the socket, whatever comes back."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    writer.write_eof()
    await reader.read()
    writer.close()


async def test_what_goes_well(database_url: str, hook: Hook) -> None:
    async with watched(database_url) as (_, api):
        url = hook.url(answers(200, f"x-secret: {CANARY}", body=f'{{"token": "{CANARY}"}}'.encode()))
        task = await api.call(
            "POST",
            "/v1/tasks",
            {
                "http": {"url": f"{url}?token={CANARY}", "headers": {"Authorization": f"Bearer {CANARY}"}},
                "payload": {"password": CANARY},
                "labels": {"customer": CANARY},
            },
            Idempotency_Key=CANARY,
            Authorization=f"Bearer rw_{CANARY}_{CANARY}",
            Cookie=f"session={CANARY}",
            User_Agent=CANARY,
            traceparent=CANARY,
        )
        assert task.status == 201
        assert (await api.wait(task.body["id"]))["state"] == "succeeded"


async def test_what_goes_wrong_at_the_target(database_url: str, hook: Hook) -> None:
    broken = [
        answers(500, f"retry-after: {CANARY}", body=CANARY.encode()),
        answers(302, f"location: http://{CANARY}/", body=CANARY.encode()),
        says(f"HTTP/1.1 {CANARY} {CANARY}\r\n\r\n".encode()),
        says(f"{CANARY}\r\n\r\n".encode()),
        says(f"HTTP/1.1 200 OK\r\n{CANARY}\r\n\r\n".encode()),
        says(f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{CANARY}\r\n".encode()),
        says(f"HTTP/1.1 200 OK\r\nset-cookie: {CANARY}=\x01{CANARY}\r\ncontent-length: 0\r\n\r\n".encode()),
    ]
    async with watched(database_url) as (_, api):
        target = {"headers": {"X-Token": CANARY}}
        urls = [hook.url(script) for script in broken]
        urls += [f"http://{CANARY}.invalid/", f"http://10.0.0.1/{CANARY}", f"http://127.0.0.1:1/?{CANARY}"]
        ids = await api.submit_many(
            [{"http": {"url": url, **target}, "payload": CANARY, "retry": SOON} for url in urls]
        )
        for task_id in ids:
            await api.wait(task_id)
            assert (await api.command(task_id, "redrive")).status in (200, 409)


async def test_what_is_refused(database_url: str, hook: Hook) -> None:
    async with watched(database_url) as (_, api):
        hostile: list[dict[str, object]] = [
            {CANARY: 1},
            {"queue": f"{CANARY}/"},
            {"http": {"url": f"http://user:{CANARY}@127.0.0.1/"}},
            {"http": {"url": "http://a/", "headers": {"webhook-id": CANARY}}},
            {"http": {"url": "http://a/", "method": CANARY}},
            {"payload_base64": f"{CANARY}!"},
            {"labels": {f"{CANARY} ": "1"}},
            {"delay": CANARY},
            {"schedule_time": CANARY},
            {"idempotency_key": f"{CANARY}\n"},
            {"retry": {"max_attempts": CANARY}},
        ]
        for body in hostile:
            assert (await api.call("POST", "/v1/tasks", body)).status in (400, 422)
        assert (await api.call("POST", "/v1/tasks:batch", hostile)).status == 200
        assert (await api.call("POST", "/v1/tasks", {}, Idempotency_Key=CANARY)).status == 201
        assert (await api.call("POST", "/v1/tasks", {"payload": 1}, Idempotency_Key=CANARY)).status == 422
        for method, path in (
            ("GET", f"/{CANARY}"),
            ("GET", f"/v1/tasks/{CANARY}"),
            ("GET", f"/v1/tasks?state={CANARY}"),
            ("GET", f"/v1/tasks?cursor={CANARY}"),
            ("GET", f"/v1/tasks?{CANARY}=1"),
            ("POST", f"/v1/tasks/{CANARY}:cancel"),
            ("DELETE", f"/v1/tasks/{CANARY}"),
        ):
            assert 400 <= (await api.call(method, path)).status < 500
        post = "POST /v1/tasks HTTP/1.1\r\nHost: a\r\n"
        for request in (
            f"{CANARY}\r\n\r\n",
            f"GET /{CANARY} HTTP/9.9\r\n\r\n",
            f"GET / HTTP/1.1\r\n{CANARY}\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: a\r\n{CANARY}\x00: 1\r\n\r\n",
            f"{post}content-type: application/json\r\ncontent-length: 9\r\n\r\n{CANARY}",
            f"{post}transfer-encoding: chunked\r\n\r\n{CANARY}\r\n",
        ):
            await raw(api, request.encode())


async def test_commands_and_live_status(database_url: str, hook: Hook) -> None:
    async with watched(database_url) as (_, api):
        task = await api.submit(http={"url": hook.url(LATER)}, payload=CANARY)
        [call] = await hook.called(task["id"])
        await api.wait(task["id"], "running")
        assert (await api.command(task["id"], "complete", fence=CANARY)).status == 422
        done = await api.command(task["id"], "complete", fence=call.fence, ok=False, error=CANARY, retry="never")
        assert done.status == 200
        async with api.stream() as stream:
            await stream.socket.send_str(CANARY)
            await stream.hear()
        async with api.stream() as stream:
            await stream.subscribe(CANARY, id=CANARY)
            await stream.hear()


@pytest.mark.parametrize("lost", ["tasks", "finished"])
async def test_a_database_that_breaks(database_url: str, hook: Hook, tables: Tables, lost: str) -> None:
    """What a server says of a statement quotes it, and what it was about."""
    async with watched(database_url) as (program, api):
        url = hook.url(answers(200, body=CANARY.encode()))
        await tables.rows(f"ALTER TABLE {lost} ADD CHECK (tenant <> 'default') NOT VALID")
        body = {"http": {"url": f"{url}?{CANARY}"}, "payload": CANARY, "labels": {"a": CANARY}}
        answer = await api.call("POST", "/v1/tasks", body, Idempotency_Key=CANARY)
        assert answer.status < 500 or answer.status == 503
        if answer.status == 201:
            await program.says("can't be stored")
