"""A shard in a world that loses, delays, repeats and reorders, against tables that are plain dictionaries.

What a real node does in an order of its own is drawn here: reads take their snapshot at one time and are answered at
another, writes are committed with or without a reply, hints are late or lost, dispatchers end attempts in every way,
clients command, the shard changes its owner or is given to an heir while attempts go on, and time jumps. After each
step the shard's books must balance; in the end, when everything is answered, every task must have run to its end and
every command must have been answered.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.core import timers
from actors.core.errors import Elsewhere, Unavailable
from actors.core.events import (
    Answer,
    Asked,
    Close,
    Command,
    Effect,
    Ended,
    Event,
    Find,
    Forward,
    Load,
    LoadFailed,
    Looked,
    Offer,
    Op,
    Outcome,
    Page,
    Parted,
    Probed,
    Publish,
    Record,
    Recorded,
    Refused,
    Started,
    Submitted,
    Ticked,
    Verdict,
    Write,
)
from actors.core.inherited import OVERRUN_MS
from actors.core.queue import Queue
from actors.core.retry import RetryPolicy
from actors.core.shard import HINT_MS, ShardState
from actors.core.spec import HttpTarget, Spec
from actors.core.task import Move, Phase, State, Task
from tests.actors.core.stage import row
from tests.actors.core.tables import Tables
from tests.support.builders import T0_MS, make_record, make_task

HORIZON_MS = 8_000
HTTP = HttpTarget("http://sink.test/")
RETRY = RetryPolicy(max_attempts=3, min_backoff_ms=200, max_backoff_ms=20_000)
SPECS = [Spec(http=HTTP, retry=RETRY, dispatch_deadline_ms=1_500), Spec(http=HTTP, retry=RETRY, ttl_ms=2_500)]
COMPLETIONS = (Move.SUCCEED, Move.RETRY, Move.DIE)

at = st.integers(0, 10**6)
"""Which one of those that there are."""


class World(RuleBasedStateMachine):
    """One shard of a node, and all that it speaks to."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = T0_MS
        self.queues = [Queue(1, "default", "one"), Queue(2, "default", "two"), Queue(3, "other", "three")]
        self.epoch = 1
        self.tables = Tables(self.epoch)
        self.ids: list[str] = []
        self.lost_hints = False
        self.mail: list[Event] = []
        self.pages: list[Page] = []
        self.finds: list[Command] = []
        self.records: list[Record] = []
        self.desk: list[Task] = []
        self.attempts: list[tuple[Task, int, int]] = []
        self.asked = 0
        self.waiting: set[int] = set()
        """Tokens of commands that were not answered yet."""
        self.versions: dict[str, int] = {}
        self.closed = self.parted = False
        self.living: frozenset[str] = frozenset()
        """Boots that gave the shard away, and whose attempts go on."""
        self.given: set[int] = set()
        """Epochs under which they had it."""
        self.forwards: list[Outcome] = []
        self.telling: dict[int, Outcome] = {}
        """Token -> an end that the owner was told of."""

    @initialize(limit=st.integers(2, 4))
    def _begin(self, limit: int) -> None:
        self.limit = limit
        self._own()

    def _own(self) -> None:
        self.closed = self.parted = False
        self.tables.boot = f"boot-{self.epoch}"
        self.shard = ShardState(0, self.epoch, self.now_ms, limit=self.limit, horizon_ms=HORIZON_MS, living=self.living)
        self.now_ms += 1
        self._apply(Ticked())

    # --- what the node does with a shard

    def _apply(self, event: Event) -> None:
        for effect in self.shard.apply(event, self.now_ms):
            self._carry_out(effect)
        if self.shard.lost:
            assert self.tables.owner != self.epoch
            self._change_owner()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Offer(tasks):
                assert tasks
                self.desk.extend(tasks)
            case Write(records):
                assert records
                self.records.extend(records)
            case Load(page):
                self.pages.append(page)
            case Find(commands):
                self.finds.extend(commands)
            case Publish(changes):
                for change in changes:
                    assert change.version >= self.versions.get(change.id, 0)
                    self.versions[change.id] = change.version
            case Answer():
                self._answered(effect)
            case Parted():
                self._part()
            case Forward(outcomes):
                assert self.parted
                self.forwards.extend(outcomes)

    def _part(self) -> None:
        assert self.closed
        assert not self.parted, "parted twice"
        self.parted = True
        assert not self.shard.commands.waiting
        stored = self.tables.live
        for task in self.shard.holding.known.values() if self.tables.owner == self.epoch else ():
            assert (stored[task.id].claim_ms, stored[task.id].rev) == (task.claim_ms, task.rev), "goes on unclaimed"

    def _answered(self, answer: Answer) -> None:
        assert isinstance(answer.token, int)
        if answer.token in self.telling:
            outcome = self.telling.pop(answer.token)
            if isinstance(answer.error, Elsewhere | Unavailable):
                self.forwards.append(outcome)
        elif answer.token > 0:
            assert answer.token in self.waiting, "answered twice"
            self.waiting.discard(answer.token)

    # --- tasks come in

    @rule(
        queue=st.integers(0, 2),
        spec=st.sampled_from(SPECS),
        in_ms=st.integers(-50, 12_000) | st.sampled_from([0, 0, 0, 100, 100]),
        count=st.integers(1, 4),
        at_once=st.booleans(),
        knows=st.booleans(),
    )
    def submit(self, queue: int, spec: Spec, in_ms: int, count: int, at_once: bool, knows: bool) -> None:
        """`knows`: whether who accepts them has heard who owns the shard."""
        tasks = []
        for _ in range(count):
            task = make_task(len(self.ids), self.queues[queue], due_ms=self.now_ms + in_ms, spec=spec)
            task.due_ms = max(task.due_ms, self.now_ms)
            task.budget = RETRY.max_attempts
            self.ids.append(task.id)
            self.tables.accept(task)
            tasks.append(task)
        hint = Submitted(tasks, self.now_ms, self.epoch if knows else 0)
        if at_once:
            self._apply(hint)
        else:
            self.mail.append(hint)

    @precondition(lambda self: self.mail)
    @rule(which=at)
    def lose_or_double_a_hint(self, which: int) -> None:
        event = self.mail[which % len(self.mail)]
        if isinstance(event, Submitted) and which % 3:
            self.mail.remove(event)
            self.lost_hints = True
        elif isinstance(event, Submitted):
            self.mail.append(Submitted([row(task) for task in event.tasks], event.at_ms, event.epoch))

    # --- answers

    @precondition(lambda self: self.mail)
    @rule(which=at)
    def deliver(self, which: int) -> None:
        self._hear(self.mail.pop(which % len(self.mail)))

    @precondition(lambda self: self.mail)
    @rule()
    def deliver_all(self) -> None:
        for _ in range(len(self.mail)):
            self._hear(self.mail.pop(0))

    def _hear(self, event: Event) -> None:
        """What ended under an epoch that was given away since is another owner's to write."""
        if isinstance(event, Ended):
            self.forwards.extend(outcome for outcome in event.outcomes if outcome.epoch in self.given)
            event.outcomes = [outcome for outcome in event.outcomes if outcome.epoch not in self.given]
            if not event.outcomes:
                return
        self._apply(event)

    @precondition(lambda self: self.mail or self.records or self.pages or self.finds)
    @rule(rounds=st.integers(1, 3))
    def all_goes_well(self, rounds: int) -> None:
        for _ in range(rounds):
            self._answer_all()

    @precondition(lambda self: self.pages)
    @rule(which=at, fails=st.sampled_from([False, False, False, True]))
    def read_page(self, which: int, fails: bool) -> None:
        page = self.pages.pop(which % len(self.pages))
        self.mail.append(LoadFailed(page) if fails else self.tables.page(page))

    @precondition(lambda self: self.finds)
    @rule(which=at)
    def look_up(self, which: int) -> None:
        command = self.finds.pop(which % len(self.finds))
        self.mail.append(Looked([command], [self.tables.find(command.id)]))

    @rule()
    def probe(self) -> None:
        """Rows that are overdue, in queues with a backlog up to where memory claims to hold them."""
        found = self.tables.probe(self.now_ms, self.shard.holding.ends())
        if found:
            self.mail.append(Probed(found, self.now_ms))

    @precondition(lambda self: self.records)
    @rule(which=at, reply_is_lost=st.sampled_from([False, False, True]))
    def commit(self, which: int, reply_is_lost: bool) -> None:
        """Some records in one flush; with the reply lost it is sent again, and refused."""
        some = len(self.records) if which % 2 else 1
        batch, self.records = self.records[:some], self.records[some:]
        batch = [record for record in batch if record.epoch == self.epoch]
        refused = self.tables.write(batch)
        if reply_is_lost:
            refused = self.tables.write(batch)
        done = [record for record in batch if record.task.id not in refused]
        rest = [record for record in batch if record.task.id in refused]
        if done:
            self.mail.append(Recorded(done))
        if rest:
            self.mail.append(Refused(rest, [self.tables.find(record.task.id) for record in rest]))

    # --- dispatchers

    @precondition(lambda self: self.desk and len(self.attempts) < self.limit)
    @rule(which=at)
    def start(self, which: int) -> None:
        room = self.limit - len(self.attempts)
        some = self.desk[: min(which % max(len(self.desk), 1) + 1, room)]
        del self.desk[: len(some)]
        self._start(some)

    def _start(self, tasks: list[Task]) -> None:
        started = [task for task in dict.fromkeys(tasks) if task.phase is Phase.OFFERED]
        if not started:
            return
        for task in started if self.tables.owner == self.epoch else ():
            stored = self.tables.live.get(task.id)
            assert stored is not None, "started after it was over"
            assert stored.rev == task.rev, "started from an old row"
            assert stored.due_ms <= self.now_ms, "started early"
            assert stored.claim_ms is None, "started while claimed"
            assert not self._goes_on(task), "started while an attempt goes on elsewhere"
        self._apply(Started(tasks))
        self.attempts.extend((task, task.epoch, task.attempt) for task in started)

    @precondition(lambda self: self.attempts)
    @rule(
        which=at,
        verdicts=st.lists(st.sampled_from([*Verdict, Verdict.FAILED, Verdict.UNSENT]), min_size=1, max_size=4),
        jitter=st.floats(0, 0.99),
        wish_ms=st.sampled_from([None, None, 50, 3_000, 15_000]),
        at_once=st.booleans(),
    )
    def end(self, which: int, verdicts: list[Verdict], jitter: float, wish_ms: int | None, at_once: bool) -> None:
        outcomes = []
        for verdict in verdicts[: len(self.attempts)]:
            task, epoch, attempt = self.attempts.pop(which % len(self.attempts))
            outcome = Outcome(task, epoch, attempt, verdict, self.now_ms, self.now_ms)
            outcome.jitter, outcome.retry_after_ms = jitter, wish_ms
            outcomes.extend([outcome] if which % 5 else [outcome, outcome])
        if at_once:
            self._hear(Ended(outcomes))
        else:
            self.mail.append(Ended(outcomes))

    @precondition(lambda self: self.desk)
    @rule(
        verdict=st.sampled_from(Verdict),
        slow_ms=st.sampled_from([0, 5, 600]),
        rounds=st.integers(0, 2),
    )
    def work_goes_on(self, verdict: Verdict, slow_ms: int, rounds: int) -> None:
        self.start(len(self.desk) - 1)
        self.time_passes(slow_ms)
        if self.attempts:
            self.end(0, [verdict] * len(self.attempts), 0.2, None, at_once=True)
        for _ in range(rounds):
            self._answer_all()

    @precondition(lambda self: self.attempts)
    @rule(which=at)
    def never_hear_of_it_again(self, which: int) -> None:
        self.attempts.pop(which % len(self.attempts))

    # --- clients

    @precondition(lambda self: self.ids)
    @rule(
        which=at,
        move=st.sampled_from([Move.CANCEL, Move.RUN, Move.RESCHEDULE, Move.REDRIVE, *COMPLETIONS]),
        in_ms=st.integers(-100, 12_000),
        tenant=st.sampled_from(["default", "default", "default", "other"]),
    )
    def ask(self, which: int, move: Move, in_ms: int, tenant: str) -> None:
        self.asked += 1
        task_id = self.ids[which % len(self.ids)]
        command = Command(move, task_id, self.asked, self.now_ms + in_ms, tenant=tenant)
        found = self.tables.find(task_id).task
        if found is None:
            return
        if move in COMPLETIONS:
            command.outcome = Outcome(
                found, found.epoch, found.attempt + which % 2, Verdict.SUCCEEDED, self.now_ms, self.now_ms
            )
        self.waiting.add(self.asked)
        self.mail.append(Asked([command]))

    # --- time, and owners

    @rule(ms=st.integers(1, 30) | st.sampled_from([400, 600, 2_100, 5_100, 9_000]))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms
        self._apply(Ticked())

    @rule(ms=st.sampled_from([100, 2_100, 5_100]))
    def time_passes_and_nobody_looks(self, ms: int) -> None:
        self.now_ms += ms

    @rule(really=st.sampled_from([False, False, False, True]))
    def change_owner(self, really: bool) -> None:
        """To somebody else and back: what was under way for the old epoch comes to the new one."""
        if really:
            self._change_owner()

    @precondition(lambda self: self.tables.live)
    @rule(which=at, finishes=st.booleans(), really=st.sampled_from([False, True]))
    def lose_the_shard_unawares(self, which: int, finishes: bool, really: bool) -> None:
        """Another owner writes a task, or none; this one goes on until a refusal or a heartbeat tells it."""
        if not really:
            return
        self.tables.owner = max(self.tables.owner, self.epoch + 1)
        tasks = [*self.tables.live.values()]
        if which % 4 and tasks:
            task = tasks[which % len(tasks)]
            op = Op.FINISH if finishes else Op.MOVE
            state = State.SUCCEEDED if finishes else State.SCHEDULED
            due_ms = self.now_ms + which % 3_000
            assert not self.tables.write([make_record(op, task, self.tables.owner, state=state, due_ms=due_ms)])

    @precondition(lambda self: not self.closed)
    @rule(really=st.booleans())
    def close(self, really: bool) -> None:
        if really:
            self.closed = True
            self._apply(Close())

    @precondition(lambda self: self.parted)
    @rule(behind_ms=st.sampled_from([0, 0, 3]))
    def give(self, behind_ms: int) -> None:
        """The heir's clock may be a little behind; what was meant for the giver reaches the heir."""
        if self.tables.owner != self.epoch:
            self._change_owner()
            return
        self.given.add(self.epoch)
        self.living |= {self.tables.boot}
        self.epoch = self.tables.owner = self.epoch + 1
        self.now_ms -= behind_ms
        self.versions.clear()  # whoever watches is told of a gap
        self._own()

    @precondition(lambda self: self.desk and not self.closed)
    @rule(slow_ms=st.sampled_from([0, 5, 600]), behind_ms=st.sampled_from([0, 3]), twice=st.booleans())
    def attempts_go_on_while_the_shard_is_given(self, slow_ms: int, behind_ms: int, twice: bool) -> None:
        self.start(len(self.desk) - 1)
        self.time_passes(slow_ms)
        for _ in range(1 + twice):
            if not self.closed:
                self.close(really=True)
            self._answer_all()
            if self.parted:
                self.give(behind_ms)
            self._answer_all()

    @precondition(lambda self: self.forwards)
    @rule(which=at)
    def tell(self, which: int) -> None:
        """How an attempt of the shard's former owner ended."""
        outcome = self.forwards.pop(which % len(self.forwards))
        move = {Verdict.SUCCEEDED: Move.SUCCEED, Verdict.NEVER: Move.DIE}.get(outcome.verdict, Move.RETRY)
        self.asked += 1
        self.telling[self.asked] = outcome
        task = outcome.task
        told = Outcome(task, outcome.epoch, outcome.attempt, outcome.verdict, outcome.started_ms, outcome.ended_ms)
        told.jitter, told.retry_after_ms = outcome.jitter, outcome.retry_after_ms
        self.mail.append(Asked([Command(move, task.id, self.asked, outcome=told, tenant=task.queue.tenant)]))

    def _goes_on(self, task: Task) -> bool:
        limit_ms = 1_500 + OVERRUN_MS
        return any(
            other.id == task.id and epoch in self.given and other.started_ms + limit_ms > self.now_ms
            for other, epoch, _ in self.attempts
        )

    def _change_owner(self) -> None:
        self.living = frozenset()
        self.given.clear()
        self.forwards.extend(self.telling.values())
        self.telling.clear()
        for task in self.shard.holding.known.values():
            task.phase = Phase.GONE
        self.epoch = self.tables.owner = self.tables.owner + 2
        self.records = []
        self.versions.clear()  # whoever watches is told of a gap
        self.waiting.clear()
        self.finds = [self._forgotten(command) for command in self.finds]
        for event in self.mail:
            if isinstance(event, Asked | Looked):
                event.commands = [self._forgotten(command) for command in event.commands]
        self._own()

    @staticmethod
    def _forgotten(command: Command) -> Command:
        """Whoever asked was told that the shard changed its owner; what the command still does is its own affair."""
        assert isinstance(command.token, int)
        command.token = -abs(command.token)
        return command

    # --- after each step

    @invariant()
    def the_books_balance(self) -> None:
        if not hasattr(self, "shard"):
            return
        if self.parted:
            assert not any(record.epoch == self.epoch for record in self.records), "written after it has parted"
            return
        holding = self.shard.holding
        held: Counter[int] = Counter()
        offered: Counter[int] = Counter()
        slots = 0
        for task_id, task in holding.known.items():
            assert task.id == task_id
            assert task.phase is not Phase.GONE
            held[task.queue.id] += task.phase <= Phase.OFFERED
            offered[task.queue.id] += task.phase is Phase.OFFERED
            slots += task.slot is not None
            assert task.phase is not Phase.WAITING or task.slot is not None, "waits for nothing"
        assert slots == len(holding.timers)
        for queue_id, share in holding.shares.items():
            assert (share.held, share.offered) == (held[queue_id], offered[queue_id])
            assert share.held <= 3 * self.limit
            assert (holding.spilled.get(queue_id) is share) == (share.after is not None)

    @invariant()
    def one_record_of_a_task_is_under_way(self) -> None:
        under_way = [record.task.id for record in self.records if record.epoch == self.epoch]
        for event in self.mail:
            if isinstance(event, Recorded | Refused):
                under_way.extend(record.task.id for record in event.records if record.epoch == self.epoch)
        assert len(under_way) == len(set(under_way))

    # --- in the end

    def teardown(self) -> None:
        if not hasattr(self, "shard"):
            return
        if self.tables.owner != self.epoch:
            self._change_owner()
        for _ in range(300):
            if self.closed:
                self._let_it_part()
            if not self.tables.live and not self.waiting and not self.mail and not self.records:
                break
            self._apply(Ticked())
            self._let_everybody_answer()
            self.now_ms = max(self.now_ms + 1, min(self.shard.next_ms(self.now_ms), self.now_ms + 2_000))
        assert not self.tables.live, "a task never ran"
        assert not self.waiting, "a command was never answered"
        assert not self.shard.holding.known
        assert not self.shard.commands.waiting

    def _let_it_part(self) -> None:
        for _ in range(10):
            self._answer_all()
        assert self.parted, "never parts"
        self.give(0)

    def _let_everybody_answer(self) -> None:
        rounds = 0
        while self.mail or self.records or self.pages or self.finds or self.forwards or self._startable():
            rounds += 1
            assert rounds < 300, "never comes to rest"
            self._answer_all()
            desk, self.desk = self.desk, []
            self._start(desk)
            while self.forwards:
                self.tell(0)
            for task, epoch, attempt in self.attempts:
                self.mail.append(Ended([Outcome(task, epoch, attempt, Verdict.SUCCEEDED, self.now_ms, self.now_ms)]))
            self.attempts = []
        if self.lost_hints:
            self.probe()
        else:
            self._all_that_is_due_is_known()

    def _all_that_is_due_is_known(self) -> None:
        for stored in self.tables.live.values():
            task = self.shard.holding.known.get(stored.id)
            assert stored.due_ms > self.now_ms or task is not None, "due, and left behind"
            assert task is None or task.phase is Phase.RUNNING or task.wake_ms > self.now_ms, "due, and not offered"

    def _answer_all(self) -> None:
        """Everything that is under way arrives, in order and without loss."""
        if self.records:
            self.commit(1, reply_is_lost=False)
        for _ in range(len(self.pages)):
            self.read_page(0, fails=False)
        for _ in range(len(self.finds)):
            self.look_up(0)
        self.deliver_all()

    def _startable(self) -> bool:
        return any(task.phase is Phase.OFFERED for task in self.desk)


@pytest.fixture(scope="module", autouse=True)
def crowds() -> Iterator[None]:
    """Two are a crowd here: what waits is in the wheel as well as in the list before it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timers, "FEW", 2)
        yield


World.TestCase.settings = settings(max_examples=40, stateful_step_count=80)
TestWorld: Any = World.TestCase


def test_a_hint_is_old_before_a_read_is() -> None:
    """What the world above draws its jumps of time from."""
    assert HINT_MS < 2_100 < 5_000
