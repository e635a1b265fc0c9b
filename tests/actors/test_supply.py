"""What an owner tells of its supply while it is being asked is not lost."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

import pytest

from actors import pulling
from actors.core.lease import Extension, Lent, Report
from actors.ports.lending import Taker
from actors.pulling import Pulling
from tests.gateway.lent import a_lent

QUEUE = 1
OTHER, ANOTHER = "b", "c"


class Others:
    """The way to one other node, which answers when its test says so; and a lender that has nothing."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[asyncio.Future[tuple[list[Lent], bool]]] = asyncio.Queue()
        self.takes: list[tuple[str, int, int]] = []
        """Of whom, how many, and how many after the first part."""
        self.told: Callable[[list[Lent]], int]
        """Gives a part of what was asked for last."""

    def want(self, *_: object) -> None:
        """Nothing is kept of it."""

    def part(self, taker: Taker) -> None:
        """Nothing is kept of it."""

    async def take(
        self, boot: str, queue: int, limit: int, keep: int, part: Callable[[list[Lent]], int]
    ) -> tuple[list[Lent], bool]:
        self.told = part
        answer: asyncio.Future[tuple[list[Lent], bool]] = asyncio.get_running_loop().create_future()
        self.takes.append((boot, limit, keep))
        self.asked.put_nowait(answer)
        return await answer

    def report(self, boot: str, tenant: str, reports: Sequence[Report]) -> bool:
        return False

    def extend(self, boot: str, tenant: str, extensions: Sequence[Extension]) -> bool:
        return False


class Nothing:
    """The lender of a node without shards."""

    def want(self, taker: Taker, queues: Collection[int]) -> None:
        """Nothing is lent."""

    def part(self, taker: Taker) -> None:
        """Nothing is lent."""

    def take(self, taker: Taker, queue: int, limit: int) -> tuple[list[Lent], bool]:
        return [], False

    def report(self, taker: Taker, tenant: str, reports: Sequence[Report]) -> None:
        """Nothing is lent."""

    def extend(self, taker: Taker, tenant: str, extensions: Sequence[Extension]) -> None:
        """Nothing is lent."""

    def lost(self, tasks: Sequence[Lent]) -> None:
        """Nothing is lent."""


class Something(Nothing):
    """The lender of a node that has one task."""

    def take(self, taker: Taker, queue: int, limit: int) -> tuple[list[Lent], bool]:
        return [a_lent(1, queue)], False


class Workers:
    """Always room for as many."""

    def __init__(self) -> None:
        self.credits = 10
        self.given: list[Lent] = []

    def room(self, queue: int) -> int:
        return self.credits

    def deliver(self, queue: int, tasks: list[Lent]) -> None:
        self.given += tasks

    def revoke(self, leases: list[tuple[str, int]]) -> None:
        """They stop."""


@asynccontextmanager
async def pulling_from(others: Others) -> AsyncIterator[Pulling]:
    """For workers that want one queue, of which the first owner has told that it has some."""
    one = Pulling(Nothing(), others, shards=lambda: 256, serves=lambda _: False, holder=lambda _: OTHER)
    one.workers = Workers()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(one.run())
        one.want([QUEUE])
        one.supplied(OTHER, [QUEUE])
        yield one
        running.cancel()


async def test_supply_that_is_told_before_an_answer_is_read_is_asked_for() -> None:
    others = Others()
    async with pulling_from(others) as one:
        answer = await others.asked.get()
        answer.set_result(([], False))
        one.supplied(OTHER, [QUEUE])  # in the same turn of the loop: one read of the link brought both
        again = await others.asked.get()
        again.set_result(([], True))
        last = await others.asked.get()
        last.set_result(([], False))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert others.asked.empty(), "nobody told of more"


async def test_what_is_here_is_given_in_the_turn_of_the_loop_in_which_it_comes_due() -> None:
    one = Pulling(Something(), Others(), shards=lambda: 256, serves=lambda _: True, holder=lambda _: None)
    one.workers = workers = Workers()
    workers.credits = 0
    one.supply([QUEUE])
    one.want([QUEUE])
    assert workers.given == [], "nobody wanted it then"
    one.supply([QUEUE])
    assert workers.given == [], "there is no room"
    workers.credits = 1
    one.supply([QUEUE])
    assert workers.given == [a_lent(1, QUEUE)]


async def test_a_take_that_stays_keeps_half_of_the_room_free_for_others() -> None:
    others = Others()
    async with pulling_from(others) as one:
        staying = await others.asked.get()
        assert others.told([a_lent(1, QUEUE)]) == 0, "of ten nine are left, of which five are kept"
        one.supplied(ANOTHER, [QUEUE])
        (await others.asked.get()).set_result(([], False))
        staying.set_result(([a_lent(2, QUEUE)], False))
        await asyncio.sleep(1)
        assert others.takes == [(OTHER, 10, 5), (ANOTHER, 5, 2)]
        assert others.asked.empty(), "nobody told of more"


async def test_one_that_finds_nothing_keeps_no_more_room_than_another() -> None:
    others = Others()
    async with pulling_from(others) as one:
        staying = await others.asked.get()
        assert others.told([]) == 0
        one.supplied(ANOTHER, [QUEUE])
        (await others.asked.get()).set_result(([], False))
        staying.set_result(([], False))
        assert others.takes == [(OTHER, 10, 5), (ANOTHER, 5, 2)]


async def test_of_what_comes_in_parts_no_more_is_asked_for_than_half_of_the_room() -> None:
    others = Others()
    async with pulling_from(others) as one:
        assert isinstance(one.workers, Workers)
        staying = await others.asked.get()
        assert others.told([a_lent(1, QUEUE)]) == 0
        assert others.told([a_lent(2, QUEUE), a_lent(3, QUEUE)]) == 2, "of five, three are left; half of ten may be"
        one.workers.credits = 4
        assert others.told([a_lent(4, QUEUE)]) == 0, "four are left, and there is room for two"
        staying.set_result(([], False))
        await asyncio.sleep(1)
        assert others.asked.empty()


async def test_so_many_takes_stay_and_others_are_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "STAYING", 1)
    others = Others()
    async with pulling_from(others) as one:
        assert isinstance(one.workers, Workers)
        first = await others.asked.get()
        assert others.told([]) == 0
        one.supplied(ANOTHER, [QUEUE])
        (await others.asked.get()).set_result(([], False))
        first.set_result(([], False))
        await asyncio.sleep(1)
        one.supplied(ANOTHER, [QUEUE])
        (await others.asked.get()).set_result(([], False))
        assert others.takes == [(OTHER, 10, 5), (ANOTHER, 5, 0), (ANOTHER, 10, 5)]
