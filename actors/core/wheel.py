"""A hierarchical timing wheel: which of a million entries are due, for less than a heap costs.

Seven levels of slots. A slot of level 0 spans 1 ms, and a slot of each further level spans 64 slots of the level
below it. An entry rests in the lowest level that reaches its time, and moves down (a cascade) as the hand comes near,
until its millisecond has come. Each level keeps its occupied slots in one bit field, so the next slot that matters is
found in O(levels), however many entries there are.

Two things differ from the textbook, both so that no single call stalls its caller:

- A level reaches the span (64 slots) that the hand is in *and the one after it*. So a slot can be split one span
  before it starts, in pieces, by calls that were made anyway; a slot that starts unsplit is split there and then.
- A slot is a chain of chunks of at most `CHUNK` entries: the piece in which entries are moved, fired and swept.

Promises: never early. Fired in the order of `wake_ms` (same millisecond: any order). The work of one call is bounded
by `limit`, `MOVES` and `CHUNK`, however far the time jumped; what is left shows in `next_expiration`. An entry is
forgotten when it fires or is cancelled: dead references are never more than half of a chunk. Slots are made as
entries need them, so an empty wheel is about a kilobyte. Times may be any distance away: the top level is not closed,
its bit field grows by a bit per 2.2 years.

Refuses: time that goes back (the hand stays). Not thread-safe.

Source: G. Varghese and T. Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987, scheme 7.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

LEVELS = 7
CHUNK = 512
"""Entries in one piece of work."""
MOVES = 2 * CHUNK
"""About how many entries one call to `advance` moves down."""
TOUCH = 16
"""What a chunk costs besides its entries, in moves: keeps many tiny slots within the bound."""

_SHIFT = tuple(6 * level for level in range(LEVELS + 1))
_NEVER_MS = 1 << 62


class Timed(Protocol):
    """What a wheel can hold. While an entry is in a wheel, its `wake_ms` must not change."""

    wake_ms: int
    slot: object
    """Belongs to the wheel; None = in no wheel."""


EntryT = TypeVar("EntryT", bound=Timed)


class Chunk(list[EntryT]):
    """Part of a slot. `dead` of its items were cancelled since: those whose `slot` is not this chunk any more."""

    __slots__ = ("dead", "level", "newer", "number", "older")

    dead: int
    level: int
    number: int
    """Which slot of its level: time in slot widths."""
    newer: "Chunk[EntryT] | None"
    older: "Chunk[EntryT] | None"

    def sweep(self) -> None:
        """Forget the dead, and the second copy of an entry that was cancelled and came back."""
        self[:] = {id(entry): entry for entry in self if entry.slot is self}.values()
        self.dead = 0


class Wheel(Generic[EntryT]):
    """Entries by the millisecond at which they wake. All times are integer milliseconds on one clock of the caller.

    >>> wheel.insert_many(tasks)
    >>> wheel.next_expiration()  # sleep until then
    >>> wheel.advance(now_ms)  # what is due
    """

    __slots__ = ("_base", "_bits", "_count", "_hand", "_reach", "_slots", "_span_end", "_split_ms")

    def __init__(self, now_ms: int) -> None:
        self._hand = now_ms
        self._count = 0
        self._slots: list[dict[int, Chunk[EntryT]]] = [{} for _ in range(LEVELS)]
        """Per level: slot number -> newest chunk. No slot is empty."""
        self._bits = [0] * LEVELS
        """Per level: the occupied slots, counted from `_base`."""
        self._base = [0] * LEVELS
        """Per level: number of the first slot of the span that the hand is in."""
        self._reach = [2 << shift for shift in _SHIFT[1:LEVELS]]
        """Per level but the top: the first millisecond that belongs to a higher level."""
        self._span_end = now_ms
        self._split_ms = _NEVER_MS
        """When the next slot above level 0 may be split; may be too early, never too late."""
        self._turn(now_ms)

    def __len__(self) -> int:
        return self._count

    def insert(self, entry: EntryT) -> None:
        """Add one entry; see `insert_many`."""
        self.insert_many((entry,))

    def insert_many(self, entries: Sequence[EntryT]) -> None:
        """Add entries, each to fire at its `wake_ms`, or with the next `advance` if that is past.

        One that is in this wheel already is moved to its place anew.
        """
        hand = self._hand
        reach = self._reach
        levels = self._slots
        for entry in entries:
            if entry.slot is not None:
                self.cancel(entry)
            wake = entry.wake_ms
            level = bisect_right(reach, wake)
            number = (wake if wake > hand else hand) >> _SHIFT[level]
            chunk = levels[level].get(number)
            if chunk is None or len(chunk) >= CHUNK:
                chunk = self._grow(level, number)
            chunk.append(entry)
            entry.slot = chunk
        self._count += len(entries)

    def cancel(self, entry: EntryT) -> bool:
        """Take an entry out, in O(1) on average; False when it is not in the wheel. It may be inserted again."""
        chunk = entry.slot
        if not isinstance(chunk, Chunk):
            return False
        entry.slot = None
        self._count -= 1
        chunk.dead += 1
        if chunk.dead == len(chunk):
            self._unlink(chunk)
            if self._split_ms == chunk.number - 1 << _SHIFT[chunk.level]:
                self._next_split(self._hand)
        elif chunk.dead * 2 > len(chunk):
            chunk.sweep()
        return True

    def next_expiration(self) -> int | None:
        """When `advance` next has work; None = the wheel is empty.

        Never after the first `wake_ms`, unless that was past at its insertion: then the time of the last `advance`.
        Before it when entries have to move down first. Not after the last `advance`: call again, that one left work.
        """
        when = self._split_ms
        if when <= self._hand:
            split = self._next_split(self._hand)
            when = self._hand if split is not None and split[0] <= self._hand else self._hand + 1
        bits = self._bits[0]
        if bits:
            when = min(when, self._base[0] + (bits & -bits).bit_length() - 1)
        return when if self._count else None

    def advance(self, now_ms: int, limit: int = 1_000) -> list[EntryT]:
        """Move the hand to `now_ms` and take out what is due, at most `limit` entries.

        Does a bounded amount of work; if that was not all, `next_expiration` is not after `now_ms`.
        """
        before = self._hand
        now = now_ms if now_ms > before else before
        fired: list[EntryT] = []
        moves = MOVES
        split = self._next_split(now) if now >= self._split_ms else None
        while split is not None and split[0] <= now:
            # This slot has started: what comes before it fires, then it is split there and then.
            if moves <= 0 or not self._fire(split[0] - 1, fired, limit):
                return fired
            self._turn(split[0])
            moves -= self._split(split[1], split[2])
            split = self._next_split(now)
        if self._fire(now, fired, limit):
            self._turn(now)
            # The next spans' slots are split ahead: the more time has passed, the more of them.
            moves = min(moves, CHUNK * (now - before))
            while split is not None and moves > 0:
                moves -= self._split(split[1], split[2])
                split = self._next_split(now)
        return fired

    def _next_split(self, now: int) -> tuple[int, int, int] | None:
        """(start, level, number) of the first slot among those that may be split by `now`; renews `_split_ms`."""
        first: tuple[int, int, int] | None = None
        split_ms = _NEVER_MS
        for level, bits in enumerate(self._bits):
            if bits and level:
                number = self._base[level] + (bits & -bits).bit_length() - 1
                start = number << _SHIFT[level]
                early = number - 1 << _SHIFT[level]
                if early < split_ms:
                    split_ms = early
                # Of two that start together the higher level goes first: it has entries for the lower one's slots.
                if early <= now and (first is None or start <= first[0]):
                    first = (start, level, number)
        self._split_ms = split_ms
        return first

    def _split(self, level: int, number: int) -> int:
        """Move one chunk of a slot a level down; what that cost, in moves."""
        chunk = self._slots[level][number]
        self._unlink(chunk)
        if chunk.dead:
            chunk.sweep()
        level -= 1
        shift = _SHIFT[level]
        slots = self._slots[level]
        for entry in chunk:
            number = entry.wake_ms >> shift
            lower = slots.get(number)
            if lower is None or len(lower) >= CHUNK:
                lower = self._grow(level, number)
            lower.append(entry)
            entry.slot = lower
        return len(chunk) + TOUCH

    def _fire(self, until: int, fired: list[EntryT], limit: int) -> bool:
        """Take out what level 0 holds up to and including `until`, in order; False when `limit` ended it first."""
        slots = self._slots[0]
        while bits := self._bits[0]:
            number = self._base[0] + (bits & -bits).bit_length() - 1
            if number > until:
                break
            room = limit - len(fired)
            if room <= 0:
                return False
            chunk = slots[number]
            if chunk.dead:
                chunk.sweep()
            due: list[EntryT] = chunk
            if len(chunk) <= room:
                self._unlink(chunk)
            else:
                due = chunk[-room:]
                del chunk[-room:]
            for entry in due:
                entry.slot = None
            fired += due
            self._count -= len(due)
        return True

    def _grow(self, level: int, number: int) -> Chunk[EntryT]:
        """A new chunk at the head of a slot."""
        chunk: Chunk[EntryT] = Chunk()
        chunk.dead = 0
        chunk.level = level
        chunk.number = number
        chunk.newer = None
        slots = self._slots[level]
        chunk.older = older = slots.get(number)
        slots[number] = chunk
        if older is not None:
            older.newer = chunk
            return chunk
        self._bits[level] |= 1 << number - self._base[level]
        if level and self._split_ms > (ahead := number - 1 << _SHIFT[level]):
            self._split_ms = ahead
        return chunk

    def _unlink(self, chunk: Chunk[EntryT]) -> None:
        """Take a chunk out of its slot; the last one takes the slot along."""
        newer, older = chunk.newer, chunk.older
        if older is not None:
            older.newer = newer
        if newer is not None:
            newer.older = older
        elif older is not None:
            self._slots[chunk.level][chunk.number] = older
        else:
            del self._slots[chunk.level][chunk.number]
            self._bits[chunk.level] ^= 1 << chunk.number - self._base[chunk.level]

    def _turn(self, now: int) -> None:
        """Set the hand. Every slot that ended before `now` is empty by then."""
        self._hand = now
        if now < self._span_end:
            return
        for level in range(LEVELS):
            span = now >> _SHIFT[level + 1]
            passed = (span << 6) - self._base[level]
            if not passed:
                break
            self._base[level] += passed
            self._bits[level] >>= passed
            if level < LEVELS - 1:
                self._reach[level] = span + 2 << _SHIFT[level + 1]
        self._span_end = self._base[0] + 64
