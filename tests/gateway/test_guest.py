"""What a node does with what comes over another's link."""

from actors.core.errors import Unavailable
from actors.core.events import Answer, Command
from tests.gateway.linked import NEW, QUEUE, command, error_of, pair
from tests.support.builders import T0_MS, make_task, task_id


async def test_a_hint_of_a_new_queue_is_taken_once_the_queue_is_known() -> None:
    async with pair() as (a, b):
        b.node.learned = [NEW]
        a.peers.hint("boot-b", [make_task(1, NEW)], T0_MS)
        await b.node.until(lambda: b.node.hinted == [task_id(1)])


async def test_of_a_queue_that_can_not_be_read_nothing_is_taken() -> None:
    async with pair() as (a, b):
        a.peers.hint("boot-b", [make_task(1, NEW), make_task(2, QUEUE)], T0_MS)
        await b.node.until(lambda: b.node.hinted == [task_id(2)])


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
