"""Takes that wait at an owner, in virtual time."""

import asyncio

from actors.core.wire import Take
from actors.parked import Parked

MAIL, CALLS = 1, 2


class Owner:
    """What it has, and what it said."""

    def __init__(self) -> None:
        self.has: dict[int, int] = {}
        """By queue, how many are due."""
        self.gave: list[tuple[int, int]] = []
        """To which take, and how many."""
        self.gave_up: list[int] = []
        self.parked = Parked(self.give, lambda asked: self.gave_up.append(asked.number))

    def give(self, asked: Take, room: int) -> tuple[int, bool]:
        count = min(self.has.pop(asked.queue, 0), room)
        if count:
            self.gave.append((asked.number, count))
        return count, count == room or (bool(count) and not asked.wait_ms)

    def serve(self, queue: int, count: int) -> bool:
        """So many come due."""
        self.has[queue] = count
        return self.parked.serve(queue)


async def test_one_that_does_not_wait_is_over_at_once() -> None:
    owner = Owner()
    owner.has = {MAIL: 3}
    owner.parked.take(Take(1, MAIL, 10))
    owner.parked.take(Take(2, CALLS, 10))
    assert (owner.gave, owner.gave_up) == ([(1, 3)], [2])
    assert not owner.serve(MAIL, 1)


async def test_a_take_waits_no_longer_than_it_wants_to() -> None:
    owner = Owner()
    owner.parked.take(Take(1, MAIL, 10, 20))
    await asyncio.sleep(0.019)
    assert owner.gave_up == []
    assert owner.serve(MAIL, 0), "it goes on waiting: there was nothing after all"
    await asyncio.sleep(0.002)
    assert owner.gave_up == [1]
    assert not owner.serve(MAIL, 1)


async def test_each_part_that_comes_is_waited_for_anew() -> None:
    owner = Owner()
    owner.has = {MAIL: 1}
    owner.parked.take(Take(1, MAIL, 10, 20))
    for _ in range(3):
        await asyncio.sleep(0.019)
        assert owner.serve(MAIL, 2)
    assert (owner.gave, owner.gave_up) == ([(1, 1), (1, 2), (1, 2), (1, 2)], [])
    await asyncio.sleep(0.021)
    assert owner.gave_up == [1]


async def test_one_that_has_no_more_room_is_over_and_not_given_up() -> None:
    owner = Owner()
    owner.parked.take(Take(1, MAIL, 5, 20))
    assert not owner.serve(CALLS, 1)
    assert owner.serve(MAIL, 3)
    owner.parked.widen(1, 2)
    owner.parked.widen(9, 100)
    assert owner.serve(MAIL, 8)
    assert not owner.serve(MAIL, 1)
    await asyncio.sleep(1)
    assert (owner.gave, owner.gave_up) == ([(1, 3), (1, 4)], [])


async def test_one_of_a_queue_waits_and_of_no_queue_that_is_not_wanted() -> None:
    owner = Owner()
    for number, queue in ((1, MAIL), (2, MAIL), (3, CALLS)):
        owner.parked.take(Take(number, queue, 10, 20))
    assert owner.gave_up == [1]
    owner.parked.want([CALLS])
    assert owner.gave_up == [1, 2]
    owner.parked.clear()
    await asyncio.sleep(1)
    assert owner.gave_up == [1, 2], "whoever is gone hears nothing"
