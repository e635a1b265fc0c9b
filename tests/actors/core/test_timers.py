import pytest
from hypothesis import settings
from hypothesis.stateful import invariant

from actors.core import timers as module
from actors.core.timers import Timers
from tests.support.timer_model import T0, AgainstList, Entry

HOUR = 3_600_000
FEW = 64


@pytest.fixture(autouse=True)
def short_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few that crowds are small, too."""
    monkeypatch.setattr(module, "FEW", FEW)


def timers_of(*wakes: int) -> tuple[Timers[Entry], list[Entry]]:
    timers: Timers[Entry] = Timers(T0)
    entries = [Entry(wake) for wake in wakes]
    timers.insert_many(entries)
    return timers, entries


class AgainstSortedList(AgainstList):
    def __init__(self) -> None:
        self.made: Timers[Entry] = Timers(T0)
        super().__init__(self.made, beyond=FEW)

    @invariant()
    def the_list_is_short(self) -> None:
        assert len(self.made._few) <= FEW


AgainstSortedList.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
test_against_a_sorted_list = AgainstSortedList.TestCase


def test_a_lone_entry_costs_one_visit_at_its_time() -> None:
    timers, (entry,) = timers_of(T0 + 10 * HOUR)
    assert timers.next_expiration() == T0 + 10 * HOUR
    assert timers.advance(T0 + 10 * HOUR - 1) == []
    assert timers.advance(T0 + 10 * HOUR) == [entry]
    assert timers.next_expiration() is None


def test_a_crowd_and_the_few_before_it_fire_in_one_order() -> None:
    wakes = [T0 + 1_000 - number for number in range(3 * FEW)]
    timers, entries = timers_of(*wakes)
    assert timers.advance(T0 + 1_000) == entries[::-1]
    assert len(timers) == 0


def test_what_the_wheel_has_left_to_do_keeps_later_entries_back() -> None:
    timers, entries = timers_of(*[T0 + 900] * FEW, *[T0 + 10] * 20)
    first = timers.advance(T0 + 1_000, limit=5)
    assert [entry.wake_ms for entry in first] == [T0 + 10] * 5
    assert timers.next_expiration() == T0 + 1_000
    assert len(timers.advance(T0 + 1_000)) == len(entries) - 5


def test_a_crowd_that_comes_after_a_long_time_finds_the_wheel_turned() -> None:
    timers, _ = timers_of(T0 + 1)
    timers.advance(T0 + HOUR)
    crowd = [Entry(T0 + HOUR + 5) for _ in range(FEW + 1)]
    timers.insert_many(crowd)
    assert timers.next_expiration() == T0 + HOUR + 5
    assert len(timers.advance(T0 + HOUR + 5)) == FEW + 1


def test_one_of_the_few_that_is_cancelled_or_moved_leaves_nothing_behind() -> None:
    timers, (first, second) = timers_of(T0 + 5, T0 + 5)
    assert timers.cancel(first)
    assert not timers.cancel(first)
    second.wake_ms = T0 + 9
    timers.insert_many([second, second])
    assert len(timers) == 1
    assert timers.advance(T0 + 8) == []
    assert timers.advance(T0 + 9) == [second]


def test_one_of_the_few_that_comes_again_with_a_crowd_is_there_once() -> None:
    timers, entries = timers_of(*[T0 + 5] * FEW)
    timers.insert_many([Entry(T0 + 6), *entries])
    assert len(timers) == FEW + 1
    assert len(timers.advance(T0 + 6)) == FEW + 1
