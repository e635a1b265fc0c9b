"""The cluster as operators see it, on real nodes that ask each other over real links."""

import asyncio
from typing import Any

import pytest

from actors.core.ids import shard_of
from actors.ports.links import LinkedNode
from gateway import cluster_api
from gateway.__main__ import SHUTDOWN_S
from storage.migrations import migrate
from tests.service.api import LIMIT_S, Api, tables_of
from tests.service.keys import client, make_key
from tests.service.served import serving, until, up

ACCEPTED_US = 1_000
LOST = "0197ffff-0000-7000-8000-00000000aa80"


async def seen(api: Api) -> dict[str, Any]:
    answer = await api.call("GET", "/v1/cluster")
    assert answer.status == 200, answer
    return answer.body  # type: ignore[no-any-return]


async def seen_when(api: Api, **wanted: int) -> dict[str, Any]:
    """The cluster, as soon as all its memories together have these figures."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            shown = await seen(api)
            armed = [node["armed"] for node in shown["nodes"]]
            if all(armed) and all(sum(one[figure] for one in armed) == most for figure, most in wanted.items()):
                return shown


async def test_every_near_task_of_two_nodes_is_armed_but_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_api, "SETTLE_MS", 0)
    async with serving(database_url, name="node-a") as a, serving(database_url, name="node-b") as b:
        for api in (a, b):
            await api.submit_many([{"delay": "40s"}] * 50 + [{"delay": "1h"}] * 30)
        for api, name in ((a, "node-a"), (b, "node-b")):
            shown = await seen_when(api, entries=100, rows=100, missing=0)
            assert [node["name"] for node in shown["nodes"]] == ["node-a", "node-b"]
            assert [node["name"] for node in shown["nodes"] if node["asked"]] == [name]
            assert sum(node["shards"] for node in shown["nodes"]) == len(shown["shards"]) == 256
            assert all(node["still_ms"] < 5_000 for node in shown["nodes"])
            assert 0 < shown["lease_margin_ms"] <= 4_000
        async with tables_of(database_url) as tables:
            await tables.rows(
                "INSERT INTO tasks (schedule_ms, due_ms, accept_us, queue_id, budget, shard, id, tenant, spec) "
                "SELECT schedule_ms, due_ms, $1, queue_id, budget, $2, $3, tenant, spec FROM tasks "
                "ORDER BY due_ms LIMIT 1",
                ACCEPTED_US,
                shard_of(LOST, 256),
                LOST,
            )
        await seen_when(b, entries=100, rows=101, missing=1)


@pytest.mark.parametrize("shards", [1, 3, 1_024])
async def test_two_nodes_serve_however_many_shards_a_cluster_has(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    """With 1 one of them owns nothing, and tasks that it accepts are fired all the same."""
    monkeypatch.setattr(cluster_api, "SETTLE_MS", 0)
    await migrate(empty_database_url, shards)
    async with serving(empty_database_url, name="node-a") as a, serving(empty_database_url, name="node-b") as b:
        for api in (a, b):
            await api.submit_many([{"delay": "40s"}] * 20)
        shown = await seen_when(b, entries=40, rows=40, missing=0)
        assert [shard["shard"] for shard in shown["shards"]] == list(range(shards))
        assert sum(node["shards"] for node in shown["nodes"]) == shards


async def test_a_node_that_leaves_is_not_held_up_by_the_links_to_it(database_url: str) -> None:
    """It answers nobody any more, and ends when they are gone."""
    async with serving(database_url, name="node-a") as a:
        async with serving(database_url, name="node-b") as b:
            await until(a, lambda: up(a, b) and up(b, a))
            began_s = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began_s < SHUTDOWN_S


async def test_a_node_that_does_not_tell_is_not_waited_for(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(database_url, name="node-a") as a, serving(database_url, name="node-b") as b:
        await seen_when(a, missing=0)

        async def never(before_us: int) -> None:
            await asyncio.Event().wait()

        node: LinkedNode | None = b.service.peers.node
        monkeypatch.setattr(node, "measure", never)
        began = asyncio.get_running_loop().time()
        mine, theirs = (await seen(a))["nodes"]
        assert asyncio.get_running_loop().time() - began < 3
        assert theirs["armed"] is None
        assert mine["armed"]["missing"] == 0


async def test_it_is_of_no_tenant(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_api, "SETTLE_MS", 0)
    mine, operator = await make_key(database_url, "acme"), await make_key(database_url, "other")
    async with (
        serving(database_url) as node,
        client(node.url, mine) as api,
        client(node.url, operator) as eyes,
    ):
        await api.submit_many([{"queue": "mail", "delay": "40s"}] * 7)
        await seen_when(eyes, entries=7, rows=7, missing=0)
