"""Deliveries, as the journals of all hands tell of them: who got which task when, and what became of it."""

import itertools
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.journal import Line
from bench.scripted import Call
from bench.verdict import CLOCK_MS

ENDS = frozenset({"over", "cancelled", "forgot"})


@dataclass(slots=True)
class Delivery:
    """A task that came to a hand; times in ms since 1970."""

    hand: str
    at_ms: float
    id: str
    lease: str
    attempt: int
    fence: str
    script: str
    period_s: float
    said_ms: float | None = None
    """When its result was first sent, and when last."""
    last_ms: float | None = None
    over_ms: float | None = None
    """When the hand gave it up."""
    answer: str = ""
    """`recorded` or `refused`, if one came."""

    def __str__(self) -> str:
        said = "" if self.said_ms is None else f", said {self.said_ms - self.at_ms:.0f}"
        last = "" if self.last_ms in (None, self.said_ms) else f", again {self.last_ms - self.at_ms:.0f} ms after that"
        return f"{self.hand} had {self.script} {self.id} {self.fence} at {self.at_ms % 1e6:.0f}{said}{last}"

    def is_held(self, at_ms: float) -> bool:
        """Whether the hand worked on it then."""
        ends = [end_ms for end_ms in (self.said_ms, self.over_ms) if end_ms is not None]
        return self.at_ms <= at_ms < min(ends, default=float("inf"))


class Deliveries:
    """All of them, by task in their order."""

    def __init__(self, journals: Mapping[str, Iterable[Line]]) -> None:
        self.lines = Counter(line.what for lines in journals.values() for line in lines)
        self.above = sum(line.count for lines in journals.values() for line in lines)
        self.by_id: dict[str, list[Delivery]] = defaultdict(list)
        self._links: dict[str, tuple[list[float], list[int]]] = {}
        for hand, lines in journals.items():
            self._read(hand, list(lines))
        for some in self.by_id.values():
            some.sort(key=lambda delivery: delivery.at_ms)

    def _read(self, hand: str, lines: Sequence[Line]) -> None:
        found: dict[tuple[str, str], Delivery] = {}
        links = [line for line in lines if line.what in ("link", "cut")]
        self._links[hand] = [line.at_ms for line in links], [line.port * (line.what == "link") for line in links]
        for line in lines:
            if line.what == "got":
                found[line.id, line.lease] = delivery = _delivery(hand, line)
                self.by_id[line.id].append(delivery)
            elif (line.id, line.lease) in found:
                _note(found[line.id, line.lease], line)

    def calls(self) -> dict[str, list[Call]]:
        """The same as calls of a target."""
        return {
            task_id: [Call(each.at_ms, each.fence, each.attempt) for each in some]
            for task_id, some in self.by_id.items()
        }

    def port(self, hand: str, at_ms: float) -> int:
        """Where the hand's link went then; 0: it had none."""
        times, ports = self._links[hand]
        place = bisect_right(times, at_ms)
        return ports[place - 1] if place else 0

    def held(self, at_ms: float, hands: Iterable[str]) -> list[Delivery]:
        """What these hands worked on then."""
        wanted = set(hands)
        return [each for some in self.by_id.values() for each in some if each.hand in wanted and each.is_held(at_ms)]

    def again_s(self, at_ms: float, hands: Iterable[str]) -> list[tuple[float, float]]:
        """Of what these hands worked on when they were struck: how long it took until it came to one again, beside its
        lease period.

        What had been given to others before is left out; so is what never came again: the tables tell of that.
        """
        found = []
        for delivery in self.held(at_ms, hands):
            after = self.after(delivery)
            if after is not None and after.at_ms > at_ms:
                found.append(((after.at_ms - at_ms) / 1e3, delivery.period_s))
        return found

    def after(self, delivery: Delivery) -> Delivery | None:
        """The next one of the same task."""
        some = self.by_id[delivery.id]
        place = next(place for place, each in enumerate(some) if each is delivery)
        return some[place + 1] if place + 1 < len(some) else None

    def late(self, answer: str) -> list[str]:
        """Results that were sent when the task had been given to another already, and were answered so."""
        return [
            f"{delivery}, when {after}"
            for some in self.by_id.values()
            for delivery, after in itertools.pairwise(some)
            if delivery.answer == answer and delivery.last_ms is not None and after.at_ms < delivery.last_ms - CLOCK_MS
        ]


def _delivery(hand: str, line: Line) -> Delivery:
    return Delivery(hand, line.at_ms, line.id, line.lease, line.attempt, line.fence, line.script, line.period_s)


def _note(delivery: Delivery, line: Line) -> None:
    """What became of it."""
    if line.what == "said":
        delivery.said_ms = delivery.last_ms = line.at_ms
    elif line.what == "again":
        delivery.last_ms = line.at_ms
    elif line.what in ("recorded", "refused"):
        delivery.answer = line.what
    elif line.what in ENDS:
        delivery.over_ms = line.at_ms
