"""A shard: the whole life of its tasks, as one pure function.

    Submitted / Loaded / Probed ->  waiting  --(wheel)-->  offered  --Started-->  running  --Ended-->  writing
    writing  --Recorded-->  gone (finished)  or  waiting again (retry, reschedule)

A shard that is given to another node is closed first: what waits is let go, what runs is claimed, what is being written
is waited for; then it has parted, writes nothing any more, and passes on how the claimed attempts end.

`apply(event, now_ms)` is all there is: events in, effects out, in batches. I/O that an effect asks for comes back as an
event, so restart, hand-over, replay and simulation are the same call, and there is one writer and no lock.

Promises: no attempt before `due_ms`; at most one record of a task under way; every command is answered once; a change
is published after its commit. Refuses: outcomes under another fence than the current one (counted), and answers that
were meant for the shard under another epoch.
"""

from collections.abc import Callable, Iterable
from typing import Any

from actors.core import changes
from actors.core.ahead import Ahead
from actors.core.claims import NEVER_MS, Claims
from actors.core.commands import Commands, as_command
from actors.core.errors import Elsewhere
from actors.core.events import (
    Acknowledge,
    Answer,
    Asked,
    Change,
    Close,
    Command,
    Effect,
    Ended,
    Event,
    Extended,
    Find,
    Forward,
    Found,
    HandedOut,
    Keep,
    Living,
    Load,
    Loaded,
    LoadFailed,
    Looked,
    Offer,
    Op,
    Outcome,
    Parted,
    Probed,
    Publish,
    Ready,
    Record,
    Recorded,
    Refused,
    Reply,
    Revoke,
    Started,
    Submitted,
    Ticked,
    Vanished,
    Verdict,
    Write,
)
from actors.core.holding import GENERATION_MS, Holding
from actors.core.inherited import OVERRUN_MS, Inherited
from actors.core.lease import Leases, unsure
from actors.core.queue import Unheard
from actors.core.settle import HELD_MS, claim, deadline_ms_of, expiry_ms_of, finish, settle
from actors.core.task import TERMINAL, Phase, State, Task

HINT_MS = 2_000
"""A hint older than this is not trusted: its tasks are read from the tables."""
AHEAD_MS = 100
"""Nor is one that is from further ahead: its sender does not know yet that the primary's clock was set back, and its
age can't be told. Nodes that have known the clock for as long differ by less.
"""

# On 3.11 a member of an enum costs ten times a global.
_WAITING, _OFFERED, _RUNNING, _WRITING, _GONE = Phase
_FINISH, _UNSENT, _CLAIMED, _RETRY = Op.FINISH, Verdict.UNSENT, State.RUNNING, Unheard.RETRY


class Tally:
    """What shards count; shards of one node share it."""

    __slots__ = ("ahead", "finished", "found", "held", "lapsed", "stale", "watched")

    def __init__(self) -> None:
        self.ahead: set[Task] = set()
        """Attempts that are claimed ahead, and not handed out yet (`ahead.py`)."""
        self.finished: dict[State, int] = dict.fromkeys(sorted(TERMINAL), 0)
        self.watched: Callable[[], bool] = lambda: True
        """Whether anybody may want to hear of changes: of starts and ends that nobody does, none are told."""
        self.found = 0
        """Overdue rows that the probe had to bring: 0 in a healthy cluster."""
        self.held = 0
        """Attempts whose end nobody knows, and that wait for somebody to say it."""
        self.lapsed = 0
        """Leases that ran out."""
        self.stale = 0
        """Outcomes refused because their fence was not the current one."""


class ShardState:
    """One shard under one epoch. Made anew with each take-over; time is the primary's clock, in ms."""

    def __init__(
        self,
        shard: int,
        epoch: int,
        now_ms: int,
        *,
        limit: int,
        total: int | None = None,
        horizon_ms: int,
        tally: Tally | None = None,
        living: frozenset[str] = frozenset(),
    ) -> None:
        """`living`: boots whose claims are left alone; `Living` tells of changes."""
        self.shard = shard
        self.epoch = epoch
        self.holding = Holding(shard, epoch, now_ms, limit=limit, total=total or limit, horizon_ms=horizon_ms)
        self.commands = Commands(self.holding)
        self.claims = Claims()
        self.leases = Leases(self.holding, epoch)
        self.inherited = Inherited(self.holding, self.leases, epoch, living)
        self.tally = tally or Tally()
        self.ahead = Ahead(self.holding, epoch, self.tally.ahead)
        self.born_ms = now_ms
        """What was sent to the database, or read there, no later than this may show what an earlier owner has finished
        since."""
        self._closed = False
        self._parted = False
        self.lost = False
        """A write was refused although nothing else changed the row: the shard belongs to somebody else."""
        self._handlers: dict[type, Callable[[Any, int], list[Effect]]] = {
            Submitted: self._submitted,
            Ticked: self._ticked,
            Loaded: self._loaded,
            LoadFailed: self._load_failed,
            Started: self._start,
            HandedOut: self._hand_out,
            Ended: self._ended,
            Recorded: self._recorded,
            Refused: self._refused,
            Asked: self._asked,
            Looked: self._looked,
            Probed: self._probed,
            Vanished: self._vanished,
            Close: self._close,
            Extended: self._extend,
            Living: self._see_living,
        }

    def apply(self, event: Event, now_ms: int) -> list[Effect]:
        """What `event` leads to. The only way to change this state."""
        if self._closed:
            return self._part(event, now_ms)
        effects = self._handlers[type(event)](event, now_ms)
        holding = self.holding
        if holding.spilled or holding.next_page_ms <= now_ms:
            effects.extend(Load(page) for page in holding.pages(now_ms))
        return effects

    def next_ms(self, now_ms: int) -> int:
        """When `Ticked` has something to do, at the latest."""
        if self._parted:
            return NEVER_MS
        holding = self.holding
        next_ms = holding.next_page_ms
        if self.claims.next_ms < next_ms:
            next_ms = self.claims.next_ms
        if (expiry_ms := holding.timers.next_expiration()) is not None and expiry_ms < next_ms:
            next_ms = expiry_ms
        if holding.spilled and (refill_ms := holding.next_refill_ms(now_ms)) is not None:
            next_ms = min(next_ms, refill_ms)
        return next_ms

    # --- a task comes in

    def _submitted(self, event: Submitted, now_ms: int) -> list[Effect]:
        if event.epoch != self.epoch or not -AHEAD_MS <= now_ms - event.at_ms <= HINT_MS:
            self.holding.overlook(event.tasks)
            return []
        return self._offer(self.holding.admit(event.tasks, now_ms), now_ms)

    def _loaded(self, event: Loaded, now_ms: int) -> list[Effect]:
        return self._offer_rows(self.holding.loaded(event, now_ms), now_ms)

    def _load_failed(self, event: LoadFailed, now_ms: int) -> list[Effect]:
        self.holding.failed(event.page)
        return []

    def _probed(self, event: Probed, now_ms: int) -> list[Effect]:
        if now_ms - event.asked_ms > GENERATION_MS or event.asked_ms <= self.born_ms:
            return []
        holding = self.holding
        unknown = [task for task in event.tasks if not holding.expects(task)]
        due = holding.admit(unknown, now_ms)
        self.tally.found += sum(task.phase is not _GONE for task in unknown)
        return self._offer_rows(due, now_ms)

    def _offer_rows(self, due: list[Task], now_ms: int) -> list[Effect]:
        """Rows from the tables: those with a claim were running under an earlier owner."""
        claimed = [task for task in due if task.claim_ms is not None]
        if not claimed:
            return self._offer(due, now_ms)
        overtaken = self.inherited.judge(claimed, now_ms)
        effects = self._offer([task for task in due if task.claim_ms is None], now_ms)
        return [Write(overtaken), *effects] if overtaken else effects

    def _see_living(self, event: Living, now_ms: int) -> list[Effect]:
        lost = self.inherited.see_living(event.boots, now_ms)
        return [Write(lost)] if lost else []

    # --- it is due, and starts

    def _ticked(self, event: Ticked, now_ms: int) -> list[Effect]:
        holding = self.holding
        holding.turn_generation(now_ms)
        due: list[Task] = []
        records: list[Record] = []
        for task in holding.timers.advance(now_ms):
            if task.phase is _WAITING and task.claim_ms is None:
                due.append(task)
            elif task.phase is _WAITING:
                records.extend(self.inherited.judge([task], now_ms))
            elif task.phase is _OFFERED:
                records.append(self._expire(task, now_ms))
            elif task in self.ahead:
                records.extend(self.ahead.take_back([task], now_ms))
            elif not task.lease_ms:
                records.append(self.inherited.overdue(task, now_ms))
            elif (lapsed := self.leases.lapse(task, now_ms)) is not None:
                self.tally.lapsed += 1
                records.append(lapsed)
        if self.claims.next_ms <= now_ms:
            records.extend(claim(task, self.epoch, now_ms) for task in self.claims.outlived(now_ms))
        effects = self._offer(due, now_ms)
        if records:
            effects.append(Write(records))
        return effects

    def _offer(self, due: list[Task], now_ms: int) -> list[Effect]:
        if not due:
            return []
        dead: list[Record] = []
        watched: list[Task] = []
        for task in due:
            if task.spec.ttl_ms is not None and (expiry_ms := expiry_ms_of(task)) is not None:
                if expiry_ms <= now_ms:
                    dead.append(self._expire(task, now_ms))
                else:
                    task.wake_ms = expiry_ms
                    watched.append(task)
        offered = [task for task in due if task.phase is _WAITING] if dead else due
        self.holding.offer(offered)
        if watched:
            self.holding.timers.insert_many(watched)
        effects: list[Effect] = [Offer(offered)] if offered else []
        if dead:
            effects.append(Write(dead))
        return effects

    def _expire(self, task: Task, now_ms: int) -> Record:
        self.holding.withdraw(task, _WRITING)
        return finish(task, self.epoch, State.EXPIRED, now_ms)

    def _start(self, event: Started, now_ms: int) -> list[Effect]:
        started = [task for task in event.tasks if task.phase is _OFFERED]
        ahead: list[Task] = []
        for task in started:
            self.holding.withdraw(task, _RUNNING)
            task.attempt += 1
            task.step += 1
            task.epoch = self.epoch
            task.started_ms = now_ms
            if task.lateness_ms is None:
                task.lateness_ms = max(now_ms - task.schedule_ms, 0)
            if task.spec.http is None:
                self.leases.begin(task, now_ms)
            if task.queue.unknown is _RETRY:
                self.claims.watch(task)
            else:
                ahead.append(task)
        if ahead:
            records = self.ahead.claim(ahead, now_ms)
            started = [task for task in started if task.phase is _RUNNING]
            return [*self._tell_started(started), Write(records)]
        return self._tell_started(started)

    def _tell_started(self, started: list[Task]) -> list[Effect]:
        return [Publish([changes.started(task) for task in started])] if self.tally.watched() else []

    def _hand_out(self, event: HandedOut, now_ms: int) -> list[Effect]:
        late = self.ahead.hand_out(event.tasks, now_ms)
        for task in event.tasks:
            if task.lease_ms and task.phase is _RUNNING:
                self.leases.begin(task, now_ms)  # its worker has not had any of it yet
        return [Write(late)] if late else []

    # --- its attempt ends, or outlives half a second

    def _ended(self, event: Ended, now_ms: int) -> list[Effect]:
        records: list[Record] = []
        unsent: list[Task] = []
        published: list[Change] = []
        reported: list[Command] = []
        for outcome in event.outcomes:
            task = outcome.task
            if task.phase is not _RUNNING or task.attempt != outcome.attempt or task.epoch != outcome.epoch:
                if outcome.reply is None:
                    self.tally.stale += 1
                else:
                    reply, outcome.reply = _reply(outcome), None
                    reported.append(as_command(outcome, reply, task.queue.tenant))
            elif task.id in self.claims:
                self.claims.keep(outcome)
            elif outcome.verdict is _UNSENT and task.claim_ms is None:
                published.append(self._take_back(outcome, now_ms, unsent))
            else:
                records.append(self._settle(task, outcome, now_ms))
        self.claims.ended()
        effects = self._offer(unsent, now_ms)
        if published:
            effects.append(Publish(published))
        if records:
            effects.append(Write(records))
        if reported:
            effects.extend(self._asked(Asked(reported), now_ms))
        return effects

    def _extend(self, event: Extended, now_ms: int) -> list[Effect]:
        return [Keep(event.reply, [self.leases.extend(said, now_ms) for said in event.extensions])]

    def _take_back(self, outcome: Outcome, now_ms: int, due: list[Task]) -> Change:
        """Nothing was sent: the attempt does not count, and the task is due again at once or when it was asked for."""
        task = outcome.task
        task.attempt -= 1
        task.step += 1
        task.started_ms = task.lease_ms = 0
        if task.attempt == 0:
            task.lateness_ms = None
        wake_ms = now_ms + (outcome.retry_after_ms or 0)
        self.holding.give_back(task, wake_ms, now_ms)
        if wake_ms <= now_ms:
            due.append(task)
        return changes.taken_back(task, now_ms)

    def _settle(self, task: Task, outcome: Outcome, now_ms: int) -> Record:
        self.holding.withdraw(task, _WRITING)
        return settle(task, outcome, self.epoch, now_ms)

    # --- the ledger answers

    def _recorded(self, event: Recorded, now_ms: int) -> list[Effect]:
        published: list[Change] = []
        effects: list[Effect] = []
        tally, epoch, let_go = self.tally, self.epoch, self.holding.let_go
        watched, finished = tally.watched(), tally.finished
        again: list[Task] = []
        said: list[Record] = []
        for record in event.records:
            if record.epoch != epoch:
                continue
            task, outcome = record.task, record.outcome
            if outcome is not None and outcome.reply is not None:
                said.append(record)
            task.rev = record.rev + 1
            task.step = 1 if record.state is _CLAIMED else 0
            change = None
            if watched or record.token is not None:
                change = changes.recorded(record)
                published.append(change)
            if record.op is _FINISH:
                finished[record.state] += 1
                if record.state is _CANCELLED and task.lease_ms:
                    effects.append(Revoke([task]))
                let_go(task, task.rev)
            elif record.state is _CLAIMED and record.due_ms != record.claim_ms:
                self._claimed(record, now_ms, effects)
            else:
                self._moved(record)
                again.append(task)
            if record.token is not None:
                effects.append(Answer(record.token, change))
        if published:
            effects.insert(0, Publish(published))
        if said:
            effects.append(Acknowledge(said))
        if again:
            effects.extend(self._offer_rows(self.holding.admit(again, now_ms), now_ms))
        if self.commands.waiting:
            self.commands.recorded(event.records, effects)
            self._ask_waiting(event.records, now_ms, effects)
        return effects

    def _moved(self, record: Record) -> None:
        """It waits again, or its target completes it later: memory keeps it, or not, like any other that waits."""
        task = record.task
        task.schedule_ms, task.due_ms = record.schedule_ms, record.due_ms
        task.attempt, task.budget, task.lateness_ms = record.attempt, record.budget, record.lateness_ms
        task.claim_ms, task.claim_boot = record.claim_ms, None
        if record.outcome is not None:
            task.last = record.outcome.status, record.outcome.error
        if record.claim_ms is None:
            task.started_ms = task.lease_ms = 0
        elif record.claim_ms == HELD_MS:
            self.tally.held += 1
        self.holding.let_go(task, task.rev)

    def _claimed(self, record: Record, now_ms: int, effects: list[Effect]) -> None:
        task = record.task
        task.claim_ms, task.claim_boot = record.claim_ms, None
        if task in self.ahead:
            if self._closed:
                effects.append(Write(self.ahead.take_back([task], now_ms)))
                return
            effects.append(Ready([task]))
        outcome = self.claims.settled(task.id)
        if outcome is not None:
            effects.append(Write([self._settle(task, outcome, now_ms)]))
            return
        task.phase = _RUNNING
        task.wake_ms = task.lease_ms or task.started_ms + deadline_ms_of(task.spec, task.queue) + OVERRUN_MS
        self.holding.timers.insert(task)

    def _refused(self, event: Refused, now_ms: int) -> list[Effect]:
        mine: list[Record] = []
        effects: list[Effect] = []
        for record, found in zip(event.records, event.found, strict=True):
            if record.epoch != self.epoch:
                continue
            if _is_mine(record, found):
                mine.append(record)
            else:
                effects.extend(self._overruled(record, found, now_ms))
        if mine:
            effects.extend(self._recorded(Recorded(mine), now_ms))
        return effects

    def _overruled(self, record: Record, found: Found, now_ms: int) -> list[Effect]:
        """Somebody else wrote this task: memory takes what the tables say."""
        task, row = record.task, found.task
        kept = self.claims.settled(task.id)
        self.ahead.forget(task)
        effects: list[Effect] = self.commands.overruled(record)
        effects += not_known(outcome for outcome in (kept, record.outcome) if outcome is not None)
        if row is not None and row.rev == record.rev:
            self.lost = True
        if row is None or found.state in TERMINAL:
            self.holding.let_go(task, record.rev + 1 if row is None else row.rev)
        else:
            self.holding.let_go(task, row.rev)
            effects.extend(self._offer_rows(self.holding.admit([row], now_ms), now_ms))
        if self.commands.waiting:
            self._ask_waiting([record], now_ms, effects)
        return effects

    # --- commands

    def _asked(self, event: Asked, now_ms: int) -> list[Effect]:
        if self._closed:
            return _elsewhere(event.commands)
        effects: list[Effect] = []
        unknown: list[Command] = []
        records: list[Record] = []
        for command in event.commands:
            task = self.holding.known.get(command.id)
            if task is None:
                unknown.append(command)
            elif task.phase is _WRITING or task.id in self.claims:
                self.commands.wait(command, effects)
            else:
                self.commands.decide(task, command, self.epoch, now_ms, records, effects)
                if task.phase is _WRITING:
                    self.ahead.forget(task)
        if unknown:
            effects.append(Find(unknown))
        if records:
            effects.append(Write(records))
        return effects

    def _looked(self, event: Looked, now_ms: int) -> list[Effect]:
        if self._closed:
            return _elsewhere(event.commands)
        effects: list[Effect] = []
        records: list[Record] = []
        again: list[Command] = []
        for command, found in zip(event.commands, event.found, strict=True):
            if command.id in self.holding.known or (found.task is not None and self.holding.outgrew(found.task)):
                again.append(command)  # it came, or came and went, after this was read
            else:
                self.commands.decide_found(found, command, self.epoch, now_ms, records, effects)
        if records:
            effects.append(Write(records))
        if again:
            effects.extend(self._asked(Asked(again), now_ms))
        return effects

    def _ask_waiting(self, records: list[Record], now_ms: int, effects: list[Effect]) -> None:
        """Commands that waited for a record of their task go on."""
        free = [record for record in records if record.task.phase is not _WRITING]
        waiting = [command for record in free for command in self.commands.waiting.pop(record.task.id, ())]
        if waiting:
            effects.extend(self._asked(Asked(waiting), now_ms))

    def _vanished(self, event: Vanished, now_ms: int) -> list[Effect]:
        """The rows are gone; of a task that is being written, its record's answer will tell."""
        for task in event.tasks:
            if task.phase is _OFFERED:
                self.holding.let_go(task, task.rev + 1)
        return []

    # --- it is given to another node

    def _close(self, event: Close, now_ms: int) -> list[Effect]:
        self._closed = True
        self.holding.release()
        records = self.ahead.take_back(self.ahead.ready(), now_ms)
        running = [task for task in self.holding.known.values() if task.phase is _RUNNING]
        records += [claim(task, self.epoch, now_ms) for task in self.claims.claim_all(running)]
        effects: list[Effect] = [Write(records)] if records else []
        return effects + self._part_when_quiet()

    def _part(self, event: Event, now_ms: int) -> list[Effect]:
        """Closed: what is under way ends, and nothing begins."""
        if not self._parted and not isinstance(event, _BEGINNINGS):
            return self._handlers[type(event)](event, now_ms) + self._part_when_quiet()
        match event:
            case Asked(commands) | Looked(commands):
                return _elsewhere(commands)
            case Ended(outcomes):
                effects: list[Effect] = [*not_known(outcomes)]
                if others := [outcome for outcome in outcomes if outcome.reply is None]:
                    effects.append(Forward(others))
                return effects
            case Extended(extensions, reply):
                return [Keep(reply, [unsure(said) for said in extensions])]
        return []

    def _part_when_quiet(self) -> list[Effect]:
        if any(task.phase is _WRITING or task.claim_ms is None for task in self.holding.known.values()):
            return []
        self._parted = True
        for task in self.holding.known.values():
            task.phase = _GONE  # what was not sent by now is not sent any more
        return [Parted(self.shard)]


_BEGINNINGS = (Submitted, Loaded, LoadFailed, Started, HandedOut, Probed)
_CANCELLED = State.CANCELLED


def not_known(outcomes: Iterable[Outcome]) -> list[Answer]:
    """To the workers that wait for word of these: nobody knows here whether it is recorded. They say it again."""
    return [Answer(_reply(outcome), error=Elsewhere()) for outcome in outcomes if outcome.reply is not None]


def _reply(outcome: Outcome) -> Reply:
    return Reply(outcome.reply, outcome.task.id, outcome.epoch, outcome.attempt)


def _elsewhere(commands: list[Command]) -> list[Effect]:
    return [Answer(command.token, error=Elsewhere()) for command in commands]


def _is_mine(record: Record, found: Found) -> bool:
    """The refused record was committed before, its answer was lost: the tables are as it left them."""
    row = found.task
    # An attempt that was claimed keeps its fence, whoever owns it when it ends.
    epoch = record.epoch if record.task.claim_ms is None else record.task.epoch
    if row is None or row.rev != record.rev + 1 or found.epoch != epoch:
        return False
    if record.op is _FINISH:
        return found.state is record.state
    left = (row.due_ms, row.attempt, row.claim_ms) == (record.due_ms, record.attempt, record.claim_ms)
    return left and found.state not in TERMINAL
