"""The workers that are attached to this node, whichever way they came: their credits, and the leases that they have.

    room, as credits and bytes go -> pulling -> deliver -> shares, in turn -> member.give
    a member's link ends -> its leases wait GRACE_S for it to come back -> they are given back

Promises: a member is given no more than its credits, and no more bytes than it has room for but for its last task.
Tasks go to those that have credits in equal shares, and whose turn came last begins the next time. What came and finds
no room, as large tasks may among small ones, waits for WAIT_S, and is given back if there is none by then. A lease
whose link was closed is given back GRACE_S later, unless some node was told meanwhile that it goes on; one whose link
only fell silent runs to its end; and what was never sent is given back at once. Bound: credits (`worker_frames.py`).
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice

from actors.core.events import Verdict
from actors.core.lease import LEAST_MS, Extension, Kept, Key, Lent, Report
from actors.core.queue import QueueBook
from actors.lending import NOBODY
from gateway.context import PullingPort, Settings
from gateway.held_leases import HeldLeases
from gateway.member import Member

GRACE_S = 2.0
WAIT_S = LEAST_MS / 2_000
"""Half of the shortest lease."""
HEAD_BYTES = 512
"""What a task takes beside its payload, about."""
MOST_BYTES = Settings().payload_bytes + HEAD_BYTES
"""How large the tasks of a queue are held to be of which none has come yet."""
WENT = "its worker went away"
UNSENT = "its worker went before it could be sent"
NO_ROOM = "no worker had room for it"


class _Credit:
    """A member's credits of one queue."""

    __slots__ = ("count", "member")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.count = 0


class _Waiting:
    """Tasks of one queue that came, and found no room."""

    __slots__ = ("tasks", "tenant", "timer")

    def __init__(self, tenant: str, timer: asyncio.TimerHandle) -> None:
        self.tenant = tenant
        self.timer = timer
        self.tasks: dict[str, Lent] = {}


class Crew:
    """All workers of one node. Implements actors.pulling.Room."""

    def __init__(self, pulling: PullingPort, book: QueueBook, tell_moved: Callable[[list[str]], None]) -> None:
        """`tell_moved`: other nodes hear that these leases went on here."""
        self._pulling = pulling
        self._book = book
        self._tell_moved = tell_moved
        self._credits: dict[int, dict[_Credit, None]] = defaultdict(dict)
        """Queue -> members in turn: those that were given something longest ago first."""
        self._members: dict[Member, dict[int, _Credit]] = {}
        """Those that have credits, or had and may have more, by queue."""
        self._short: set[Member] = set()
        """Those that would be given more, had they room for it."""
        self._sizes: dict[int, int] = {}
        """Queue that somebody takes -> how large its tasks are, as those were that came last."""
        self._waiting: dict[int, _Waiting] = {}
        self._leases: HeldLeases = HeldLeases()
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
        mine = self._members.setdefault(member, {})
        credit = mine.get(queue)
        if credit is None:
            credit = mine[queue] = _Credit(member)
            self._credits[queue][credit] = None
            self._pulling.want(self._credits)
        credit.count = min(credit.count + count, most)
        self._look(queue)
        return credit.count

    def stop(self, member: Member) -> None:
        """It takes nothing any more."""
        self._short.discard(member)
        for queue, credit in self._members.pop(member, {}).items():
            del self._credits[queue][credit]
            if not self._credits[queue]:
                del self._credits[queue]
                self._sizes.pop(queue, None)
        self._pulling.want(self._credits)

    def drained(self, member: Member) -> None:
        """It may have more room than it had."""
        if member in self._short:
            self._short.discard(member)
            for queue in self._members[member]:
                self._look(queue)

    def _look(self, queue: int) -> None:
        """Somebody takes more of it: first what came already."""
        if queue in self._waiting:
            self.deliver(queue, [])
        self._pulling.look(queue)

    def room(self, queue: int) -> int:
        """See actors.pulling.Room."""
        if queue in self._waiting:
            return 0
        size, room = self._sizes.get(queue, MOST_BYTES), 0
        for credit in self._credits.get(queue, ()):
            count = credit.count
            if count:
                room_bytes = credit.member.room_bytes
                if count * size > room_bytes:
                    count = min(count, max(-(-room_bytes // size), 0))
                    self._short.add(credit.member)
                room += count
        return room

    # --- tasks

    def deliver(self, queue: int, tasks: list[Lent]) -> None:
        """See actors.pulling.Room. What nobody has credits for any more is given back unused."""
        found = self._book.by_id(queue)
        if found is None:
            return
        waiting = self._waiting.get(queue)
        if waiting is not None:
            tasks = [*waiting.tasks.values(), *tasks]
        left = self._hand_out(queue, found.name, tasks)
        short = [credit.member for credit in self._credits.get(queue, ()) if credit.count] if left else []
        if short:
            self._short.update(short)
            self._keep(queue, found.tenant, left)
            return
        if waiting is not None:
            waiting.timer.cancel()
            del self._waiting[queue]
        if left:
            self.give_back(left, found.tenant, NO_ROOM)

    def _hand_out(self, queue: int, name: str, tasks: list[Lent]) -> list[Lent]:
        """Give these away; answers those that nobody takes now."""
        credits_ = self._credits.get(queue)
        if not credits_ or not tasks:
            return tasks
        all_bytes = sum([len(task.payload) for task in tasks if task.payload is not None])
        size = all_bytes // len(tasks) + HEAD_BYTES
        if self._sizes.get(queue) != size:
            self._learn(queue, size)
        at_most = all_bytes * 4 // 3 + len(tasks) * HEAD_BYTES * 2  # as base64; with labels
        at = 0
        while at < len(tasks):
            open_ = (credit for credit in credits_ if credit.count and credit.member.room_bytes > 0)
            ready = list(islice(open_, len(tasks) - at))  # of more than that, the others get none
            if not ready:
                break
            share = -(-(len(tasks) - at) // len(ready))
            for credit in ready:
                some = tasks[at : at + min(share, credit.count)]
                if not some:
                    break
                if self._suspects(credit.member, some):
                    continue  # it has no room now
                if at_most > credit.member.room_bytes:
                    some = _fitting(some, credit.member.room_bytes)
                at += len(some)
                credits_[credit] = credits_.pop(credit)
                credit.count -= len(some)
                self._leases.add(credit.member, some)
                credit.member.give(name, some)
        return tasks[at:]

    def _suspects(self, member: Member, tasks: list[Lent]) -> bool:
        """Whether one of these is back because its lease ran out in the hands of this member, which says nothing.

        Then it takes nothing until it does.
        """
        for task in tasks:
            if task.attempt > 1 and self._leases.holder_of(task.id) is member and member.let_lapse(task.period_ms):
                self._short.add(member)
                return True
        return False

    def _learn(self, queue: int, size: int) -> None:
        """Large ones are believed at once, small ones by and by."""
        known = self._sizes.get(queue, size)
        self._sizes[queue] = size if size >= known else max(size, known - (known >> 3))

    def _keep(self, queue: int, tenant: str, tasks: list[Lent]) -> None:
        waiting = self._waiting.get(queue)
        if waiting is None:
            timer = asyncio.get_running_loop().call_later(WAIT_S, self._give_up, queue)
            waiting = self._waiting[queue] = _Waiting(tenant, timer)
        waiting.tasks = {task.id: task for task in tasks}

    def _give_up(self, queue: int) -> None:
        """Nobody had room for them: other nodes may have."""
        waiting = self._waiting.pop(queue)
        waiting.timer.cancel()
        self.give_back(waiting.tasks.values(), waiting.tenant, NO_ROOM)
        self._pulling.look(queue)

    def give_back(self, tasks: Iterable[Lent], tenant: str, why: str = UNSENT) -> None:
        """These were not sent to anybody. No attempt is used, but their fences are: words may be said again."""
        self._return([(task.id, task.epoch, task.attempt) for task in tasks], tenant, Verdict.SNOOZED, why)

    def _return(self, leases: list[Key], tenant: str, verdict: Verdict, why: str) -> None:
        if leases:
            self._pulling.report(NOBODY, tenant, [Report(*lease, verdict.value, why) for lease in leases])

    def ended(self, tenant: str, leases: Iterable[Lent | Report | Kept]) -> None:
        """Workers of this tenant have said how these ended, or no link stands for them."""
        self._leases.end(tenant, leases)

    def withdraw(self, member: Member, tasks: Sequence[Lent]) -> None:
        """These wait to be sent to it for too long: it was not told of them, and is not. It has their credits again."""
        if (credits_ := self._members.get(member)) is not None:
            self._short.add(member)
            for queue, count in Counter([task.queue for task in tasks]).items():
                if queue in credits_:
                    credits_[queue].count += count
        unsent = self._leases.of(member, tasks)
        self._leases.end(member.tenant, unsent)
        self.give_back(unsent, member.tenant)

    def revoke(self, leases: list[tuple[str, int]]) -> None:
        """See actors.pulling.Room."""
        told: dict[Member, list[str]] = defaultdict(list)
        for task_id, attempt in leases:
            for waiting in self._waiting.values():
                if task_id in waiting.tasks and waiting.tasks[task_id].attempt == attempt:
                    del waiting.tasks[task_id]
            holder = self._leases.holder_of(task_id)
            if holder is not None and self._leases.attempt_of(task_id) == attempt:
                self._leases.drop(task_id)
                told[holder].append(task_id)
        for member, ids in told.items():
            member.cancel(ids)

    # --- links come and go

    def part(self, member: Member, *, closed: bool, unsent: Sequence[Lent] = ()) -> None:
        """Its link ended, and these were not sent; not `closed`: it only fell silent, and may be at work."""
        self.stop(member)
        self.withdraw(member, unsent)
        if closed and not self._closed and member in self._leases:
            loop = asyncio.get_running_loop()
            self._parted[member] = loop.call_later(GRACE_S, self._give_back, member)
        else:
            self._leases.forget(member)

    def _give_back(self, member: Member) -> None:
        self._parted.pop(member, None)
        self._return(self._leases.forget(member), member.tenant, Verdict.LOST, WENT)

    def come_back(self, member: Member, leases: Sequence[Extension]) -> None:
        """A worker says that it goes on with these, over another link: no node gives them back now."""
        holder_of = self._leases.holder_of
        mine = [lease for lease in leases if (other := holder_of(lease.id)) is None or other.tenant == member.tenant]
        self._leases.add(member, mine)
        if mine:
            self._tell_moved([lease.id for lease in mine])

    def moved(self, ids: Collection[str]) -> None:
        """Another node has these leases' worker now."""
        for task_id in ids:
            self._leases.drop(task_id)

    def close(self) -> None:
        """Give back nothing that a worker has: who comes back finds its leases, at whichever node."""
        self._closed = True
        for queue in list(self._waiting):
            self._give_up(queue)
        for timer in self._parted.values():
            timer.cancel()
        self._parted.clear()


def _fitting(tasks: list[Lent], room_bytes: int) -> list[Lent]:
    """As many of the first as fill so much room, and one at least."""
    for count, task in enumerate(tasks, 1):
        payload_bytes = len(task.payload or b"")
        room_bytes -= payload_bytes if task.content_type is None else -(-payload_bytes // 3) * 4
        room_bytes -= HEAD_BYTES + len(task.labels or "")
        if room_bytes <= 0:
            return tasks[:count]
    return tasks
