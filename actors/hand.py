"""The clock hand of a node: one timer for all shards.

It visits the shards that have mail and those whose next expiry has come; when there is neither, it sleeps until the
earliest one. Under load it comes round every ROUND_S, so that batches form; an idle node wakes at once for mail.

Promises: each shard's events are applied in the order they came, one at a time. Bound: HINTED tasks in the mail; a hint
that does not fit is dropped (the probe finds its tasks), everything else is bounded by what is under way.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterator

from actors.clock import Clock
from actors.core.events import Effect, Event, Submitted, Ticked
from actors.core.shard import ShardState

ROUND_S = 0.002
SLICE_EVENTS = 256
"""Events applied before the loop gets a turn."""
HINTED = 100_000
"""Tasks that hints may bring between two rounds: more means that nobody comes round."""
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
        carry_out: Callable[[ShardActor, list[Effect]], None],
        crashed: Callable[[int, Exception], None],
    ) -> None:
        self._clock = clock
        self._carry_out = carry_out
        self._crashed = crashed
        self.actors: dict[int, ShardActor] = {}
        self._mailed: dict[int, ShardActor] = {}
        self._times: list[tuple[int, int]] = []
        """Heap of (ms, shard); an entry that is no longer its actor's `next_ms` is passed over."""
        self._wake = asyncio.Event()
        self._hinted = 0
        """Tasks of hints that came since the last round."""
        self.dropped_hints = 0

    def add(self, shard: int, state: ShardState) -> None:
        """A shard came: it is visited at once."""
        self.actors[shard] = actor = ShardActor(state)
        actor.mail.append(TICK)
        self._mailed[shard] = actor
        self._wake.set()

    def remove(self, shard: int) -> ShardActor:
        """A shard went."""
        self._mailed.pop(shard, None)
        return self.actors.pop(shard)

    def post(self, shard: int, event: Event) -> bool:
        """Mail for a shard; False: it is not here (or it was a hint, and its mailbox is full)."""
        actor = self.actors.get(shard)
        if actor is None:
            return False
        if type(event) is Submitted:
            if self._hinted >= HINTED:
                self.dropped_hints += 1
                return False
            self._hinted += len(event.tasks)
        actor.mail.append(event)
        self._mailed[shard] = actor
        self._wake.set()
        return True

    def apply(self, actor: ShardActor, event: Event, now_ms: int) -> None:
        """Apply one event now, and carry its effects out."""
        if self.actors.get(actor.state.shard) is not actor:
            return
        try:
            effects = actor.state.apply(event, now_ms)
        except Exception as error:  # noqa: BLE001 - a shard that fails takes nobody else down
            self._crashed(actor.state.shard, error)
            return
        if effects:
            self._carry_out(actor, effects)
        self._plan(actor, now_ms)

    async def run(self) -> None:
        """Come round until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            await self._visit()
            rest_s = started + ROUND_S - loop.time()
            await asyncio.sleep(max(rest_s, 0))
            if not self._mailed:
                await self._sleep(loop)

    async def _visit(self) -> None:
        """One round; what comes up meanwhile waits for the next one, so that nobody keeps the others out."""
        now_ms = self._clock.now_ms()
        for count, (actor, event) in enumerate(self._round(now_ms), 1):
            self.apply(actor, event, now_ms)
            if count % SLICE_EVENTS == 0:
                await asyncio.sleep(0)
                now_ms = self._clock.now_ms()

    def _round(self, now_ms: int) -> Iterator[tuple[ShardActor, Event]]:
        mailed, self._mailed = self._mailed, {}
        self._hinted = 0
        for actor in self._due(now_ms):  # first: others wait for nothing but an answer
            yield actor, TICK
        for actor in mailed.values():
            mail, actor.mail = actor.mail, []
            for event in mail:
                yield actor, event

    def _due(self, now_ms: int) -> list[ShardActor]:
        due: list[ShardActor] = []
        while self._times and self._times[0][0] <= now_ms:
            ms, shard = heapq.heappop(self._times)
            actor = self.actors.get(shard)
            if actor is not None and actor.next_ms == ms:
                actor.next_ms = 0
                due.append(actor)
        return due

    def _plan(self, actor: ShardActor, now_ms: int) -> None:
        next_ms = actor.state.next_ms(now_ms)
        if next_ms == actor.next_ms:
            return
        actor.next_ms = next_ms
        heapq.heappush(self._times, (next_ms, actor.state.shard))
        if self._times[0][0] == next_ms:
            self._wake.set()
        if len(self._times) > STALE_TIMES * (len(self.actors) + 1):
            self._times = [(other.next_ms, shard) for shard, other in self.actors.items() if other.next_ms]
            heapq.heapify(self._times)

    async def _sleep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Until there is mail, or the next expiry has come."""
        self._wake.clear()
        timer = None
        if self._times:
            delay_ms = self._clock.ms_until(self._times[0][0])
            if delay_ms <= 0:
                return
            timer = loop.call_later((delay_ms + TIMER_MS) / 1_000, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()
