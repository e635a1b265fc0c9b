"""Queues with an `unknown` policy, when one of two real nodes dies by kill -9 in mid-attempt."""

import asyncio
from typing import Any

from tests.service.api import LIMIT_S, Api, Tables
from tests.service.hook import Held, Hook
from tests.service.test_processes import node, shared, waiting_at

DEADLINE_S = 4.0
COUNT = 60


async def started_on(tables: Tables, api: Api, hook: Hook, name: str, queue: str, url: str) -> Any:
    """A task of this queue whose first attempt that node runs."""
    task = await waiting_at(tables, api, name, url, queue=queue, dispatch_deadline=DEADLINE_S)
    await api.command(task["id"], "run")
    await hook.called(task["id"])
    return task


async def shown_held(api: Api, task_id: str) -> Any:
    """The task, once it is held."""
    async with asyncio.timeout(LIMIT_S):
        while not (task := await api.get(task_id))["held"]:
            pass
    return task


async def test_a_killed_node(database_url: str, hook: Hook, tables: Tables) -> None:
    async with node(database_url, "a") as (first, api), node(database_url, "b") as (_, other):
        for queue, unknown in (("once", "hold"), ("after", "wait_deadline")):
            assert (await api.call("PUT", f"/v1/queues/{queue}", {"unknown": unknown})).status == 201
        await shared(tables)
        url = hook.url(Held())
        held, retried = [await started_on(tables, api, hook, "a", "once", url) for _ in range(2)]
        waits = await started_on(tables, api, hook, "a", "after", hook.url(Held(), Held()))
        many = await api.submit_many(
            [{"queue": "once", "http": {"url": hook.url()}, "delay": 0.005 * n} for n in range(COUNT)]
        )
        await hook.called(many[COUNT // 2])
        await first.killed()

        task = await shown_held(other, held["id"])
        assert (task["state"], task["deadline_time"], task["attempt"]) == ("running", None, 1)
        assert task["last_attempt"]["error"] == "its owner was lost during the attempt"
        assert task["fence"] == hook.calls[held["id"]][0].fence
        await shown_held(other, retried["id"])

        one, two = await hook.called(waits["id"], 2)
        assert two.arrived_ms - one.arrived_ms >= 1_000 * DEADLINE_S
        assert two.fence > one.fence

        await everything_ended_or_is_held(other, many)
        listed = await other.listed(queue="once", state="running", order="desc")
        assert {task["id"] for task in listed} >= {held["id"], retried["id"]}
        assert all(task["held"] for task in listed)
        backlog = (await other.call("GET", "/v1/queues/once")).body["backlog"]
        assert backlog["held"] == len(listed)
        assert f"ringwheel_held_tasks_total {len(listed)}.0" in str((await other.call("GET", "/metrics")).body)

        assert (await other.command(held["id"], "cancel")).status == 409
        done = await other.command(held["id"], "complete", fence=task["fence"], result="found done")
        assert (done.status, done.body["state"], done.body["held"]) == (200, "succeeded", False)
        again = await shown_held(other, retried["id"])
        answer = await other.command(retried["id"], "complete", fence=again["fence"], ok=False, retry=0)
        assert answer.status == 200
        await hook.called(retried["id"], 2)
        calls = {task_id: len(hook.calls[task_id]) for task_id in (held["id"], retried["id"], *many)}
        assert (calls.pop(held["id"]), calls.pop(retried["id"])) == (1, 2)
        assert set(calls.values()) <= {0, 1}, "0: it was killed between claim and send"


async def everything_ended_or_is_held(api: Api, ids: list[str]) -> None:
    async with asyncio.timeout(LIMIT_S):
        for task_id in ids:
            while True:
                task = await api.get(task_id)
                if task["held"] or task["state"] == "succeeded":
                    break
