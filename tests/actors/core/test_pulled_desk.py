"""The desk of pulled tasks: workers take from the queues that they work on."""

import pytest

from actors.core import desk as bounds
from actors.core.desk import Desk
from actors.core.queue import Queue
from actors.core.spec import Spec
from actors.core.task import Phase, Task
from tests.support.builders import make_task


class Office:
    """A desk of pulled tasks, and who works there."""

    def __init__(self) -> None:
        self.desk = Desk(pulled=True)
        self.count = 0

    def offer(self, queue: Queue, count: int = 1, *, stored: int = 0) -> list[Task]:
        """Put due tasks on the desk whose payload is `stored` bytes in the tables."""
        tasks = []
        for _ in range(count):
            self.count += 1
            task = make_task(self.count, queue, spec=Spec())
            task.payload_bytes = stored
            task.phase = Phase.OFFERED
            tasks.append(task)
        assert self.desk.put(tasks) == []
        return tasks

    def take(self, queue: Queue, limit: int = 100) -> list[Task]:
        """Take from one queue, and start what was taken."""
        tasks = self.desk.take_of(queue.id, limit)
        for task in tasks:
            assert task.phase is Phase.OFFERED
            task.phase = Phase.RUNNING
        return tasks

    def read(self) -> None:
        """The payloads that were asked for were read."""
        tasks = self.desk.unread()
        for task in tasks:
            task.payload = bytes(task.payload_bytes)
        self.desk.read(tasks)


EMAILS, IMAGES = Queue(1, "default", "emails"), Queue(2, "default", "images")


@pytest.fixture
def office() -> Office:
    EMAILS.paused = IMAGES.paused = False
    return Office()


def test_nothing_is_there(office: Office) -> None:
    assert (office.take(EMAILS), office.desk.queues(), bool(office.desk)) == ([], set(), False)


def test_a_queue_is_taken_in_order_and_once_and_no_other_is(office: Office) -> None:
    emails, images = office.offer(EMAILS, 5), office.offer(IMAGES, 2)
    assert office.desk.queues() == {1, 2}
    assert office.take(EMAILS, 2) == emails[:2]
    assert office.take(EMAILS) == emails[2:]
    assert (office.take(EMAILS), office.desk.queues()) == ([], {2})
    assert office.take(IMAGES) == images
    assert (office.desk.queues(), bool(office.desk)) == (set(), False)


def test_nothing_is_taken_when_nothing_is_asked_for(office: Office) -> None:
    office.offer(EMAILS)
    assert office.take(EMAILS, 0) == []
    assert office.desk.queues() == {1}


def test_what_comes_after_all_was_taken_is_there(office: Office) -> None:
    office.offer(EMAILS)
    office.take(EMAILS)
    again = office.offer(EMAILS, 3)
    assert office.desk.queues() == {1}
    assert office.take(EMAILS) == again


def test_what_is_no_longer_offered_is_dropped_on_the_way_out(office: Office) -> None:
    gone, stays = office.offer(EMAILS, 2)
    gone.phase = Phase.WRITING
    assert office.take(EMAILS) == [stays]
    office.offer(EMAILS)[0].phase = Phase.GONE
    assert office.desk.queues() == {1}
    assert (office.take(EMAILS), office.desk.queues()) == ([], set())


def test_a_payload_is_read_when_its_turn_comes(office: Office) -> None:
    tasks = office.offer(EMAILS, 3, stored=5)
    assert office.take(EMAILS, 2) == []
    assert office.desk.queues() == set(), "nothing that may be taken now"
    office.read()
    assert office.desk.queues() == {1}
    assert office.take(EMAILS, 2) == tasks[:2]
    assert office.take(EMAILS, 2) == tasks[2:]


def test_no_more_is_read_ahead_than_the_bound(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "READ_TASKS", 4)
    tasks = office.offer(EMAILS, 10, stored=5)
    assert office.take(EMAILS) == []
    office.read()
    assert office.desk.queues() == {1}
    assert office.take(EMAILS) == tasks[:4]
    assert office.desk.unread() == tasks[4:8]


def test_a_paused_queue_waits(office: Office) -> None:
    tasks = office.offer(EMAILS, 2)
    EMAILS.paused = True
    assert (office.take(EMAILS), office.desk.queues()) == ([], set())
    EMAILS.paused = False
    assert office.desk.queues() == {1}
    assert office.take(EMAILS) == tasks


def test_a_pause_holds_for_what_was_read_ahead(office: Office) -> None:
    tasks = office.offer(EMAILS, 3, stored=5)
    office.take(EMAILS)
    office.read()
    EMAILS.paused = True
    assert office.take(EMAILS) == []
    assert [task.payload for task in tasks] == [None] * 3
    EMAILS.paused = False
    assert office.take(EMAILS) == []
    office.read()
    assert office.take(EMAILS) == tasks


def test_a_pause_that_empties_a_queue_leaves_nothing_behind(office: Office) -> None:
    """Else its lane would have two places, and one of them would stay for good."""
    [gone] = office.offer(EMAILS, stored=5)
    office.take(EMAILS)
    office.read()
    gone.phase = Phase.WRITING
    EMAILS.paused = True
    assert office.take(EMAILS) == []
    EMAILS.paused = False
    assert office.desk.queues() == set()
    tasks = office.offer(EMAILS, 2)
    assert office.take(EMAILS) == tasks
    assert office.desk.queues() == set()


def test_a_queue_that_is_taken_alone_keeps_its_place_among_all(office: Office) -> None:
    emails, images = office.offer(EMAILS, 4), office.offer(IMAGES, 4)
    assert office.take(EMAILS, 1) == emails[:1]
    assert office.desk.take(4) == [*emails[1:3], *images[:2]]
