"""What the nodes of a cluster hold, asked of one of them."""

import asyncio
from dataclasses import replace

import pytest

from actors import census
from actors.census import CENSUS_LIMIT_S
from actors.core.reach import Reach
from actors.core.ring import Ring
from actors.node import HORIZON_MS
from storage.memory import MemoryClusterStore
from tests.support.cluster import Cluster, Member, submit_some

NEAR_MS = 30_000


async def pair(cluster: Cluster) -> tuple[Member, Member]:
    """Two nodes that know who owns what; together they own everything."""
    a, b = await cluster.start("a"), await cluster.start("b")
    part = set(Ring(("a", "b"), 256).shards_of("b"))
    await cluster.until(lambda: part == b.owned.keys() == a.node.membership.holders.keys())
    return a, b


async def asked(member: Member, *boots: str) -> dict[str, list[Reach] | None]:
    return await member.node.census.of(boot(member), boots, now_us(member))


def now_us(member: Member) -> int:
    return member.node.clock.now_ms() * 1_000


def boot(member: Member) -> str:
    return member.node.membership.boot


def total(reaches: list[Reach] | None) -> int:
    assert reaches is not None
    return sum(each.entries for each in reaches)


async def test_every_node_tells_what_it_holds(cluster: Cluster) -> None:
    a, b = await pair(cluster)
    near = await submit_some(b, 300, delay_ms=NEAR_MS)
    await submit_some(b, 50, delay_ms=HORIZON_MS * 3)
    await asyncio.sleep(1)
    for member in (a, b):
        found = await asked(member, boot(a), boot(b))
        assert sum(map(total, found.values())) == len(near)
        shards = [each.shard for reaches in found.values() for each in reaches or ()]
        assert sorted(shards) == list(range(256))
    assert await asked(a, boot(b)) == {boot(b): await b.node.measure(now_us(b))}


async def test_who_does_not_answer_in_time_is_unknown(cluster: Cluster) -> None:
    a, b = await pair(cluster)
    assert (await asked(a, boot(b), "boot-x")).keys() == {boot(b), "boot-x"}
    b.process.stop()
    began = asyncio.get_running_loop().time()
    found = await asked(a, boot(a), boot(b))
    assert asyncio.get_running_loop().time() - began == pytest.approx(CENSUS_LIMIT_S)
    assert found[boot(b)] is None
    assert found[boot(a)] is not None
    b.process.resume()


async def test_a_full_memory_is_looked_at_in_slices(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have a turn meanwhile, and a shard that goes in it is left out."""
    monkeypatch.setattr(census, "SLICE_TASKS", 10)
    node = await cluster.start("a")
    await submit_some(node, 400, delay_ms=NEAR_MS)
    await asyncio.sleep(1)
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        if turns == 5:
            node.node.hand.remove(255)
        if turns < 1_000:
            asyncio.get_running_loop().call_soon(turn)

    turn()
    found = await node.node.measure(now_us(node))
    assert turns > 20
    assert [each.shard for each in found] == list(range(255))


async def test_a_backlog_that_does_not_fit_is_no_gap_and_a_row_too_many_is_one(
    small: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.node.HELD", 64)
    node = await small.start("a")
    for queue in ("emails", "reports"):
        await submit_some(node, 300, queue, delay_ms=NEAR_MS)
    await asyncio.sleep(1)
    tables = MemoryClusterStore(node.wire)

    async def entries_and_rows() -> tuple[int, int]:
        before_us = now_us(node)
        found = await node.node.measure(before_us)
        assert all(each.ends for each in found)
        (rows,) = await tables.count([found], before_us, 10**6)
        return total(found), rows

    entries, rows = await entries_and_rows()
    assert 0 < entries == rows < 600
    row = next(row for row in small.database.live.all() if node.task(row.id) is not None)
    small.database.live.put(replace(row, id=f"{row.id[:-4]}0000", due_ms=row.due_ms - 1))
    assert await entries_and_rows() == (entries, rows + 1)
