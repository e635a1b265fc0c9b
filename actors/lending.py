"""The owner's side of pulled tasks: they lie at a desk of their own until a taker asks for some, and what workers say
of them goes to their shards (ports/lending.py).

    Offer -> desk -> supply -> take (lease of the node checked) -> Started -> [worker]
    report -> Ended -> Write -> Ledger -> Acknowledge -> answer

Promises: what is said of a shard that is not here, or on its way to another node, is answered UNSURE at once; while
this node has no valid lease, so is every extension, and a report has no answer. Bound: what is under way belongs to
takers, who have no more than their workers have room for.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import structlog

from actors.claimed import Claimed
from actors.clock import Clock
from actors.core.commands import as_command
from actors.core.desk import Desk
from actors.core.errors import Conflict, Unknown
from actors.core.events import (
    Answer,
    Asked,
    Ended,
    Extended,
    Keep,
    Outcome,
    Record,
    Reply,
    Started,
    Verdict,
)
from actors.core.ids import shard_of
from actors.core.lease import Extension, Kept, Lent, Report, Said, Word, lent, unsure
from actors.core.queue import Unheard
from actors.core.task import Phase, Task, by_shard
from actors.hand import Hand
from actors.ports.lending import Taker
from actors.stats import Stats

log = structlog.get_logger("lending")
NEVER_CAME = "it never reached a worker"
# On 3.11 a member of an enum costs ten times a global.
_RUNNING, _RETRY, _RECORDED = Phase.RUNNING, Unheard.RETRY, int(Said.RECORDED)
_VERDICTS = list(Verdict)


class _Nobody:
    """Takes part for those who want to hear nothing."""

    def supply(self, queues: Collection[int]) -> None:
        """Not told."""

    def answer(self, words: list[Word]) -> None:
        """Not told."""

    def keep(self, kept: list[Kept]) -> None:
        """Not told."""

    def revoke(self, leases: list[tuple[str, int]]) -> None:
        """Not told."""


class _Wish(NamedTuple):
    """What a taker wants, and of what it knows that there is some."""

    queues: set[int]
    told: set[int]


class Lending:
    """Lends the pulled tasks of one node. Implements actors.ports.lending.Lender."""

    def __init__(
        self,
        hand: Hand,
        clock: Clock,
        stats: Stats,
        *,
        shards: Callable[[], int],
        serves: Callable[[int], bool],
        may_fire: Callable[[], bool],
        may_lend: Callable[[], bool],
        read: Callable[[list[Task]], None],
    ) -> None:
        """`serves`: whether a shard is here, and stays; `read`: bring the payloads of these back to the desk."""
        self._hand = hand
        self._clock = clock
        self._stats = stats
        self._shards = shards
        self._serves = serves
        self._may_fire = may_fire
        self._may_lend = may_lend
        self._read = read
        self.desk = Desk(pulled=True)
        self._claimed: dict[int, Claimed] = {}
        """By queue: what is to be taken before all others."""
        self._takers: dict[Taker, _Wish] = {}
        """Also those who want nothing: their workers may have tasks."""

    # --- tasks go out

    def want(self, taker: Taker, queues: Collection[int]) -> None:
        """See the port."""
        wish = self._takers.setdefault(taker, _Wish(set(), set()))
        wish.queues.clear()
        wish.queues.update(queues)
        wish.told.intersection_update(queues)
        self.look()

    def part(self, taker: Taker) -> None:
        """See the port."""
        self._takers.pop(taker, None)

    def look(self) -> None:
        """Something may have come, or may be lent again: those who want it are told."""
        wishes = [(taker, wish) for taker, wish in self._takers.items() if wish.queues]
        for taker, wish in wishes:
            some = self._some()  # one before that has waited for it may have taken all
            if not some or not self._may_lend():
                return
            if new := (wish.queues & some) - wish.told:
                wish.told.update(new)
                try:
                    taker.supply(new)
                except Exception:
                    log.exception("a taker could not be told of tasks, or not take them")

    def _some(self) -> set[int]:
        """Queues of which there is some."""
        return self.desk.queues() | self._claimed.keys()

    def take(self, taker: Taker, queue: int, limit: int) -> tuple[list[Lent], bool]:
        """See the port."""
        tasks, more = self._take(queue, limit) if self._may_lend() else ([], False)
        wish = self._takers.get(taker)
        if not more and wish is not None:
            wish.told.discard(queue)
        return [lent(task) for task in tasks], more

    def _take(self, queue: int, limit: int) -> tuple[list[Task], bool]:
        ready = self._take_claimed(queue, limit)
        room = limit - len(ready) - self._ahead(queue)
        taken = self.desk.take_of(queue, room) if room > 0 else []
        if unread := self.desk.unread():
            self._read(unread)
        if taken:
            self._hand.apply((shard, Started(some)) for shard, some in by_shard(taken).items())
        return ready + [task for task in taken if task.phase is _RUNNING], len(ready) + len(taken) >= limit

    def _ahead(self, queue: int) -> int:
        """Attempts of the queue that are being claimed ahead: they have their place in what is asked for."""
        ahead = self._stats.tally.ahead
        return sum(task.queue.id == queue and task.pulled for task in ahead) if ahead else 0

    def ready(self, tasks: Iterable[Task]) -> None:
        """Their attempts are claimed."""
        for task in tasks:
            claimed = self._claimed.get(task.queue.id)
            if claimed is None:
                claimed = self._claimed[task.queue.id] = Claimed(self._hand, self._stats.tally.ahead)
            claimed.put((task,))

    def _take_claimed(self, queue: int, limit: int) -> list[Task]:
        claimed = self._claimed.get(queue)
        if claimed is None:
            return []
        tasks = claimed.take(limit)
        if not claimed:
            del self._claimed[queue]
        return tasks

    def lost(self, tasks: Sequence[Lent]) -> None:
        """See the port."""
        for task in tasks:
            queue = self._queue_of(task)
            if queue is not None:
                report = Report(task.id, task.epoch, task.attempt, Verdict.SNOOZED.value, NEVER_CAME)
                self.report(NOBODY, queue, (report,))

    def _queue_of(self, told: Lent) -> str | None:
        """The tenant of a task that is here."""
        task = self._known(told.id)
        return None if task is None else task.queue.tenant

    # --- words come in

    def report(self, taker: Taker, tenant: str, reports: Sequence[Report]) -> None:
        """See the port."""
        if not self._may_fire():  # another node may know better by now
            taker.answer([Word(report.id, report.epoch, report.attempt, Said.UNSURE) for report in reports])
            return
        now_ms, shards, serves = self._clock.now_ms(), self._shards(), self._serves
        ended: dict[int, list[Outcome]] = {}
        words: list[Word] = []
        for report in reports:
            shard = int(report.id[32:], 16) * shards >> 16  # shard_of, without its call
            if not serves(shard):
                words.append(Word(report.id, report.epoch, report.attempt, Said.UNSURE))
                continue
            task = self._hand.actors[shard].state.holding.known.get(report.id)
            if task is None:
                self._ask(shard, taker, tenant, report, now_ms)
            elif task.queue.tenant != tenant:
                words.append(Word(report.id, report.epoch, report.attempt, Said.UNKNOWN))
            else:
                outcome = _outcome(report, task, now_ms, taker)
                if task.phase is _RUNNING and task.attempt == outcome.attempt and task.epoch == outcome.epoch:
                    self._stats.ended(outcome)
                if (some := ended.get(shard)) is None:
                    ended[shard] = [outcome]
                else:
                    some.append(outcome)
        for shard, some in ended.items():
            self._hand.post(shard, Ended(some))
        if words:
            taker.answer(words)

    def _ask(self, shard: int, taker: Taker, tenant: str, report: Report, now_ms: int) -> None:
        """Memory does not know the task: the tables may."""
        reply = Reply(taker, report.id, report.epoch, report.attempt)
        self._hand.post(shard, Asked([as_command(_outcome(report, None, now_ms), reply, tenant)]))

    def extend(self, taker: Taker, tenant: str, extensions: Sequence[Extension]) -> None:
        """See the port."""
        shards = self._shards()
        mine: dict[int, list[Extension]] = defaultdict(list)
        kept: list[Kept] = []
        sure = self._may_fire()  # else another node may have taken over what I have, and see its leases end before
        for said in extensions:
            shard = shard_of(said.id, shards)
            if not (sure and self._serves(shard)):
                kept.append(unsure(said))
            elif self._is_of(tenant, said):
                mine[shard].append(said)
            else:
                kept.append(self._hand.actors[shard].state.leases.extend_none(said, self._clock.now_ms()))
        for shard, some in mine.items():
            self._hand.post(shard, Extended(some, taker))
        if kept:
            taker.keep(kept)

    def _is_of(self, tenant: str, said: Extension) -> bool:
        """Whether the task is of this tenant, as far as memory knows."""
        task = self._known(said.id)
        return task is None or task.queue.tenant == tenant

    def _known(self, task_id: str) -> Task | None:
        actor = self._hand.actors.get(shard_of(task_id, self._shards()))
        return None if actor is None else actor.state.holding.known.get(task_id)

    # --- answers go out

    def acknowledge(self, records: Iterable[Record]) -> None:
        """These were committed."""
        words: dict[Taker, list[Word]] = {}
        for record in records:
            assert record.outcome is not None
            outcome = record.outcome
            taker: Taker = outcome.reply  # type: ignore[assignment]
            word = Word(record.task.id, outcome.epoch, outcome.attempt, _RECORDED, record.state)
            if (some := words.get(taker)) is None:
                words[taker] = [word]
            else:
                some.append(word)
        for taker, said in words.items():
            taker.answer(said)

    @staticmethod
    def told(answer: Answer) -> None:
        """What came of a report that was not recorded at once."""
        reply = answer.token
        assert isinstance(reply, Reply)
        taker: Taker = reply.to  # type: ignore[assignment]
        taker.answer([_word(reply, answer)])

    @staticmethod
    def keep(kept: Keep) -> None:
        """What came of extensions."""
        taker: Taker = kept.reply  # type: ignore[assignment]
        taker.keep(kept.kept)

    def revoke(self, tasks: Sequence[Task]) -> None:
        """These were cancelled while a worker had them; any taker may be the one."""
        leases = [(task.id, task.attempt) for task in tasks]
        for taker in list(self._takers):
            taker.revoke(leases)


NOBODY = _Nobody()


def _outcome(report: Report, task: Task | None, now_ms: int, reply: Taker | None = None) -> Outcome:
    return Outcome(
        task,  # type: ignore[arg-type]  # one that is not known is found by its shard
        report.epoch,
        report.attempt,
        _VERDICTS[report.verdict],
        now_ms if task is None else task.started_ms,
        now_ms,
        None,
        report.error,
        report.result,
        report.retry_after_ms,
        report.jitter,
        reply,
    )


def _word(reply: Reply, answer: Answer) -> Word:
    error = answer.error
    if error is None:
        state = "" if answer.change is None else answer.change.state.value
        return Word(reply.id, reply.epoch, reply.attempt, Said.RECORDED, state)
    detail = getattr(error, "detail", "")
    if isinstance(error, Conflict):
        return Word(reply.id, reply.epoch, reply.attempt, Said.OVER, error.state, detail)
    if isinstance(error, Unknown):
        return Word(reply.id, reply.epoch, reply.attempt, Said.UNKNOWN)
    return Word(reply.id, reply.epoch, reply.attempt, Said.UNSURE, "", detail)
