import random

from bench.deliveries import Deliveries
from bench.faults.workers import LEASE_S, Jobs, Struck, _leases, _longs
from bench.journal import Line
from bench.report import Row
from bench.traffic import Plan


def got(at_ms: float, task_id: str, attempt: int = 1, period_s: float = 2.0) -> Line:
    return Line(at_ms, "got", task_id, f"{task_id}{attempt}", attempt, f"1.1.{attempt}", "long", period_s)


def said(at_ms: float, task_id: str) -> Line:
    return Line(at_ms, "said", task_id, f"{task_id}1", 1)


def figures(rows: list[Row]) -> dict[str, float]:
    return {row.name.removeprefix("workers: "): row.ours for row in rows}


def test_jobs_are_for_workers_who_read_what_to_do() -> None:
    jobs = Jobs(Plan("http://nowhere", {"late": 1}, 1.0), list, lease_s=3.0)
    first, second = (jobs._item("late", random.Random(1)) for _ in range(2))
    assert "http" not in first
    assert (first["payload"], second["payload"]) == ({"script": "late", "number": 0}, {"script": "late", "number": 1})
    assert first["dispatch_deadline"] == 3.0
    assert jobs._item("slow", random.Random(1))["dispatch_deadline"] == LEASE_S
    assert first["idempotency_key"] != second["idempotency_key"]


def test_a_long_job_comes_once_whichever_node_dies() -> None:
    lines = [Line(0, "link", port=1), got(1_000, "a"), said(13_000, "a"), got(4_500, "b"), got(3_000, "c")]
    again = [Line(0, "link", port=2), got(6_000, "b", 2), got(6_000, "c", 2)]
    struck = Struck(nodes=[(5_000, 1), (9_000, 3)])
    found = figures(_longs(Deliveries({"s1": lines, "s2": again}), struck))
    assert found["long jobs"] == 3
    assert found["long jobs were held for, p50"] == 12.0
    assert found["long jobs that came more than once"] == 1, "c; b had begun just before the kill"
    assert found["those that had just begun when a node was killed"] == 1
    assert found["of them, when the node of their worker was killed"] == 3
    assert found["of them, when another node was killed"] == 5


def test_leases_of_those_that_were_struck() -> None:
    killed = [got(0, "a", period_s=LEASE_S), got(0, "c")]
    stopped = [got(0, "b"), said(9_000, "b"), Line(9_001, "refused", "b", "b1")]
    others = [got(2_500, "a", 2), got(3_500, "b", 2), got(9_000, "c", 2)]
    struck = Struck(killed=[(1_000, ["k"])], stopped=[(1_000, ["s"])])
    rows = _leases(Deliveries({"k": killed, "s": stopped, "o": others}), struck, 2.0)
    found = figures(rows)
    assert found["killed, came again, worst"] == 1.5
    assert found["stopped, came again, worst"] == 2.5
    assert found["tasks of workers that were gone, 10 s leases"] == 0
    assert found["tasks of workers that were killed, 10 s leases"] == 1
    assert (found["late results refused"], found["late results accepted"]) == (1, 0)
    assert {row.goal for row in rows if "worst" in row.name} == {"<= 3"}
