"""Idempotency keys: one key, one task, one run, however often and at whatever moment it is submitted."""

import asyncio
from collections import Counter
from typing import Any

from tests.service.api import Answer, Api, Tables
from tests.service.hook import Hook
from tests.support.raw_target import answers

SAME = 32


async def keyed(service: Api, key: str, **task: Any) -> Answer:
    """Submit under a key, again while the service is too busy to say what came of it."""
    while True:
        answer = await service.call("POST", "/v1/tasks", task, Idempotency_Key=key)
        if answer.status not in (429, 503):
            return answer
        await asyncio.sleep(int(answer.headers["Retry-After"]))


async def test_a_key_is_one_task(service: Api, hook: Hook) -> None:
    task = {"http": {"url": hook.url()}, "payload": {"n": 1}, "delay": "1h"}
    first = await keyed(service, "order-1", **task)
    again = await keyed(service, "order-1", **task)
    assert (first.status, "Idempotent-Replayed" in first.headers) == (201, False)
    assert (again.status, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert again.headers["Location"] == first.headers["Location"]
    assert again.body == first.body
    other = await keyed(service, "order-1", **task | {"payload": {"n": 2}})
    assert (other.status, other.body["type"]) == (422, "key-reused")
    assert (await keyed(service, "order-2", **task)).body["id"] != first.body["id"]


async def test_a_key_is_remembered_after_the_end(service: Api, hook: Hook) -> None:
    for end, status, delay in (("succeeded", 200, 0), ("dead", 410, 0), ("cancelled", 200, 3600)):
        task = {"http": {"url": hook.url(answers(status))}, "delay": delay}
        first = await keyed(service, end, **task)
        if end == "cancelled":
            await service.command(first.body["id"], "cancel")
        assert (await service.wait(first.body["id"]))["state"] == end
        again = await keyed(service, end, **task)
        assert (again.status, again.body["id"], again.body["state"]) == (200, first.body["id"], end)
        assert (await keyed(service, end, queue="else", **task)).status == 422
        assert len(hook.calls[first.body["id"]]) == (end != "cancelled")


async def test_identical_submits_at_once(service: Api, hook: Hook, tables: Tables) -> None:
    """Single requests: at most one 201 a key (its answer may be a 503), all others are replays."""
    task = {"http": {"url": hook.url()}, "delay": 0.2}
    keys = [f"key-{number}" for number in range(25)]
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(keyed(service, key, **task)) for _ in range(SAME) for key in keys]
    found: dict[str, set[str]] = {}
    statuses: Counter[int] = Counter()
    for sent, key in zip(asked, keys * SAME, strict=True):
        answer = sent.result()
        statuses[answer.status] += 1
        assert answer.status in (200, 201), answer
        assert (answer.status == 200) == ("Idempotent-Replayed" in answer.headers)
        found.setdefault(key, set()).add(answer.body["id"])
    assert statuses[201] <= len(keys)
    assert statuses.total() == len(keys) * SAME
    assert {len(ids) for ids in found.values()} == {1}
    await one_run_each(service, hook, tables, [ids.pop() for ids in found.values()])


async def test_two_hundred_keys_while_they_finish(service: Api, hook: Hook, tables: Tables) -> None:
    """Batches: 32 of the same 200 keys at once, then again and again until all tasks have ended."""
    body = [{"http": {"url": hook.url()}, "delay": 0.005 * n, "idempotency_key": f"{n}"} for n in range(200)]
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(submitted(service, body)) for _ in range(SAME)]
    ids = [item["id"] for item in asked[0].result()]
    assert all([item["id"] for item in sent.result()] == ids for sent in asked)
    states: set[str] = set()
    while await tables.value("SELECT EXISTS (SELECT FROM tasks)"):
        results = await submitted(service, body)
        assert [item["id"] for item in results] == ids
        states |= {item["state"] for item in results}
    await one_run_each(service, hook, tables, ids)
    assert states <= {"scheduled", "succeeded"}


async def submitted(service: Api, tasks: list[dict[str, object]]) -> list[dict[str, Any]]:
    """The results of a batch with keys; it is sent again as long as nobody knows of some whether they were accepted."""
    while True:
        answer = await service.call("POST", "/v1/tasks:batch", tasks)
        assert answer.status == 200, answer
        results: list[dict[str, Any]] = answer.body["results"]
        problems = [item["problem"] for item in results if "problem" in item]
        if not problems:
            return results
        assert {problem["status"] for problem in problems} == {503}, problems


async def one_run_each(service: Api, hook: Hook, tables: Tables, ids: list[str]) -> None:
    await hook.all_called(ids)
    await tables.empty()
    assert await tables.value("SELECT count(*) FROM finished") == len(ids) == len(set(ids))
    assert hook.calls.keys() == set(ids)
    assert {len(calls) for calls in hook.calls.values()} == {1}


async def test_the_header_of_a_batch_gives_each_item_a_key(service: Api) -> None:
    items = [{"payload": number} for number in range(3)]
    first = await service.call("POST", "/v1/tasks:batch", items, Idempotency_Key="batch")
    again = await service.call("POST", "/v1/tasks:batch", items, Idempotency_Key="batch")
    assert again.body == first.body
    ids = [item["id"] for item in first.body["results"]]
    assert len(set(ids)) == 3
    for number, task_id in enumerate(ids):
        single = await keyed(service, f"batch/{number}", payload=number)
        assert (single.status, single.body["id"]) == (200, task_id)
    items[1]["payload"] = 7
    changed = await service.call("POST", "/v1/tasks:batch", items, Idempotency_Key="batch")
    assert changed.body["results"][1]["problem"]["status"] == 422
    assert [item.get("id") for item in changed.body["results"]] == [ids[0], None, ids[2]]


async def test_a_key_twice_in_one_batch(service: Api) -> None:
    items = [{"payload": n, "idempotency_key": "k"} for n in (1, 1, 2)]
    answer = await service.call("POST", "/v1/tasks:batch", items)
    first, second, third = answer.body["results"]
    assert first == second
    assert third["problem"]["type"] == "key-reused"
