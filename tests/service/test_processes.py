"""Real processes: they leave in good order, die without losing anything, and take over from each other."""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.service.api import LIMIT_S, Api, Tables, ms
from tests.service.hook import LATER, Held, Hook
from tests.service.programs import Program, ringwheel, serve
from tests.service.served import ready

SOON: dict[str, Any] = {"min_backoff": 0.02, "max_backoff": 0.05}


@asynccontextmanager
async def node(dsn: str, name: str = "node-a", grace_s: float = 20.0) -> AsyncIterator[tuple[Program, Api]]:
    """A process that serves."""
    async with ringwheel(*serve(dsn, name, grace_s=grace_s)) as program, aiohttp.ClientSession() as session:
        api = Api(await program.url(), session)
        await ready(api)
        yield program, api


async def draining(api: Api) -> list[str]:
    """Submit until the node takes no more; what it took."""
    taken: list[str] = []
    async with asyncio.timeout(LIMIT_S):
        while (answer := await api.call("POST", "/v1/tasks", {"queue": "pulled"})).status == 201:
            taken.append(answer.body["id"])
    assert (answer.status, "Retry-After" in answer.headers) == (503, True)
    return taken


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_leaves_in_good_order(database_url: str, hook: Hook, tables: Tables, number: signal.Signals) -> None:
    held = Held()
    async with node(database_url) as (program, api):
        slow = await api.submit(http={"url": hook.url(held)})
        later = await api.submit(http={"url": hook.url(LATER)})
        next_one = await api.submit(http={"url": hook.url()}, delay=0.7)
        for task in (slow, later):
            await hook.called(task["id"])
        await api.wait(later["id"], "running")
        program.signal(number)
        async with asyncio.TaskGroup() as group:
            clients = [group.create_task(draining(api)) for _ in range(8)]
        assert (await api.call("GET", "/readyz")).status == 503
        held.release.set()
        assert await program.ended() == 0
    assert await tables.state(slow["id"]) == "succeeded"
    assert await tables.state(later["id"]) == "running"
    assert await tables.state(next_one["id"]) == "scheduled"
    for task_id in itertools.chain.from_iterable(client.result() for client in clients):
        assert await tables.state(task_id) == "scheduled"
    assert await tables.value("SELECT count(*) FROM nodes WHERE state = 'up'") == 0, "it said goodbye"


async def test_the_grace_time_is_kept(database_url: str, hook: Hook, tables: Tables) -> None:
    held = Held()
    async with node(database_url, grace_s=0.5) as (program, api):
        task = await api.submit(http={"url": hook.url(held, Held())})
        [first] = await hook.called(task["id"])
        began = asyncio.get_running_loop().time()
        program.signal(signal.SIGTERM)
        assert await program.ended() == 0
        assert 0.5 <= asyncio.get_running_loop().time() - began < 10
    assert await tables.state(task["id"]) in ("scheduled", "running")
    async with node(database_url) as (_, api):
        _, second = await hook.called(task["id"], 2)
        assert second.fence > first.fence
        assert (await api.get(task["id"]))["fence"] == second.fence


async def test_killed_and_started_again(database_url: str, hook: Hook, tables: Tables) -> None:
    url, held = hook.url(), Held()
    tasks = [{"http": {"url": url}, "delay": 0.02 * number, "retry": SOON} for number in range(150)]
    async with node(database_url) as (program, api):
        ids = await api.submit_many(tasks)
        running = await api.submit(http={"url": hook.url(held)})
        future = await api.submit(delay="400d", payload="kept")
        await hook.called(running["id"])
        await api.wait(running["id"], "running")
        await hook.called(ids[40])
        await program.killed()
    held.release.set()
    async with node(database_url) as (_, api):
        await hook.all_called(ids)
        for task_id in (*ids, running["id"]):
            assert (await api.wait(task_id))["state"] == "succeeded"
        assert (await api.get(future["id"], "?view=full"))["payload"] == "kept"
    for task_id in (*ids, running["id"]):
        fences = [call.fence for call in hook.calls[task_id]]
        assert fences == sorted(set(fences)), "a second run has a higher fence"
    assert await tables.value("SELECT count(*) FROM finished") == len(ids) + 1


async def test_a_name_is_borne_by_one(database_url: str) -> None:
    async with node(database_url) as (_, api), ringwheel(*serve(database_url)) as second:
        assert await second.ended() == 2
        assert "node-a" in second.output
        assert "name" in second.output
        assert (await api.call("GET", "/readyz")).status == 200
        await api.submit()


async def shared(tables: Tables) -> None:
    """Wait until two nodes have their parts."""
    async with asyncio.timeout(LIMIT_S):
        while (
            await tables.value("SELECT max(c) FROM (SELECT count(*) AS c FROM shards GROUP BY owner_boot) AS x") > 141
        ):
            pass


async def waiting_at(tables: Tables, api: Api, name: str, url: str, **more: object) -> Any:
    """A task that waits on the node of that name."""
    while True:
        task = await api.submit(http={"url": url}, delay="1h", **more)
        owner = await tables.value(
            "SELECT n.name FROM tasks t JOIN shards s USING (shard) JOIN nodes n ON boot = owner_boot WHERE id = $1",
            task["id"],
        )
        if owner == name:
            return task


async def test_two_nodes_and_the_death_of_one(database_url: str, hook: Hook, tables: Tables) -> None:
    url = hook.url()
    async with node(database_url, "a") as (first, api), node(database_url, "b") as (_, other):
        elsewhere = await other.submit(http={"url": url})
        assert (await other.get(elsewhere["id"]))["id"] == elsewhere["id"]
        await hook.called(elsewhere["id"])
        await the_same_keys_on_both(api, other)
        await shared(tables)
        held = await waiting_at(tables, api, "a", hook.url(Held(), Held()))
        await other.command(held["id"], "run")
        [before] = await hook.called(held["id"])
        async with asyncio.timeout(LIMIT_S):
            while await tables.state(held["id"]) != "running":  # its claim is written down
                pass
        ids = await api.submit_many([{"http": {"url": url}, "delay": 0.5 + 0.01 * n} for n in range(100)])
        await first.killed()
        late = await other.submit(http={"url": url})
        await hook.all_called([*ids, late["id"]])
        for task_id in (*ids, late["id"]):
            assert (await other.wait(task_id))["state"] == "succeeded"
        _, after = await hook.called(held["id"], 2)
        assert after.fence.split(".")[1] > before.fence.split(".")[1], "another epoch"
        assert after.attempt == 2
        lost = await other.attempts(held["id"])
        assert [(attempt["outcome"], attempt["fence"]) for attempt in lost] == [("lost", before.fence)]
        for task_id in ids:
            task = await other.get(task_id)
            assert all(call.arrived_ms >= ms(task["schedule_time"]) for call in hook.calls[task_id])
        assert {len(hook.calls[task_id]) for task_id in (elsewhere["id"], *ids, late["id"])} == {1}


async def test_any_node_takes_tasks_and_commands(database_url: str, hook: Hook) -> None:
    async with node(database_url, "a") as (_, api), node(database_url, "b") as (_, other):
        waiting = await other.submit(delay="1h")
        assert (await other.command(waiting["id"], "cancel")).body["state"] == "cancelled"
        assert (await api.get(waiting["id"]))["state"] == "cancelled"
        later = await api.submit(http={"url": hook.url()}, delay="1h")
        await other.command(later["id"], "run")
        await hook.called(later["id"])
        ids = await other.submit_many([{"http": {"url": hook.url()}, "queue": "of-the-other"}] * 100)
        await hook.all_called(ids)
        for task_id in ids:
            assert (await other.wait(task_id))["lateness_ms"] < 3_000, "the probe would have taken longer"
        metrics = str((await api.call("GET", "/metrics")).body)
        assert "ringwheel_probe_finds_total 0.0" in metrics


async def the_same_keys_on_both(*apis: Api) -> None:
    async def submit(api: Api, key: str) -> tuple[int, str]:
        answer = await api.call("POST", "/v1/tasks", {"queue": "pulled"}, Idempotency_Key=key)
        return answer.status, answer.body["id"]

    async with asyncio.TaskGroup() as group:
        asked = {
            key: [group.create_task(submit(api, key)) for api in apis for _ in range(5)] for key in map(str, range(20))
        }
    for answers in asked.values():
        statuses, ids = zip(*(answer.result() for answer in answers), strict=True)
        assert sorted(statuses) == [200] * 9 + [201]
        assert len(set(ids)) == 1
