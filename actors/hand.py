"""The clock hand of a node: one timer for all shards.

It visits the shards that have mail and those whose next expiry has come; when there is neither, it sleeps until the
earliest one. Under load it comes round every ROUND_S, so that batches form; an idle node wakes at once for mail.

Promises: each shard's events are applied in the order they came, one at a time. Bound: MAIL events a shard; a hint that
does not fit is dropped (the probe finds its task), everything else is bounded by what is under way.
"""

import asyncio
import heapq
from collections.abc import Callable

from actors.clock import Clock
from actors.core.events import Effect, Event, Submitted, Ticked
from actors.core.shard import ShardState

ROUND_S = 0.002
SLICE_EVENTS = 256
"""Events applied before the loop gets a turn."""
MAIL = 10_000
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
        if len(actor.mail) >= MAIL and type(event) is Submitted:
            self.dropped_hints += 1
            return False
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
        now_ms = self._clock.now_ms()
        applied = 0
        while self._mailed:
            _, actor = self._mailed.popitem()
            mail, actor.mail = actor.mail, []
            for event in mail:
                self.apply(actor, event, now_ms)
            applied += len(mail)
            if applied >= SLICE_EVENTS:
                applied = 0
                await asyncio.sleep(0)
                now_ms = self._clock.now_ms()
        while self._times and self._times[0][0] <= now_ms:
            ms, shard = heapq.heappop(self._times)
            due = self.actors.get(shard)
            if due is not None and due.next_ms == ms:
                due.next_ms = 0
                self.apply(due, TICK, now_ms)
                applied += 1
            if applied >= SLICE_EVENTS:
                applied = 0
                await asyncio.sleep(0)

    def _plan(self, actor: ShardActor, now_ms: int) -> None:
        next_ms = actor.state.next_ms(now_ms)
        if next_ms != actor.next_ms:
            actor.next_ms = next_ms
            heapq.heappush(self._times, (next_ms, actor.state.shard))

    async def _sleep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Until there is mail, or the next expiry has come."""
        self._wake.clear()
        timer = None
        if self._times:
            # The clock counts whole milliseconds, rounded down: the timer ends just after the full one.
            delay_ms = self._times[0][0] - self._clock.now_ms()
            timer = loop.call_later(max(delay_ms, 0) / 1_000 + 0.0005, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()
