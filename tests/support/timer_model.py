"""A dumb model of what wakes when, for the timing wheel and for what is built on it."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.core.timers import Timers
from actors.core.wheel import CHUNK, LEVELS, Wheel

T0 = 1_800_000_000_123


class Entry:
    __slots__ = ("slot", "wake_ms")

    def __init__(self, wake_ms: int) -> None:
        self.wake_ms = wake_ms
        self.slot: object = None

    def __eq__(self, other: object) -> bool:
        raise AssertionError("entries are told apart by identity")

    __hash__ = None  # type: ignore[assignment]


def near(now: int) -> st.SearchStrategy[int]:
    """Times that matter: close by, around the ends of spans of any level, and far away."""
    edges = st.builds(
        lambda level, spans, off: (now // (1 << 6 * level) + spans) * (1 << 6 * level) + off,
        st.integers(0, LEVELS),
        st.integers(0, 130),
        st.integers(-2, 2),
    )
    return st.one_of(st.integers(now - 100, now + 300), st.integers(now, now + 10_000), edges)


class AgainstList(RuleBasedStateMachine):
    """The model is a list; what is due is found by looking at all of it."""

    def __init__(self, wheel: Wheel[Entry] | Timers[Entry], beyond: int) -> None:
        """An answer of `wheel` may hold `beyond` entries more than its limit."""
        super().__init__()
        self.now = T0
        self.wheel = wheel
        self.beyond = beyond
        self.waiting: list[Entry] = []
        self.out: list[Entry] = []

    @rule(data=st.data(), count=st.sampled_from([1, 1, 2, 3, 10, CHUNK + 3]), apart=st.booleans())
    def insert(self, data: st.DataObject, count: int, *, apart: bool) -> None:
        wake = data.draw(near(self.now))
        entries = [Entry(wake + number * (number % 7) * apart) for number in range(count)]
        self.wheel.insert_many(entries)
        self.waiting += entries

    @rule(data=st.data())
    def insert_again(self, data: st.DataObject) -> None:
        if self.out:
            entry = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
            if data.draw(st.booleans()):
                entry.wake_ms = data.draw(near(self.now))
            self.wheel.insert(entry)
            self.waiting.append(entry)

    @rule(data=st.data(), share=st.sampled_from([0, 0, 0.3, 0.9, 1]))
    def cancel(self, data: st.DataObject, share: float) -> None:
        first = data.draw(st.integers(0, len(self.waiting)))
        last = first + max(1, int(share * len(self.waiting)))
        for entry in self.waiting[first:last]:
            assert self.wheel.cancel(entry)
            assert not self.wheel.cancel(entry)
        self.out += self.waiting[first:last]
        del self.waiting[first:last]

    @rule(data=st.data(), limit=st.sampled_from([1, 3, 100, 1_000]))
    def advance(self, data: st.DataObject, limit: int) -> None:
        before = self.now
        self.now = max(self.now, data.draw(near(self.now)))
        fired = self.wheel.advance(self.now, limit)
        self.take(fired, limit)
        in_order = [entry.wake_ms for entry in fired if entry.wake_ms > before]
        assert in_order == sorted(in_order)
        if in_order:
            assert all(entry.wake_ms >= in_order[-1] for entry in self.waiting if entry.wake_ms > before)

    @rule(data=st.data())
    def advance_to_the_end(self, data: st.DataObject) -> None:
        self.now = max(self.now, data.draw(near(self.now)))
        while (due := self.wheel.next_expiration()) is not None and due <= self.now:
            self.take(self.wheel.advance(self.now), 1_000)
        assert all(entry.wake_ms > self.now for entry in self.waiting)

    @rule()
    def follow(self) -> None:
        due = self.wheel.next_expiration()
        if due is not None:
            self.now = max(self.now, due)
            self.take(self.wheel.advance(self.now), 1_000)

    def take(self, fired: list[Entry], limit: int) -> None:
        assert len(fired) <= limit + self.beyond
        wakes = [entry.wake_ms for entry in fired]
        assert all(wake <= self.now for wake in wakes)
        gone = {id(entry) for entry in fired}
        assert len(gone) == len(fired)
        left = [entry for entry in self.waiting if id(entry) not in gone]
        assert len(left) == len(self.waiting) - len(fired)
        assert all(entry.slot is None for entry in fired)
        if len(fired) < limit and (self.wheel.next_expiration() or self.now + 1) > self.now:
            assert all(entry.wake_ms > self.now for entry in left)
        self.waiting = left
        self.out += fired

    @invariant()
    def agrees(self) -> None:
        assert len(self.wheel) == len(self.waiting)
        due = self.wheel.next_expiration()
        if self.waiting:
            assert due is not None
            assert due <= max(self.now, min(entry.wake_ms for entry in self.waiting))
        else:
            assert due is None
