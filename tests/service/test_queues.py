"""Queues as a resource, on the whole service with a real database."""

import asyncio

import pytest

from tests.service.api import Api, Tables
from tests.service.hook import OK, Held, Hook
from tests.service.served import serving, starting

LIMIT_S = 30.0


async def test_a_paused_queue_starts_nothing_until_it_is_resumed(service: Api, hook: Hook) -> None:
    assert (await service.call("PUT", "/v1/queues/slow", {"paused": True})).status == 201
    waits = await service.submit(queue="slow", http={"url": hook.url(OK)})
    other = await service.submit(queue="fast", http={"url": hook.url(OK)})
    assert (await service.wait(other["id"]))["state"] == "succeeded"
    assert (await service.get(waits["id"]))["state"] == "scheduled"
    assert (await service.call("GET", "/v1/queues/slow")).body["backlog"]["due"] == 1
    await service.call("POST", "/v1/queues/slow:resume")
    assert (await service.wait(waits["id"]))["state"] == "succeeded"


async def test_a_queues_retry_and_retention_hold_for_its_tasks(service: Api, hook: Hook, tables: Tables) -> None:
    asked = {"retry": {"max_attempts": 1}, "retention": {"succeeded": "3d", "dead": "1d"}}
    await service.call("PUT", "/v1/queues/mail", asked)
    good = await service.submit(queue="mail", http={"url": hook.url(OK)})
    assert good["max_attempts"] == 1
    await service.wait(good["id"])
    kept = "SELECT last_day - finish_ms / 86400000 FROM finished WHERE id = $1"
    assert await tables.value(kept, good["id"]) == 3


@pytest.mark.parametrize("paused", [False, True])
async def test_what_is_purged_never_fires(service: Api, hook: Hook, tables: Tables, paused: bool) -> None:
    await service.call("PUT", "/v1/queues/q", {"paused": paused})
    url = hook.url(OK)
    delays: list[object] = ["100d", 30] * 300 + ([0] * 100 if paused else [])
    ids = await service.submit_many([{"queue": "q", "delay": delay, "http": {"url": url}} for delay in delays])
    other = await service.submit(queue="other", delay="1d", http={"url": url})
    purged = await service.call("POST", "/v1/queues/q:purge")
    assert purged.body == {"purged": len(ids), "done": True}
    await service.call("POST", "/v1/queues/q:resume")
    assert {await tables.state(task_id) for task_id in ids[::50]} == {"cancelled"}
    assert await tables.value("SELECT count(*) FROM tasks") == 1
    assert (await service.get(other["id"]))["state"] == "scheduled"
    assert (await service.call("DELETE", "/v1/queues/q")).status == 204
    assert (await service.get(ids[0]))["queue"] == "q"


async def test_a_purge_leaves_what_runs_alone(service: Api, hook: Hook) -> None:
    held = Held()
    task = await service.submit(queue="q", http={"url": hook.url(held)})
    await hook.called(task["id"])
    assert (await service.call("POST", "/v1/queues/q:purge")).body == {"purged": 0, "done": True}
    assert (await service.call("DELETE", "/v1/queues/q")).status == 409
    assert (await service.get(task["id"]))["state"] == "running"


async def test_a_change_reaches_every_node_with_its_next_heartbeats(database_url: str) -> None:
    async with serving(database_url) as one, starting(database_url, name="node-b") as two:
        await one.call("PUT", "/v1/queues/q", {})
        book = two.service.gateway.queues
        await two.service.node.membership.beaten.wait()
        for paused, command in ((True, "pause"), (False, "resume")):
            assert (await one.call("POST", f"/v1/queues/q:{command}")).status == 200
            async with asyncio.timeout(LIMIT_S):
                while (there := book.by_name("default", "q")) is None or there.paused is not paused:
                    await two.call("GET", "/livez")


async def test_a_name_that_no_text_of_the_database_can_be_is_not_found(service: Api) -> None:
    for method, rest in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", ":pause"), ("POST", ":purge")):
        answer = await service.call(method, f"/v1/queues/a%00b{rest}", {} if method == "PATCH" else None)
        assert (answer.status, answer.body["detail"]) == (404, "no such queue")
