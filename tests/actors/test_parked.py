"""Takes that stay at an owner, in virtual time."""

import asyncio

from actors.core.wire import Take
from actors.parked import WAIT_MS, Parked

MAIL, CALLS = 1, 2


class Owner:
    """What it has, and what it said."""

    def __init__(self) -> None:
        self.has: dict[int, int] = {}
        """By queue, how many are due."""
        self.gave: list[tuple[int, int]] = []
        """To which take, and how many."""
        self.none: list[int] = []
        """Takes that were told that there is nothing so far."""
        self.over: list[tuple[int, bool]] = []
        """Those that ended, and whether there may be more."""
        self.parked = Parked(self.give, self.say_none, self.end)

    def give(self, asked: Take, room: int) -> tuple[int, bool]:
        has = self.has.pop(asked.queue, 0)
        count = min(has, room)
        self.gave.append((asked.number, count))
        if has > count:
            self.has[asked.queue] = has - count
        return count, count == room

    def say_none(self, asked: Take) -> None:
        self.none.append(asked.number)

    def end(self, asked: Take, more: bool) -> None:
        self.over.append((asked.number, more))

    def serve(self, queue: int, count: int) -> bool:
        """So many come due."""
        self.has[queue] = self.has.get(queue, 0) + count
        return self.parked.serve(queue)


async def test_one_that_does_not_stay_is_over_at_once() -> None:
    owner = Owner()
    owner.has = {MAIL: 3}
    owner.parked.take(Take(1, MAIL, 10))
    owner.parked.take(Take(2, CALLS, 10))
    assert (owner.gave, owner.none, owner.over) == ([(1, 3), (2, 0)], [], [])
    assert not owner.serve(MAIL, 1)


async def test_a_take_stays_no_longer_than_something_comes() -> None:
    owner = Owner()
    owner.parked.take(Take(1, MAIL, 10, 5))
    assert owner.none == [1]
    await asyncio.sleep((WAIT_MS - 1) / 1e3)
    assert owner.over == []
    assert owner.serve(MAIL, 0), "it stays: there was nothing after all"
    await asyncio.sleep(0.002)
    assert owner.over == [(1, False)]
    assert not owner.serve(MAIL, 1)


async def test_each_part_that_comes_is_waited_for_anew() -> None:
    owner = Owner()
    owner.has = {MAIL: 1}
    owner.parked.take(Take(1, MAIL, 20, 10))
    for _ in range(3):
        await asyncio.sleep((WAIT_MS - 1) / 1e3)
        assert owner.serve(MAIL, 2)
    assert (owner.gave, owner.none, owner.over) == ([(1, 1), (1, 2), (1, 2), (1, 2)], [], [])
    await asyncio.sleep((WAIT_MS + 1) / 1e3)
    assert owner.over == [(1, False)]


async def test_what_there_was_no_room_for_is_given_as_room_is_made() -> None:
    owner = Owner()
    owner.has = {MAIL: 30}
    owner.parked.take(Take(1, MAIL, 10, 5))
    owner.parked.widen(9, 100)
    owner.parked.widen(1, 4)
    assert owner.serve(MAIL, 1), "without room it is told of nothing"
    owner.parked.widen(1, 100)
    assert owner.gave == [(1, 10), (1, 4), (1, 17)]
    await asyncio.sleep(1)
    assert owner.over == [(1, False)]


async def test_one_without_room_is_over_and_knows_that_there_is_more() -> None:
    owner = Owner()
    owner.has = {MAIL: 10}
    owner.parked.take(Take(1, MAIL, 10, 5))
    await asyncio.sleep(1)
    assert owner.over == [], "the confirmation is on its way"
    owner.parked.widen(1, 0)
    assert owner.over == [(1, True)], "others may be in need of their share"
    assert not owner.serve(MAIL, 1)


async def test_room_that_comes_after_all_is_waited_in_as_any() -> None:
    owner = Owner()
    owner.has = {MAIL: 3}
    owner.parked.take(Take(1, MAIL, 10, 5))
    assert owner.serve(MAIL, 5)
    await asyncio.sleep(1)
    owner.serve(MAIL, 0)
    owner.parked.widen(1, 3)
    assert owner.serve(MAIL, 2)
    await asyncio.sleep((WAIT_MS + 1) / 1e3)
    assert owner.gave == [(1, 3), (1, 5), (1, 0), (1, 2)]
    assert owner.over == [(1, False)]


async def test_what_a_first_part_leaves_is_kept_and_no_more() -> None:
    owner = Owner()
    owner.has = {MAIL: 8}
    owner.parked.take(Take(1, MAIL, 10, 5))
    assert owner.serve(MAIL, 9)
    owner.has = {MAIL: 2}
    owner.parked.take(Take(2, MAIL, 10, 5))
    assert owner.serve(MAIL, 9)
    assert owner.gave == [(1, 8), (1, 2), (2, 2), (2, 5)]


async def test_one_of_a_queue_stays_and_of_no_queue_that_is_not_wanted() -> None:
    owner = Owner()
    for number, queue in ((1, MAIL), (2, MAIL), (3, CALLS)):
        owner.parked.take(Take(number, queue, 10, 5))
    assert owner.over == [(1, False)]
    owner.parked.want([CALLS])
    assert owner.over == [(1, False), (2, False)]
    owner.parked.clear()
    await asyncio.sleep(1)
    assert owner.over == [(1, False), (2, False)], "whoever is gone hears nothing"
