"""Hot statements have one plan, whatever the statistics say when it is made: a plan is kept until the next ANALYZE, and
one that was made for an empty table meets a full one.
"""

import re
from collections.abc import Iterator
from typing import Any

import asyncpg
import orjson
import pytest

from storage.pool import KEYED, LEDGER, LOADS
from storage.sessions import Session, prepare
from storage.statements import statements

TASKS, RECORDS = statements("tasks"), statements("ledger")
HOT = {
    "write": (LEDGER, RECORDS["write"]),
    "redrive": (LEDGER, RECORDS["redrive"]),
    "settle_keyed": (KEYED, TASKS["settle_keyed"]),
    "load": (LOADS, TASKS["load"]),
    "payloads": (LOADS, TASKS["payloads"]),
    "find": (LOADS, TASKS["find"]),
}
ONE_ROW = {
    "tasks_pkey": r"\(shard = .*\(id >= .*\(id <= ",
    "finished_id_idx": r"\(id = ",
    "shards_pkey": r"\(shard = ",
}
"""Index -> the condition that finds one row by it."""
PAGES = {"tasks_due": r"\(shard = .*\(queue_id (< |= .*ROW\(due_ms, id\) > )"}
"""The same of a key-set page of one queue, or of the next queue."""
DAYS = "".join(
    f"CREATE TABLE finished_{day} PARTITION OF finished FOR VALUES FROM ({day}) TO ({day + 1});"
    for day in range(20_780, 20_791)
)
FILL = """
    INSERT INTO tasks (schedule_ms, due_ms, accept_us, queue_id, budget, shard, id, tenant, spec, payload)
    SELECT 1, n, 1, 1, 5, n % 256, gen_random_uuid(), 'default', '{{"v":1}}', decode(repeat('78', 100), 'hex')
      FROM generate_series(1, {}) AS n
"""
NEVER = ""
EMPTY = "VACUUM ANALYZE"
DRAINED = "DELETE FROM tasks WHERE due_ms < 20000; ANALYZE; DELETE FROM tasks; VACUUM (TRUNCATE off, ANALYZE)"
FEW = "DELETE FROM tasks WHERE due_ms < 19998; VACUUM ANALYZE"
FULL = "ANALYZE"


@pytest.mark.parametrize(
    ("rows", "last"),
    [(0, NEVER), (0, EMPTY), (20_000, NEVER), (20_000, DRAINED), (20_000, FEW), (20_000, FULL)],
    ids=["new", "empty", "not analyzed", "drained", "few left", "full"],
)
async def test_each_row_is_found_by_its_key(session: asyncpg.Connection, rows: int, last: str) -> None:
    await session.execute(DAYS)
    await session.execute(FILL.format(rows))
    for statement in filter(None, last.split("; ")):
        await session.execute(statement)
    for name, (line, statement) in HOT.items():
        for scan in await _scans(session, line, statement):
            told = f"{name}: {scan}"
            if scan["Node Type"] == "Tid Scan":
                assert scan["TID Cond"], told
                continue
            assert scan["Node Type"] == "Index Scan", told
            found = (PAGES if name == "load" else ONE_ROW)[re.sub(r"_\d+", "", scan["Index Name"])]
            assert re.search(found, scan["Index Cond"]), told


async def test_a_plan_of_an_empty_table_writes_a_full_one_as_fast(session: asyncpg.Connection) -> None:
    """With a product of both, a write of 500 ends beside 20,000 tasks compares ten million pairs."""
    await session.execute("UPDATE shards SET owner_boot = 'boot-a', epoch = 1")
    await session.execute(DAYS)
    await session.execute("ANALYZE")
    await prepare(session, LEDGER, "ringwheel:plans")
    await session.execute(f"PREPARE kept AS {RECORDS['write']}")
    await session.fetch(f"EXPLAIN EXECUTE kept ({_nothing(RECORDS['write'])})")
    await session.execute(FILL.format(20_000))
    ends = await session.fetch("SELECT shard, id FROM tasks LIMIT 500")
    written = [
        "'boot-a'",
        _text(range(256)),
        _text([1] * 256),
        _text(row["shard"] for row in ends),
        _text(row["id"] for row in ends),
        *(_text([number] * len(ends)) for number in (0, 1, 2, 5, 20_786, 1, 3)),
    ]
    places = len(_nothing(RECORDS["write"]).split(", "))
    arguments = ", ".join([*written, *["NULL"] * (places - len(written))])
    [(told,)] = await session.fetch(f"EXPLAIN (ANALYZE, TIMING off, FORMAT JSON) EXECUTE kept ({arguments})")
    assert await session.fetchval("SELECT count(*) FROM finished") == len(ends)
    compared = sum(
        node.get("Rows Removed by Join Filter", 0) * node["Actual Loops"] for node in _nodes(orjson.loads(told)[0])
    )
    assert compared <= len(ends)


async def _scans(session: asyncpg.Connection, line: Session, statement: str) -> list[dict[str, Any]]:
    """What the statement's plan, made for no values in particular, does to read rows of tasks and of shards."""
    await prepare(session, line, "ringwheel:plans")
    await session.execute(f"PREPARE kept AS {statement}")
    [(told,)] = await session.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE kept ({_nothing(statement)})")
    await session.execute("DEALLOCATE kept")
    nodes = list(_nodes(orjson.loads(told)[0]))
    assert "Hash Join" not in {node["Node Type"] for node in nodes}, statement
    scans = [node for node in nodes if "Scan" in node["Node Type"]]
    found = [scan for scan in scans if re.match("tasks|finished|shards", scan.get("Relation Name", ""))]
    assert found, statement
    return found


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each node of a plan."""
    for node in [plan["Plan"]] if "Plan" in plan else plan.get("Plans", []):
        yield node
        yield from _nodes(node)


def _nothing(statement: str) -> str:
    """NULL for each of its arguments."""
    return ", ".join(["NULL"] * max(map(int, re.findall(r"\$(\d+)", statement))))


def _text(values: Any) -> str:
    return "'{" + ",".join(map(str, values)) + "}'"
