"""What is watched on this node, as far as other nodes have to know: they tell of their changes of these topics alone.

A topic is told to them before its first snapshot is read, and stays for `LINGER_S` after the last who watched it has
left: a client that comes back with its cursor goes on where it was. Then they are told to forget it.

Promises: between `since(topic)` and now, nothing that a linked node published on the topic is missing here without an
interruption of the hub. At most `TOPICS` at once: those that linger make room, more is refused (Overloaded).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from actors.core.errors import Overloaded
from gateway.topics import Topic

TOPICS = 50_000
LINGER_S = 300.0


class _Entry:
    __slots__ = ("count", "since")

    def __init__(self) -> None:
        self.count = 0
        """Subscriptions, wherever they stand."""
        self.since: int | None = None
        """The hub's number from which on nothing is missing; None: not told yet."""


class Interest:
    """One a hub."""

    def __init__(self, seq: Callable[[], int], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._seq = seq
        self._monotonic = monotonic
        self._topics: dict[Topic, _Entry] = {}
        self._untold: dict[Topic, _Entry] = {}
        self._idle: dict[Topic, float] = {}
        """Those that nobody watches, and since when; the oldest first."""
        self._telling = asyncio.Lock()
        self.alone = True
        """There is no other node."""
        self.tell: Callable[[Sequence[Topic]], Awaitable[None]] | None = None
        """Returns when the other nodes tell of these, too."""
        self.forget: Callable[[Sequence[Topic]], None] | None = None
        """The other nodes need not tell of these any more."""

    @property
    def topics(self) -> list[Topic]:
        """All that others have to tell of."""
        return list(self._topics)

    def take(self, topic: Topic) -> None:
        """A subscription begins. Raises Overloaded."""
        entry = self._topics.get(topic)
        if entry is None:
            if len(self._topics) >= TOPICS:
                self._make_room()
            entry = self._topics[topic] = self._untold[topic] = _Entry()
        self._idle.pop(topic, None)
        entry.count += 1

    def leave(self, topic: Topic) -> None:
        """One ends."""
        entry = self._topics[topic]
        entry.count -= 1
        if not entry.count:
            self._idle[topic] = self._monotonic()

    def since(self, topic: Topic) -> int | None:
        """The hub's number from which on nothing is missing; None: there is none."""
        if self.alone:
            return 0
        entry = self._topics.get(topic)
        return None if entry is None else entry.since

    async def told(self, topic: Topic) -> None:
        """Return when every linked node tells of this topic; others will be told before they are linked."""
        entry = self._topics.get(topic)
        if entry is None or entry.since is not None:
            return
        async with self._telling:
            if entry.since is None:  # else another's turn brought it along
                await self._tell_untold()

    async def _tell_untold(self) -> None:
        new, self._untold = self._untold, {}
        try:
            if self.tell is not None and not self.alone:
                await self.tell(list(new))
        except BaseException:  # cancelled: somebody else may wait for them
            self._untold = {topic: entry for topic, entry in new.items() if self._is(topic, entry)} | self._untold
            raise
        seq = self._seq()
        for entry in new.values():
            entry.since = seq

    def sweep(self) -> None:
        """Let go of what nobody has watched for long."""
        before_s = self._monotonic() - LINGER_S
        gone: list[Topic] = []
        for topic, left_s in self._idle.items():
            if left_s > before_s:
                break
            gone.append(topic)
        self._drop(gone)

    def _make_room(self) -> None:
        """Let go of the one that nobody has watched for longest. Raises Overloaded."""
        oldest = next(iter(self._idle), None)
        if oldest is None:
            raise Overloaded("too many different things are watched on this node")
        self._drop([oldest])

    def _drop(self, topics: Sequence[Topic]) -> None:
        for topic in topics:
            del self._topics[topic], self._idle[topic]
            self._untold.pop(topic, None)
        if topics and self.forget is not None:
            self.forget(topics)

    def _is(self, topic: Topic, entry: _Entry) -> bool:
        return self._topics.get(topic) is entry
