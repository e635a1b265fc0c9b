"""Staying alive, and taking over from those who are not: the heartbeat, from the loop that fires.

Every BEAT_S this node raises its counter and reads the world in one statement: what it owns, what nobody owns, who is
there. A beat that succeeded allows firing until T_STOP_MS after it was *sent*; nothing else does. A peer whose counter
stands still is condemned, its shards are swept, and whoever finds itself dead starts again under a new boot.
docs/ownership.md is the whole protocol.

Promises: no firing beyond the lease. Refuses: a name that a living node bears (Misconfigured).
"""

import asyncio
import secrets
from collections.abc import Callable, Container, Iterable, Sequence

import structlog

from actors.clock import Clock
from actors.core.errors import Unavailable
from actors.core.members import Members
from actors.core.ring import Ring
from actors.ports.leases import Beat, Holder, LeaseStore, Peer
from actors.ports.links import Links

BEAT_S = 0.5
LEAST_S = 0.02
"""Beats are at least this far apart, however much there is to be seen."""
SETTLED_BEATS = 2
"""A node that has beaten so often has begun to fire."""
HURRIED_S = 0.1
"""The same while a node seems to be gone: its shards rest."""
BEAT_LIMIT_S = 1.2
"""A beat that takes longer is given up and sent anew. One that hangs leaves no gap that restarts the peers' clocks
(`members.py`), else a server that is slow now and then would keep the dead alive."""
T_STOP_MS = 4_000
ORPHAN_MS = 2_000
"""An orphan that its node on the ring has not taken for this long is anybody's."""
log = structlog.get_logger("membership")


def new_boot() -> str:
    """A name for one process start: random, never used again."""
    return secrets.token_hex(8)


class Membership:
    """The node's place in the cluster. `owned` is told of the shards it has, and which of them it has just swept."""

    def __init__(
        self,
        store: LeaseStore,
        clock: Clock,
        boot: str,
        name: str,
        address: str,
        *,
        owned: Callable[[dict[int, int], Container[int]], None],
        settings: Callable[[int], None],
        links: Links,
        reborn: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._name = name
        self.address = address
        """Where other nodes reach this one; as of the next boot."""
        self._owned = owned
        self._settings = settings
        self._links = links
        self._reborn = reborn
        self.boot = boot
        self.shards = 0
        self.holders: dict[int, Holder] = {}
        """The other living nodes that own shards, as of the last beat."""
        self._held_ms: dict[int, int] = {}
        """Shard -> since when I know that it is so."""
        self._secret = b""
        self.living: frozenset[str] = frozenset()
        """Boots that are not dead, as of the last beat."""
        self._peers: Sequence[Peer] = ()
        self.leaving = False
        """Others get my shards, and I get none: an operator wants it so, or I am about to go."""
        self._going = False
        self._bearers: dict[str, str] = {}
        """Name -> boot whose name it is, as of the last beat."""
        self._boots: dict[str, str] = {}
        """The same of the nodes that take shards."""
        self._ring = Ring((), 0)
        """Of those nodes."""
        self.timeline = 0
        self._members = Members(boot, name)
        self._fire_until_ms = 0.0
        self._joined = False
        self._left = False
        self._former: str | None = None
        """A boot that I gave up and have not told the database of."""
        self.orphans = True
        """Some shard has no living owner, as far as the last beat tells, or an older boot of my name may have it."""
        self.take_overs = 0
        """How often shards of the dead were taken over here."""
        self.take_overs_ms = 0
        """From their last signs of life, in sum."""
        self.orphaned = 0
        """How many have none."""
        self._orphaned_ms: dict[int, tuple[int, float]] = {}
        """Shard -> (epoch, since when) of orphans."""
        self.beaten = asyncio.Event()
        """Set by each successful beat."""
        self._nudged = asyncio.Event()
        self._gone: set[str] = set()
        """Boots that are not where they were, and not declared dead yet."""

    def may_fire(self) -> bool:
        """The last beat that succeeded was sent less than T_STOP_MS ago."""
        return self._clock.boot_ms() < self._fire_until_ms

    def silent_s(self) -> float:
        """How long ago the last beat that came through was sent; since the beginning of time when none has."""
        return (self._clock.boot_ms() - self._fire_until_ms + T_STOP_MS) / 1_000

    def nudge(self) -> None:
        """Beat soon: there is something to be seen."""
        self._nudged.set()

    def wish(self, shard: int) -> str | None:
        """The boot that the ring wants to own this shard; None: there is none, or no telling."""
        return self._boots.get(self._ring.owner(shard) or "")

    async def depart(self) -> None:
        """Take no shards any more, and have others know it. Raises Unavailable."""
        self._going = True
        self._see_ring(self._peers)
        await self._store.depart(self.boot)

    def epoch_before(self, shard: int, at_ms: int) -> int:
        """The epoch of another node's shard, if I knew before `at_ms` that it has come to it; else 0."""
        return self.holders[shard].epoch if self._held_ms.get(shard, at_ms) < at_ms else 0

    @property
    def margin_ms(self) -> float:
        """How long this node may go on firing without another beat; 0: it may not."""
        return max(self._fire_until_ms - self._clock.boot_ms(), 0.0)

    def still_ms(self, boot: str) -> int | None:
        """How long this boot's counter has stood still, as seen from here (`members.py`)."""
        return self._members.still_ms(boot, int(self._clock.boot_ms()))

    def rejoin(self) -> None:
        """Give this boot up: nothing it does counts any more; the next beat starts under a new one."""
        self._former = self.boot
        self._start_anew()

    def _start_anew(self) -> None:
        self._fire_until_ms = 0.0
        self._joined = False
        self.boot = new_boot()
        self._members = Members(self.boot, self._name)
        self._reborn()

    async def run(self) -> None:
        """Beat until cancelled, or until this node has left."""
        while not self._left:
            started_ms = self._clock.boot_ms()
            try:
                async with asyncio.timeout(BEAT_LIMIT_S):
                    await self._beat(started_ms)
            except (Unavailable, TimeoutError) as error:
                log.debug("heartbeat failed", detail=str(error) or "no answer in time")
            pause_s = HURRIED_S if self._gone else BEAT_S
            await self._rest(max(pause_s - (self._clock.boot_ms() - started_ms) / 1_000, LEAST_S))

    async def _rest(self, for_s: float) -> None:
        await asyncio.sleep(LEAST_S)
        try:
            async with asyncio.timeout(for_s - LEAST_S):
                await self._nudged.wait()
        except TimeoutError:
            return
        finally:
            self._nudged.clear()

    async def leave(self) -> None:
        """Give everything up, for good. Raises Unavailable; then others take over once this boot stands still."""
        self._left = True
        self._fire_until_ms = 0.0
        self._owned({}, ())
        await self._store.leave(self.boot)

    def _is_over(self, boot: str) -> bool:
        """Whether an answer to this boot comes too late to mean anything."""
        return self._left or boot != self.boot

    async def _beat(self, sent_ms: float) -> None:
        boot = self.boot
        if self._former is not None:
            await self._store.leave(self._former)
            self._former = None
        if not self._joined:
            joined = await self._store.join(boot, self._name, self.address)
            self.shards, self._secret = joined.shards, joined.secret
            if self.leaving:  # who was drained, or goes, does so under every boot
                await self._store.depart(boot)
            self._joined = boot == self.boot
        beat = await self._store.beat(boot)
        if self._is_over(boot):
            return
        if beat is None:
            log.warning("this boot was declared dead; joining again", boot=self.boot)
            self._start_anew()
            return
        received_ms = self._clock.boot_ms()
        if received_ms - sent_ms > BEAT_LIMIT_S * 1_000:
            raise TimeoutError  # this process was stopped meanwhile: the answer's clock, and all in it, is of long ago
        self._clock.observe(beat.clock_ms, received_ms)
        self.timeline = beat.timeline
        self._fire_until_ms = sent_ms + T_STOP_MS
        self._see_holders(beat.holders)
        self._see_ring(beat.peers)
        if self._going and any(peer.boot == boot and peer.state == "up" for peer in beat.peers):
            await self._store.depart(boot)  # an operator called back who can't stay
        self.orphaned = len(beat.orphans)
        self._links.see(boot, self._secret, beat.peers)
        self._gone = {peer.boot for peer in beat.peers if self._links.is_gone(peer.boot)}
        suspects = self._members.observe(beat.peers, int(received_ms), self._gone)
        self._owned(beat.owned, ())
        self._settings(beat.settings_version)
        self.beaten.set()
        if await self._bury(suspects):
            await self._beat(
                self._clock.boot_ms()
            )  # their shards are orphans now: nobody has to wait for the next beat
            return
        if beat.orphans and self._members.named:
            await self._sweep(boot, beat)
        if self._is_over(boot):
            return
        self.orphaned = len(beat.orphans)
        self.orphans = bool(beat.orphans) or not self._members.named
        if not beat.orphans:
            self._orphaned_ms.clear()

    def _see_holders(self, holders: dict[int, Holder]) -> None:
        if holders != self.holders:
            now_ms = self._clock.now_ms()
            self._held_ms = {
                shard: self._held_ms[shard] if self.holders.get(shard) == holder else now_ms
                for shard, holder in holders.items()
            }
            self.holders = holders

    def _see_ring(self, peers: Sequence[Peer]) -> None:
        """Who lives, and who takes shards: nodes that have begun to beat.

        Of two of one name it is the one that was there before, also while it leaves: the other may be a mistake,
        and will be refused.
        """
        self._peers = peers
        living = frozenset(peer.boot for peer in peers)
        if living != self.living:
            self.living = living
        self.leaving = self._going or any(peer.boot == self.boot and peer.state == "leaving" for peer in peers)
        before = set(self._bearers.values())
        if self._members.named:
            before.add(self.boot)
        named = {peer.name: peer for peer in sorted(peers, key=lambda peer: (peer.boot in before, peer.beats))}
        self._bearers = {name: peer.boot for name, peer in named.items()}
        self._boots = {
            name: peer.boot for name, peer in named.items() if peer.state == "up" and peer.beats >= SETTLED_BEATS
        }
        if self.leaving:
            self._boots.pop(self._name, None)
        self._ring = Ring(self._boots, self.shards)

    async def _bury(self, suspects: Iterable[tuple[str, int]]) -> bool:
        members = self._members
        dead = [boot for boot, beats in suspects if await self._store.condemn(boot, beats, gone=members.is_early(boot))]
        if dead:
            log.warning("declared dead", boots=dead)
            await self._store.end_sessions(dead)
        return bool(dead)

    async def _sweep(self, boot: str, beat: Beat) -> None:
        mine = self._mine(beat)
        if not mine:
            return
        taken = await self._store.sweep(boot, mine)
        if taken and not self._is_over(boot):
            log.info("took shards over", count=len(taken))
            self._count_take_over()
            self._owned(beat.owned | taken, taken)
            beat.orphans = {shard: epoch for shard, epoch in beat.orphans.items() if shard not in taken}

    def _count_take_over(self) -> None:
        """Unless nobody died: a cluster's first node takes shards that nobody ever had."""
        lost_ms = self._members.lost_ms(int(self._clock.boot_ms()))
        if lost_ms is not None:
            self.take_overs += 1
            self.take_overs_ms += lost_ms

    def _mine(self, beat: Beat) -> dict[int, int]:
        """Orphans that the ring gives to me, and those that nobody took in time."""
        now_ms = self._clock.boot_ms()
        known = self._orphaned_ms
        self._orphaned_ms = {
            shard: known[shard] if known.get(shard, (None,))[0] == epoch else (epoch, now_ms)
            for shard, epoch in beat.orphans.items()
        }
        if self.leaving:
            return {}
        ring = Ring((peer.name for peer in beat.peers if peer.state == "up"), self.shards)
        return {
            shard: epoch
            for shard, (epoch, since_ms) in self._orphaned_ms.items()
            if ring.owner(shard) == self._name or now_ms - since_ms >= ORPHAN_MS
        }
