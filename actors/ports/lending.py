"""Ports: pulled tasks on their way from their owners to workers, and what workers say of them on its way back.

Every node lends what it owns, to takers: the workers of this node, or another node for its own. A taker says which
queues it wants, is told when there is some, and takes as much as its workers have room for; so nothing is given that
nobody asked for, and no promise of room is ever out of date.

Guarantees of a lender: a task is given to one taker, with a running attempt under a lease. What is said of it may be
said again, and is answered by one word each time, at once or when it is committed; or never, when its owner dies.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from actors.core.lease import Extension, Kept, Lent, Report, Word


class Taker(Protocol):
    """Who takes tasks, and hears what came of what it says."""

    def supply(self, queues: Collection[int]) -> None:
        """There are tasks of these queues, which it wants. Told once, until a `take` of them brings the last."""
        ...

    def answer(self, words: list[Word]) -> None:
        """What came of its reports."""
        ...

    def keep(self, kept: list[Kept]) -> None:
        """What came of its extensions."""
        ...

    def revoke(self, leases: list[tuple[str, int]]) -> None:
        """These (id, attempt) were cancelled, whoever has them."""
        ...


class Lender(Protocol):
    """What an owner does for takers."""

    def want(self, taker: Taker, queues: Collection[int]) -> None:
        """It takes tasks of these queues, and of no others. From now on it hears of what is cancelled."""
        ...

    def part(self, taker: Taker) -> None:
        """It is gone."""
        ...

    def take(self, taker: Taker, queue: int, limit: int) -> tuple[list[Lent], bool]:
        """At most `limit` due tasks of a queue, started; and whether there may be more."""
        ...

    def report(self, taker: Taker, tenant: str, reports: Sequence[Report]) -> None:
        """Attempts ended."""
        ...

    def extend(self, taker: Taker, tenant: str, extensions: Sequence[Extension]) -> None:
        """Attempts go on."""
        ...

    def lost(self, tasks: Sequence[Lent]) -> None:
        """These were taken, and never reached whoever took them."""
        ...


class Lines(Protocol):
    """The way to the lenders of other nodes, by their boots."""

    def want(self, queues: Collection[int]) -> None:
        """Tell all of them, and each that is linked later on, until something else is wanted."""
        ...

    async def take(
        self, boot: str, queue: int, limit: int, keep: int, part: Callable[[list[Lent]], int]
    ) -> tuple[list[Lent], bool]:
        """See Lender.take. With `keep`, the take stays there, with room for so many at most: `part` is given at once
        what there was, if only nothing, then what comes due as it does, and answers each time for how many more there
        is room. Over when for a while nothing comes, or no room is left.

        Raises Unavailable or Overloaded: nothing more was got.
        """
        ...

    def report(self, boot: str, tenant: str, reports: Sequence[Report]) -> bool:
        """See Lender.report. False: it can't be reached."""
        ...

    def extend(self, boot: str, tenant: str, extensions: Sequence[Extension]) -> bool:
        """See Lender.extend. False: it can't be reached."""
        ...


class Borrower(Protocol):
    """What a node hears of the lenders of others."""

    def supplied(self, boot: str, queues: Collection[int]) -> None:
        """That node has tasks of these queues."""
        ...

    def answer(self, words: list[Word]) -> None:
        """What came of reports."""
        ...

    def keep(self, kept: list[Kept]) -> None:
        """What came of extensions."""
        ...

    def revoke(self, leases: list[tuple[str, int]]) -> None:
        """These (id, attempt) were cancelled."""
        ...
