import pytest

from bench.scripted import Call
from bench.verdict import BROKEN, Ended, Tables, Verdict, judge, overlaps

ID = "00000000-0000-7000-8000-000000000000"
SAME_SHARD = "00000000-0000-7000-8000-000000000001"
END = Ended(ID, "succeeded", schedule_ms=1_000, finish_ms=1_100, epoch=2, attempt=1)


def call(at_ms: float, epoch: int = 2, attempt: int = 1) -> Call:
    return Call(at_ms, f"1.{epoch:04d}.{attempt:04d}", attempt)


def broken(verdict: Verdict) -> set[str]:
    return {name for name in BROKEN if getattr(verdict, name)}


def judged(
    *calls: Call,
    script: str = "ok",
    end: Ended | None = END,
    cancelled_ms: float | None = None,
    recorded: tuple[str, ...] = (),
) -> Verdict:
    cancelled = {} if cancelled_ms is None else {ID: cancelled_ms}
    tables = Tables([] if end is None else [end], {(ID, fence) for fence in recorded})
    return judge({ID: script}, cancelled, {ID: calls} if calls else {}, tables)


def test_a_task_that_ran_once() -> None:
    verdict = judged(call(1_005))
    assert broken(verdict) == set()
    assert verdict.lateness_ms == [5]
    assert (verdict.accepted, verdict.late_ms(99)) == (1, 5)
    assert verdict.latest == f"{ID} ok: succeeded 2.1 100; calls 1.0002.0001 5"


@pytest.mark.parametrize(
    ("verdict", "name"),
    [
        (judged(end=None), "lost"),
        (judged(call(1_005), end=END._replace(state="dead")), "otherwise"),
        (judged(call(1_005), script="dead"), "otherwise"),
        (judged(script="cancel", cancelled_ms=900), "otherwise"),
        (judged(call(999)), "early"),
        (judged(call(1_005), call(1_050, attempt=2)), "unexplained"),
        (judged(call(1_005), call(1_050, epoch=3)), "stale"),
        (judged(call(1_005, attempt=2), call(1_050), recorded=("1.0002.0002",)), "backwards"),
        (judged(call(1_121), end=END._replace(attempt=2)), "after_end"),
        (
            judged(call(1_005), script="cancel", end=END._replace(state="cancelled"), cancelled_ms=1_001),
            "cancelled_ran",
        ),
    ],
)
def test_each_promise_that_is_broken_is_seen(verdict: Verdict, name: str) -> None:
    assert broken(verdict) == {name}


@pytest.mark.parametrize(
    "verdict",
    [
        judged(call(1_005), call(1_050, attempt=2), recorded=("1.0002.0001",)),
        judged(call(1_005, epoch=1), call(1_050)),
        judged(call(1_121)),
        judged(script="cancel", end=END._replace(state="cancelled"), cancelled_ms=900),
        judged(call(1_005), script="cancel"),
        judged(call(1_005), script="dead", end=END._replace(state="dead")),
    ],
)
def test_what_is_explained_is_no_fault(verdict: Verdict) -> None:
    assert broken(verdict) == set()


def test_only_a_change_of_owner_counts_as_explained() -> None:
    assert judged(call(1_005, epoch=1), call(1_050)).explained == 1
    assert judged(call(1_005), call(1_050, attempt=2), recorded=("1.0002.0001",)).explained == 0


def test_what_is_wrong_is_told() -> None:
    [story] = judged(call(999), script="e500").examples
    assert story == f"{ID} e500: succeeded 2.1 100; calls 1.0002.0001 -1"
    assert judged(end=None).examples == [f"{ID} ok: no end; 0 calls: "]
    assert judged(call(1_005)).examples == []


def test_what_nobody_submitted() -> None:
    assert broken(judge({}, {}, {ID: [call(1)]}, Tables([], set()))) == {"strange"}
    assert broken(judge({}, {}, {}, Tables([END], set()))) == {"strange"}


def test_an_end_that_is_recorded_twice() -> None:
    verdict = judge({ID: "ok"}, {}, {ID: [call(1_005)]}, Tables([END, END], set()))
    assert broken(verdict) == {"twice"}


@pytest.mark.parametrize(("late_ms", "found"), [(1_005, set()), (2_005, {"two_owners"})])
def test_a_former_owner_that_calls_after_its_successor(late_ms: float, found: set[str]) -> None:
    calls = {ID: [call(1_005, epoch=3), call(3_000, epoch=4)], SAME_SHARD: [call(1_000), call(late_ms + 1)]}
    assert overlaps(calls) == [(late_ms + 1 - 1_005, SAME_SHARD)]
    verdict = judge({}, {}, calls, Tables([], set()))
    assert broken(verdict) == {"strange"} | found
    assert (verdict.overlaps, verdict.overlap_ms) == (1, late_ms - 1_004)
    assert verdict.overlap.startswith(SAME_SHARD)
