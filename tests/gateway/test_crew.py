"""The workers of one node: who is given what, and what becomes of the leases of those who go."""

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest

from actors.core.events import Verdict
from actors.core.lease import Extension, Lent
from actors.core.queue import Queue, QueueBook
from gateway import crew
from gateway.crew import HEAD_BYTES, MOST_BYTES, NO_ROOM, UNSENT, WENT, Crew
from tests.gateway.lent import EPOCH, ROOMY, MemberDouble, a_lent, a_report
from tests.gateway.served import PullingDouble
from tests.support.builders import task_id

MAIL, OTHER = Queue(1, "acme", "mail"), Queue(2, "acme", "other")


class Stage:
    """A crew, and those to whom it speaks."""

    def __init__(self) -> None:
        book = QueueBook()
        for queue in (MAIL, OTHER):
            book.put(queue)
        self.moved: list[list[str]] = []
        self.pulling = PullingDouble()
        self.crew = Crew(self.pulling, book, self.moved.append)

    def worker(self, credits_: int, name: str = "", queue: Queue = MAIL, **more: Any) -> MemberDouble:
        """One who takes so many."""
        worker = MemberDouble(name, **more)
        self.crew.credit(worker, queue.id, credits_, 10_000)
        return worker

    def deliver(self, *numbers: int, queue: Queue = MAIL) -> None:
        self.crew.deliver(queue.id, [a_lent(number, queue.id) for number in numbers])

    @property
    def reports(self) -> list[tuple[str, int, Verdict, str | None]]:
        """Id, attempt, verdict and reason of all that was said."""
        return [
            (report.id, report.attempt, Verdict(report.verdict), report.error)
            for _, tenant, reports in self.pulling.reported
            for report in reports
            if tenant == "acme"
        ]


def ids(*numbers: int) -> list[str]:
    return [task_id(number) for number in numbers]


# --- a lease that ran out


@pytest.mark.parametrize("hangs", [False, True])
def test_a_task_goes_to_another_worker_than_the_one_that_hangs_and_let_its_lease_end(hangs: bool) -> None:
    stage = Stage()
    one, other = stage.worker(5), stage.worker(5)
    stage.deliver(1)
    stage.deliver(2)
    one.hangs = hangs
    stage.crew.deliver(MAIL.id, [a_lent(1, MAIL.id, attempt=2), a_lent(3, MAIL.id)])
    assert (one.given, other.given) == ((ids(1), ids(2, 1, 3)) if hangs else (ids(1, 1), ids(2, 3)))
    assert stage.crew.room(MAIL.id) == (2 if hangs else 6)
    one.room_bytes = ROOMY
    looked = len(stage.pulling.looked)
    stage.crew.drained(one)
    assert stage.pulling.looked[looked:] == [MAIL.id] * hangs, "it spoke, and there may be some that it was not given"


async def test_a_task_that_only_such_a_worker_has_room_for_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "WAIT_S", 0.01)
    stage = Stage()
    one = stage.worker(5)
    stage.deliver(1)
    one.hangs = True
    stage.crew.deliver(MAIL.id, [a_lent(1, MAIL.id, attempt=2)])
    await stage.pulling.until(lambda: stage.pulling.reported)
    assert stage.reports == [(task_id(1), 2, Verdict.SNOOZED, NO_ROOM)]


# --- credits


def test_credits_add_up_and_have_a_bound() -> None:
    stage, worker = Stage(), MemberDouble()
    assert [stage.crew.credit(worker, MAIL.id, count, 100) for count in (10, 20, 90)] == [10, 30, 100]
    assert (stage.crew.room(MAIL.id), stage.crew.room(OTHER.id)) == (100, 0)
    assert stage.pulling.looked == [MAIL.id] * 3


def test_what_is_wanted_is_told_when_it_changes() -> None:
    stage = Stage()
    one, other = stage.worker(1), stage.worker(1)
    stage.crew.credit(one, OTHER.id, 5, 100)
    stage.crew.credit(one, OTHER.id, 5, 100)
    stage.crew.stop(one)
    stage.crew.stop(other)
    assert stage.pulling.wanted == [{1}, {1}, {1, 2}, {1}, frozenset()]


def test_nobody_is_given_more_than_its_credits_and_the_rest_goes_back_unused() -> None:
    stage = Stage()
    one, other = stage.worker(2), stage.worker(3)
    stage.deliver(*range(8))
    assert (len(one.given), len(other.given), stage.crew.room(MAIL.id)) == (2, 3, 0)
    assert sorted(one.given + other.given) == ids(*range(5))
    assert stage.reports == [(task_id(n), 1, Verdict.SNOOZED, NO_ROOM) for n in (5, 6, 7)]
    assert stage.crew.leases == 5, "no link stands for what was not sent"


def test_what_nobody_takes_goes_back_whole() -> None:
    stage = Stage()
    stage.deliver(1, 2)
    stage.worker(5, queue=OTHER)
    stage.deliver(3)
    assert [report[0] for report in stage.reports] == ids(1, 2, 3)
    assert stage.crew.leases == 0


def test_shares_are_equal() -> None:
    stage = Stage()
    workers = [stage.worker(100) for _ in range(3)]
    stage.deliver(*range(30))
    assert [worker.batches for worker in workers] == [[("mail", 10)]] * 3
    stage.deliver(*range(30, 62))
    assert sorted(len(worker.given) for worker in workers) == [20, 21, 21]


def test_whoever_has_little_room_leaves_its_share_to_the_others() -> None:
    stage = Stage()
    small, large = stage.worker(1), stage.worker(100)
    stage.deliver(*range(20))
    assert (len(small.given), len(large.given)) == (1, 19)
    assert stage.reports == []


def test_turns_go_round_also_past_those_who_take_nothing() -> None:
    """Single tasks, as they come when little is due: each worker that takes some gets as many as the others."""
    stage = Stage()
    idle = [stage.worker(1), stage.worker(1)]
    for worker in idle:
        worker.room_bytes = 0
    workers = [stage.worker(100) for _ in range(3)]
    for number in range(30):
        stage.deliver(number)
    assert [len(worker.given) for worker in workers] == [10, 10, 10]
    assert [worker.given for worker in idle] == [[], []]
    order = Counter(
        worker.given.index(task_id(n)) for worker in workers for n in range(30) if task_id(n) in worker.given
    )
    assert set(order.values()) == {3}, "in turn"


def test_who_stops_is_given_nothing_and_keeps_what_it_has() -> None:
    stage = Stage()
    worker = stage.worker(10)
    stage.deliver(1)
    stage.crew.stop(worker)
    stage.deliver(2)
    assert (worker.given, stage.crew.room(MAIL.id)) == (ids(1), 0)
    assert [report[0] for report in stage.reports] == ids(2)
    assert (len(stage.crew), stage.crew.leases) == (0, 1)
    stage.crew.stop(worker)
    stage.crew.credit(worker, MAIL.id, 1, 10)
    stage.deliver(3)
    assert worker.given == ids(1, 3)


def test_workers_and_leases_are_counted() -> None:
    stage = Stage()
    worker = stage.worker(10)
    stage.crew.credit(worker, OTHER.id, 1, 10)
    stage.worker(10)
    stage.deliver(*range(5))
    assert (len(stage.crew), stage.crew.leases) == (2, 5)


# --- room


LARGE = bytes(100_000)
EACH = len(LARGE) + HEAD_BYTES


def large(*numbers: int, queue: Queue = MAIL, **more: Any) -> list[Lent]:
    return [a_lent(number, queue.id, payload=LARGE, **more) for number in numbers]


class Measured(MemberDouble):
    """Its room is used up by what it is given."""

    def give(self, queue: str, tasks: list[Lent]) -> None:
        super().give(queue, tasks)
        self.room_bytes = 0


def test_of_a_queue_that_nobody_knows_no_more_is_asked_for_than_fits_whatever_comes() -> None:
    stage = Stage()
    stage.worker(100, room_bytes=10 * MOST_BYTES)
    assert stage.crew.room(MAIL.id) == 10
    stage.worker(3, room_bytes=10 * MOST_BYTES)
    assert stage.crew.room(MAIL.id) == 13


def test_what_is_asked_for_follows_the_size_of_what_comes() -> None:
    stage = Stage()
    worker = stage.worker(1_000, room_bytes=MOST_BYTES)
    stage.deliver(1)
    assert stage.crew.room(MAIL.id) == -(-MOST_BYTES // HEAD_BYTES)
    stage.crew.deliver(MAIL.id, large(2))
    assert stage.crew.room(MAIL.id) == 3, "a large one is believed at once"
    rooms = []
    for number in range(3, 43):
        stage.deliver(number)
        rooms.append(stage.crew.room(MAIL.id))
    assert rooms == sorted(rooms)
    assert (rooms[0], rooms[-1]) == (3, -(-MOST_BYTES // HEAD_BYTES)), "small ones by and by"
    worker.room_bytes = 1
    assert stage.crew.room(MAIL.id) == 1, "the last one may go beyond it"
    for nothing in (0, -5, -10 * MOST_BYTES):
        worker.room_bytes = nothing
        assert stage.crew.room(MAIL.id) == 0


def test_nobody_is_given_more_bytes_than_it_has_room_for_but_for_its_last_task() -> None:
    stage = Stage()
    small = Measured(room_bytes=2 * EACH + 1)
    stage.crew.credit(small, MAIL.id, 100, 100)
    wide = stage.worker(100)
    stage.crew.deliver(MAIL.id, large(*range(20)))
    assert (len(small.given), len(wide.given)) == (3, 17)
    assert sorted(small.given + wide.given) == ids(*range(20))
    assert stage.reports == []


@pytest.mark.parametrize(("more", "count"), [({}, 4), ({"content_type": "image/png"}, 3), ({"labels": "x" * 5_000}, 3)])
def test_bytes_are_counted_as_they_are_sent(more: dict[str, Any], count: int) -> None:
    """As base64 where they are no JSON."""
    stage = Stage()
    worker = Measured(room_bytes=3 * EACH + 1)
    stage.crew.credit(worker, MAIL.id, 100, 100)
    stage.worker(100)
    stage.crew.deliver(MAIL.id, large(*range(20), **more))
    assert len(worker.given) == count


async def test_what_finds_no_room_waits_for_some_and_goes_first() -> None:
    stage = Stage()
    worker = Measured(room_bytes=3 * EACH)
    stage.crew.credit(worker, MAIL.id, 10, 10)
    stage.crew.deliver(MAIL.id, large(*range(5)))
    assert (worker.given, stage.reports, stage.crew.leases) == (ids(0, 1, 2), [], 3)
    stage.pulling.looked.clear()
    assert stage.crew.room(MAIL.id) == 0, "no more is asked for meanwhile"
    stage.deliver(5)
    assert worker.given == ids(0, 1, 2)
    worker.room_bytes = EACH
    stage.crew.drained(worker)
    assert worker.given == ids(0, 1, 2, 3)
    worker.room_bytes = 10 * EACH
    stage.crew.drained(worker)
    assert worker.given == ids(*range(6))
    assert stage.pulling.looked == [MAIL.id, MAIL.id], "and more is asked for"
    assert stage.crew._waiting == {}
    stage.crew.stop(worker)


async def test_a_new_worker_is_given_what_waits() -> None:
    stage = Stage()
    full, other = stage.worker(10, room_bytes=0), MemberDouble()
    stage.deliver(1, 2)
    assert (stage.reports, stage.crew.leases) == ([], 0)
    stage.crew.credit(other, OTHER.id, 5, 5)
    assert other.given == []
    stage.crew.credit(other, MAIL.id, 5, 5)
    assert (full.given, other.given, stage.reports) == ([], ids(1, 2), [])


async def test_what_finds_no_room_for_long_is_given_back_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "WAIT_S", 0.0)
    stage = Stage()
    worker = stage.worker(10, room_bytes=0)
    stage.deliver(1, 2)
    stage.crew.revoke([(task_id(1), 1), (task_id(2), 9), (task_id(7), 1)])
    await stage.pulling.until(lambda: stage.reports)
    assert stage.reports == [(task_id(2), 1, Verdict.SNOOZED, NO_ROOM)], "what was cancelled is nobody's affair"
    assert stage.pulling.looked[-1] == MAIL.id
    assert (worker.given, stage.crew.room(MAIL.id)) == ([], 0)
    worker.room_bytes = 1
    assert stage.crew.room(MAIL.id) == 1


async def test_what_waits_when_the_node_goes_is_given_back_at_once() -> None:
    stage = Stage()
    stage.worker(10, room_bytes=0)
    stage.deliver(1)
    stage.crew.close()
    assert stage.reports == [(task_id(1), 1, Verdict.SNOOZED, NO_ROOM)]


async def test_who_has_no_room_is_asked_for_again_when_it_has() -> None:
    stage = Stage()
    worker = stage.worker(10, room_bytes=0)
    stage.crew.credit(worker, OTHER.id, 5, 100)
    stage.pulling.looked.clear()
    stage.crew.drained(worker)
    assert stage.pulling.looked == [], "nobody has asked"
    assert stage.crew.room(MAIL.id) == 0
    worker.room_bytes = MOST_BYTES
    stage.crew.drained(worker)
    stage.crew.drained(worker)
    assert stage.pulling.looked == [MAIL.id, OTHER.id]
    worker.room_bytes = 0
    assert stage.crew.room(MAIL.id) == 0
    stage.crew.stop(worker)
    stage.crew.drained(worker)
    assert stage.crew._short == set()


def test_what_was_not_sent_to_a_worker_is_given_back_and_its_credits_are_its_own_again() -> None:
    stage = Stage()
    worker, tasks = stage.worker(4), [a_lent(n) for n in range(4)]
    stage.crew.deliver(MAIL.id, tasks)
    assert stage.crew.room(MAIL.id) == 0
    stage.crew.revoke([(task_id(3), 1)])
    stage.crew.withdraw(worker, tasks[1:])
    assert stage.reports == [(task_id(n), 1, Verdict.SNOOZED, UNSENT) for n in (1, 2)], "the third was cancelled"
    stage.pulling.looked.clear()
    stage.crew.drained(worker)
    assert stage.pulling.looked == [MAIL.id], "nobody else would ask for them when it reads again"
    assert (stage.crew.room(MAIL.id), stage.crew.leases) == (3, 1)


@pytest.mark.parametrize("closed", [True, False])
async def test_what_was_not_sent_when_a_link_ends_is_given_back_at_once(closed: bool) -> None:
    stage = Stage()
    worker, tasks = stage.worker(4), [a_lent(n) for n in range(3)]
    stage.crew.deliver(MAIL.id, tasks)
    stage.crew.part(worker, closed=closed, unsent=tasks[1:])
    assert stage.reports == [(task_id(n), 1, Verdict.SNOOZED, UNSENT) for n in (1, 2)]
    assert stage.crew.leases == closed, "what was sent"
    stage.crew.close()


# --- leases


def test_what_was_cancelled_is_told_to_whom_it_concerns() -> None:
    stage = Stage()
    one, other = stage.worker(2), stage.worker(2)
    stage.deliver(1, 2, 3)
    stage.crew.revoke([(task_id(n), 1) for n in (1, 2, 9)] + [(task_id(3), 2)])
    assert sorted(one.cancelled + other.cancelled) == ids(1, 2), "of task 3 another attempt"
    assert all(set(worker.cancelled) <= set(worker.given) for worker in (one, other))
    stage.crew.revoke([(task_id(1), 1)])
    assert (len(one.cancelled + other.cancelled), stage.crew.leases) == (2, 1)


async def test_what_ended_is_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "GRACE_S", 0.0)
    stage = Stage()
    worker = stage.worker(2)
    stage.deliver(1, 2)
    stage.crew.ended("acme", [a_report(1), a_report(9)])
    stage.crew.part(worker, closed=True)
    await stage.pulling.until(lambda: stage.reports)
    assert stage.reports == [(task_id(2), 1, Verdict.LOST, WENT)]


@pytest.mark.parametrize(
    ("tenant", "epoch", "attempt"), [("acme", EPOCH, 1), ("acme", EPOCH - 1, 2), ("stranger", EPOCH, 2)]
)
def test_a_late_word_of_another_lease_ends_no_lease(tenant: str, epoch: int, attempt: int) -> None:
    """The task is another worker's by now."""
    stage = Stage()
    worker = stage.worker(2)
    stage.crew.deliver(MAIL.id, [a_lent(1, attempt=2)])
    stage.crew.ended(tenant, [msgspec.structs.replace(a_report(1, attempt), epoch=epoch)])
    assert stage.crew.leases == 1
    stage.crew.revoke([(task_id(1), 2)])
    assert worker.cancelled == ids(1)


async def test_a_link_that_was_closed_has_some_time_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "GRACE_S", 0.05)
    stage = Stage()
    worker, loop = stage.worker(10), asyncio.get_running_loop()
    stage.deliver(1, 2)
    began_s = loop.time()
    stage.crew.part(worker, closed=True)
    assert (stage.reports, stage.crew.room(MAIL.id), len(stage.crew)) == ([], 0, 0)
    await stage.pulling.until(lambda: stage.reports)
    assert loop.time() - began_s >= 0.05
    assert stage.reports == [(task_id(n), 1, Verdict.LOST, WENT) for n in (1, 2)]
    assert stage.crew.leases == 0


async def test_the_leases_of_a_link_that_fell_silent_run_to_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "GRACE_S", 0.0)
    stage = Stage()
    silent, closed = stage.worker(1), stage.worker(1)
    stage.deliver(1, 2)
    stage.crew.part(silent, closed=False)
    assert stage.crew.leases == 1
    stage.crew.part(closed, closed=True)
    await stage.pulling.until(lambda: stage.reports)
    assert [report[0] for report in stage.reports] == closed.given


async def test_who_comes_back_keeps_its_leases_and_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "GRACE_S", 0.0)
    stage = Stage()
    worker, again = stage.worker(3), MemberDouble()
    stage.deliver(1, 2, 3)
    stage.crew.part(worker, closed=True)
    stage.crew.come_back(again, [Extension(task_id(n), EPOCH, 1) for n in (1, 2)])
    assert stage.moved == [ids(1, 2)]
    await stage.pulling.until(lambda: stage.reports)
    assert [report[0] for report in stage.reports] == ids(3), "it does not go on with that"
    stage.crew.revoke([(task_id(1), 1)])
    assert again.cancelled == ids(1)
    stage.crew.come_back(again, [])
    assert stage.moved == [ids(1, 2)]


async def test_who_came_back_elsewhere_is_not_missed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "GRACE_S", 0.0)
    stage = Stage()
    worker = stage.worker(3)
    stage.deliver(1, 2)
    stage.crew.part(worker, closed=True)
    stage.crew.moved(ids(1, 9))
    await stage.pulling.until(lambda: stage.reports)
    assert [report[0] for report in stage.reports] == ids(2)


async def test_who_comes_back_before_its_old_link_is_found_closed_keeps_its_leases() -> None:
    stage = Stage()
    worker, again = stage.worker(3), MemberDouble()
    stage.deliver(1)
    stage.crew.come_back(again, [Extension(task_id(1), EPOCH, 1)])
    stage.crew.part(worker, closed=True)
    assert (stage.crew.leases, stage.crew._parted) == (1, {}), "nothing is left to wait for"


async def test_a_node_that_goes_gives_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers go on with what they have, at other nodes."""
    monkeypatch.setattr(crew, "GRACE_S", 0.0)
    stage = Stage()
    early, late = stage.worker(1), stage.worker(1)
    stage.deliver(1, 2)
    stage.crew.part(early, closed=True)
    stage.crew.close()
    stage.crew.part(late, closed=True)
    for _ in range(5):  # a timer that is due now fires within two turns
        await asyncio.sleep(0)
    assert stage.reports == []


def test_what_is_given_back_was_sent_to_nobody() -> None:
    stage = Stage()
    stage.crew.give_back([a_lent(1, attempt=4)], "acme")
    assert stage.reports == [(task_id(1), 4, Verdict.SNOOZED, UNSENT)]
    speaker = stage.pulling.reported[0][0]
    speaker.answer([])
    speaker.keep([])
