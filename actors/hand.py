"""The clock hand of a node: one timer for all shards.

It visits the shards that have mail and those whose next expiry has come; when there is neither, it sleeps until the
earliest one. Rounds begin ROUND_S apart, those after busy ones BUSY_ROUND_S, so that batches form of what keeps coming;
an idle node wakes at once for mail, and meets an expiry at its time. Visits are callbacks of the loop: none waits for a
task to get its turn.

Promises: each shard's events are applied in the order they came, one at a time. What they lead to is gathered over a
slice (SLICE_EVENTS events) and carried out together before anybody else has a turn; a shard that fails, or is lost,
changes nothing for those before and after it. Bound: HINTED tasks in the mail; a hint that does not fit is dropped (the
probe finds its tasks), everything else is bounded by what is under way. While ENDS of attempts wait to be read it is
`full`: nothing more should be started.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence

from actors.alarm import NEVER_S, Alarm
from actors.clock import Clock
from actors.core.events import Effect, Ended, Event, Submitted, Ticked
from actors.core.shard import ShardState

ROUND_S = 0.002
BUSY_ROUND_S = 0.004
BUSY_EVENTS = 40
"""A round of more is a busy one. What a round costs besides its events, here and wherever its tasks go next, is most of
all CPU at 15,000 tasks a second: half as many rounds give a twentieth of it back (`bench pull`).
"""
SLICE_EVENTS = 256
"""Events applied before the loop gets a turn."""
HINTED = 100_000
"""Tasks that hints may bring between two rounds: more means that nobody comes round."""
ENDS = 4_000
"""As many as may wait for their records (`ledger.py`)."""
STALE_TIMES = 8
"""Planned visits a shard, on average, beyond which those that were given up are swept out."""
TIMER_MS = 0.5
"""Timers of some loops round to the nearest millisecond: a visit must not come just before its time."""
TICK = Ticked()


class ShardActor:
    """A shard's state, its mail, and when it wants to be visited."""

    __slots__ = ("mail", "next_ms", "state")

    def __init__(self, state: ShardState) -> None:
        self.state = state
        self.mail: list[Event] = []
        self.next_ms = 0


class Hand:
    """Drives the shard actors of one node."""

    def __init__(
        self,
        clock: Clock,
        *,
        carry_out: Callable[[list[Effect]], None],
        done: Callable[[], None],
        lost: Callable[[int], None],
        crashed: Callable[[int, Exception], None],
        late: Callable[[Sequence[Event]], None],
    ) -> None:
        """`carry_out`: what shards asked for, in their order; `done`: all of a slice is carried out.

        `lost`, `crashed`: take this shard out, it is somebody else's, or its own code failed; `late`: mail of a shard
        that was taken out before it was read.
        """
        self._clock = clock
        self._carry_out = carry_out
        self._done = done
        self._lost = lost
        self._crashed = crashed
        self._late = late
        self.actors: dict[int, ShardActor] = {}
        self._mailed: dict[int, ShardActor] = {}
        self._times: list[tuple[int, int]] = []
        """Heap of (ms, shard); an entry that is no longer its actor's `next_ms` is passed over."""
        self._effects: list[Effect] = []
        """What was asked for and is not carried out yet."""
        self._touched: dict[int, tuple[ShardActor, int]] = {}
        """Those to which something happened since their next visit was planned, and when (ms)."""
        self._round: Iterator[bool] | None = None
        """The round under way."""
        self._round_ms = 0
        """When the last round began."""
        self._round_s = 0.0
        """When mail is looked at again, on the loop's clock."""
        self._alarm = Alarm(self._visit)
        self._hinted = 0
        """Tasks of hints that came since the last round."""
        self._ends = 0
        """Ends of attempts that came since the last round."""
        self._reading = 0
        """Those that the round under way began with."""
        self.dropped_hints = 0
        """Tasks of hints that found the mail full."""

    def add(self, shard: int, state: ShardState) -> None:
        """A shard came: it is visited at once."""
        self.actors[shard] = ShardActor(state)
        self.post(shard, TICK)

    def remove(self, shard: int) -> ShardActor:
        """A shard went."""
        self._mailed.pop(shard, None)
        actor = self.actors.pop(shard)
        self._alarm.set(self._round_s)  # its ends count until the next round
        mail, actor.mail = actor.mail, []
        self._late(mail)
        return actor

    def post(self, shard: int, event: Event) -> bool:
        """Mail for a shard; False: it is not here (or it was a hint, and its mailbox is full)."""
        actor = self.actors.get(shard)
        if actor is None:
            return False
        if type(event) is Submitted:
            if self._hinted >= HINTED:
                self.dropped_hints += len(event.tasks)
                return False
            self._hinted += len(event.tasks)
        elif type(event) is Ended:
            self._ends += len(event.outcomes)
        actor.mail.append(event)
        if not self._mailed:
            self._alarm.set(self._round_s)
        self._mailed[shard] = actor
        return True

    def apply(self, events: Iterable[tuple[int, Event]]) -> None:
        """Apply these now, before any mail, and carry out what they lead to; shards that are not here are left out."""
        now_ms = self._clock.now_ms()
        for shard, event in events:
            if (actor := self.actors.get(shard)) is not None:
                self._apply(actor, (event,), now_ms)
        self._hand_over()
        if self._alarm.deaf:
            return  # the visit that this is a part of ends with a plan, and so does the first one
        self._plan()
        if self._times:
            self._alarm.set(self._next_s(asyncio.get_running_loop()))

    @property
    def full(self) -> bool:
        """Ends of attempts come faster than they are read: start nothing more, until a round has read them."""
        return self._ends + self._reading >= ENDS

    def look(self) -> None:
        """The clock was set forward: what is due by now is visited."""
        self._alarm.set(0)

    async def run(self) -> None:
        """Come round until cancelled; raises what a visit raised."""
        await self._alarm.run()

    def _visit(self, loop: asyncio.AbstractEventLoop) -> float:
        """One slice of a round; answers when the next one is wanted."""
        if self._round is None:
            self._round_s = loop.time() + ROUND_S
            self._round = self._go_round()
        more = next(self._round, False)
        if not more:
            self._reading = 0
        self._hand_over()
        self._done()
        self._plan()
        if more:
            return 0
        self._round = None
        return self._next_s(loop)

    def _go_round(self) -> Iterator[bool]:
        """Yields (True) after each slice, but the last one."""
        self._round_ms = now_ms = self._clock.now_ms()
        room = SLICE_EVENTS
        count = 0
        for actor, events in self._called(now_ms):
            if len(events) > room:
                yield True
                room = SLICE_EVENTS
                now_ms = self._clock.now_ms()
            room -= len(events)
            count += len(events)
            self._apply(actor, events, now_ms)
        if count > BUSY_EVENTS:
            self._round_s += BUSY_ROUND_S - ROUND_S

    def _called(self, now_ms: int) -> Iterator[tuple[ShardActor, Sequence[Event]]]:
        """What comes up meanwhile waits for the next round, so that nobody keeps the others out."""
        mailed, self._mailed = self._mailed, {}
        self._hinted = 0
        self._reading, self._ends = self._ends, 0
        for actor in self._due(now_ms):  # first: others wait for nothing but an answer
            yield actor, (TICK,)
        for actor in mailed.values():
            mail, actor.mail = actor.mail, []
            if len(mail) <= SLICE_EVENTS:
                yield actor, mail
                continue
            for start in range(0, len(mail), SLICE_EVENTS):
                yield actor, mail[start : start + SLICE_EVENTS]

    def _apply(self, actor: ShardActor, events: Sequence[Event], now_ms: int) -> None:
        """Apply some events of one shard; what they lead to is gathered."""
        state = actor.state
        if self.actors.get(state.shard) is not actor:
            self._late(events)
            return
        unread = iter(events)
        try:
            for event in unread:
                self._effects += state.apply(event, now_ms)
                if state.lost:
                    break
        except Exception as error:  # noqa: BLE001 - a shard that fails takes nobody else down
            self._hand_over()
            self._crashed(state.shard, error)
            self._late([event, *unread])
            return
        if state.lost:
            self._hand_over()
            self._lost(state.shard)
            self._late(list(unread))
            return
        self._touched[state.shard] = actor, now_ms

    def _hand_over(self) -> None:
        """Have what was gathered carried out, before anybody else has a turn."""
        if self._effects:
            effects, self._effects = self._effects, []
            self._carry_out(effects)

    def _due(self, now_ms: int) -> list[ShardActor]:
        due: list[ShardActor] = []
        while self._times and self._times[0][0] <= now_ms:
            ms, shard = heapq.heappop(self._times)
            actor = self.actors.get(shard)
            if actor is not None and actor.next_ms == ms:
                actor.next_ms = 0
                due.append(actor)
        return due

    def _plan(self) -> None:
        """When those that were visited want to be visited next: from the time of that visit on."""
        touched, self._touched = self._touched, {}
        for shard, (actor, now_ms) in touched.items():
            if self.actors.get(shard) is not actor:
                continue
            next_ms = actor.state.next_ms(now_ms)
            if next_ms != actor.next_ms:
                actor.next_ms = next_ms
                heapq.heappush(self._times, (next_ms, shard))
        if len(self._times) > STALE_TIMES * (len(self.actors) + 1):
            self._times = [(other.next_ms, shard) for shard, other in self.actors.items() if other.next_ms]
            heapq.heapify(self._times)

    def _next_s(self, loop: asyncio.AbstractEventLoop) -> float:
        """When there is something to do: an expiry at its time, unless a round has just begun; mail, and what a visit
        left over, a round later.
        """
        if not self._times:
            return self._round_s if self._mailed or self._ends else NEVER_S
        next_ms = self._times[0][0]
        if next_ms <= self._round_ms:
            return self._round_s
        delay_ms = self._clock.ms_until(next_ms)
        next_s = loop.time() + (delay_ms + TIMER_MS) / 1_000 if delay_ms > 0 else 0
        return self._round_s if self._mailed or self._ends else max(next_s, self._round_s)
