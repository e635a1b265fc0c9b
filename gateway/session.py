"""What one connection watches, and what it has yet to be told. No sockets here: text comes in, messages go out.

Promises:
- Bounded memory however slow the reader is: an outbox of `room` messages. When it is full, the subscriptions leave the
  hub's hands (a slow reader then costs a publisher nothing) and are caught up from the hub's memory later on.
- No silent loss. Catching up is exact while the reader is less than half of the hub's memory behind. Further back only
  the newest state of each task is told, after `gap` with reason `conflated`; beyond the memory's end, `gap` with
  reason `overrun` is followed by a new snapshot.
- A subscription's messages are in order: `snapshot` or `resumed`, then events by rising cursor, nothing after
  `unsubscribed`. An event's cursor means: all up to here was told, or replaced by something later.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from actors.core.errors import Conflict, Overloaded, RingwheelError, Unknown
from actors.core.events import Change
from gateway.hub import Event, Hub
from gateway.problems import problem_of
from gateway.subscription import FLOOR_MS, Stage, Subscription
from gateway.topics import LabelIndex, Labelled
from gateway.watch import Subscribe, read_message, sub_of, task_json, topic_of


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection."""

    subscriptions: int = 100
    room: int = 512
    """Messages that wait to be written."""
    chunk_bytes: int = 64 * 1024
    """Written at a time (one message more at most)."""
    scan: int = 8_192
    """Changes of the hub's memory read back at a time."""
    snapshot_tasks: int = 1_000
    message_bytes: int = 16 * 1024
    """Longest message of a client; a longer one ends the connection (close code 1009)."""
    stall_s: float = 30.0
    """A reader who takes no chunk for so long is cut off."""
    heartbeat_s: float = 20.0
    authenticate_s: float = 5.0
    """How long the first message with a key may take."""
    reopen_s: float = 1.0
    """Pause before snapshots are read anew, after an interruption, an overrun or an error; one for all that wait."""


class Session:
    """Subscriptions and outbox of one connection."""

    def __init__(self, hub: Hub, tenant: str, limits: Limits) -> None:
        self._hub = hub
        self._tenant = tenant
        self._limits = limits
        self._room = limits.room
        self._subs: dict[str, Subscription] = {}
        self._outbox: deque[tuple[bytes, Event | None]] = deque()
        self._behind: list[Subscription] = []
        self._opening: deque[Subscription] = deque()
        self._heavy = False
        self.news = asyncio.Event()
        """Set when `take` may give something."""
        self.wanted = asyncio.Event()
        """Set when `next_opening` may give something."""

    # --- from the client -----------------------------------------------------------------------------------------

    def receive(self, text: str | bytes) -> None:
        """Carry out a message of the client; a bad one is answered with `error`."""
        try:
            message = read_message(text)
        except (RingwheelError, RecursionError) as error:
            self._refuse(error, sub_of(text))
            return
        try:
            if isinstance(message, Subscribe):
                self.subscribe(message)
            else:
                self._unsubscribe(message.sub)
        except RingwheelError as error:
            self._refuse(error, message.sub)

    def subscribe(self, message: Subscribe) -> None:
        """Watch something more. Raises Conflict, Overloaded, Invalid or NotSupported."""
        if message.sub in self._subs:
            raise Conflict(f"{message.sub!r} is in use on this connection")
        if len(self._subs) >= self._limits.subscriptions:
            raise Overloaded(f"a connection has at most {self._limits.subscriptions} subscriptions")
        sub = Subscription(self, message.sub, topic_of(message.filter, self._tenant), self._tenant)
        self._hub.interest.take(sub.topic)
        self._subs[sub.name] = sub
        if message.from_ is None:
            self._open(sub)
        else:
            self._resume(sub, message.from_)

    def _resume(self, sub: Subscription, cursor: str) -> None:
        seq = self._hub.seq_of(cursor)
        since = self._hub.interest.since(sub.topic)
        if seq is not None and self._hub.has(seq) and since is not None and seq >= since:
            self.say(sub.message("resumed", cursor=cursor))
            self._follow(sub, seq)
        else:
            reason = "unknown-cursor" if seq is None or seq > self._hub.seq else "expired-cursor"
            self.say(sub.message("gap", reason=reason, snapshot=True))
            self._open(sub)

    def _unsubscribe(self, name: str) -> None:
        sub = self._subs.pop(name, None)
        if sub is None:
            raise Unknown
        self._part(sub)
        self._outbox = deque(item for item in self._outbox if item[0] is not sub.head)
        self.say(sub.message("unsubscribed"))

    def _refuse(self, error: Exception, sub: str | None) -> None:
        problem = problem_of(error)
        detail = f"nothing is subscribed as {sub!r}" if isinstance(error, Unknown) else problem.detail
        body = problem.body() | {"type": "error", "sub": sub, "problem": problem.kind, "detail": detail}
        del body["status"]
        self.say(orjson.dumps(body))

    # --- snapshots -----------------------------------------------------------------------------------------------

    def next_opening(self) -> Subscription | None:
        """The next subscription that waits for a snapshot; answer with `opened`."""
        while self._opening:
            sub = self._opening.popleft()
            if sub.stage is Stage.OPENING:
                return sub
        return None

    def paused(self) -> None:
        """A pause ended: it was that of all who wait to be opened again."""
        for sub in self._opening:
            sub.reopened = False

    def opened(self, sub: Subscription, tasks: Iterable[Change], *, seq: int, truncated: bool, now_ms: int) -> None:
        """The snapshot of `sub` as of number `seq`."""
        if sub.stage is not Stage.OPENING:
            return
        shown = list(tasks)
        sub.floor = {change.id: change.version for change in shown}
        sub.floor_until_ms = now_ms + FLOOR_MS
        sub.reopened = False
        head = orjson.dumps({"type": "snapshot", "sub": sub.name})[:-1]
        tail = orjson.dumps({"cursor": self._hub.cursor(seq), "truncated": truncated})[1:]
        self.say(head + b',"tasks":[' + b",".join(map(task_json, shown)) + b"]," + tail)
        self._heavy = True
        self._follow(sub, seq)

    def not_opened(self, sub: Subscription, error: RingwheelError) -> None:
        """The snapshot could not be read; it is to be tried again."""
        if sub.stage is Stage.OPENING:
            self._refuse(error, sub.name)
            self._reopen(sub)

    def overrun(self, sub: Subscription) -> None:
        """Too much happened while the snapshot was read; it is to be read again."""
        if sub.stage is Stage.OPENING:
            self._lose(sub)

    def _open(self, sub: Subscription) -> None:
        sub.stage = Stage.OPENING
        self._opening.append(sub)
        self.wanted.set()

    def _reopen(self, sub: Subscription) -> None:
        sub.reopened = True
        self._open(sub)

    def interrupt(self, sub: Subscription) -> None:
        """Changes were missed: a live subscription goes on from a new snapshot."""
        self._detach(sub)
        self._lose(sub, "interrupted")

    def _lose(self, sub: Subscription, reason: str = "overrun") -> None:
        self.say(sub.message("gap", reason=reason, snapshot=True))
        self._reopen(sub)

    # --- from the hub --------------------------------------------------------------------------------------------

    def put(self, sub: Subscription, event: Event) -> None:
        """An event for a live subscription."""
        outbox = self._outbox
        if not outbox:
            self.news.set()
        elif len(outbox) >= self._room:
            self._fall_behind(event.seq - 1)
            return
        sub.at = event.seq
        outbox.append((sub.head, event))

    def _fall_behind(self, seq: int) -> None:
        for sub in self._subs.values():
            if sub.stage is Stage.LIVE:
                self._detach(sub)
                self._follow(sub, max(sub.at, seq))

    def _follow(self, sub: Subscription, seq: int) -> None:
        sub.at = seq
        sub.stage = Stage.BEHIND
        self._behind.append(sub)
        self.news.set()

    def _detach(self, sub: Subscription) -> None:
        if sub.stage is Stage.LIVE:
            self._hub.remove(sub.topic, sub)
        elif sub.stage is Stage.BEHIND:
            self._behind.remove(sub)
        elif sub in self._opening:  # not when its snapshot is being read
            self._opening.remove(sub)

    def _part(self, sub: Subscription) -> None:
        self._detach(sub)
        self._hub.interest.leave(sub.topic)
        sub.stage = Stage.GONE

    def close(self) -> None:
        """The connection is gone: let go of the hub."""
        for sub in self._subs.values():
            self._part(sub)
        self._subs.clear()

    # --- to the client -------------------------------------------------------------------------------------------

    def say(self, message: bytes) -> None:
        """Queue a message that is not an event. Whoever lets clients cause them looks at `crowded` first."""
        self._outbox.append((message, None))
        self.news.set()

    @property
    def crowded(self) -> bool:
        """True: take no more messages and read no more snapshots until some of the outbox is written."""
        return self._heavy or len(self._outbox) >= self._room

    @property
    def busy(self) -> bool:
        """True while `take` has something to do."""
        return bool(self._outbox or self._behind)

    def take(self) -> list[bytes]:
        """The next messages, oldest first; may be empty while catching up."""
        if not self._outbox and self._behind:
            self._catch_up()
        chunk: list[bytes] = []
        left = self._limits.chunk_bytes
        while self._outbox and left > 0:
            head, event = self._outbox.popleft()
            message = head if event is None else head + self._text(event)
            left -= len(message)
            chunk.append(message)
        self._heavy = self._heavy and bool(self._outbox)
        return chunk

    def _text(self, event: Event) -> bytes:
        if event.text is None:
            event.text = self._hub.cursor(event.seq).encode() + b'","task":' + task_json(event.change) + b"}"
        return event.text

    # --- catching up ---------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        hub = self._hub
        for sub in [sub for sub in self._behind if not hub.has(sub.at)]:
            self._behind.remove(sub)
            self._lose(sub)
        if not self._behind:
            return
        start = min(sub.at for sub in self._behind)
        newest = _Newest(exact=hub.seq - start <= hub.kept // 2, room=self._room)
        reached = newest.read(start, hub.after(start, self._limits.scan), self._behind)
        for sub, skipped in newest.skipped.items():
            self.say(sub.message("gap", reason="conflated", snapshot=False, skipped=skipped))
        self._outbox.extend(newest.items())
        for sub in self._behind:
            sub.at = max(sub.at, reached)
        if reached == hub.seq:
            self._go_live()

    def _go_live(self) -> None:
        for sub in self._behind:
            sub.stage = Stage.LIVE
            self._hub.add(sub.topic, sub)
        self._behind = []


class _Newest:
    """Events read back for some subscriptions: all of them, or only the newest of each task."""

    def __init__(self, *, exact: bool, room: int) -> None:
        self._exact = exact
        self._room = room
        self._found: dict[tuple[Subscription, str | int], Event] = {}
        self.skipped: dict[Subscription, int] = {}

    def read(self, seq: int, changes: list[Change], subs: list[Subscription]) -> int:
        """Read changes numbered from `seq` + 1 on until full; answers the last number that was read."""
        watched: dict[str | tuple[str, str], list[Subscription]] = {}
        labelled: LabelIndex[Subscription] = LabelIndex()
        for sub in subs:
            if isinstance(sub.topic, Labelled):
                labelled.add(sub.topic, sub)
            else:
                watched.setdefault(sub.topic, []).append(sub)
        for change in changes:
            if len(self._found) >= self._room:
                break
            seq += 1
            matching = (*watched.get(change.id, ()), *watched.get((change.queue.tenant, change.queue.name), ()))
            if labelled:
                matching += (*labelled.find(change),)
            if matching:
                self._add(Event(seq, change), matching)
        return seq

    def _add(self, event: Event, subs: Iterable[Subscription]) -> None:
        for sub in subs:
            if sub.at < event.seq and sub.wants(event.change):
                key = sub, (event.seq if self._exact else event.change.id)
                if self._found.pop(key, None) is not None:
                    self.skipped[sub] = self.skipped.get(sub, 0) + 1
                self._found[key] = event

    def items(self) -> Iterable[tuple[bytes, Event]]:
        """For the outbox, by rising number."""
        return ((sub.head, event) for (sub, _), event in self._found.items())
