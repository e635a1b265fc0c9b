"""One subscription: where it stands, and which events are news to it.

A subscription is told of every matching change once, in order of the hub's numbers. `at` is the number up to which it
has been told all; what comes after `at` reaches it by push while it is LIVE, and is read back from the hub's memory
while it is BEHIND.
"""

import enum
from typing import TYPE_CHECKING

import orjson

from actors.core.events import Change
from gateway.hub import Event
from gateway.topics import Topic

if TYPE_CHECKING:
    from gateway.session import Session

FLOOR_MS = 60_000
"""How long after a snapshot an event may still tell of a commit that the snapshot had read already."""


class Stage(enum.Enum):
    """How news reaches a subscription."""

    OPENING = enum.auto()
    """Waits for its snapshot; is told nothing."""
    BEHIND = enum.auto()
    """To be caught up from the hub's memory."""
    LIVE = enum.auto()
    """The hub pushes."""
    GONE = enum.auto()


_LIVE = Stage.LIVE


class Subscription:
    """What one connection watches under one name."""

    __slots__ = ("at", "floor", "floor_until_ms", "head", "name", "reopened", "session", "stage", "tenant", "topic")

    def __init__(self, session: "Session", name: str, topic: Topic, tenant: str) -> None:
        self.session = session
        self.name = name
        self.topic = topic
        self.tenant = tenant
        self.stage = Stage.OPENING
        self.at = 0
        self.reopened = False
        """Waits for another snapshot, because events were lost to it; not before a pause."""
        self.floor: dict[str, int] = {}
        """Task -> version that the last snapshot showed."""
        self.floor_until_ms = 0
        self.head = b'{"type":"event","sub":' + orjson.dumps(name) + b',"cursor":"'

    def push(self, event: Event) -> None:
        """From the hub."""
        change = event.change  # as `wants`, without the call: this is the hot path of whoever publishes
        if self.stage is not _LIVE or change.queue.tenant != self.tenant:
            return
        if not self.floor or self._above_floor(change):
            self.session.put(self, event)

    def interrupt(self, *, foreign: bool) -> None:
        """From the hub: what was missed can't be told, whoever acted."""
        if self.stage is _LIVE:
            self.session.interrupt(self)

    def wants(self, change: Change) -> bool:
        """True when this change of its topic is news to it."""
        if change.queue.tenant != self.tenant:
            return False
        return not self.floor or self._above_floor(change)

    def _above_floor(self, change: Change) -> bool:
        if change.at_ms > self.floor_until_ms:
            self.floor = {}
            return True
        if change.version <= self.floor.get(change.id, -1):
            return False
        self.floor.pop(change.id, None)
        return True

    def message(self, kind: str, **fields: object) -> bytes:
        """A message about this subscription."""
        return orjson.dumps({"type": kind, "sub": self.name, **fields})
