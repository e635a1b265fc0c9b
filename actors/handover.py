"""Planned hand-over: shards go from a living node to where the ring wants them, and from one that leaves to the others.

    H1  the shard is closed: nothing of it starts any more, what runs is claimed    (core/shard.py: Close -> Parted)
    H2  one statement makes the heir its owner, under one epoch more, if the heir is up     (ports/leases.py: give)
    H3  the heir is told, over its link, to look: a hint, its next beat shows it all the same
    H4  it loads the shard and fires; attempts that go on here are left alone, and forwarded to it when they end

Whoever gives a shard away keeps to it: a shard that was closed goes to somebody, be it this node again, for what it
held is forgotten. docs/ownership.md is the whole protocol.

Promises: a shard that was given to this node stays for DWELL_MS, unless this node leaves; BATCH shards are on their way
at once; an attempt's end is told until its owner has recorded it, or does not wait for it any more.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog

from actors.clock import Clock
from actors.core.commands import MOVES_OF
from actors.core.errors import Conflict, Overloaded, Unavailable, Unknown
from actors.core.events import Close, Command, Outcome
from actors.core.inherited import OVERRUN_MS
from actors.core.settle import deadline_ms_of
from actors.core.shard import Tally
from actors.core.task import Move
from actors.hand import Hand
from actors.membership import Membership
from actors.ports.leases import LeaseStore
from actors.ports.links import Links

BATCH = 16
DWELL_MS = 10_000
PART_S = 2.0
"""How long shards are waited for to part; those that need longer are given with the next batch."""
RETELL_S = 0.25
FRESH_MS = 2_000
"""For so long after a hand-over I know better than what the beats of others may have shown."""
FIRST_PAUSE_MS = 100
LONGEST_PAUSE_MS = 30_000
CALM_MS = 60_000
"""A shard that has failed before waits twice as long as the last time, unless that is so long ago."""
log = structlog.get_logger("handover")


class Given(NamedTuple):
    """A shard that was given away."""

    epoch: int
    """My last one."""
    heir: str | None
    """None: not known."""
    at_ms: float


class Failure(NamedTuple):
    """A shard whose own code failed."""

    epoch: int
    times: int
    at_ms: float
    again_ms: float | None
    """When it begins anew; None: it has."""


class Handover:
    """Gives the shards of one node away."""

    def __init__(
        self,
        store: LeaseStore,
        membership: Membership,
        hand: Hand,
        clock: Clock,
        links: Links,
        *,
        gave: Callable[[int], None],
        ask: Callable[[Command], Awaitable[object]],
        tally: Tally,
    ) -> None:
        """`gave`: this shard has another owner now; `ask`: carry a command out at its task's owner."""
        self._store = store
        self._membership = membership
        self._hand = hand
        self._clock = clock
        self._links = links
        self._gave = gave
        self._ask = ask
        self._tally = tally
        self._news = asyncio.Event()
        self._progress = asyncio.Event()
        self._came_ms: dict[int, float] = {}
        """Shard -> when it was given to me."""
        self._closing: dict[int, int] = {}
        """Shard -> my epoch."""
        self._parted: set[int] = set()
        self._given: dict[int, Given] = {}
        self._failed: dict[int, Failure] = {}
        """Shards whose own code failed."""
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self._under_way: set[tuple[str, int, int]] = set()
        """(task, epoch, attempt) of those that run here although their shard has another owner, or whose end that one
        has not recorded yet."""

    async def run(self) -> None:
        """Give, whenever a beat shows something to give, and forward, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forward_all(group))
            while True:
                await self._news.wait()
                self._news.clear()
                await self._begin_anew()
                while (moves := self._moves()) and await self._give(moves):
                    pass

    # --- what the node sees

    def look(self) -> None:
        """A beat has shown who is there."""
        self._news.set()
        self._progress.set()

    def came(self, shard: int) -> None:
        """Another node gave me this shard."""
        self._came_ms[shard] = self._clock.boot_ms()

    def is_closing(self, shard: int) -> bool:
        """Whether the shard is here, but on its way."""
        return shard in self._closing

    def is_past(self, shard: int, epoch: int) -> bool:
        """Whether I gave the shard away under this epoch, or a later one."""
        given = self._given.get(shard)
        return given is not None and epoch <= given.epoch

    def heir(self, shard: int) -> str | None:
        """Whom I gave this shard to, a moment ago."""
        given = self._given.get(shard)
        return given.heir if given is not None and self._clock.boot_ms() - given.at_ms < FRESH_MS else None

    def parted(self, shard: int) -> None:
        """The shard is quiet."""
        if shard in self._closing:
            self._parted.add(shard)
            tasks = self._hand.actors[shard].state.holding.known.values()
            self._under_way.update(
                # What workers say goes to the owner, whoever that is by then.
                (task.id, task.epoch, task.attempt)
                for task in tasks
                if task.claim_boot is None and not task.lease_ms
            )
            self._progress.set()

    def gone(self, shard: int) -> None:
        """The shard is not here any more, for whatever reason."""
        self._came_ms.pop(shard, None)
        epoch = self._closing.pop(shard, None)
        if epoch is not None:  # it was given, and the answer was lost
            self._given[shard] = Given(epoch, None, self._clock.boot_ms())
        self._parted.discard(shard)
        self._progress.set()

    def reborn(self) -> None:
        """What the boot before me gave away is none of my affairs: its claims are dead."""
        self._given.clear()
        self._failed.clear()
        self._under_way.clear()
        self._progress.set()

    async def all_given(self) -> None:
        """Return when nothing is here that another node should have, and all that ran has ended, and was told."""
        self._news.set()
        while self._under_way or any(heir != self._membership.boot for heir in self._moves().values()):
            self._progress.clear()
            await self._progress.wait()

    def failed(self, shard: int, epoch: int) -> None:
        """The shard's own code failed, and nothing that it held can be trusted: it was let go, and begins anew.

        It does so under another epoch, for what it asked for may still be on its way; the more often it fails, the
        later, so that a row that breaks it costs its neighbours in other shards nothing.
        """
        now_ms = self._clock.boot_ms()
        before = self._failed.get(shard)
        times = before.times + 1 if before is not None and now_ms - before.at_ms < CALM_MS else 1
        pause_ms = min(FIRST_PAUSE_MS << min(times - 1, 20), LONGEST_PAUSE_MS)
        self._given[shard] = Given(epoch, None, now_ms)
        self._failed[shard] = Failure(epoch, times, now_ms, now_ms + pause_ms)
        self._news.set()

    async def _begin_anew(self) -> None:
        now_ms, boot = self._clock.boot_ms(), self._membership.boot
        due = {
            shard: failure
            for shard, failure in self._failed.items()
            if failure.again_ms is not None and failure.again_ms <= now_ms
        }
        if not due:
            return
        try:
            await self._store.give(boot, {shard: (failure.epoch, boot) for shard, failure in due.items()})
        except Unavailable as error:
            log.debug("shards that failed can't begin anew yet; trying again", detail=error.detail)
            return
        for shard, failure in due.items():
            if self._failed.get(shard) is failure:  # it has not failed again, and this boot was not given up
                self._failed[shard] = failure._replace(again_ms=None)  # one that was not given is somebody else's
        self._membership.nudge()

    # --- giving

    def _moves(self) -> dict[int, str]:
        """Shard -> boot: what is on its way already, and what should be, as far as there is room."""
        if not self._membership.may_fire():
            return {}
        moves = {shard: self._wanted_at(shard) for shard in self._closing}
        for shard in self._hand.actors:
            if len(moves) >= BATCH:
                break
            if shard not in moves and self._may_go(shard) and (boot := self._wanted_at(shard)) != self._membership.boot:
                moves[shard] = boot
        return moves

    def _may_go(self, shard: int) -> bool:
        came_ms = self._came_ms.get(shard)
        rested = came_ms is None or self._clock.boot_ms() - came_ms >= DWELL_MS
        return rested or self._membership.leaving

    def _wanted_at(self, shard: int) -> str:
        return self._membership.wish(shard) or self._membership.boot

    async def _give(self, moves: dict[int, str]) -> bool:
        """Whether all of it is done."""
        boot = self._membership.boot
        for shard in moves.keys() - self._closing.keys():
            self._closing[shard] = self._hand.actors[shard].state.epoch
            self._hand.post(shard, Close())
        await self._all_parted()
        ready = {shard: (self._closing[shard], moves[shard]) for shard in self._parted & moves.keys()}
        try:
            given = await self._store.give(boot, ready) if ready else set()
        except Unavailable as error:
            log.debug("shards could not be given; trying again", detail=error.detail)
            return False
        if boot != self._membership.boot:
            return False
        for shard in given & self._closing.keys():  # of others, a beat was faster than this answer
            self._part_with(shard, moves[shard])
        for heir in sorted({moves[shard] for shard in given} - {boot}):
            self._links.given(heir)
        self._membership.nudge()
        return given == moves.keys()

    async def _all_parted(self) -> None:
        try:
            async with asyncio.timeout(PART_S):
                while self._closing.keys() - self._parted:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            log.warning("some shards are slow to part", count=len(self._closing.keys() - self._parted))

    def _part_with(self, shard: int, heir: str) -> None:
        if heir == self._membership.boot:
            return  # it begins anew when a beat shows its epoch
        self._given[shard] = Given(self._closing.pop(shard), heir, self._clock.boot_ms())
        self._parted.discard(shard)
        self._gave(shard)
        self._progress.set()

    # --- forwarding

    @property
    def forwarding(self) -> int:
        """Attempts that other owners have to hear of."""
        return len(self._under_way)

    def forward(self, outcomes: list[Outcome]) -> None:
        """Attempts under way when their shard was given away have ended."""
        for outcome in outcomes:
            self._outcomes.put_nowait(outcome)

    async def _forward_all(self, group: asyncio.TaskGroup) -> None:
        while True:
            group.create_task(self._forward(await self._outcomes.get()))

    async def _forward(self, outcome: Outcome) -> None:
        """Tell it until it is recorded, or the owner has given the attempt up."""
        task, move = outcome.task, MOVES_OF.get(outcome.verdict, Move.RETRY)
        until_ms = outcome.started_ms + deadline_ms_of(task.spec, task.queue) + OVERRUN_MS
        while self._clock.now_ms() < until_ms:
            try:
                await self._ask(Command(move, task.id, None, outcome=outcome, tenant=task.queue.tenant))
            except (Unavailable, Overloaded):
                await asyncio.sleep(RETELL_S)
                continue
            except (Conflict, Unknown):
                self._tally.stale += 1
            break
        self._under_way.discard((task.id, outcome.epoch, outcome.attempt))
        self._progress.set()
