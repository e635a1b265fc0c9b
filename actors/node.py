"""A node: shards, their clock hand, and the two writers, held together by the lease.

    submit -> Intake -> hint -> hand -> shard -> Offer -> desk -> take (lease checked) -> [dispatcher]
    where a queue has attempts claimed ahead:  take -> shard -> Write -> Recorded -> Ready -> take (lease checked)
    ended -> hand -> shard -> Write -> Ledger -> Recorded -> hand -> shard -> Publish
    what workers pull:  Offer -> lending -> take (lease checked) -> [pulling, here or at another node] -> report -> hand

All of it runs in one event loop. Children run under `run`, which ends when one of them fails: a node that is broken
stops beating, and another takes its shards over.

Promises: nothing is handed out without a valid lease.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Container, Iterable, Sequence

import structlog

from actors.asking import Asking
from actors.census import Census
from actors.claimed import Claimed
from actors.clock import Clock, boot_ms
from actors.core.desk import Desk
from actors.core.errors import Elsewhere, RingwheelError, Unavailable
from actors.core.events import (
    Acknowledge,
    Answer,
    Asked,
    Change,
    Command,
    Effect,
    Ended,
    Event,
    Find,
    Forward,
    Keep,
    Living,
    Load,
    Offer,
    Outcome,
    Parted,
    Probed,
    Publish,
    Ready,
    Record,
    Reply,
    Revoke,
    Started,
    Verdict,
    Write,
)
from actors.core.live import Live
from actors.core.reach import Reach
from actors.core.shard import ShardState, not_known
from actors.core.task import Phase, Task, by_shard, fence
from actors.hand import Hand
from actors.handover import Handover
from actors.hints import Hints
from actors.housekeeper import Housekeeper
from actors.intake import Intake
from actors.ledger import Ledger
from actors.lending import Lending
from actors.membership import Membership
from actors.ports.housekeeping import Housekeeping
from actors.ports.leases import LeaseStore
from actors.ports.ledger import LedgerStore
from actors.ports.lending import Lines
from actors.ports.links import Links
from actors.ports.queues import QueueStore
from actors.ports.reader import TaskRow
from actors.ports.tasks import TaskStore
from actors.probe import Probe
from actors.pulling import Pulling
from actors.reading import Reading
from actors.stats import Stats

HORIZON_MS = 60_000
"""Tasks due within it are in memory; the rest are rows."""
HELD = 65_536
"""Tasks that the wheels and desks of a node should hold, shared among its shards and the queues that they hold
something of; a queue may hold twice its share for a moment, and has a share of LEAST everywhere (`holding.py`)."""
LEAST, MOST = 2, 4_096
"""Bounds of a share."""
log = structlog.get_logger("node")


class Node:
    """One process of the cluster."""

    def __init__(
        self,
        *,
        boot: str,
        name: str,
        address: str,
        tasks: TaskStore,
        ledger: LedgerStore,
        leases: LeaseStore,
        queues: QueueStore,
        housekeeping: Housekeeping,
        links: Links,
        lines: Lines,
        publish: Callable[[list[Change]], None],
        interrupt: Callable[[], None] = lambda: None,
        watched: Callable[[], bool] = lambda: True,
        settings: Sequence[Callable[[], Awaitable[None]]] = (),
        boot_ms: Callable[[], float] = boot_ms,
    ) -> None:
        """`watched`: whether anybody may want to hear of changes; `settings`: what else has to be read anew
        when settings were changed.
        """
        self.name = name
        self.clock = Clock(boot_ms)
        self.stats = Stats()
        self.stats.tally.watched = watched
        self._publish = publish
        self._interrupt = interrupt
        self._queues = queues
        self._settings = (queues.refresh, *settings)
        self._settings_version = -1
        self._settings_stale = asyncio.Event()
        self._draining = False
        self._interrupted = False
        self._pull: Callable[[], None] | None = None
        """A dispatcher that wants to know when `take` may give something."""
        self._telling = False
        self._offered = False
        """Whether the desk got something in this slice of the hand's visits."""
        self._progress = asyncio.Event()
        self._living: frozenset[str] = frozenset()
        self.housekeeper = Housekeeper(housekeeping, self.clock)
        self.desk = Desk()
        self.hand = Hand(
            self.clock,
            carry_out=self._carry_out,
            done=self._carried,
            lost=self._retire,
            crashed=self._crashed,
            late=self._late,
        )
        self._claimed = Claimed(self.hand, self.stats.tally.ahead)
        """To be taken before all others."""
        self.census = Census(self.hand.actors, links)
        self.membership = Membership(
            leases,
            self.clock,
            boot,
            name,
            address,
            owned=self._own,
            settings=self._see_settings,
            links=links,
            reborn=self._reborn,
        )
        self.asking = Asking(
            self.hand, links, shards=lambda: self.membership.shards, serves=self._serves, holder=self._holder
        )
        self.handover = Handover(
            leases,
            self.membership,
            self.hand,
            self.clock,
            links,
            gave=self._gave,
            ask=self.asking.ask,
            tally=self.stats.tally,
        )
        self.hints = Hints(
            self.hand,
            self.clock,
            links,
            horizon_ms=HORIZON_MS,
            may_fire=self.may_fire,
            is_closing=self.handover.is_closing,
            holder=self._holder,
            heir=self.handover.heir,
            epoch=self.membership.epoch_before,
            publish=publish,
            watched=watched,
        )
        self.ledger = Ledger(
            ledger,
            tasks,
            boot=lambda: self.membership.boot,
            owns=self._owns,
            post=self.hand.post,
            refused=self.stats.refuse,
            vacant=self._tell_work,
            dropped=self._dropped,
        )
        self.lending = Lending(
            self.hand,
            self.clock,
            self.stats,
            shards=lambda: self.membership.shards,
            serves=self._serves,
            may_fire=self.may_fire,
            may_lend=lambda: self.may_fire() and not (self._draining or self._full()),
            read=self._read,
        )
        self.pulling = Pulling(
            self.lending,
            lines,
            shards=lambda: self.membership.shards,
            serves=self._serves,
            holder=self._holder,
        )
        self.reading = Reading(
            tasks,
            self.clock,
            (self.desk, self.lending.desk),
            shards=lambda: self.membership.shards,
            post=self.hand.post,
            answer=self._tell,
            ready=self._tell_work,
        )
        self.probe = Probe(tasks, self.clock, self._held, self._see_overdue)
        self.intake = Intake(
            tasks, self.clock, lambda: self.membership.shards, self.hints.committed, self.stats, self.may_fire
        )

    # --- life

    async def run(self) -> None:
        """Run until cancelled; an ExceptionGroup names the child that failed.

        A database that is away at the start is waited for: until the first beat, everything answers Unavailable.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self.membership.run(), name="heartbeat")
            group.create_task(self.intake.run(), name="intake")
            await self.membership.beaten.wait()
            await self.housekeeper.prepare()
            group.create_task(self.housekeeper.run(), name="housekeeper")
            group.create_task(self.ledger.run(), name="ledger")
            group.create_task(self.reading.run(), name="reading")
            group.create_task(self.probe.run(), name="probe")
            group.create_task(self._refresh_settings(), name="settings")
            group.create_task(self.handover.run(), name="handover")
            group.create_task(self.pulling.run(), name="pulling")
            group.create_task(self.hand.run(), name="hand")

    async def drain(self, grace_s: float) -> bool:
        """Give all shards to others, let running attempts end, write everything; False: some were still under way.

        Where there is no other node, nothing more is handed out.
        """
        try:
            async with asyncio.timeout(grace_s):
                await self._depart()
                self._draining = True
                while self._running():
                    self._progress.clear()
                    await self._progress.wait()
                await self.intake.idle()
                await self.ledger.idle()
        except TimeoutError:
            return not (self._running() or self.handover.forwarding)
        finally:
            self._draining = True
        return True

    async def _depart(self) -> None:
        try:
            await self.membership.depart()
        except Unavailable as error:
            log.warning("the others do not know that this node leaves", detail=error.detail)
        await self.handover.all_given()

    @property
    def ready(self) -> bool:
        """The lease is valid, every shard has a living owner, and what finishes has a place to go."""
        settled = self.housekeeper.prepared and not self.membership.orphans
        return settled and self.may_fire() and not self._draining

    # --- for dispatchers

    def serve(self, pull: Callable[[], None] | None) -> None:
        """Call `pull` soon whenever `take` may give something; None: nobody takes."""
        self._pull = pull
        self._tell_work()

    def take(self, limit: int) -> list[Task]:
        """At most `limit` due webhook tasks, started: attempt counted, payload present. [] = none now.

        What is claimed ahead has its place in the limit until it is taken, or taken back.
        """
        if not self.may_fire():
            return []
        ready = self._claimed.take(limit)
        if self._draining or self._full():
            return ready
        limit -= len(ready) + len(self.stats.tally.ahead)
        if limit <= 0:
            self._offered = True  # look again after the next visits
            if self._claimed:
                self._tell_work()
            return ready
        tasks = self.desk.take(limit)
        if unread := self.desk.unread():
            self.reading.payloads(unread)
        if not tasks:
            return ready
        self.hand.apply((shard, Started(some)) for shard, some in by_shard(tasks).items())
        started = [task for task in tasks if task.phase is Phase.RUNNING]
        if len(tasks) == limit:
            self._tell_work()  # there may be more
        return ready + started if ready else started

    def _full(self) -> bool:
        """What was started ends faster than that is read and written."""
        if self.hand.full:
            self._offered = True  # look again after the next visits
            return True
        return self.ledger.full

    def _tell_work(self) -> None:
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell_now)

    def _tell_now(self) -> None:
        self._telling = False
        if self._pull is not None:
            self._pull()
        self.lending.look()

    def advance(self, by_ms: int) -> None:
        """Set the clock forward, for users' tests, where this is the only node."""
        self.clock.advance(by_ms)
        self.hand.look()

    def may_fire(self) -> bool:
        """The lease is valid at this moment."""
        return self.membership.may_fire()

    def ended(self, outcomes: list[Outcome]) -> None:
        """These attempts ended."""
        groups: dict[int, list[Outcome]] = defaultdict(list)
        for outcome in outcomes:
            self.stats.ended(outcome)
            if self._owns(outcome.task.shard, outcome.epoch):
                groups[outcome.task.shard].append(outcome)
            else:
                self._ended_elsewhere(outcome)
        for shard, some in groups.items():
            self.hand.post(shard, Ended(some))

    def _late(self, mail: Sequence[Event]) -> None:
        """What a shard did not read before it went: the ends of attempts concern its next owner."""
        for event in mail:
            match event:
                case Ended(outcomes):
                    self._tell_not_known(outcomes)
                    for outcome in outcomes:
                        if outcome.reply is None:
                            self._ended_elsewhere(outcome)
                case Asked(commands):
                    for command in commands:
                        self._tell(Answer(command.token, error=Elsewhere()))

    def _dropped(self, records: list[Record]) -> None:
        """Their shards have gone: whoever waits for them asks the next owner."""
        self._tell_not_known(record.outcome for record in records if record.outcome is not None)

    def _tell_not_known(self, outcomes: Iterable[Outcome]) -> None:
        for answer in not_known(outcomes):
            self._tell(answer)

    def _ended_elsewhere(self, outcome: Outcome) -> None:
        if self.handover.is_past(outcome.task.shard, outcome.epoch):
            self.handover.forward([outcome])
        else:
            self.stats.tally.stale += 1

    def fence_of(self, task: Task | TaskRow | Live) -> str:
        """The fence of the task's current attempt, or of the one that a row has a claim of."""
        return fence(self.membership.timeline, task.epoch, task.attempt)

    # --- for the API, and for other nodes

    async def look(self, ids: Sequence[str]) -> dict[str, Live]:
        """What owners know of these tasks; of one that can't be reached in time, nothing."""
        return await self.asking.look(ids)

    def show(self, ids: Sequence[str]) -> list[Live]:
        """What I know of these tasks, for another node; of those that are not mine, nothing."""
        return self.asking.show(ids)

    async def measure(self, before_us: int) -> list[Reach]:
        """What my memory claims to hold and has, for another node."""
        return await self.census.own(before_us)

    async def ask(self, command: Command) -> Change | None:
        """Carry a command out; None: it was so already. Raises Unknown, Conflict, Overloaded or Unavailable."""
        return await self.asking.ask(command)

    async def answer(self, command: Command) -> Answer | None:
        """Carry out a command that another node was asked; None: its task is not mine."""
        return await self.asking.answer(command)

    @property
    def dropped_hints(self) -> int:
        """Tasks whose shards were not told of them, for want of room."""
        return self.hints.dropped + self.hand.dropped_hints

    def take_hint(self, tasks: list[Task], at_ms: int, epochs: dict[int, int]) -> None:
        """Tasks that another node accepted."""
        self.hints.take(tasks, at_ms, epochs)

    def beat_soon(self) -> None:
        """The database has news."""
        self.membership.nudge()

    async def learn_queues(self, numbers: Collection[int]) -> None:
        """Read these queues, which other nodes have made. Raises Unavailable."""
        await self._queues.learn(numbers)

    def _serves(self, shard: int) -> bool:
        return shard in self.hand.actors and not self.handover.is_closing(shard)

    def _holder(self, shard: int) -> str | None:
        """The other node that has this shard, as far as beats and my own hand-overs tell."""
        held = self.membership.holders.get(shard)
        return self.handover.heir(shard) if held is None else held.boot

    # --- what shards ask for

    def _carry_out(self, effects: list[Effect]) -> None:
        """What shards ask for, of each kind together; who is answered finds the change published."""
        changes: list[Change] = []
        records: list[Record] = []
        due: list[Task] = []
        said: list[Record] = []
        others: list[_Other] = []
        for effect in effects:
            if isinstance(effect, Publish):
                changes += effect.changes
            elif isinstance(effect, Write):
                records += effect.records
            elif isinstance(effect, Offer):
                due += effect.tasks
            elif isinstance(effect, Acknowledge):
                said += effect.records
            else:
                others.append(effect)
        if changes:
            self._publish(changes)
        if records:
            self.ledger.put(records)
        if due:
            if pulled := self.desk.put(due):
                self.lending.desk.put(pulled)
            self._offered = True
        if said:
            self.lending.acknowledge(said)
        for other in others:
            self._carry_out_other(other)

    def _carry_out_other(self, effect: "_Other") -> None:
        match effect:
            case Ready(tasks):
                self._claimed.put(task for task in tasks if not task.pulled)
                self.lending.ready(task for task in tasks if task.pulled)
                self._offered = True
            case Load(page):
                self.reading.load(page)
            case Answer():
                self._tell(effect)
            case Keep():
                self.lending.keep(effect)
            case Revoke(tasks):
                self.lending.revoke(tasks)
            case Find(commands):
                self.reading.find(commands)
            case Parted(shard):
                self.handover.parted(shard)
            case Forward(outcomes):
                self.handover.forward(outcomes)

    def _tell(self, answer: Answer) -> None:
        if isinstance(answer.token, Reply):
            self.lending.told(answer)
        else:
            self.asking.told(answer)

    def _read(self, tasks: list[Task]) -> None:
        self.reading.payloads(tasks)

    def _carried(self) -> None:
        """A slice of the hand's visits is carried out: what came due in it starts in this call."""
        self._progress.set()
        if self._offered:
            self._offered = False
            self._tell_now()

    # --- shards come and go

    def _owns(self, shard: int, epoch: int) -> bool:
        actor = self.hand.actors.get(shard)
        return actor is not None and actor.state.epoch == epoch

    def _own(self, owned: dict[int, int], swept: Container[int]) -> None:
        """The truth of the last beat: shards that came, and shards that went."""
        actors = self.hand.actors
        for shard in [shard for shard, actor in actors.items() if owned.get(shard) != actor.state.epoch]:
            self._retire(shard)
        self._see_living()
        limit, total = self._limits(len(owned))
        for actor in actors.values():
            actor.state.holding.limit, actor.state.holding.total = limit, total
        # A beat that was under way while I gave a shard away shows it as mine.
        new = {s: epoch for s, epoch in owned.items() if s not in actors and not self.handover.is_past(s, epoch)}
        if new:
            now_ms = self.clock.now_ms()
            for shard, epoch in new.items():
                self.hand.add(shard, self._state(shard, epoch, now_ms, limit, total))
                if epoch > 1 and shard not in swept:
                    self.handover.came(shard)
            if max(new.values()) > 1:
                self._interrupt_watchers()  # somebody else had some of them before
            self.stats.epoch_changes += len(new)
        self.asking.moved()
        self.hints.beaten()
        self.handover.look()
        self._tell_work()

    def _see_living(self) -> None:
        """Shards that know of attempts of other nodes hear who lives."""
        if self._living is not self.membership.living:
            self._living = self.membership.living
            for shard in self.hand.actors:
                self.hand.post(shard, Living(self._living))

    def _see_overdue(self, shard: int, event: Probed) -> bool:
        """What the probe found; True: the shard does not know all of it (one that does need not be visited)."""
        actor = self.hand.actors.get(shard)
        if actor is None or not self._serves(shard):
            return False
        if all(actor.state.holding.expects(task) for task in event.tasks):
            return False
        return self.hand.post(shard, event)

    def _state(self, shard: int, epoch: int, now_ms: int, limit: int, total: int) -> ShardState:
        return ShardState(
            shard,
            epoch,
            now_ms,
            limit=limit,
            total=total,
            horizon_ms=HORIZON_MS,
            tally=self.stats.tally,
            living=self._living,
        )

    def _retire(self, shard: int) -> None:
        """The shard belongs to somebody else: nothing of it may start, and whoever waits or watches is told."""
        self.handover.gone(shard)
        self._let_go(shard, Unavailable("the shard changed its owner; try again"))
        self._interrupt_watchers()
        self.stats.shard_losses += 1

    def _gave(self, shard: int) -> None:
        """The shard was handed over: nobody has missed anything, and the next owner is asked."""
        self._let_go(shard, Elsewhere())
        self.stats.moves += 1

    def _let_go(self, shard: int, why: RingwheelError) -> None:
        state = self.hand.remove(shard).state
        self._progress.set()
        self._tell_unsent(shard, state)
        for task in state.holding.known.values():
            task.phase = Phase.GONE
        for command in state.commands.reported():
            self._tell(Answer(command.token, error=Elsewhere()))
        self.asking.left(shard, why)
        self.asking.moved()
        self.hints.left(shard)

    def _tell_unsent(self, shard: int, state: ShardState) -> None:
        """Nothing was sent of what is claimed ahead: whoever comes to own the shard has to hear of it."""
        ahead = self.stats.tally.ahead
        unsent = [task for task in state.holding.known.values() if task in ahead] if ahead else []
        ahead.difference_update(unsent)
        if unsent and self.handover.is_past(shard, state.epoch):
            now_ms = self.clock.now_ms()
            why = "its shard was let go"
            self.handover.forward(
                [Outcome(task, task.epoch, task.attempt, Verdict.UNSENT, now_ms, now_ms, error=why) for task in unsent]
            )

    def _interrupt_watchers(self) -> None:
        """Whoever watches may have missed something."""
        if not self._interrupted:
            self._interrupted = True
            asyncio.get_running_loop().call_soon(self._tell_watchers)

    def _tell_watchers(self) -> None:
        """Once for all shards that came or went in one turn of the loop."""
        self._interrupted = False
        self._interrupt()

    def _reborn(self) -> None:
        self.stats.rejoins += 1
        for shard in list(self.hand.actors):
            self._retire(shard)
        self.handover.reborn()

    def _crashed(self, shard: int, error: Exception) -> None:
        """A shard's own code failed: it begins anew from the tables, and the others go on."""
        log.error("a shard failed; it begins anew", shard=shard, exc_info=error)
        self.stats.shard_failures += 1
        # In this order: what was under way is told to the shard under its next epoch.
        self.handover.failed(shard, self.hand.actors[shard].state.epoch)
        self._retire(shard)

    def _limits(self, shards: int) -> tuple[int, int]:
        """How many tasks a page may bring: of one queue, and of all together."""
        shares = sum(len(actor.state.holding.shares) for actor in self.hand.actors.values())
        return _within(HELD // max(shares, shards, 1)), _within(HELD // max(shards, 1))

    def _held(self) -> Iterable[tuple[int, Callable[[], dict[int, int]]]]:
        """What each shard's memory claims to hold, for the probe."""
        return [(shard, actor.state.holding.ends) for shard, actor in self.hand.actors.items() if self._serves(shard)]

    def _running(self) -> bool:
        """Whether an attempt is under way whose end is this node's to write."""
        return any(
            task.phase is Phase.WRITING or (task.phase is Phase.RUNNING and not (task.lease_ms and task.claim_ms))
            for actor in self.hand.actors.values()
            for task in actor.state.holding.known.values()
        )

    # --- settings

    def _see_settings(self, version: int) -> None:
        if version != self._settings_version:
            self._settings_version = version
            self._settings_stale.set()

    async def _refresh_settings(self) -> None:
        while True:
            await self._settings_stale.wait()
            self._settings_stale.clear()
            try:
                for refresh in self._settings:
                    await refresh()
            except Unavailable:
                self._settings_version = -1
            except RingwheelError as error:
                log.warning("reading settings failed", detail=str(error))
                self._settings_version = -1
            self._tell_work()


_Other = Ready | Load | Find | Answer | Parted | Forward | Keep | Revoke


def _within(share: int) -> int:
    return max(LEAST, min(MOST, share))
