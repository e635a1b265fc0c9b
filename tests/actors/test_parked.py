"""Takes that wait at an owner, in virtual time."""

import asyncio

from actors.core.wire import Take
from actors.parked import Parked

MAIL, CALLS = 1, 2


class Owner:
    """What it has, and what it said."""

    def __init__(self) -> None:
        self.has: set[int] = set()
        self.gave: list[int] = []
        self.gave_up: list[int] = []
        self.parked = Parked(self.give, lambda asked: self.gave_up.append(asked.number))

    def give(self, asked: Take) -> bool:
        if asked.queue in self.has:
            self.gave.append(asked.number)
        return asked.queue in self.has


async def test_what_is_there_is_given_at_once() -> None:
    owner = Owner()
    owner.has = {MAIL}
    owner.parked.take(Take(1, MAIL, 10, 20))
    owner.parked.take(Take(2, CALLS, 10))
    await asyncio.sleep(1)
    assert (owner.gave, owner.gave_up) == ([1], [2])


async def test_a_take_waits_no_longer_than_it_wants_to() -> None:
    owner = Owner()
    owner.parked.take(Take(1, MAIL, 10, 20))
    await asyncio.sleep(0.019)
    assert owner.gave_up == []
    assert owner.parked.serve(MAIL), "it goes on waiting: there was nothing after all"
    await asyncio.sleep(0.002)
    assert owner.gave_up == [1]
    assert not owner.parked.serve(MAIL)


async def test_one_that_was_served_is_not_given_up() -> None:
    owner = Owner()
    owner.parked.take(Take(1, MAIL, 10, 20))
    assert not owner.parked.serve(CALLS)
    owner.has = {MAIL}
    assert owner.parked.serve(MAIL)
    assert not owner.parked.serve(MAIL)
    await asyncio.sleep(1)
    assert (owner.gave, owner.gave_up) == ([1], [])


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
