import asyncpg

from bench.floors import life_rate
from bench.life import finished
from bench.work import BATCH, rows


async def test_all_rows_live_through_their_life_in_bare_sql(database_url: str) -> None:
    count = 2 * BATCH + 1
    bare = rows(count, None)
    for turn in (1, 2):
        assert await life_rate(database_url, bare) > 0
        assert await finished(database_url) == (turn * count, 0)
    connection = await asyncpg.connect(database_url)
    try:
        row = await connection.fetchrow("SELECT * FROM finished LIMIT 1")
    finally:
        await connection.close()
    assert row["payload"] is None
    assert row["finish_ms"] > row["schedule_ms"] - 3_600_000 - 60_000
