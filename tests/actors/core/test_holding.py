"""The key-set positions of a holding, against plain dictionaries of rows.

The world accepts rows, tells of them early, late or twice, answers pages from old snapshots, fails them, or leaves
them under way; tasks start, finish, wait again, come back. Whenever no page is under way, what the holding says of
itself must be true: every live row up to its position is in memory.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.core.events import LAST_ID, NO_ID, Loaded, Op, Page
from actors.core.holding import GENERATION_MS, KEEP_BYTES, KEEP_MS, LEAD_MS, Holding
from actors.core.queue import Queue
from actors.core.reach import reach
from actors.core.shard import HINT_MS
from actors.core.share import Share
from actors.core.task import Phase, State, Task
from tests.actors.core.stage import row
from tests.actors.core.tables import Tables
from tests.support.builders import T0_MS, make_record, make_task

HORIZON_MS = 100
at = st.integers(0, 10**6)


class Positions(RuleBasedStateMachine):
    """Times are a few milliseconds apart, so that most tasks share theirs with others."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = T0_MS
        self.queues = [Queue(1, "default", "one"), Queue(2, "default", "two")]
        self.tables = Tables(1)
        self.told: list[Task] = []
        """Accepted, and not heard of yet."""
        self.pages: list[Page] = []
        self.answers: list[Loaded] = []
        self.count = 0

    @initialize(limit=st.integers(1, 5))
    def begin(self, limit: int) -> None:
        self.limit = limit
        self.holding = Holding(0, 1, self.now_ms, limit=limit, total=limit, horizon_ms=HORIZON_MS)
        self._ask()

    def _ask(self) -> None:
        self.pages.extend(self.holding.pages(self.now_ms))

    def _admit(self, tasks: list[Task]) -> None:
        self.holding.offer(self.holding.admit(tasks, self.now_ms))

    @rule(queue=st.integers(0, 1), in_ms=st.integers(0, 12) | st.integers(0, 150), count=st.integers(1, 4))
    def accept(self, queue: int, in_ms: int, count: int) -> None:
        for _ in range(count):
            # Ids in no order, as with tasks of several nodes.
            self.count += 1
            task = make_task(self.count * 7919 % 10_007, self.queues[queue], due_ms=self.now_ms + in_ms)
            task.accept_us = self.now_ms * 1_000
            self.tables.accept(task)
            self.told.append(task)

    @precondition(lambda self: self.told)
    @rule(which=at, some=st.integers(1, 6))
    def hint(self, which: int, some: int) -> None:
        start = which % len(self.told)
        tasks, self.told[start : start + some] = self.told[start : start + some], []
        self._tell(tasks)
        self._ask()

    def _tell(self, tasks: list[Task]) -> None:
        """As a shard does it: what was accepted too long ago may be over by now."""
        fresh_us = (self.now_ms - HINT_MS) * 1_000
        self.holding.overlook([task for task in tasks if task.accept_us < fresh_us])
        self._admit([task for task in tasks if task.accept_us >= fresh_us])

    @precondition(lambda self: self.told)
    @rule()
    def hint_late(self) -> None:
        tasks, self.told = self.told, []
        self.holding.overlook(tasks)
        self._ask()

    @precondition(lambda self: self.pages)
    @rule(which=at)
    def read(self, which: int) -> None:
        self.answers.append(self.tables.page(self.pages.pop(which % len(self.pages))))

    @precondition(lambda self: self.pages)
    @rule(which=at)
    def fail(self, which: int) -> None:
        self.holding.failed(self.pages.pop(which % len(self.pages)))
        self._ask()

    @precondition(lambda self: self.answers)
    @rule(which=at)
    def answer(self, which: int) -> None:
        self.holding.offer(self.holding.loaded(self.answers.pop(which % len(self.answers)), self.now_ms))
        self._ask()

    @rule(after_ms=st.integers(1, 20) | st.sampled_from([60, GENERATION_MS + 1]))
    def time_passes(self, after_ms: int) -> None:
        self.now_ms += after_ms
        self.holding.turn_generation(self.now_ms)
        self.holding.offer([*self._fired()])
        self._ask()

    def _fired(self) -> Iterator[Task]:
        while fired := self.holding.timers.advance(self.now_ms):
            yield from fired

    def _offered(self) -> list[Task]:
        return [task for task in self.holding.known.values() if task.phase is Phase.OFFERED]

    @precondition(lambda self: self._offered())
    @rule(some=st.integers(1, 8), again_ms=st.none() | st.integers(0, 150))
    def run(self, some: int, again_ms: int | None) -> None:
        """Start some, and finish them or let them wait again."""
        for task in self._offered()[:some]:
            self.holding.withdraw(task, Phase.WRITING)
            op, state = (Op.FINISH, State.SUCCEEDED) if again_ms is None else (Op.MOVE, State.SCHEDULED)
            due_ms = self.now_ms + (again_ms or 0)
            assert not self.tables.write([make_record(op, task, 1, state=state, due_ms=due_ms)])
            task.rev += 1
            task.due_ms = due_ms
            self.holding.let_go(task, task.rev)
            if again_ms is not None:
                self._admit([task])
        self._ask()

    @precondition(lambda self: self._offered())
    @rule(wait_ms=st.integers(1, 30))
    def give_back(self, wait_ms: int) -> None:
        task = self._offered()[0]
        self.holding.withdraw(task, Phase.RUNNING)
        self.holding.give_back(task, self.now_ms + wait_ms, self.now_ms)
        self._ask()

    @rule(limit=st.integers(1, 5), really=st.sampled_from([False, False, False, True]))
    def another_limit(self, limit: int, really: bool) -> None:
        if really:
            self.holding.limit = limit
            self._ask()

    # --- after each step

    @invariant()
    def what_it_says_of_itself_is_true(self) -> None:
        if self.pages or self.answers:
            return
        told = {task.id for task in self.told}
        for stored in self.tables.live.values():
            spilled = self.holding.spilled.get(stored.queue.id)
            after = spilled.after if spilled is not None else None
            beyond = after is not None and (stored.due_ms, stored.id) > after
            if stored.due_ms <= self.holding.loaded_until_ms and not beyond and stored.id not in told:
                assert stored.id in self.holding.known, "left behind"

    @invariant()
    def what_it_tells_others_is_true_at_any_time(self) -> None:
        """Also while pages are under way, if for less."""
        told = {task.id for task in self.told}
        found = reach(self.holding, self.now_ms * 1_000)
        last = (found.until_ms, LAST_ID)
        assert all(end < last for end in found.ends.values())
        within = {
            stored.id
            for stored in self.tables.live.values()
            if (stored.due_ms, stored.id) <= found.ends.get(stored.queue.id, last)
        }
        assert within - told <= self.holding.known.keys()
        assert found.entries == len(within & self.holding.known.keys())

    @invariant()
    def memory_is_what_the_tables_say_and_bounded(self) -> None:
        for task in self.holding.known.values():
            stored = self.tables.live[task.id]
            assert (task.rev, task.due_ms) == (stored.rev, stored.due_ms)
            assert task.phase in (Phase.WAITING, Phase.OFFERED)
            assert (task.phase is Phase.WAITING) == (task.slot is not None)
            assert task.phase is Phase.WAITING or task.due_ms <= self.now_ms
        for queue in self.queues:
            share = self.holding.shares.get(queue.id)
            held = [task for task in self.holding.known.values() if task.queue is queue]
            assert (share.held if share else 0) == len(held) <= 2 * 5
            assert (share.offered if share else 0) == sum(task.phase is Phase.OFFERED for task in held)

    def teardown(self) -> None:
        """With every hint told and every page read, all that is due comes, whatever waits for later."""
        if not hasattr(self, "holding"):
            return
        self._tell(self.told)
        self.told = []
        for _ in range(20):
            self._run_what_is_due()
            self.what_it_says_of_itself_is_true()
            turned_away = [task for task in self.holding.known.values() if task.due_ms <= self.now_ms]
            if not turned_away:
                break
            self.time_passes(10)
        left = [stored for stored in self.tables.live.values() if stored.due_ms <= self.now_ms]
        assert not left, "due, and left behind"

    def _run_what_is_due(self) -> None:
        for _ in range(1_000):
            self._ask()
            if not self.pages and not self.answers and not self._offered():
                return
            while self.pages:
                self.answers.append(self.tables.page(self.pages.pop()))
            while self.answers:
                self.answer(0)
            for task in self._offered():
                self.holding.withdraw(task, Phase.WRITING)
                assert not self.tables.write([make_record(Op.FINISH, task, 1, state=State.SUCCEEDED)])
                self.holding.let_go(task, task.rev + 1)
        pytest.fail("never comes to rest")


Positions.TestCase.settings = settings(max_examples=60, stateful_step_count=60)
TestPositions: Any = Positions.TestCase

# --- by example


QUEUE = Queue(1, "default", "q")


def holding(limit: int = 4) -> Holding:
    """Everything up to the horizon is loaded; there was nothing."""
    made = Holding(0, 1, T0_MS, limit=limit, total=limit, horizon_ms=60_000)
    [page] = made.pages(T0_MS)
    assert made.loaded(Loaded(page, [], {}), T0_MS) == []
    return made


def tasks(count: int, *, in_ms: int = 0, first: int = 1) -> list[Task]:
    return [make_task(number, QUEUE, due_ms=T0_MS + in_ms) for number in range(first, first + count)]


def refill(made: Holding) -> Page:
    [page] = made.pages(T0_MS)
    assert page.queue_id == QUEUE.id
    return page


def full_of_due(made: Holding) -> Page:
    """All that fits is due, one more did not fit, and a refill is under way since most have started."""
    due = made.admit(tasks(2 * made.limit + 1), T0_MS)
    made.offer(due)
    for task in due[: made.limit + made.limit // 2]:
        made.withdraw(task, Phase.RUNNING)
    return refill(made)


def test_a_hint_that_the_page_under_way_may_not_show_is_not_passed_by() -> None:
    """It comes after the page was read, and before the page, which is full, is answered."""
    made = holding()
    page = full_of_due(made)
    between, last = tasks(1, first=20), tasks(1, first=30)
    made.admit(between, T0_MS)
    made.loaded(Loaded(page, last, {QUEUE.id: (last[-1].due_ms, last[-1].id)}), T0_MS)
    assert made.spilled[QUEUE.id].after == (T0_MS - 1, LAST_ID)


def test_a_stretch_that_was_not_read_to_its_end_is_not_passed_by() -> None:
    """A refill that was asked for beyond the stretch's last row is answered after the stretch."""
    made = holding()
    now_ms = T0_MS + 30_000
    [stretch] = made.pages(now_ms)
    made.overlook(tasks(1, in_ms=80_000, first=50))
    [page] = made.pages(now_ms)
    rows = tasks(4, in_ms=70_000)
    made.loaded(Loaded(stretch, rows, {QUEUE.id: (rows[-1].due_ms, rows[-1].id)}), now_ms)
    made.loaded(Loaded(page, [], {}), now_ms)
    assert made.spilled[QUEUE.id].after == (rows[-1].due_ms, rows[-1].id)


def test_a_page_never_asks_for_more_than_fits() -> None:
    made = holding()
    page = full_of_due(made)
    assert page.limit == made.limit - made.shares[QUEUE.id].offered
    rows = tasks(page.limit, first=40)
    made.loaded(Loaded(page, rows, {QUEUE.id: (rows[-1].due_ms, rows[-1].id)}), T0_MS)
    assert {task.phase for task in rows} == {Phase.WAITING}


def test_one_page_of_a_queue_is_under_way() -> None:
    made = holding()
    full_of_due(made)
    assert made.pages(T0_MS) == []


def test_a_page_is_answered_once() -> None:
    made = holding()
    page = full_of_due(made)
    rows = tasks(1, first=40)
    made.loaded(Loaded(page, rows, {QUEUE.id: (rows[-1].due_ms, rows[-1].id)}), T0_MS)
    again = tasks(1, first=41)
    assert made.loaded(Loaded(page, again, {QUEUE.id: (again[-1].due_ms, again[-1].id)}), T0_MS) == []
    made.failed(page)
    assert made.spilled[QUEUE.id].after == (rows[0].due_ms, rows[0].id)


def test_what_is_due_is_not_let_go_for_what_is_more_overdue() -> None:
    made = holding(limit=2)
    due = made.admit(tasks(4), T0_MS)
    made.offer(due)
    early = tasks(1, in_ms=-10, first=90)
    assert made.admit(early, T0_MS) == []
    assert {task.phase for task in due} == {Phase.OFFERED}
    assert made.spilled[QUEUE.id].after == (T0_MS - 11, LAST_ID)


@pytest.mark.parametrize(
    ("in_ms", "size", "kept"),
    [
        (0, KEEP_BYTES + 1, True),
        (KEEP_MS, KEEP_BYTES, True),
        (KEEP_MS + 1, 1, False),
        (1, KEEP_BYTES + 1, False),
    ],
)
def test_payloads_that_are_large_or_far_from_due_rest_in_the_tables(in_ms: int, size: int, kept: bool) -> None:
    made = holding()
    task = make_task(1, QUEUE, due_ms=T0_MS + in_ms, payload=bytes(size))
    made.admit([task], T0_MS)
    assert (task.payload is not None, task.payload_bytes) == (kept, size)


def test_an_older_revision_is_known_and_a_newer_one_is_not() -> None:
    made = holding()
    [task] = made.admit(tasks(1), T0_MS)
    assert made.knows(row(task))
    made.let_go(task, 3)
    assert [made.knows(row(task, rev=rev)) for rev in (0, 2, 3, 4)] == [True, True, False, False]
    made.turn_generation(T0_MS + GENERATION_MS)
    assert made.knows(row(task))
    made.turn_generation(T0_MS + GENERATION_MS)
    assert made.knows(row(task))
    made.turn_generation(T0_MS + 2 * GENERATION_MS)
    assert not made.knows(row(task))


def test_the_revision_in_which_a_task_was_let_go_is_told_for_a_while() -> None:
    made = holding()
    [task] = made.admit(tasks(1), T0_MS)
    assert made.last_rev(task.id) == 0
    made.let_go(task, 3)
    assert made.last_rev(task.id) == 3
    made.turn_generation(T0_MS + GENERATION_MS)
    assert made.last_rev(task.id) == 3
    made.turn_generation(T0_MS + 2 * GENERATION_MS)
    assert made.last_rev(task.id) == 0


def test_a_refill_ends_where_it_was_asked_to_end() -> None:
    """The next stretch was asked for meanwhile, and what it brought of this queue was left to the backlog."""
    made = holding()
    page = full_of_due(made)
    now_ms = T0_MS + 3_000
    made.loaded_until_ms += 40_000
    made.loaded(Loaded(page, [], {}), now_ms)
    assert made.spilled[QUEUE.id].after == (page.until_ms, LAST_ID)


def test_a_backlog_that_is_due_makes_those_go_that_wait_for_later() -> None:
    made = holding(limit=2)
    later = tasks(4, in_ms=50_000)
    made.admit(later, T0_MS)
    made.overlook(tasks(1, first=50))
    page = refill(made)
    assert (page.after_due_ms, page.limit) == (T0_MS - 1, 2)
    assert [task.phase for task in later] == [Phase.WAITING, Phase.WAITING, Phase.GONE, Phase.GONE]


def test_each_queue_has_its_own_share() -> None:
    made = holding(limit=2)
    other = Queue(2, "default", "other")
    made.offer(made.admit(tasks(9), T0_MS))
    assert len(made.admit([make_task(n, other) for n in range(50, 54)], T0_MS)) == 4
    assert set(made.spilled) == {QUEUE.id}


def test_a_task_beyond_the_horizon_makes_no_share() -> None:
    made = holding()
    made.admit(tasks(1, in_ms=60_001), T0_MS)
    assert made.shares == {}


def test_the_nearest_position_is_the_next_to_be_paged() -> None:
    made = holding()
    for queue_id, in_ms in ((1, 10_000), (2, 20_000), (3, -5), (4, 15_000)):
        share = made.spilled[queue_id] = Share()
        share.lower((T0_MS + in_ms, NO_ID))
    assert made.next_refill_ms(T0_MS) == T0_MS + 10_000 - LEAD_MS
    assert made.next_refill_ms(T0_MS + 9_500) == T0_MS + 10_000
