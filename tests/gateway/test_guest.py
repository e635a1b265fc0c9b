"""What a node does with what comes over another's link."""

import pytest

from actors.core.errors import Unavailable
from actors.core.events import Answer, Command
from actors.core.queue import Queue
from gateway import guest
from tests.gateway.linked import EPOCHS, NEW, QUEUE, command, error_of, pair
from tests.support.builders import T0_MS, make_task, task_id

NEWER = Queue(9, "default", "newer")


async def test_a_hint_of_a_new_queue_is_taken_once_the_queue_is_known() -> None:
    async with pair() as (a, b):
        b.node.learned = [NEW]
        a.peers.hint("boot-b", [make_task(1, NEW)], T0_MS, EPOCHS)
        await b.node.until(lambda: b.node.hinted == [task_id(1)])


async def test_of_a_queue_that_can_not_be_read_nothing_is_taken() -> None:
    async with pair() as (a, b):
        a.peers.hint("boot-b", [make_task(1, NEW), make_task(2, QUEUE)], T0_MS, EPOCHS)
        await b.node.until(lambda: bool(b.node.reads))
        assert b.node.hinted == [task_id(2)]


async def test_tasks_of_queues_that_are_known_do_not_wait_for_others() -> None:
    async with pair() as (a, b):
        b.node.learned = [NEW, NEWER]
        b.node.table.clear()
        a.peers.hint("boot-b", [make_task(1, NEW), make_task(2, QUEUE)], T0_MS, EPOCHS)
        await b.node.until(lambda: b.node.reads == [[NEW.id]])
        assert b.node.hinted == [task_id(2)]
        a.peers.hint("boot-b", [make_task(3, NEW)], T0_MS, EPOCHS)
        a.peers.hint("boot-b", [make_task(4, NEWER), make_task(5, QUEUE)], T0_MS, EPOCHS)
        await b.node.until(lambda: len(b.node.hinted) == 2)
        b.node.table.set()
        await b.node.until(lambda: len(b.node.hinted) == 5)
        assert b.node.hinted[2:] == [task_id(n) for n in (1, 3, 4)]
        assert b.node.reads == [[NEW.id], [NEW.id, NEWER.id]], "one at a time, for all who wait"


async def test_tasks_that_wait_for_their_queue_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "NEW", 2)
    async with pair() as (a, b):
        b.node.learned = [NEW]
        b.node.table.clear()
        a.peers.hint("boot-b", [make_task(n, NEW) for n in range(2)], T0_MS, EPOCHS)
        a.peers.hint("boot-b", [make_task(n, NEW) for n in range(2, 4)], T0_MS, EPOCHS)
        a.peers.hint("boot-b", [make_task(4, QUEUE)], T0_MS, EPOCHS)
        await b.node.until(lambda: b.node.hinted == [task_id(4)])
        b.node.table.set()
        await b.node.until(lambda: len(b.node.hinted) == 3)
        a.peers.hint("boot-b", [make_task(5, NEW)], T0_MS, EPOCHS)
        await b.node.until(lambda: len(b.node.hinted) == 4)
        assert b.node.hinted == [task_id(n) for n in (4, 0, 1, 5)]


async def test_a_frame_for_the_boot_that_was_here_before_is_not_heard() -> None:
    async with pair() as (a, b):
        b.peers.boot = "boot-c"
        a.peers.given("boot-b")
        assert isinstance(await error_of(a, command()), Unavailable)
        assert (b.node.asked, b.node.given) == ([], 0)


async def test_one_that_is_given_shards_looks_before_it_answers_what_came_behind() -> None:
    """In one frame, in its order: whoever asks next is not sent away for what it has been given."""
    async with pair() as (a, b):
        seen: list[int] = []

        def answers(_: Command) -> Answer:
            seen.append(b.node.given)
            return Answer(None, changed=False)

        b.node.answers = answers
        a.peers.given("boot-b")
        assert await a.peers.ask("boot-b", command()) is not None
        assert seen == [1]
