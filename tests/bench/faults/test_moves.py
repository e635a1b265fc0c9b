from collections import Counter

import pytest

from bench.faults.moves import Seen, _called, _late_s, _shares, _uneven
from bench.owners import Owned, Owners
from bench.scripted import Call
from bench.verdict import Ended

TASK = "00000000-0000-0000-0000-00000000{:02x}00"


def owners() -> Owners:
    found = Owners("")
    found.changes = {1: [(0.0, 1), (10_000.0, 2), (15_100.0, 3)], 2: [(0.0, 1), (10_200.0, 2)], 3: [(0.0, 1)]}
    found.shards = {1: Owned(3, "A", "a"), 2: Owned(2, "B", "b"), 3: Owned(1, "C", "c")}
    return found


def call(at_ms: float) -> list[Call]:
    return [Call(at_ms, "1.1.1", 1)]


def test_a_change_moved_what_got_another_owner_until_the_next_one() -> None:
    seen = Seen(changes=[(9_000.0, 4), (14_000.0, 4)])
    total, worst = _shares(owners(), seen, 20_000.0)
    assert total.ours == 3
    assert worst.ours == pytest.approx(2 * 4 / 256)


def test_only_what_was_due_near_a_move_of_its_own_shard_may_have_felt_it() -> None:
    due_ms = {TASK.format(1): 10_900, TASK.format(2): 11_300, TASK.format(3): 10_100}
    ended = [Ended(task_id, "succeeded", at_ms, at_ms + 9, 1, 1) for task_id, at_ms in due_ms.items()]
    calls = {task_id: call(at_ms + 40) for task_id, at_ms in due_ms.items()}
    assert _late_s(ended, calls, owners(), Seen(changes=[(9_000.0, 4)])) == [pytest.approx(0.04)]


def test_first_calls_count_for_who_owns_the_shard() -> None:
    calls = {TASK.format(1): call(5.0) + call(7.0), TASK.format(2): call(6.0), TASK.format(3): call(20.0)}
    assert _called(calls, owners(), 5.0, 20.0) == {"a": 1, "b": 1}


def test_even_is_one() -> None:
    assert _uneven(Counter({"a": 10, "b": 10, "c": 10})) == 1.0
    assert _uneven(Counter({"a": 20, "b": 10})) == 2.0, "a node without any counts too"
