"""How pulled tasks travel between nodes of one process, in virtual time: one end, for its own workers and for those of
others.

A message may be lost, as when a link breaks; both ends hear of that a moment later, and begin anew with the next beat.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import count

from actors.core.errors import Unavailable
from actors.core.lease import Extension, Kept, Lent, Report, Word
from actors.core.wire import (
    Answered,
    Extend,
    Extended,
    Got,
    Message,
    Reports,
    Revoked,
    Supply,
    Take,
    Taken,
    Want,
)
from actors.parked import Parked
from actors.ports.links import LinkedNode

Lending = Want | Take | Got | Reports | Extend | Supply | Taken | Answered | Extended | Revoked
BREAKING = (Want, Take, Got, Supply, Taken)
"""What is not said again unless the link is known to be broken."""
_numbers = count(1)


class Far:
    """A node that takes tasks for its workers, as the owner of the tasks sees it."""

    def __init__(self, say: Callable[[Message], object], give: Callable[[Take, int], tuple[int, bool]]) -> None:
        """`give`: see Parked."""
        self._say = say
        self.parked = Parked(give, self._say_none, self._say_over)

    def _say_none(self, asked: Take) -> None:
        self._say(Taken(asked.number, [], more=False, open=True))

    def _say_over(self, asked: Take, more: bool) -> None:
        self._say(Taken(asked.number, [], more))

    def supply(self, queues: Collection[int]) -> None:
        """See actors.ports.lending.Taker."""
        if untold := [queue for queue in sorted(queues) if not self.parked.serve(queue)]:
            self._say(Supply(untold))

    def answer(self, words: list[Word]) -> None:
        """See actors.ports.lending.Taker."""
        self._say(Answered(words))

    def keep(self, kept: list[Kept]) -> None:
        """See actors.ports.lending.Taker."""
        self._say(Extended(kept))

    def revoke(self, leases: list[tuple[str, int]]) -> None:
        """See actors.ports.lending.Taker."""
        self._say(Revoked(leases))


class MemoryLines:
    """One node's end. Implements actors.ports.lending.Lines."""

    def __init__(self, say: Callable[[str, Message], bool], node: Callable[[], LinkedNode]) -> None:
        self._say = say
        self._node = node
        self._peers: dict[str, None] = {}
        self._wanted: list[int] = []
        self._broken: dict[str, None] = {}
        """Boots that have to be told anew what is wanted."""
        self._asked: dict[int, tuple[str, asyncio.Future[Taken], Callable[[list[Lent]], int]]] = {}
        self._takers: dict[str, Far] = {}
        self._unconfirmed: dict[str, dict[int, list[Lent]]] = defaultdict(dict)
        self.gave_back: Callable[[list[Lent]], None] = lambda tasks: None
        """Called with what may not have reached the workers of another node."""

    def see(self, boots: Iterable[str]) -> None:
        """These are the other nodes, as of the last beat."""
        known, self._peers = self._peers, dict.fromkeys(boots)
        for boot in known:
            if boot not in self._peers:
                self.broke(boot)
        self._broken = {boot: None for boot in self._broken if boot in self._peers}
        if self._wanted:
            news = [boot for boot in self._peers if boot not in known or boot in self._broken]
            self._broken = {}
            self._tell_wanted(news)

    def broke(self, boot: str) -> None:
        """The link to it broke: what was under way is lost."""
        self._broken[boot] = None
        for asked, taken, _ in self._asked.values():
            if asked == boot and not taken.done():
                taken.set_exception(Unavailable("the link broke"))
        lending = self._node().lending
        if (taker := self._takers.pop(boot, None)) is not None:
            lending.want(taker, ())
            taker.parked.clear()
        for tasks in self._unconfirmed.pop(boot, {}).values():
            self.gave_back(tasks)
            lending.lost(tasks)

    def begin_anew(self) -> None:
        """The boot is another one: the links were those of the one before."""
        for boot in [*self._peers, *self._takers]:
            self.broke(boot)
        self._peers, self._broken = {}, {}

    # --- for the workers of this node

    def want(self, queues: Collection[int]) -> None:
        """See the port."""
        self._wanted = sorted(queues)
        self._tell_wanted(self._peers)

    def _tell_wanted(self, boots: Iterable[str]) -> None:
        for boot in boots:
            self._say(boot, Want(self._wanted))

    async def take(
        self, boot: str, queue: int, limit: int, keep: int, part: Callable[[list[Lent]], int]
    ) -> tuple[list[Lent], bool]:
        """See the port."""
        take = Take(next(_numbers), queue, limit, keep)
        taken: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._asked[take.number] = boot, taken, part
        try:
            if not self._tell(boot, take):
                raise Unavailable("not linked")
            answer = await taken
        finally:
            del self._asked[take.number]
        self._say(boot, Got(take.number))
        return answer.tasks, answer.more

    def report(self, boot: str, tenant: str, reports: Sequence[Report]) -> bool:
        """See the port."""
        return self._tell(boot, Reports(tenant, list(reports)))

    def extend(self, boot: str, tenant: str, extensions: Sequence[Extension]) -> bool:
        """See the port."""
        return self._tell(boot, Extend(tenant, list(extensions)))

    def _tell(self, boot: str, message: Message) -> bool:
        """Nobody is linked to who is not there."""
        return boot in self._peers and self._say(boot, message)

    # --- what others say

    def hear(self, sender: str, message: Lending) -> None:
        """Do what it asks for."""
        pulling = self._node().pulling
        match message:
            case Supply(queues):
                pulling.supplied(sender, queues)
            case Answered(words):
                pulling.answer(words)
            case Extended(kept):
                pulling.keep(kept)
            case Revoked(leases):
                pulling.revoke(leases)
            case Taken(number):
                if number not in self._asked:
                    return
                asked, taken, part = self._asked[number]
                if taken.done() or asked != sender:
                    return
                if message.open:
                    self._say(sender, Got(number, len(message.tasks), part(message.tasks)))
                else:
                    taken.set_result(message)
            case _:
                self._lend(sender, message)

    def _lend(self, sender: str, message: Want | Take | Got | Reports | Extend) -> None:
        taker = self._takers.get(sender)
        if taker is None:
            taker = Far(lambda said: self._say(sender, said), partial(self._give, sender))
            self._takers[sender] = taker
        lending = self._node().lending
        match message:
            case Want(queues):
                taker.parked.want(queues)
                lending.want(taker, queues)
            case Take():
                taker.parked.take(message)
            case Got(number, count_, room):
                if count_ is None:
                    self._unconfirmed[sender].pop(number, None)
                else:
                    del self._unconfirmed[sender].get(number, [])[:count_]
                    taker.parked.widen(number, room)
            case Reports(tenant, reports):
                lending.report(taker, tenant, reports)
            case Extend(tenant, extensions):
                lending.extend(taker, tenant, extensions)

    def _give(self, sender: str, asked: Take, room: int) -> tuple[int, bool]:
        tasks, more = self._node().lending.take(self._takers[sender], asked.queue, room)
        if tasks:
            self._unconfirmed[sender].setdefault(asked.number, []).extend(tasks)
        if tasks or not asked.keep:
            self._say(sender, Taken(asked.number, tasks, more, asked.keep > 0))
        return len(tasks), more
