"""The hub: every change of a task that this node publishes, and who wants to hear of it.

Promises:
- `publish` is synchronous and cheap: a batch that nobody watches costs a few copies of references, one that is watched
  two look-ups a change, and one a label while somebody watches by labels. It never waits, and nothing that a watcher
  does (or fails to do) slows it down.
- The last `KEPT` changes stay in memory, numbered without gaps, so that a watcher who was away or slow can be told
  exactly what it missed, or exactly that it can't be told. About 0.5 KiB each with ids and times: 32 MiB, and more
  only by the size of labels and errors. They are let go once nobody has watched for `LINGER_S`.
- Changes of one task go to feeds in the order in which they were published. With other nodes, which tell of theirs, too
  (`relay.py`), one that comes after a later one goes to nobody.

Refuses: to know sockets or messages (`stream.py`), or what a feed does with an event (`session.py`).
A cursor is opaque to clients: `<boot>.<number>`. Numbers of another boot mean nothing here.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from actors.core.events import Change
from actors.core.queue import Queue
from gateway.interest import Interest
from gateway.latest import Latest
from gateway.topics import LabelIndex, Labelled, Topic

KEPT = 65_536
"""Changes kept in memory."""
LINGER_S = 300.0
"""How long changes are still kept after the last watcher went away."""

READERS = 4
"""Snapshots read from the database at a time, for all watchers together."""


class Event:
    """One numbered change on its way to feeds; encoded at most once, however many they are."""

    __slots__ = ("change", "foreign", "seq", "text")

    def __init__(self, seq: int, change: Change, *, foreign: bool = False) -> None:
        self.seq = seq
        self.change = change
        self.foreign = foreign
        """Another node published it, and told this one."""
        self.text: bytes | None = None
        """Its encoded form; belongs to whoever encodes it first."""


class Feed(Protocol):
    """Someone who is told of events."""

    def push(self, event: Event) -> None:
        """Take the event. Must not block or raise; may remove itself (and is then still told of the same change)."""
        ...

    def interrupt(self, *, foreign: bool) -> None:
        """Changes were missed that nobody can tell; of other nodes alone, if `foreign`. As `push`."""
        ...


class Recent:
    """The last `size` changes, numbered from 1; numbers in (`first`, `last`] can be read back."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._slots: list[Change | None] = []
        self.first = 0
        self.last = 0

    def append(self, changes: Sequence[Change]) -> None:
        """Number these changes and keep them, at the price of the oldest."""
        size = self._size
        if not self._slots:
            self._slots = [None] * size
        start = self.last + max(0, len(changes) - size)
        kept = changes[-size:]
        at = start % size
        head = kept[: size - at]
        self._slots[at : at + len(head)] = head
        if len(head) < len(kept):
            self._slots[: len(kept) - len(head)] = kept[len(head) :]
        self.last += len(changes)
        self.first = max(self.first, self.last - size)

    def skip(self, count: int) -> None:
        """Number `count` changes without keeping them, and let go of all others."""
        self.last += count
        self.first = self.last
        self._slots = []

    def after(self, seq: int, limit: int) -> list[Change]:
        """At most `limit` changes from number `seq` + 1 on; `first` <= `seq` <= `last`."""
        assert self.first <= seq <= self.last
        at, count = seq % self._size, min(limit, self.last - seq)
        found = self._slots[at : at + count]
        found += self._slots[: count - len(found)]
        return found  # type: ignore[return-value]  # slots in the kept range are filled


class Hub:
    """All feeds of this node, by what they watch. Belongs to the event loop's thread."""

    def __init__(self, boot: str, *, kept: int = KEPT, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.boot = boot
        self._recent = Recent(kept)
        self._monotonic = monotonic
        self._linger_until = float("-inf")
        self._watchers = 0
        self._unwatched = False
        """Somebody was told so, and may have left changes out."""
        self._feeds: dict[str | tuple[str, str], tuple[Feed, ...]] = {}
        self._by_label: LabelIndex[Feed] = LabelIndex()
        self._by_queue: dict[Queue, tuple[Feed, ...]] = {}
        self.kept = kept
        self.readers = asyncio.Semaphore(READERS)
        self.writing = asyncio.Lock()
        """Held by the feed that encodes its next messages: one a turn of the loop, however many have some."""
        self.interest = Interest(lambda: self.seq, monotonic)
        self._latest = Latest()
        self.closing = asyncio.Event()
        """Set by `close`."""

    @property
    def seq(self) -> int:
        """The number of the newest change."""
        return self._recent.last

    @property
    def watchers(self) -> int:
        """How many `watching` blocks are open."""
        return self._watchers

    @property
    def watched(self) -> bool:
        """Somebody watches something, or did not long ago and may come back with a cursor.

        Where nobody does, changes need not be told: no cursor from before leads over such a time.
        """
        watched = self._is_watched()
        self._unwatched = self._unwatched or not watched
        return watched

    def _is_watched(self) -> bool:
        return self._watchers > 0 or self._monotonic() < self._linger_until

    def publish(self, changes: list[Change], *, foreign: bool = False) -> None:
        """Tell those who watch. Called by the node after the commit (running: after the start), and for other nodes."""
        if not self._is_watched():
            self._recent.skip(len(changes))
            return
        if not self.interest.alone:
            changes = self._latest.news(changes)
        seq = self._recent.last
        self._recent.append(changes)
        if self._feeds or self._by_label:
            self._fan_out(seq, changes, foreign=foreign)

    def _fan_out(self, seq: int, changes: list[Change], *, foreign: bool) -> None:
        feeds, by_label = self._feeds, self._by_label
        for change in changes:
            seq += 1
            of_task = feeds.get(change.id, ())
            of_queue = self._by_queue.get(change.queue)
            if of_queue is None:
                of_queue = self._learn(change.queue)
            of_labels = by_label.find(change) if by_label else ()
            if of_queue or of_task or of_labels:
                event = Event(seq, change, foreign=foreign)
                for feed in of_queue:
                    feed.push(event)
                for feed in of_task:
                    feed.push(event)
                for feed in of_labels:
                    feed.push(event)

    def _learn(self, queue: Queue) -> tuple[Feed, ...]:
        feeds = self._feeds.get((queue.tenant, queue.name), ())
        self._by_queue[queue] = feeds
        return feeds

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep changes while somebody watches, and for `LINGER_S` more."""
        self._watchers += 1
        if self._unwatched:
            self._unwatched = False
            self._recent.skip(1)
        try:
            yield
        finally:
            self._watchers -= 1
            self._linger_until = self._monotonic() + LINGER_S

    def add(self, topic: Topic, feed: Feed) -> None:
        """From now on `feed` is told of the tasks of this topic."""
        if isinstance(topic, Labelled):
            self._by_label.add(topic, feed)
            return
        self._feeds[topic] = (*self._feeds.get(topic, ()), feed)
        self._by_queue = {}

    def remove(self, topic: Topic, feed: Feed) -> None:
        """Undo `add`; harmless when it is not there."""
        if isinstance(topic, Labelled):
            self._by_label.remove(topic, feed)
            return
        left = tuple(other for other in self._feeds.get(topic, ()) if other is not feed)
        if left:
            self._feeds[topic] = left
        else:
            self._feeds.pop(topic, None)
        self._by_queue = {}

    def interrupt(self, *, foreign: bool = False) -> None:
        """Somebody else acts on some tasks now, or did for a while: no cursor from before tells the whole story.

        `foreign`: so it is with the tasks of other nodes, who tell of it themselves.
        """
        self._recent.skip(1)
        self._latest.clear()
        for feed in {feed for feeds in self._feeds.values() for feed in feeds} | set(self._by_label.items()):
            feed.interrupt(foreign=foreign)

    def close(self) -> None:
        """The service goes away: every open stream is closed with a word of it."""
        self.closing.set()

    def has(self, seq: int) -> bool:
        """True when every change after number `seq` is still in memory."""
        return self._recent.first <= seq <= self._recent.last

    def after(self, seq: int, limit: int) -> list[Change]:
        """At most `limit` changes from number `seq` + 1 on; only where `has(seq)`."""
        return self._recent.after(seq, limit)

    def cursor(self, seq: int) -> str:
        """What a client shows to go on after number `seq`."""
        return f"{self.boot}.{seq}"

    def seq_of(self, cursor: str) -> int | None:
        """The number in `cursor`; None when it is none of this boot's."""
        boot, _, number = cursor.rpartition(".")
        if boot != self.boot or not number.isascii() or not number.isdigit() or len(number) > 18:
            return None
        return int(number)
