import asyncio

import asyncpg

from actors.core.ring import Ring
from bench.owners import Owners


async def test_who_owns_what_and_since_when(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "INSERT INTO nodes (boot, name, address, state, joined_ms) "
        "VALUES ('1', 'a', '', 'up', 0), ('2', 'b', '', 'up', 0), ('3', 'c', '', 'up', 0)"
    )
    await connection.execute("UPDATE shards SET owner_boot = CASE WHEN shard < 200 THEN '1' ELSE '2' END, epoch = 1")
    owners = Owners(database_url)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(owners.run())
        first_ms = await owners.owned()
        assert owners.boots() == {"a": "1", "b": "2"}
        assert owners.of("2") == dict.fromkeys(range(200, 256), 1)
        assert set(owners.pick(["c", "b", "a"], 2, seed=0)) == {"a", "b"}, "those that own some come first"
        waiting = group.create_task(owners.owned(without={"2"}))
        await connection.execute("UPDATE nodes SET state = 'dead' WHERE boot = '2'")
        await connection.execute("UPDATE shards SET owner_boot = '1', epoch = 2 WHERE owner_boot = '2'")
        assert await waiting >= first_ms
        watching.cancel()
    changed_ms = owners.changed_ms(255, 1)
    assert changed_ms is not None
    assert changed_ms >= first_ms
    assert owners.changed_ms(0, 1) is None
    assert owners.moved(first_ms, changed_ms + 1) == 56
    assert owners.moved(0, first_ms) == 256
    await connection.close()


async def test_a_cluster_is_in_place_when_every_shard_is_where_the_ring_wants_it(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "INSERT INTO nodes (boot, name, address, state, joined_ms) "
        "VALUES ('1', 'a', '', 'up', 0), ('2', 'b', '', 'up', 0)"
    )
    await connection.execute("UPDATE shards SET owner_boot = '1', epoch = 1")
    owners = Owners(database_url)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(owners.run())
        await owners.owned()
        waiting = group.create_task(owners.placed("ab"))
        wanted = Ring("ab", 256).shards_of("b")
        await connection.execute("UPDATE shards SET owner_boot = '2', epoch = 2 WHERE shard = ANY ($1)", wanted)
        await waiting
        assert sorted(owners.of("2")) == wanted
        assert not owners.unowned
        watching.cancel()
    await connection.close()


def test_a_shard_that_had_no_owner_for_a_while_is_remembered() -> None:
    owners = Owners("")
    owners.see([(7, 1, "1", "a"), (8, 1, None, None)])
    owners.see([(7, 1, "1", "a"), (8, 2, "1", "a")])
    assert owners.unowned == {8}
