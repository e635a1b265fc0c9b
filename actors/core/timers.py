"""What a shard waits for: a timing wheel, and before it a short sorted list for the shard that waits for little.

A wheel is made for crowds: an entry of its own costs two slots and a visit to move it down. A shard with some hundred
entries keeps them in a list instead, where each costs one insertion and one removal, and the next expiry is exact.
Once the list is full, what comes goes to the wheel.

Promises: those of the wheel (`wheel.py`), but for one: an answer may hold FEW entries more than its limit.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from operator import attrgetter
from typing import Generic

from actors.core.wheel import EntryT, Wheel

FEW = 1_024
"""Entries in the list at most. Among as many, an insertion and a removal cost 1.4 us where entries come one by one, and
4 to 5 in the two slots of the wheel; but all of them may be due at once.
"""

_wake_ms = attrgetter("wake_ms")


class Timers(Generic[EntryT]):
    """Entries by the millisecond at which they wake. All times are integer milliseconds on one clock of the caller."""

    __slots__ = ("_crowded", "_few", "_hand", "_number", "_wheel")

    def __init__(self, now_ms: int) -> None:
        self._hand = now_ms
        self._few: list[tuple[int, int, EntryT]] = []
        """(wake_ms, number, entry), sorted; the tuple is its entry's `slot`."""
        self._number = 0
        """Makes each tuple unique: entries need not be comparable."""
        self._wheel: Wheel[EntryT] = Wheel(now_ms)
        self._crowded = False
        """Whether the wheel may hold something: cheaper to ask than the wheel."""

    def __len__(self) -> int:
        return len(self._few) + len(self._wheel)

    def insert(self, entry: EntryT) -> None:
        """Add one entry; see `insert_many`."""
        self.insert_many((entry,))

    def insert_many(self, entries: Sequence[EntryT]) -> None:
        """Add entries, each to fire at its `wake_ms`, or with the next `advance` if that is past.

        One that is waiting already is moved to its place anew.
        """
        few = self._few
        room = FEW - len(few)
        for entry in entries[:room]:
            if entry.slot is not None:
                self.cancel(entry)
            self._number += 1
            entry.slot = slot = (entry.wake_ms, self._number, entry)
            insort(few, slot)
        if len(entries) > room:
            self._crowd(entries[room:])

    def cancel(self, entry: EntryT) -> bool:
        """Take an entry out; False when it is not waiting. It may be inserted again."""
        slot = entry.slot
        if type(slot) is not tuple:
            return self._wheel.cancel(entry)
        del self._few[bisect_left(self._few, slot)]
        entry.slot = None
        return True

    def next_expiration(self) -> int | None:
        """When `advance` next has work; None = nothing waits. What is past already: the time of the last `advance`."""
        when = self._few[0][0] if self._few else None
        if self._crowded and (first := self._wheel.next_expiration()) is not None and (when is None or first < when):
            when = first
        return self._hand if when is not None and when < self._hand else when

    def advance(self, now_ms: int, limit: int = 1_000) -> list[EntryT]:
        """Move the hand to `now_ms` and take out what is due, in the order of `wake_ms`, about `limit` at most.

        Does a bounded amount of work; if that was not all, `next_expiration` is not after `now_ms`.
        """
        if now_ms > self._hand:
            self._hand = now_ms
        if not self._crowded:
            return self._take(self._hand)
        fired = self._wheel.advance(self._hand, limit)
        rest_ms = self._wheel.next_expiration()
        self._crowded = rest_ms is not None
        if rest_ms is None or rest_ms > self._hand:
            some = self._take(self._hand)
        else:  # the wheel has left work, which is not before what it gave
            some = self._take(fired[-1].wake_ms) if fired else []
        return sorted(fired + some, key=_wake_ms) if some else fired

    def _take(self, until_ms: int) -> list[EntryT]:
        """What the list holds up to and including `until_ms`."""
        few = self._few
        if not few or few[0][0] > until_ms:
            return []
        count = 1  # most often it is one: cheaper than to look for the place
        if len(few) > 1 and few[1][0] <= until_ms:
            count = bisect_left(few, (until_ms + 1,))
        some = [entry for _, _, entry in few[:count]]
        del few[:count]
        for entry in some:
            entry.slot = None
        return some

    def _crowd(self, entries: Sequence[EntryT]) -> None:
        for entry in entries:
            if entry.slot is not None:
                self.cancel(entry)
        if not self._crowded:
            self._wheel.advance(self._hand)  # nobody turned it while it was empty
            self._crowded = True
        self._wheel.insert_many(entries)
