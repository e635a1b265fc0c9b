"""The cluster as operators see it, over a real socket."""

from typing import Any

import pytest

from actors.core.errors import Unavailable
from actors.core.reach import Reach
from actors.core.ring import Ring
from gateway import cluster_api
from gateway.cluster_api import MOST, SETTLE_MS
from storage.memory.database import NodeRow
from tests.gateway.served import NOW_MS, Served, served

URL = "/v1/cluster"
FAR_MS = NOW_MS * 2


def others(world: Served) -> None:
    """node-1 (boot-1) is asked, node-2 owns all but two shards, node-3 has died with one."""
    tables = world.stores.link.database
    tables.nodes["boot-2"] = NodeRow("boot-2", "node-2", "10.0.0.2:7070")
    tables.nodes["boot-3"] = NodeRow("boot-3", "node-3", "10.0.0.3:7070", up=False)
    for shard, row in tables.shards.items():
        row.owner, row.epoch = "boot-3" if shard == 9 else "boot-1" if shard == 7 else "boot-2", 4


async def old_tasks(world: Served, monkeypatch: pytest.MonkeyPatch, count: int = 3) -> list[Reach]:
    """Tasks that were accepted some time ago; what a memory tells that claims every shard and has one less."""
    monkeypatch.setattr(cluster_api, "SETTLE_MS", -10_000)
    for _ in range(count):
        await world.create(delay=60)
    return [Reach(shard, FAR_MS, (count - 1) * (shard == 0)) for shard in range(256)]


async def test_it_shows_who_is_there_and_who_owns_what() -> None:
    async with served() as world:
        others(world)
        answer = await world.get(URL)
        assert answer.status == 200
        shown: dict[str, Any] = answer.json
        mine, theirs = shown["nodes"]
        nothing = {"entries": 0, "rows": 0, "missing": 0}
        assert mine == {
            "name": "node-1",
            "boot": "boot-1",
            "address": "127.0.0.1:0",
            "state": "up",
            "shards": 1,
            "still_ms": 200,
            "asked": True,
            "armed": nothing,
        }
        assert (theirs["name"], theirs["shards"], theirs["still_ms"], theirs["asked"]) == ("node-2", 254, None, False)
        assert theirs["armed"] is None, "it did not answer in time"
        assert [shard["shard"] for shard in shown["shards"]] == list(range(256))
        assert [shown["shards"][n]["owner"] for n in (7, 8, 9)] == ["node-1", "node-2", None]
        assert {shard["epoch"] for shard in shown["shards"]} == {4}
        assert (shown["lease_margin_ms"], shown["counted_to"]) == (3_500, MOST)
        assert world.node.census.before_us == (NOW_MS - SETTLE_MS) * 1_000


async def test_shards_that_are_not_where_the_ring_wants_them_are_counted() -> None:
    async with served() as world:
        tables = world.stores.link.database
        others(world)
        ring = Ring(("node-1", "node-2"), 256)
        for shard, row in tables.shards.items():
            row.owner = "boot-1" if ring.owner(shard) == "node-1" else "boot-2"
        assert (await world.get(URL)).json["misplaced"] == 0
        tables.shards[ring.shards_of("node-1")[0]].owner = "boot-2"
        tables.shards[ring.shards_of("node-1")[1]].owner = "boot-3"
        assert (await world.get(URL)).json["misplaced"] == 2


async def test_a_row_that_no_memory_has_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as world:
        others(world)
        world.node.census.told = {"boot-1": [], "boot-2": await old_tasks(world, monkeypatch)}
        mine, theirs = (await world.get(URL)).json["nodes"]
        assert theirs["armed"] == {"entries": 2, "rows": 3, "missing": 1}
        assert mine["armed"] == {"entries": 0, "rows": 0, "missing": 0}


async def test_what_ended_meanwhile_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as world:
        await old_tasks(world, monkeypatch)
        world.node.census.told = {"boot-1": [Reach(shard, FAR_MS, 1) for shard in range(256)]}
        (node,) = (await world.get(URL)).json["nodes"]
        assert node["armed"] == {"entries": 256, "rows": 3, "missing": 0}


async def test_rows_that_are_not_counted_to_their_end_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as world:
        monkeypatch.setattr(cluster_api, "MOST", 3)
        world.node.census.told = {"boot-1": await old_tasks(world, monkeypatch, 4)}
        shown = (await world.get(URL)).json
        assert shown["nodes"][0]["armed"] == {"entries": 3, "rows": 3, "missing": None}
        assert shown["counted_to"] == 3


async def test_rows_that_take_too_long_are_left_out() -> None:
    async with served() as world:

        async def count(*_: object) -> None:
            raise Unavailable("too slow")

        world.stores.cluster.count = count  # type: ignore[assignment, method-assign]
        answer = await world.get(URL)
        assert answer.status == 200
        assert answer.json["nodes"][0]["armed"] == {"entries": 0, "rows": None, "missing": None}


async def test_without_the_database_there_is_no_view() -> None:
    async with served() as world:

        async def view() -> None:
            raise Unavailable("it is away")

        world.stores.cluster.view = view  # type: ignore[assignment, method-assign]
        answer = await world.get(URL)
        assert (answer.status, answer.json["type"]) == (503, "unavailable")


async def test_it_takes_no_parameters() -> None:
    async with served() as world:
        answer = await world.get(f"{URL}?node=a")
        assert (answer.status, answer.pointers) == (422, ["/node"])


async def test_a_node_is_drained_and_takes_its_part_again() -> None:
    async with served() as world:
        others(world)
        drained = await world.post(URL + ":drain", b'{"node": "node-2"}')
        assert (drained.status, drained.json) == (200, {"node": "node-2", "state": "leaving"})
        assert [node["state"] for node in (await world.get(URL)).json["nodes"]] == ["up", "leaving"]
        again = await world.post(URL + ":undrain", b'{"node": "node-2"}')
        assert (again.status, again.json) == (200, {"node": "node-2", "state": "up"})
        assert [node["state"] for node in (await world.get(URL)).json["nodes"]] == ["up", "up"]


@pytest.mark.parametrize("name", ["node-3", "nobody"], ids=["dead", "never seen"])
async def test_who_is_not_there_is_not_drained(name: str) -> None:
    async with served() as world:
        others(world)
        answer = await world.post(URL + ":drain", b'{"node": "%s"}' % name.encode())
        assert (answer.status, answer.json["type"]) == (404, "not-found")
        assert not world.stores.link.database.nodes["boot-3"].leaving


@pytest.mark.parametrize("name", ["", "a\\u0000b", "a\\nb", "x" * 256])
async def test_what_no_node_can_be_called_is_refused(name: str) -> None:
    async with served() as world:
        for command in (":drain", ":undrain"):
            answer = await world.post(URL + command, b'{"node": "%s"}' % name.encode())
            assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/node")
