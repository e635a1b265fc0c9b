"""What the count of an operator may cost others."""

import asyncpg
import pytest

from actors.core.errors import Unavailable
from actors.core.reach import Reach
from storage import cluster
from tests.storage.home import Home

REACHES = [[Reach(0, 1, 0)]]


async def test_one_counts_at_a_time(home: Home) -> None:
    async with home.cluster._counting():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cluster, "TURN_S", 0.01)
            with pytest.raises(Unavailable, match="others are counting"):
                await home.cluster.count(REACHES, 1, 1)
    assert await home.cluster.count(REACHES, 1, 1) == [0]


async def test_a_count_that_can_not_go_on_ends(home: Home, session: asyncpg.Connection) -> None:
    async with session.transaction():
        await session.execute("LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Unavailable):
            await home.cluster.count(REACHES, 1, 1)
        assert len((await home.cluster.view()).shards) == 256
    assert await home.cluster.count(REACHES, 1, 1) == [0]
