"""The workers that are attached to this node, whichever way they came: their credits, and the leases that they have.

    pulling -> deliver -> shares, in turn -> member.give
    a member's link ends -> its leases wait GRACE_S for it to come back -> they are given back

Promises: a member is given no more than its credits. Tasks go to those that have credits in equal shares, and whose
turn came last begins the next time. A lease whose link was closed is given back GRACE_S later, unless some node was
told meanwhile that it goes on; one whose link only fell silent runs to its end. Bound: credits (`worker_frames.py`).
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from actors.core.events import Verdict
from actors.core.lease import Extension, Kept, Lent, Report
from actors.core.queue import QueueBook
from actors.lending import NOBODY
from gateway.context import PullingPort

GRACE_S = 2.0
WENT = "its worker went away"
UNSENT = "its worker went before it could be sent"


class Member(Protocol):
    """A worker's link, or a call that waits for tasks."""

    @property
    def tenant(self) -> str:
        """Whose worker it is."""
        ...

    @property
    def open(self) -> bool:
        """It takes what is given to it; False: not just now."""
        ...

    def give(self, queue: str, tasks: list[Lent]) -> None:
        """Tasks, no more than its credits."""
        ...

    def cancel(self, ids: list[str]) -> None:
        """These of its tasks were cancelled."""
        ...


class _Credit:
    """A member's credits of one queue."""

    __slots__ = ("count", "member")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.count = 0


class Crew:
    """All workers of one node. Implements actors.pulling.Room."""

    def __init__(self, pulling: PullingPort, book: QueueBook, tell_moved: Callable[[list[str]], None]) -> None:
        """`tell_moved`: other nodes hear that these leases went on here."""
        self._pulling = pulling
        self._book = book
        self._tell_moved = tell_moved
        self._credits: dict[int, dict[_Credit, None]] = defaultdict(dict)
        """Queue -> members in turn: those that were given something longest ago first."""
        self._of: dict[tuple[Member, int], _Credit] = {}
        self._members: set[Member] = set()
        """Those that have credits, or had and may have more."""
        self._leases: dict[str, tuple[Lent, Member]] = {}
        """Id -> the lease that a link of this node has, and whose."""
        self._parted: dict[Member, asyncio.TimerHandle] = {}
        """Whose links were closed a moment ago."""
        self._closed = False

    def __len__(self) -> int:
        """Workers that take tasks."""
        return len(self._members)

    @property
    def leases(self) -> int:
        """That links of this node have."""
        return len(self._leases)

    # --- credits

    def credit(self, member: Member, queue: int, count: int, most: int) -> int:
        """It may be given so many more; answers how many that are in all, `most` at most."""
        credit = self._of.get((member, queue))
        if credit is None:
            credit = self._of[member, queue] = _Credit(member)
            self._credits[queue][credit] = None
            self._members.add(member)
            self._pulling.want(self._credits)
        credit.count = min(credit.count + count, most)
        self._pulling.look(queue)
        return credit.count

    def stop(self, member: Member) -> None:
        """It takes nothing any more."""
        self._members.discard(member)
        for key in [key for key in self._of if key[0] is member]:
            credit, queue = self._of.pop(key), key[1]
            del self._credits[queue][credit]
            if not self._credits[queue]:
                del self._credits[queue]
        self._pulling.want(self._credits)

    def opened(self, member: Member) -> None:
        """It takes what is given to it again."""
        for other, queue in self._of:
            if other is member:
                self._pulling.look(queue)

    def room(self, queue: int) -> int:
        """See actors.pulling.Room."""
        return sum(credit.count for credit in self._credits.get(queue, ()) if credit.count and credit.member.open)

    # --- tasks

    def deliver(self, queue: int, tasks: list[Lent]) -> None:
        """See actors.pulling.Room. What nobody has credits for any more is given back unused."""
        found = self._book.by_id(queue)
        credits_ = self._credits.get(queue)
        at = 0
        while credits_ and found is not None and at < len(tasks):
            ready = [credit for credit in credits_ if credit.count and credit.member.open]
            if not ready:
                break
            share = -(-(len(tasks) - at) // len(ready))
            for credit in ready:
                some = tasks[at : at + min(share, credit.count)]
                if not some:
                    break
                at += len(some)
                credits_[credit] = credits_.pop(credit)
                credit.count -= len(some)
                self._give(credit.member, found.name, some)
        if at < len(tasks) and found is not None:
            self.give_back(tasks[at:], found.tenant)

    def _give(self, member: Member, queue: str, tasks: list[Lent]) -> None:
        leases = self._leases
        for task in tasks:
            leases[task.id] = task, member
        member.give(queue, tasks)

    def give_back(self, tasks: Iterable[Lent], tenant: str) -> None:
        """These were not sent to anybody. No attempt is used, but their fences are: words may be said again."""
        self._return(tasks, tenant, Verdict.SNOOZED, UNSENT)

    def _return(self, tasks: Iterable[Lent], tenant: str, verdict: Verdict, why: str) -> None:
        reports = [Report(task.id, task.epoch, task.attempt, verdict.value, why) for task in tasks]
        self._pulling.report(NOBODY, tenant, reports)

    def ended(self, tenant: str, leases: Iterable[Lent | Report | Kept]) -> None:
        """Workers of this tenant have said how these ended, or no link stands for them."""
        held = self._leases
        for lease in leases:
            mine = held.get(lease.id)
            if mine is not None and mine[1].tenant == tenant and _same(mine[0], lease):
                del held[lease.id]

    def revoke(self, leases: list[tuple[str, int]]) -> None:
        """See actors.pulling.Room."""
        told: dict[Member, list[str]] = defaultdict(list)
        for task_id, attempt in leases:
            held = self._leases.get(task_id)
            if held is not None and held[0].attempt == attempt:
                del self._leases[task_id]
                told[held[1]].append(task_id)
        for member, ids in told.items():
            member.cancel(ids)

    # --- links come and go

    def part(self, member: Member, *, closed: bool) -> None:
        """Its link ended; not `closed`: it only fell silent, and may be at work."""
        self.stop(member)
        if not any(other is member for _, other in self._leases.values()):
            return
        if closed and not self._closed:
            loop = asyncio.get_running_loop()
            self._parted[member] = loop.call_later(GRACE_S, self._give_back, member)
        else:
            self._forget(member)

    def _give_back(self, member: Member) -> None:
        self._parted.pop(member, None)
        if gone := self._forget(member):
            self._return(gone, member.tenant, Verdict.LOST, WENT)

    def _forget(self, member: Member) -> list[Lent]:
        gone = [task for task, other in self._leases.values() if other is member]
        for task in gone:
            del self._leases[task.id]
        return gone

    def come_back(self, member: Member, leases: Sequence[Extension]) -> None:
        """A worker says that it goes on with these, over another link: no node gives them back now."""
        for lease in leases:
            held = self._leases.get(lease.id)
            if held is None or held[1].tenant == member.tenant:
                self._leases[lease.id] = Lent(lease.id, 0, lease.epoch, lease.attempt, 0, 0, 0, 0), member
        if leases:
            self._tell_moved([lease.id for lease in leases])

    def moved(self, ids: Collection[str]) -> None:
        """Another node has these leases' worker now."""
        for task_id in ids:
            self._leases.pop(task_id, None)

    def close(self) -> None:
        """Give back nothing any more: who comes back finds its leases, at whichever node."""
        self._closed = True
        for timer in self._parted.values():
            timer.cancel()
        self._parted.clear()


def _same(task: Lent, other: Lent | Report | Kept) -> bool:
    """Under another owner, an attempt of the same number may be another one."""
    return task.attempt == other.attempt and task.epoch == other.epoch
