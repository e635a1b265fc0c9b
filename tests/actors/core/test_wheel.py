import random
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant

from actors.core.wheel import CHUNK, LEVELS, MOVES, Chunk, Wheel
from tests.support.timer_model import T0, AgainstList, Entry

HOUR = 3_600_000
YEAR = 365 * 24 * HOUR


def wheel_of(*wakes: int, now: int = T0) -> tuple[Wheel[Entry], list[Entry]]:
    wheel: Wheel[Entry] = Wheel(now)
    entries = [Entry(wake) for wake in wakes]
    wheel.insert_many(entries)
    return wheel, entries


def follow(wheel: Wheel[Entry], now: int, until: int) -> list[tuple[int, int]]:
    """(when, wake) of all that fires up to `until`, the hand moved from one expiration to the next."""
    fired = []
    while (due := wheel.next_expiration()) is not None and due <= until:
        now = max(now, due)
        fired += [(now, entry.wake_ms) for entry in wheel.advance(now)]
    return fired


def drain(wheel: Wheel[Entry], now: int, limit: int = 1_000) -> list[int]:
    """All that is due by `now`, in as many calls as it takes."""
    fired: list[int] = []
    while (due := wheel.next_expiration()) is not None and due <= now:
        part = wheel.advance(now, limit)
        assert len(part) <= limit
        fired += [entry.wake_ms for entry in part]
    return fired


def held(wheel: Wheel[Entry]) -> int:
    """References that the wheel keeps, dead ones too; checks that what it keeps fits together."""
    references = 0
    for level in range(LEVELS):
        numbers = set()
        for number, newest in wheel._slots[level].items():
            numbers.add(number - wheel._base[level])
            chunk: Chunk[Entry] | None = newest
            newer: Chunk[Entry] | None = None
            while chunk is not None:
                assert (chunk.level, chunk.number, chunk.newer) == (level, number, newer)
                assert 2 * chunk.dead <= len(chunk) != 0
                references += len(chunk)
                chunk, newer = chunk.older, chunk
        assert wheel._bits[level] == sum(1 << number for number in numbers)
    return references


def test_an_empty_wheel_has_nothing_to_do() -> None:
    wheel, _ = wheel_of()
    assert len(wheel) == 0
    assert wheel.next_expiration() is None
    assert wheel.advance(T0 + 100 * YEAR) == []
    assert wheel.next_expiration() is None


def test_what_is_past_fires_at_the_next_advance() -> None:
    wheel, (now, past, before_time) = wheel_of(T0, T0 - HOUR, -5)
    assert wheel.next_expiration() == T0
    fired = wheel.advance(T0)
    assert len(fired) == 3
    assert {id(entry) for entry in fired} == {id(now), id(past), id(before_time)}
    assert now.slot is None


def test_time_does_not_go_back() -> None:
    wheel, _ = wheel_of(T0 + 10, T0 + 20)
    assert [entry.wake_ms for entry in wheel.advance(T0 + 15)] == [T0 + 10]
    assert wheel.advance(T0 - HOUR) == []
    wheel.insert(Entry(T0 + 12))
    assert wheel.next_expiration() == T0 + 15
    assert [entry.wake_ms for entry in wheel.advance(T0)] == [T0 + 12]


@pytest.mark.parametrize("now", [0, T0, (1 << 42) - 1, (1 << 42) - 64, 5 << 36])
@pytest.mark.parametrize("level", range(LEVELS + 1))
def test_each_fires_in_its_millisecond_around_the_ends_of_spans(now: int, level: int) -> None:
    span = 1 << 6 * level
    edges = [(now // span + spans) * span for spans in (0, 1, 2, 3, 63, 64, 65, 127, 128, 129)]
    wakes = sorted({edge + off for edge in edges for off in (-65, -64, -1, 0, 1, 63, 64) if edge + off > now})
    wheel, _ = wheel_of(*wakes, now=now)
    assert follow(wheel, now, wakes[-1]) == [(wake, wake) for wake in wakes]
    assert len(wheel) == held(wheel) == 0


@pytest.mark.parametrize("years", [1, 9, 11, 139, 1_000, 8_000])
def test_far_away(years: int) -> None:
    wakes = [T0 + years * YEAR + off for off in (0, 1, HOUR)]
    wheel, _ = wheel_of(*wakes)
    assert follow(wheel, T0, wakes[0] - 1) == []
    assert follow(wheel, wakes[0] - 1, wakes[-1]) == [(wake, wake) for wake in wakes]


def test_few_calls_for_one_far_entry() -> None:
    wheel, _ = wheel_of(T0 + 10 * YEAR)
    calls = 0
    while (due := wheel.next_expiration()) is not None:
        wheel.advance(due)
        calls += 1
    assert calls <= LEVELS + 1


def test_a_jump_fires_in_order_and_in_bounded_calls() -> None:
    choice = random.Random(1)
    wakes = [T0 + choice.randrange(HOUR) for _ in range(5_000)]
    wheel, _ = wheel_of(*wakes)
    assert drain(wheel, T0 + 10 * YEAR, 700) == sorted(wakes)
    assert wheel.next_expiration() is None


def test_one_call_does_a_bounded_amount_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    split: Callable[[Wheel[Entry], int, int], int] = Wheel._split

    def counted(wheel: Wheel[Entry], level: int, number: int) -> int:
        moved.append(split(wheel, level, number))
        return moved[-1]

    monkeypatch.setattr(Wheel, "_split", counted)
    wheel, _ = wheel_of(*[T0 + HOUR] * (20 * CHUNK))
    calls = 0
    fired = 0
    while fired < 20 * CHUNK:
        moved.clear()
        fired += len(wheel.advance(T0 + HOUR, 100))
        calls += 1
        assert sum(moved) < MOVES + 2 * CHUNK
        assert fired == 20 * CHUNK or (wheel.next_expiration() or 0) <= T0 + HOUR
    assert calls >= 20 * CHUNK / 100


def test_slots_are_split_before_they_start() -> None:
    """A slot of 30 chunks costs no call of its own, once the hand has come by often enough in the span before."""
    start = T0 + 100_000 >> 12 << 12
    wakes = [start + number % 4_096 for number in range(30 * CHUNK)]
    wheel, _ = wheel_of(*wakes)
    assert wheel.next_expiration() == start - 4_096
    for now in range(start - 4_096, start):
        assert wheel.advance(now) == []
    assert not wheel._slots[2]
    assert len(wheel.advance(start)) == wakes.count(start)
    assert wheel.next_expiration() == start + 1


def test_splitting_ahead_asks_for_one_call_a_millisecond() -> None:
    wheel, _ = wheel_of(*[T0 + HOUR] * (4 * CHUNK))
    now = wheel.next_expiration()
    assert now is not None
    assert wheel.advance(now) == []
    assert wheel.next_expiration() == now + 1
    assert wheel.advance(now) == []
    assert wheel.next_expiration() == now + 1


def test_a_slot_that_started_unsplit_asks_for_a_call_at_once() -> None:
    start = T0 + HOUR >> 18 << 18
    wheel, _ = wheel_of(*[start] * (4 * CHUNK))
    assert wheel.advance(start) == []
    assert wheel.next_expiration() == start


def test_no_limit_no_entries() -> None:
    wheel, _ = wheel_of(T0)
    assert wheel.advance(T0, 0) == []
    assert len(wheel) == 1


def test_cancel() -> None:
    wheel, (first, second, third) = wheel_of(T0 + 5, T0 + 5, T0 + HOUR)
    assert wheel.cancel(first)
    assert not wheel.cancel(first)
    assert len(wheel) == 2
    assert wheel.cancel(third)
    assert wheel.next_expiration() == T0 + 5
    assert len(wheel.advance(T0 + 5)) == 1
    assert not wheel.cancel(second)
    assert wheel.next_expiration() is None


def test_cancelled_and_inserted_again() -> None:
    wheel, (entry, *_) = wheel_of(*[T0 + 5] * 4)
    assert wheel.cancel(entry)
    entry.wake_ms = T0 + HOUR
    wheel.insert(entry)
    assert follow(wheel, T0, T0 + HOUR) == [(T0 + 5, T0 + 5)] * 3 + [(T0 + HOUR, T0 + HOUR)]


def test_cancelled_and_inserted_again_at_the_same_time_fires_once() -> None:
    wheel, (entry, *_) = wheel_of(*[T0 + HOUR] * 4)
    for _ in range(100):
        assert wheel.cancel(entry)
        wheel.insert(entry)
        assert held(wheel) <= 2 * len(wheel)
    assert len(follow(wheel, T0, T0 + HOUR)) == 4


def test_an_entry_inserted_twice_is_moved() -> None:
    wheel, (entry,) = wheel_of(T0 + 5)
    wheel.insert_many([entry, entry])
    assert len(wheel) == 1
    assert drain(wheel, T0 + 5) == [T0 + 5]


def test_cancelled_entries_leave_nothing_behind() -> None:
    """However many come and go, and wherever they are in their slot."""
    wheel, entries = wheel_of(*[T0 + HOUR] * (5 * CHUNK))
    choice = random.Random(1)
    choice.shuffle(entries)
    for count, entry in enumerate(entries, 1):
        assert wheel.cancel(entry)
        if count % CHUNK == 0:
            assert held(wheel) <= 2 * len(wheel)
    assert held(wheel) == len(wheel) == 0
    assert wheel.next_expiration() is None


def test_a_jump_over_cancelled_entries() -> None:
    wheel, entries = wheel_of(*[T0 + HOUR] * 4, *[T0 + 3] * 4)
    wheel.cancel(entries[0])
    wheel.cancel(entries[4])
    assert drain(wheel, T0 + HOUR) == [T0 + 3] * 3 + [T0 + HOUR] * 3


@pytest.mark.parametrize("victim", [0, 1, 2], ids=["oldest", "middle", "newest"])
def test_a_whole_chunk_cancelled(victim: int) -> None:
    wheel, entries = wheel_of(*[T0 + HOUR] * (3 * CHUNK))
    for entry in entries[victim * CHUNK : (victim + 1) * CHUNK]:
        wheel.cancel(entry)
    assert held(wheel) == len(wheel) == 2 * CHUNK
    assert len(follow(wheel, T0, T0 + HOUR)) == 2 * CHUNK


def test_two_levels_with_slots_that_start_together() -> None:
    """The higher one has entries for the lower one's slots."""
    start = 1 << 40
    wheel, _ = wheel_of(start + 70, now=start - 9_000)
    wheel.advance(start - 4_200)
    wheel.insert_many([Entry(start + 1), Entry(start + 70)])
    assert drain(wheel, start + 100) == [start + 1, start + 70, start + 70]


class AgainstSortedList(AgainstList):
    def __init__(self) -> None:
        self.made: Wheel[Entry] = Wheel(T0)
        super().__init__(self.made, beyond=0)

    @invariant()
    def holds_little_that_is_dead(self) -> None:
        assert held(self.made) <= 2 * len(self.waiting)


AgainstSortedList.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
test_against_a_sorted_list = AgainstSortedList.TestCase


def test_a_clock_that_starts_near_zero_is_a_clock() -> None:
    wheel: Wheel[Entry] = Wheel(5)
    entries = [Entry(wake_ms) for wake_ms in (6, 100, 5_000, 300_000, 20_000_000, 2_000_000_000)]
    wheel.insert_many(entries)
    fired = []
    while (when := wheel.next_expiration()) is not None:
        fired += [(entry.wake_ms, when) for entry in wheel.advance(when)]
    assert fired == [(entry.wake_ms, entry.wake_ms) for entry in entries]
