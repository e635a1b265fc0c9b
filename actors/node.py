"""A node: shards, their clock hand, and the two writers, held together by the lease.

    submit -> Intake -> hint -> hand -> shard -> Offer -> desk -> take (lease checked) -> [dispatcher]
    ended -> hand -> shard -> Write -> Ledger -> Recorded -> hand -> shard -> Publish

All of it runs in one event loop. Children run under `run`, which ends when one of them fails: a node that is broken
stops beating, and another takes its shards over.

Promises: nothing is handed out without a valid lease; a command is answered or refused within ASK_LIMIT_S.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog

from actors.clock import Clock, boot_ms
from actors.core.changes import accepted
from actors.core.desk import Desk
from actors.core.errors import RingwheelError, Unavailable
from actors.core.events import (
    Answer,
    Asked,
    Change,
    Command,
    Effect,
    Ended,
    Find,
    Load,
    Offer,
    Outcome,
    Probed,
    Publish,
    Record,
    Started,
    Submitted,
    Write,
)
from actors.core.ids import shard_of
from actors.core.live import Live, gone, live
from actors.core.shard import ShardState
from actors.core.task import Phase, Task, by_shard, fence
from actors.hand import HINTED, Hand
from actors.housekeeper import Housekeeper
from actors.intake import Intake
from actors.ledger import Ledger
from actors.membership import Membership
from actors.ports.housekeeping import Housekeeping
from actors.ports.leases import LeaseStore
from actors.ports.ledger import LedgerStore
from actors.ports.links import Links
from actors.ports.queues import QueueStore
from actors.ports.reader import TaskRow
from actors.ports.tasks import TaskStore
from actors.probe import Probe
from actors.reading import Reading
from actors.stats import Stats

HORIZON_MS = 60_000
"""Tasks due within it are in memory; the rest are rows."""
HELD = 65_536
"""Tasks that the wheels and desks of a node should hold, shared among its shards and the queues that they hold
something of; a queue may hold twice its share for a moment, and has a share of LEAST everywhere (`holding.py`)."""
LEAST, MOST = 2, 4_096
"""Bounds of a share."""
ASK_LIMIT_S = 10.0
OWNER_WAIT_S = 2.0
LOOK_LIMIT_S = 0.5
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
        publish: Callable[[list[Change]], None],
        interrupt: Callable[[], None] = lambda: None,
        watched: Callable[[], bool] = lambda: True,
        settings: Sequence[Callable[[], Awaitable[None]]] = (),
        boot_ms: Callable[[], float] = boot_ms,
    ) -> None:
        """`watched`: whether anybody may want to hear of a task's acceptance; `settings`: what else has to be read anew
        when settings were changed.
        """
        self.name = name
        self._links = links
        self.clock = Clock(boot_ms)
        self.stats = Stats()
        self._publish = publish
        self._interrupt = interrupt
        self._watched = watched
        self._settings = (queues.refresh, *settings)
        self._settings_version = -1
        self._settings_stale = asyncio.Event()
        self._waiting: dict[int, tuple[int, asyncio.Future[Answer]]] = {}
        """Token -> (shard, whoever waits)."""
        self._token = 0
        self._draining = False
        self._interrupted = False
        self._pull: Callable[[], None] | None = None
        """A dispatcher that wants to know when `take` may give something."""
        self._telling = False
        self._unrouted: list[tuple[list[Task], int]] = []
        """Tasks committed here, and when, while the lease had run out: who owns them shows with the next beat."""
        self._unrouted_count = 0
        self._offered = False
        """Whether the desk got something in this slice of the hand's visits."""
        self._progress = asyncio.Event()
        self._owning = asyncio.Event()
        self.housekeeper = Housekeeper(housekeeping, self.clock)
        self.desk = Desk()
        self.hand = Hand(
            self.clock, carry_out=self._carry_out, done=self._carried, lost=self._retire, crashed=self._crashed
        )
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
        self.ledger = Ledger(
            ledger,
            tasks,
            boot=lambda: self.membership.boot,
            owns=self._owns,
            post=self.hand.post,
            refused=self.stats.refuse,
            vacant=self._tell_work,
        )
        self.reading = Reading(
            tasks,
            self.clock,
            self.desk,
            shards=lambda: self.membership.shards,
            post=self.hand.post,
            answer=self._answer,
            ready=self._tell_work,
        )
        self.probe = Probe(tasks, self.clock, self._held, self._see_overdue)
        self.intake = Intake(tasks, self.clock, lambda: self.membership.shards, self._hint, self.stats)

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
            group.create_task(self.hand.run(), name="hand")

    async def drain(self, grace_s: float) -> bool:
        """Stop handing out, let running attempts end, write everything; True: nothing was left behind."""
        self._draining = True
        try:
            async with asyncio.timeout(grace_s):
                while self._running():
                    self._progress.clear()
                    await self._progress.wait()
                await self.intake.idle()
                await self.ledger.idle()
        except TimeoutError:
            return False
        return True

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
        """At most `limit` due webhook tasks, started: attempt counted, payload present. [] = none now."""
        if self._draining or self.ledger.full or not self.may_fire():
            return []
        tasks = self.desk.take(limit)
        if unread := self.desk.unread():
            self.reading.payloads(unread)
        self.hand.apply((shard, Started(some)) for shard, some in by_shard(tasks).items())
        started = [task for task in tasks if task.phase is Phase.RUNNING]
        if len(tasks) == limit:
            self._tell_work()  # there may be more
        return started

    def _tell_work(self) -> None:
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell_now)

    def _tell_now(self) -> None:
        self._telling = False
        if self._pull is not None:
            self._pull()

    def may_fire(self) -> bool:
        """The lease is valid at this moment."""
        return self.membership.may_fire()

    def ended(self, outcomes: list[Outcome]) -> None:
        """These attempts ended."""
        groups: dict[int, list[Outcome]] = defaultdict(list)
        for outcome in outcomes:
            groups[outcome.task.shard].append(outcome)
            self.stats.ended(outcome)
        for shard, some in groups.items():
            if not self.hand.post(shard, Ended(some)):
                self.stats.tally.stale += len(some)

    def fence_of(self, task: Task | TaskRow | Live) -> str:
        """The fence of the task's current attempt, or of the one that a row has a claim of."""
        return fence(self.membership.timeline, task.epoch, task.attempt)

    # --- for the API

    async def look(self, ids: Sequence[str]) -> dict[str, Live]:
        """What owners know of these tasks; of one that can't be reached within LOOK_LIMIT_S, nothing."""
        found: dict[str, Live] = {}
        theirs: dict[str, list[str]] = defaultdict(list)
        for task_id in ids:
            shard = shard_of(task_id, self.membership.shards)
            if shard in self.hand.actors:
                self._look(shard, task_id, found)
            elif (boot := self.membership.holders.get(shard)) is not None:
                theirs[boot].append(task_id)
        if theirs:
            async with asyncio.TaskGroup() as group:
                for boot, some in theirs.items():
                    group.create_task(self._look_there(boot, some, found))
        return found

    def show(self, ids: Sequence[str]) -> list[Live]:
        """What I know of these tasks, for another node; of those that are not mine, nothing."""
        found: dict[str, Live] = {}
        for task_id in ids:
            self._look(shard_of(task_id, self.membership.shards), task_id, found)
        return list(found.values())

    def _look(self, shard: int, task_id: str, found: dict[str, Live]) -> None:
        actor = self.hand.actors.get(shard)
        if actor is None:
            return
        holding = actor.state.holding
        task = holding.known.get(task_id)
        if task is not None:
            found[task_id] = live(task)
        elif rev := holding.last_rev(task_id):
            found[task_id] = gone(task_id, rev)

    async def _look_there(self, boot: str, ids: list[str], found: dict[str, Live]) -> None:
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                found |= {told.id: told for told in await self._links.look(boot, ids)}
        except TimeoutError:
            log.debug("an owner did not tell of its tasks in time", boot=boot)

    async def ask(self, command: Command) -> Change | None:
        """Carry a command out; None: it was so already. Raises Unknown, Conflict, Overloaded or Unavailable."""
        try:
            async with asyncio.timeout(ASK_LIMIT_S):
                answer = await self._ask_owner(command)
        except TimeoutError:
            raise Unavailable("the command's outcome is not known in time") from None
        if answer.error is not None:
            raise answer.error
        return answer.change

    async def _ask(self, shard: int, command: Command) -> Answer:
        self._token += 1
        command.token = token = self._token
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[token] = (shard, future)
        try:
            self.hand.post(shard, Asked([command]))
            return await future
        finally:
            del self._waiting[token]

    async def answer(self, command: Command) -> Answer | None:
        """Carry out a command that another node was asked; None: its task is not mine."""
        shard = shard_of(command.id, self.membership.shards)
        return await self._ask(shard, command) if shard in self.hand.actors else None

    async def _ask_owner(self, command: Command) -> Answer:
        """The owner's answer, wherever it is: who is not there within OWNER_WAIT_S is not waited for."""
        shard = shard_of(command.id, self.membership.shards)
        try:
            async with asyncio.timeout(OWNER_WAIT_S) as limit:
                while True:
                    if shard in self.hand.actors:
                        limit.reschedule(None)
                        return await self._ask(shard, command)
                    boot = self.membership.holders.get(shard)
                    if boot is not None and (answer := await self._links.ask(boot, command)) is not None:
                        return answer
                    self._owning.clear()
                    await self._owning.wait()
        except TimeoutError:
            raise Unavailable("the owner of this task can't be reached from here", 2_000) from None

    # --- what shards ask for

    def _carry_out(self, effects: list[Effect]) -> None:
        """What shards ask for, of each kind together; who is answered finds the change published."""
        changes: list[Change] = []
        records: list[Record] = []
        due: list[Task] = []
        others: list[Load | Find | Answer] = []
        for effect in effects:
            if isinstance(effect, Publish):
                changes += effect.changes
            elif isinstance(effect, Write):
                records += effect.records
            elif isinstance(effect, Offer):
                due += effect.tasks
            else:
                others.append(effect)
        if changes:
            self._publish(changes)
            self._count(changes)
        if records:
            self.ledger.put(records)
        if due:
            self.desk.put(due)
            self._offered = True
        for other in others:
            self._carry_out_other(other)

    def _carry_out_other(self, effect: Load | Find | Answer) -> None:
        match effect:
            case Load(page):
                self.reading.load(page)
            case Answer():
                self._answer(effect)
            case Find(commands):
                self.reading.find(commands)

    def _carried(self) -> None:
        """A slice of the hand's visits is carried out: what came due in it starts in this call."""
        self._progress.set()
        if self._offered:
            self._offered = False
            self._tell_now()

    def _answer(self, answer: Answer) -> None:
        assert isinstance(answer.token, int)
        waiting = self._waiting.get(answer.token)
        if waiting is not None and not waiting[1].done():
            waiting[1].set_result(answer)

    def _hint(self, tasks: list[Task]) -> None:
        """Tasks were committed here: tell their owners, and of those that no shard has loaded yet, watchers alone."""
        now_ms = self.clock.now_ms()
        near = [task for task in tasks if task.due_ms <= now_ms + HORIZON_MS]
        if len(near) < len(tasks) and self._watched():
            self._tell_accepted([task for task in tasks if task.due_ms > now_ms + HORIZON_MS])
        if self.may_fire():
            self._tell_owners(near, now_ms)
        elif self._unrouted_count + len(near) <= HINTED:
            self._unrouted.append((near, now_ms))
            self._unrouted_count += len(near)

    def _tell_owners(self, tasks: list[Task], at_ms: int) -> None:
        theirs: dict[str, list[Task]] = defaultdict(list)
        for shard, some in self._take_submitted(tasks, at_ms).items():
            if (boot := self.membership.holders.get(shard)) is not None:
                theirs[boot] += some
        for boot, some in theirs.items():
            self._links.hint(boot, some, at_ms)

    def take_hint(self, tasks: list[Task], at_ms: int) -> None:
        """The same of tasks that another node accepted; what is not mine is found by its owner's probe."""
        self._take_submitted(tasks, at_ms)

    def _take_submitted(self, tasks: list[Task], at_ms: int) -> dict[int, list[Task]]:
        """Tell my shards of theirs, and watchers before it can start; what is not mine is answered."""
        foreign: dict[int, list[Task]] = {}
        watched = self._watched()
        for shard, some in by_shard(tasks).items():
            if shard not in self.hand.actors:
                foreign[shard] = some
                continue
            if watched:
                self._tell_accepted(some)
            self.hand.post(shard, Submitted(some, at_ms))
        return foreign

    async def learn_queues(self) -> None:
        """Read the queues that other nodes have made. Raises Unavailable."""
        await self._settings[0]()

    def _tell_accepted(self, tasks: list[Task]) -> None:
        self._publish([accepted(task) for task in tasks if self._is_new(task)])

    def _is_new(self, task: Task) -> bool:
        """False when the probe was faster, so that what it found may have been told of already."""
        actor = self.hand.actors.get(task.shard)
        return actor is None or not actor.state.holding.knows(task)

    def _count(self, changes: list[Change]) -> None:
        finished = self.stats.finished
        for change in changes:
            if change.state in finished:
                finished[change.state] += 1

    # --- shards come and go

    def _owns(self, shard: int, epoch: int) -> bool:
        actor = self.hand.actors.get(shard)
        return actor is not None and actor.state.epoch == epoch

    def _own(self, owned: dict[int, int]) -> None:
        """The truth of the last beat: shards that came, and shards that went."""
        actors = self.hand.actors
        for shard in [shard for shard, actor in actors.items() if owned.get(shard) != actor.state.epoch]:
            self._retire(shard)
        limit, total = self._limits(len(owned))
        for actor in actors.values():
            actor.state.holding.limit, actor.state.holding.total = limit, total
        new = {shard: epoch for shard, epoch in owned.items() if shard not in actors}
        if new:
            now_ms = self.clock.now_ms()
            for shard, epoch in new.items():
                self.hand.add(shard, self._state(shard, epoch, now_ms, limit, total))
            if max(new.values()) > 1:
                self._interrupt_watchers()  # somebody else had some of them before
            self.stats.epoch_changes += len(new)
        self._owning.set()  # who looks for an owner may find one now, here or elsewhere
        if self._unrouted and self.may_fire():
            unrouted, self._unrouted, self._unrouted_count = self._unrouted, [], 0
            for tasks, at_ms in unrouted:
                self._tell_owners(tasks, at_ms)
        self._tell_work()

    def _see_overdue(self, shard: int, event: Probed) -> bool:
        """What the probe found; True: the shard does not know all of it (one that does need not be visited)."""
        actor = self.hand.actors.get(shard)
        if actor is None or all(actor.state.holding.expects(task) for task in event.tasks):
            return False
        return self.hand.post(shard, event)

    def _state(self, shard: int, epoch: int, now_ms: int, limit: int, total: int) -> ShardState:
        tally = self.stats.tally
        return ShardState(shard, epoch, now_ms, limit=limit, total=total, horizon_ms=HORIZON_MS, tally=tally)

    def _retire(self, shard: int) -> None:
        """The shard belongs to somebody else: nothing of it may start, and whoever waits or watches is told."""
        state = self.hand.remove(shard).state
        self._interrupt_watchers()
        self._progress.set()
        self.stats.shard_losses += 1
        for task in state.holding.known.values():
            task.phase = Phase.GONE
        for token, (owner, _) in self._waiting.items():
            if owner == shard:
                self._answer(Answer(token, error=Unavailable("the shard changed its owner; try again")))

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

    def _crashed(self, shard: int, error: Exception) -> None:
        """A shard's own code failed. Nothing it holds can be trusted: start again from the tables, as a new boot."""
        log.error("a shard failed; starting again under a new boot", shard=shard, exc_info=error)
        self.membership.rejoin()

    def _limits(self, shards: int) -> tuple[int, int]:
        """How many tasks a page may bring: of one queue, and of all together."""
        shares = sum(len(actor.state.holding.shares) for actor in self.hand.actors.values())
        return _within(HELD // max(shares, shards, 1)), _within(HELD // max(shards, 1))

    def _held(self) -> Iterable[tuple[int, dict[int, int]]]:
        """What each shard's memory claims to hold, for the probe."""
        return [(shard, actor.state.holding.ends()) for shard, actor in self.hand.actors.items()]

    def _running(self) -> bool:
        """Whether an attempt is under way whose end is this node's to write."""
        return any(
            task.phase in (Phase.RUNNING, Phase.WRITING)
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
            except RingwheelError as error:
                log.warning("reading settings failed", detail=str(error))
                self._settings_version = -1
            self._tell_work()


def _within(share: int) -> int:
    return max(LEAST, min(MOST, share))
