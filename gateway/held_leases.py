"""The leases that the links of one node have: which, and whose they are.

Promises: what a task or a word of it costs does not depend on how many others there are, and to forget a link costs
what that link has. Bound: MOST a link. What it had before those is forgotten, and runs to its end: its worker took more
and more, and said nothing of it.
"""

from collections.abc import Iterable

from actors.core.lease import Extension, Kept, Key, Lent, Report
from gateway.member import Member

MOST = 100_000
"""Ten queues' worth of credits."""


class _Leases:
    """Of one holder: id -> epoch and attempt."""

    __slots__ = ("holder", "of", "tenant")

    def __init__(self, holder: Member) -> None:
        self.holder = holder
        self.tenant = holder.tenant
        self.of: dict[str, tuple[int, int]] = {}


class HeldLeases:
    """Leases by their ids, and by their holders."""

    def __init__(self) -> None:
        self._by_holder: dict[Member, _Leases] = {}
        """Those who have any."""
        self._by_id: dict[str, _Leases] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, holder: Member) -> bool:
        return holder in self._by_holder

    def add(self, holder: Member, leases: Iterable[Lent | Extension]) -> None:
        """These are its own from now on, whoever had them."""
        leases_of = self._by_holder.get(holder) or _Leases(holder)
        mine, by_id = leases_of.of, self._by_id
        for lease in leases:
            task_id = lease.id
            if task_id in by_id and task_id not in mine:
                self.drop(task_id)
            by_id[task_id] = leases_of
            mine[task_id] = lease.epoch, lease.attempt
        if mine:
            self._by_holder[holder] = leases_of
        while len(mine) > MOST:
            self.drop(next(iter(mine)))

    def holder_of(self, task_id: str) -> Member | None:
        """Who has a lease of this task."""
        found = self._by_id.get(task_id)
        return None if found is None else found.holder

    def attempt_of(self, task_id: str) -> int | None:
        """Which attempt that is."""
        found = self._by_id.get(task_id)
        return None if found is None else found.of[task_id][1]

    def drop(self, task_id: str) -> None:
        """Nobody has it any more."""
        found = self._by_id.pop(task_id, None)
        if found is not None:
            del found.of[task_id]
            if not found.of:
                del self._by_holder[found.holder]

    def of(self, holder: Member, leases: Iterable[Lent]) -> list[Lent]:
        """Those of these that it has."""
        found = self._by_holder.get(holder)
        of = {} if found is None else found.of
        return [lease for lease in leases if of.get(lease.id) == (lease.epoch, lease.attempt)]

    def end(self, tenant: str, leases: Iterable[Lent | Report | Kept]) -> None:
        """Those of these that somebody of this tenant had, nobody has any more.

        Under another owner, an attempt of the same number may be another one.
        """
        by_id = self._by_id
        for lease in leases:
            task_id = lease.id
            found = by_id.get(task_id)
            if found is not None and found.of[task_id] == (lease.epoch, lease.attempt) and found.tenant == tenant:
                del by_id[task_id], found.of[task_id]  # as `drop`, without its call
                if not found.of:
                    del self._by_holder[found.holder]

    def forget(self, holder: Member) -> list[Key]:
        """All that it had."""
        found = self._by_holder.pop(holder, None)
        if found is None:
            return []
        for task_id in found.of:
            del self._by_id[task_id]
        return [(task_id, epoch, attempt) for task_id, (epoch, attempt) in found.of.items()]
