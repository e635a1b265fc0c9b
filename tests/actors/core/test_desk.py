from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.core import desk as bounds
from actors.core.desk import COMPACT, Desk
from actors.core.queue import Queue
from actors.core.spec import Spec
from actors.core.task import Phase, Task
from tests.support.builders import SPEC, make_task


class Office:
    """A desk and whoever works there: couriers that take, and a reader of payloads."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.count = 0

    def offer(self, queue: Queue, count: int = 1, *, stored: int = 0, kept: int = 0, spec: Spec = SPEC) -> list[Task]:
        """Put due tasks on the desk whose payload is `stored` bytes in the tables, or `kept` bytes in memory."""
        tasks = []
        for _ in range(count):
            self.count += 1
            task = make_task(self.count, queue, spec=spec, payload=bytes(kept) if kept else None)
            task.payload_bytes = stored or kept
            task.phase = Phase.OFFERED
            tasks.append(task)
        self.desk.put(tasks)
        return tasks

    def again(self, task: Task) -> None:
        """A record of the task was written, and it is offered again."""
        task.rev += 1
        task.phase = Phase.OFFERED
        self.desk.put([task])

    def take(self, limit: int = 10**6) -> list[Task]:
        """Take, and start what was taken, as a node does."""
        tasks = self.desk.take(limit)
        for task in tasks:
            assert task.phase is Phase.OFFERED
            assert task.payload is not None or not task.payload_bytes
            task.phase = Phase.RUNNING
        return tasks

    def read(self, tasks: Iterable[Task] | None = None) -> None:
        """The payloads of these were read (of all that were asked for)."""
        some = list(self.desk.unread() if tasks is None else tasks)
        for task in some:
            task.payload = bytes(task.payload_bytes)
        self.desk.read(some)


def queues(count: int) -> list[Queue]:
    return [Queue(number, "default", f"q{number}") for number in range(1, count + 1)]


def names(tasks: list[Task]) -> Counter[str]:
    return Counter(task.queue.name for task in tasks)


# --- order and fairness


def test_an_empty_desk_has_nothing() -> None:
    desk = Desk()
    assert (desk.take(5), desk.unread(), bool(desk)) == ([], [], False)


def test_a_queue_is_taken_in_order_and_once() -> None:
    office, [queue] = Office(), queues(1)
    tasks = office.offer(queue, 5)
    assert office.desk
    assert office.take(2) == tasks[:2]
    assert office.take() == tasks[2:]
    assert (office.take(), bool(office.desk)) == ([], False)


def test_what_comes_back_goes_before_what_was_due_no_sooner() -> None:
    office, [queue] = Office(), queues(1)
    tasks = office.offer(queue, 9)
    for task, due_ms in zip(tasks, [1, 2, 2, 2, 3, 3, 4, 4, 4], strict=True):
        task.due_ms = due_ms
    first = office.take(4)
    for task in first:
        task.attempt = 1
        task.rev += 1
        task.phase = Phase.OFFERED
    office.desk.put(first[:1])
    office.desk.put(first[1:])
    fresh = office.offer(queue, 1)
    assert office.take() == [*tasks, *fresh]


def test_a_retry_has_its_turn_among_what_is_due_then() -> None:
    office, [queue] = Office(), queues(1)
    tasks = office.offer(queue, 3)
    (first,) = office.take(1)
    first.attempt, first.due_ms = 1, first.due_ms + 1_000
    office.again(first)
    assert office.take() == [*tasks[1:], first]


def test_nothing_is_taken_when_nothing_is_asked_for() -> None:
    office, [queue] = Office(), queues(1)
    office.offer(queue)
    assert office.take(0) == []
    assert office.desk


def test_a_long_backlog_does_not_hold_the_others_up() -> None:
    office = Office()
    long, *short = queues(4)
    office.offer(long, 1_000)
    for queue in short:
        office.offer(queue, 5)
    assert names(office.take(20)) == {"q1": 5, "q2": 5, "q3": 5, "q4": 5}


def test_what_one_queue_leaves_the_others_may_take() -> None:
    office = Office()
    first, second, third = queues(3)
    office.offer(first, 1)
    office.offer(second, 100)
    office.offer(third, 1)
    assert names(office.take(30)) == {"q1": 1, "q2": 28, "q3": 1}


def test_more_queues_than_places_take_turns() -> None:
    office = Office()
    for queue in queues(7):
        office.offer(queue, 3)
    taken = [task for _ in range(7) for task in office.take(3)]
    assert set(names(taken).values()) == {3}
    assert names(taken[:7]) == dict.fromkeys((f"q{n}" for n in range(1, 8)), 1)


def test_what_is_for_the_other_desk_is_answered() -> None:
    office, [queue] = Office(), queues(1)
    [pulled] = office.offer(queue, kept=3, spec=Spec())
    assert (office.take(), pulled.payload, bool(office.desk)) == ([], bytes(3), False)
    [sent] = office.offer(queue, kept=3)
    assert office.desk.put([pulled, sent]) == [pulled]
    assert Desk(pulled=True).put([pulled, sent]) == [sent]


# --- pauses


def test_a_paused_queue_waits_and_does_not_count() -> None:
    office = Office()
    paused, other = queues(2)
    office.offer(paused, 9)
    office.offer(other, 9)
    paused.paused = True
    assert names(office.take(4)) == {"q2": 4}
    assert names(office.take()) == {"q2": 5}
    assert not office.desk
    paused.paused = False
    assert office.desk
    assert names(office.take()) == {"q1": 9}


def test_a_pause_holds_for_what_was_read_ahead() -> None:
    office, [queue] = Office(), queues(1)
    tasks = office.offer(queue, 3, stored=5)
    office.take()
    office.read()
    queue.paused = True
    assert office.take() == []
    assert [task.payload for task in tasks] == [None] * 3
    queue.paused = False
    assert office.take() == []
    office.read()
    assert office.take() == tasks


def test_a_pause_leaves_alone_what_is_no_longer_offered() -> None:
    office, [queue] = Office(), queues(1)
    first, second = office.offer(queue, 2, stored=5)
    office.take()
    office.read()
    first.phase = Phase.WRITING
    queue.paused = True
    office.take()
    assert (first.payload, second.payload) == (bytes(5), None)


def test_a_paused_queue_does_not_keep_the_others_from_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "READ_TASKS", 4)
    office = Office()
    paused, other = queues(2)
    office.offer(paused, 9, stored=5)
    office.take()
    office.read()
    paused.paused = True
    office.offer(other, 4, stored=5)
    office.take()
    office.read()
    assert names(office.take()) == {"q2": 4}


# --- payloads that rest in the tables


def test_a_payload_is_read_when_its_turn_comes() -> None:
    office, [queue] = Office(), queues(1)
    tasks = office.offer(queue, 3, stored=5)
    assert office.desk.unread() == []
    assert office.take(1) == []
    unread = office.desk.unread()
    assert unread == tasks
    assert office.desk.unread() == []
    office.read(unread)
    assert office.take() == tasks


def test_what_was_read_goes_first_in_its_lane() -> None:
    office, [queue] = Office(), queues(1)
    stored = office.offer(queue, 2, stored=5)
    office.take()
    with_payload = office.offer(queue, 2, kept=5)
    office.read()
    assert office.take() == [*stored, *with_payload]


def test_those_that_have_their_payload_do_not_wait_for_those_that_do_not() -> None:
    office, [queue] = Office(), queues(1)
    stored = office.offer(queue, 2, stored=5)
    kept = office.offer(queue, 2, kept=5)
    assert office.take() == kept
    assert office.desk.unread() == stored


def test_what_could_not_be_read_has_its_turn_again() -> None:
    office, [queue] = Office(), queues(1)
    [task] = office.offer(queue, stored=5)
    office.take()
    office.desk.read(office.desk.unread())
    assert office.desk
    assert office.take() == []
    office.read()
    assert office.take() == [task]


def test_no_more_is_read_ahead_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "READ_TASKS", 4)
    office, [queue] = Office(), queues(1)
    tasks = office.offer(queue, 10, stored=5)
    office.take()
    first = office.desk.unread()
    assert first == tasks[:4]
    office.take()
    assert office.desk.unread() == []
    office.read(first)
    assert office.take(1) == tasks[:1]
    assert office.desk.unread() == []
    assert office.take() == tasks[1:4]
    assert office.desk.unread() == tasks[4:8]


def test_no_more_bytes_are_read_ahead_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "READ_BYTES", 12)
    office, [queue] = Office(), queues(1)
    tasks = office.offer(queue, 9, stored=5)
    office.take()
    unread = office.desk.unread()
    assert unread == tasks[:3]
    office.read(unread)
    assert office.take(2) == tasks[:2]
    assert office.take() == tasks[2:3]
    assert office.desk.unread() == tasks[3:6]


def test_a_payload_larger_than_the_bound_is_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "READ_BYTES", 12)
    office, [queue] = Office(), queues(1)
    large, small = office.offer(queue, stored=50)[0], office.offer(queue, stored=1)[0]
    office.take()
    unread = office.desk.unread()
    assert unread == [large]
    office.read(unread)
    assert office.take() == [large]
    assert office.desk.unread() == [small]


def test_a_backlog_leaves_the_others_their_share_of_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "READ_TASKS", 8)
    office = Office()
    long, short = queues(2)
    office.offer(long, 100, stored=5)
    office.offer(short, 100, stored=5)
    office.take()
    assert names(office.desk.unread()) == {"q1": 4, "q2": 4}


def test_a_newcomer_does_not_wait_for_a_backlog_that_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "READ_TASKS", 8)
    office = Office()
    long, short = queues(2)
    office.offer(long, 100, stored=5)
    office.take(2)
    office.read()
    office.offer(short, 2)
    assert names(office.take(4)) == {"q1": 2, "q2": 2}


# --- tasks that go while they are at the desk


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.RUNNING, Phase.WRITING, Phase.GONE])
def test_what_is_no_longer_offered_is_dropped_on_the_way_out(phase: Phase) -> None:
    office, [queue] = Office(), queues(1)
    gone, stays = office.offer(queue, 2, kept=5)
    gone.phase = phase
    assert office.take() == [stays]
    assert not office.desk


def test_what_is_no_longer_offered_is_not_read() -> None:
    office, [queue] = Office(), queues(1)
    gone, stays = office.offer(queue, 2, stored=5)
    gone.phase = Phase.WRITING
    office.take()
    assert office.desk.unread() == [stays]


def test_what_went_while_it_was_read_is_dropped() -> None:
    office, [queue] = Office(), queues(1)
    gone, stays = office.offer(queue, 2, stored=5)
    office.take()
    gone.phase = Phase.WRITING
    office.read()
    assert office.take() == [stays]


def test_what_went_after_it_was_read_is_dropped() -> None:
    office, [queue] = Office(), queues(1)
    gone, stays = office.offer(queue, 2, stored=5)
    office.take()
    office.read()
    gone.phase = Phase.WRITING
    assert office.take() == [stays]


def test_one_that_is_offered_again_is_handed_out_once() -> None:
    office, [queue] = Office(), queues(1)
    [task] = office.offer(queue, kept=5)
    office.again(task)
    assert office.desk.take(5) == [task]


def test_one_that_is_offered_again_takes_its_new_place() -> None:
    office, [queue] = Office(), queues(1)
    first, second = office.offer(queue, 2)
    office.again(first)
    assert office.take() == [second, first]


def test_one_that_is_offered_again_while_it_is_read_is_handed_out_once() -> None:
    office, [queue] = Office(), queues(1)
    [task] = office.offer(queue, stored=5)
    office.take()
    unread = office.desk.unread()
    office.again(task)
    office.read(unread)
    assert office.desk.take(5) == [task]


def test_one_that_is_read_twice_at_once_is_handed_out_once() -> None:
    office, [queue] = Office(), queues(1)
    [task] = office.offer(queue, stored=5)
    office.take()
    unread = office.desk.unread()
    office.again(task)
    assert office.take() == []
    assert office.desk.unread() == []
    office.read(unread)
    office.read(unread)
    assert office.take() == [task]
    assert not office.desk


def test_those_that_went_are_forgotten_when_there_are_too_many() -> None:
    office, [queue] = Office(), queues(1)
    gone = office.offer(queue, COMPACT, kept=5)
    for task in gone:
        task.phase = Phase.WRITING
    stays = office.offer(queue, 3, kept=5)
    lane = office.desk._lanes[queue.id]
    assert len(lane.tasks) == 3
    assert office.desk._kept_bytes == 15
    assert office.take() == stays


def test_a_lane_that_is_long_in_earnest_is_not_swept_again_and_again() -> None:
    office, [queue] = Office(), queues(1)
    office.offer(queue, 3 * COMPACT)
    lane = office.desk._lanes[queue.id]
    assert len(lane.tasks) == 3 * COMPACT < lane.compact_at


# --- bytes


def test_payloads_beyond_the_budget_are_let_go_and_read_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "KEPT_BYTES", 12)
    office, [queue] = Office(), queues(1)
    tasks = office.offer(queue, 4, kept=5)
    assert [task.payload is None for task in tasks] == [False, False, True, True]
    assert office.take() == tasks[:2]
    office.read()
    assert office.take() == tasks[2:]


def test_what_was_read_is_kept_however_full_the_budget_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a paused queue that has used the budget up would keep the others from ever having their payload."""
    monkeypatch.setattr(bounds, "KEPT_BYTES", 12)
    office = Office()
    paused, other = queues(2)
    office.offer(paused, 4, kept=5)
    paused.paused = True
    [task] = office.offer(other, stored=10)
    office.take()
    office.read()
    assert office.take() == [task]


def test_the_budget_comes_back_however_a_task_goes() -> None:
    office, [queue] = Office(), queues(1)
    taken, gone, again, far = office.offer(queue, 4, kept=5)
    gone.phase = Phase.WRITING
    office.again(again)
    far.phase, far.payload = Phase.WAITING, None
    assert office.desk._kept_bytes == 25
    assert office.take() == [taken, again]
    assert office.desk._kept_bytes == 0


class Days(RuleBasedStateMachine):
    """Any order of things, with small bounds: each offer is taken at most once, and in the end once."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for name, value in {"READ_TASKS": 3, "READ_BYTES": 20, "KEPT_BYTES": 15, "COMPACT": 4}.items():
            self.patch.setattr(bounds, name, value)
        self.office = Office()
        self.queues = queues(3)
        self.tasks: list[Task] = []
        self.reading: list[Task] = []

    @rule(queue=st.integers(0, 2), count=st.integers(1, 3), stored=st.integers(0, 9), kept=st.integers(0, 9))
    def offer(self, queue: int, count: int, stored: int, kept: int) -> None:
        self.tasks += self.office.offer(self.queues[queue], count, stored=0 if kept else stored, kept=kept)

    @rule(limit=st.integers(0, 6))
    def take(self, limit: int) -> None:
        taken = self.office.take(limit)
        assert len(taken) <= limit
        assert not any(task.queue.paused for task in taken)

    @rule(some=st.integers(0, 4), fails=st.booleans())
    def read(self, some: int, fails: bool) -> None:
        self.reading += self.office.desk.unread()
        tasks, self.reading = self.reading[:some], self.reading[some:]
        if fails:
            self.office.desk.read(tasks)
        else:
            self.office.read(tasks)

    @precondition(lambda self: self.tasks)
    @rule(which=st.integers(0, 10**4), again=st.booleans(), forgets=st.booleans())
    def write(self, which: int, again: bool, forgets: bool) -> None:
        """A record of one is written; it goes, or comes back."""
        task = self.tasks[which % len(self.tasks)]
        task.phase = Phase.WRITING
        if forgets:
            task.payload = None
        if again:
            self.office.again(task)

    @rule(queue=st.integers(0, 2))
    def pause_or_resume(self, queue: int) -> None:
        self.queues[queue].paused = not self.queues[queue].paused

    @invariant()
    def the_books_balance(self) -> None:
        desk = self.office.desk
        lanes = desk._lanes.values()
        assert desk._kept_bytes == sum(entry[2] for lane in lanes for entry in lane.tasks) <= 15
        assert desk._ahead == sum(lane.ahead for lane in lanes) <= 3
        assert desk._ahead == len(desk._reading) + sum(len(lane.ready) for lane in lanes)
        ready_bytes = sum(entry[2] for lane in lanes for entry in lane.ready)
        assert desk._ahead_bytes == ready_bytes + sum(task.payload_bytes for task in desk._reading) <= 20 + 9
        assert set(desk._turns) == {lane for lane in lanes if lane}
        assert len(desk._turns) == len(set(desk._turns))

    def teardown(self) -> None:
        for queue in self.queues:
            queue.paused = False
        for _ in range(1_000):
            self.read(10**6, False)
            if not self.office.take() and not self.office.desk:
                break
        self.read(10**6, False)
        self.office.take()
        self.patch.undo()
        assert not any(task.phase is Phase.OFFERED for task in self.tasks), "an offer was never taken"


Days.TestCase.settings = settings(max_examples=60, stateful_step_count=50)
TestDays: Any = Days.TestCase
