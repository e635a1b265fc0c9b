"""What another node's watchers want to hear of this node's changes: a feed of the hub that ends in a link.

Promises: changes of a task go out in the order they were published, each once, however many topics it is of. At most
`RELAYED` wait to be written; what is more is let go, and the other node is told that it missed something, as it is when
this node did. What came from another node is not passed on, neither a change nor an interruption: that one tells of it
itself, and two nodes would tell each other without end.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from actors.core.events import Change
from actors.core.wire import Message, Missed, Watch, Wire, WireTopic
from gateway.hub import Event, Hub
from gateway.topics import Labelled, Topic

RELAYED = 50_000
FRAME = 500
"""Changes in one message."""


class Relay:
    """One node's interest in another. Use as a context: on leaving, the hub forgets it."""

    def __init__(self, hub: Hub, wire: Wire, news: Callable[[], None]) -> None:
        self._hub = hub
        self._wire = wire
        self._news = news
        self._topics: set[Topic] = set()
        self._changes: list[Change] = []
        self._missed = False
        self._seq = 0
        self._watching: AbstractContextManager[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(self._topics)

    def watch(self, message: Watch) -> None:
        """The other node's watchers came to some topics, and left some."""
        self._leave(self._topics.intersection(map(topic_of, message.left)))
        for topic in map(topic_of, message.topics):
            if topic not in self._topics:
                self._topics.add(topic)
                self._hub.add(topic, self)
        if self._topics and self._watching is None:
            self._watching = self._hub.watching()
            self._watching.__enter__()

    def push(self, event: Event) -> None:
        """From the hub, in the order of their numbers."""
        if event.foreign or event.seq <= self._seq:
            return
        self._seq = event.seq
        if len(self._changes) >= RELAYED:
            self._miss()
        else:
            self._changes.append(event.change)
            self._news()

    def interrupt(self, *, foreign: bool) -> None:
        """From the hub: what was missed can't be told."""
        if not foreign:
            self._miss()

    def _miss(self) -> None:
        """What waits is not told either: a snapshot will show it."""
        self._changes.clear()
        self._missed = True
        self._news()

    def take(self) -> list[Message]:
        """What to write next: about FRAME changes."""
        messages: list[Message] = []
        if self._missed:
            self._missed = False
            messages.append(Missed())
        if self._changes:
            messages.append(self._wire.changes(self._changes[:FRAME]))
            del self._changes[:FRAME]
        return messages

    def _leave(self, topics: set[Topic]) -> None:
        for topic in topics:
            self._hub.remove(topic, self)
        self._topics = self._topics - topics
        if not self._topics and self._watching is not None:
            self._watching.__exit__(None, None, None)
            self._watching = None


def wire_topic(topic: Topic) -> WireTopic:
    """The topic as a message has it."""
    if isinstance(topic, str):
        return WireTopic(task=topic)
    if isinstance(topic, tuple):
        return WireTopic(tenant=topic[0], queue=topic[1])
    return WireTopic(tenant=topic.tenant, queue=topic.queue, labels=topic.labels)


def topic_of(told: WireTopic) -> Topic:
    """And back."""
    if told.task is not None:
        return told.task
    if told.labels:
        return Labelled(told.tenant, told.queue, told.labels)
    return told.tenant, told.queue or ""
