"""What nodes tell and ask each other over their links."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from actors.core.errors import Conflict, Invalid, Unavailable
from actors.core.events import Answer, Change, Command
from actors.core.live import gone
from actors.core.queue import Queue
from actors.core.reach import Reach
from actors.core.wire import Message, Watching
from actors.ports.leases import Peer
from gateway import guest, interest, learner, link, relay, strange
from gateway.guest import Guest
from gateway.latest import Latest
from gateway.topics import Labelled, Topic
from tests.gateway.linked import EPOCHS, NEW, QUEUE, SECRET, Ear, End, command, end, pair, watching
from tests.gateway.watched import a_change, id_of
from tests.support.builders import T0_MS, make_task, task_id


async def test_hints_arrive() -> None:
    async with pair() as (a, b):
        a.peers.hint("boot-b", [make_task(n, QUEUE) for n in range(1_200)], T0_MS, EPOCHS)
        b.peers.hint("boot-a", [make_task(7, QUEUE)], T0_MS, EPOCHS)
        await b.node.until(lambda: len(b.node.hinted) == 1_200)
        assert b.node.hinted == [task_id(n) for n in range(1_200)]
        await a.node.until(lambda: a.node.hinted == [task_id(7)])


async def test_an_heir_is_told_that_it_was_given_shards() -> None:
    async with pair() as (a, b):
        a.peers.given("boot-b")
        await b.node.until(lambda: b.node.given == 1)
        b.peers.given("boot-a")
        a.peers.given("boot-b")
        await b.node.until(lambda: b.node.given == 2)
        await a.node.until(lambda: a.node.given == 1)


async def test_an_heir_that_there_is_no_link_to_is_told_nothing() -> None:
    """Its next beat shows it the same."""
    async with pair() as (a, b):
        a.peers.given("boot-x")
        a.see()
        a.peers.given("boot-b")
        b.peers.given("boot-a")
        await a.node.until(lambda: a.node.given == 1)
        assert b.node.given == 0


async def test_questions_are_answered_each_by_its_own() -> None:
    def answers(asked: Command) -> Answer | None:
        match int(asked.id[:8], 16) % 4:
            case 0:
                return None
            case 1:
                return Answer(None, error=Conflict("a task that runs", "running"))
            case 2:
                raise Invalid("no")
        return Answer(None, changed=False)

    async with pair() as (a, b), asyncio.TaskGroup() as group:
        b.node.answers = answers
        asked = [group.create_task(a.peers.ask("boot-b", command(n))) for n in range(40)]
        told = [await one for one in asked]
        assert [answer is None for answer in told] == [n % 4 == 0 for n in range(40)]
        for n, answer in enumerate(told):
            if answer is not None:
                error = {1: Conflict, 2: Unavailable, 3: type(None)}[n % 4]
                assert isinstance(answer.error, error)


async def test_what_owners_know_is_told() -> None:
    async with pair() as (a, _):
        ids = [task_id(1), task_id(2)]
        assert await a.peers.look("boot-b", ids) == [gone(each, 3) for each in ids]
        a.see()
        assert await a.peers.look("boot-b", ids) == []


async def test_what_others_hold_is_told_but_not_to_too_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "MEASURES", 1)
    async with pair() as (a, b), asyncio.TaskGroup() as group:
        assert await a.peers.measure("boot-b", 5) == [Reach(3, 5, 7, {7: (T0_MS, task_id(1))})]
        b.node.held.clear()
        first = group.create_task(a.peers.measure("boot-b", 6))
        await b.node.until(lambda: b.node.measured == [5, 6])
        second = group.create_task(a.peers.measure("boot-b", 7))
        assert await a.peers.look("boot-b", []) == [], "what was asked before it has arrived"
        b.node.held.set()
        assert await first is not None
        assert b.node.measured == [5, 6]
        second.cancel()
        assert await a.peers.measure("boot-b", 8) is not None
        assert await a.peers.measure("boot-x", 8) is None


async def test_what_a_broken_link_was_asked_is_not_known() -> None:
    async with pair() as (a, b), asyncio.TaskGroup() as group:
        b.node.held.clear()
        asked = group.create_task(a.peers.measure("boot-b", 5))
        await b.node.until(lambda: bool(b.node.measured))
        await (await a.linked(b)).cut()
        assert await asked is None
        b.node.held.set()


async def test_who_starts_again_under_a_new_boot_is_linked_anew() -> None:
    async with pair() as (a, b):
        old, b.boot = b.boot, "boot-c"
        b.see(a)
        a.see(b)
        await a.linked(b)
        assert await a.peers.ask("boot-c", command()) is not None
        assert await a.peers.ask(old, command()) is None


async def test_a_boot_that_was_here_before_is_not_linked() -> None:
    """Its address is mine now: a link would lead back here."""
    async with end("boot-a") as a:
        a.peers.see("boot-a", SECRET, [a.peer, Peer("boot-b", "name", a.address, "up", 1)])
        assert a.peers.link("boot-b") is None
        assert [a.peers.is_gone(boot) for boot in ("boot-a", "boot-b")] == [False, True]
        assert a.hub.interest.alone


OTHER = Queue(9, "stranger", "mail")
MAIL = ("default", "mail")
BLUE = Labelled("default", None, (("team", "blue"),))


def tells(ear: Ear, task_id: str, version: int) -> bool:
    return (task_id, version) in [(told.id, told.version) for told in ear.heard]


def change(number: int, version: int = 0, queue: Queue = QUEUE, labels: str | None = None) -> Change:
    return a_change(number, version, queue=queue, labels=labels)


@pytest.mark.parametrize("topic", [MAIL, id_of(1), BLUE])
async def test_what_happens_elsewhere_is_heard_by_those_who_watch_it(topic: Topic) -> None:
    blue = '{"team":"blue"}'
    async with pair() as (a, b), watching(a, topic) as ear:
        b.hub.publish(
            [change(1, 0, labels=blue), change(2, 0, Queue(7, "stranger", "mail")), change(1, 1, labels=blue)]
        )
        b.hub.publish([change(1, 2, labels=blue)])
        await ear.until(lambda: len(ear.heard) >= 3)
        assert [(told.id, told.version, told.labels) for told in ear.heard] == [(id_of(1), n, blue) for n in range(3)]
        assert ear.gaps == 0


async def test_what_is_of_two_topics_is_told_once() -> None:
    async with pair() as (a, b), watching(a, MAIL) as one, watching(a, id_of(1)) as other:
        b.hub.publish([change(1, 0), change(1, 1)])
        await one.until(lambda: len(one.heard) == 2)
        assert one.heard == other.heard == [change(1, 0), change(1, 1)]


async def test_nothing_is_told_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Latest, "news", lambda latest, changes: changes)
    async with pair() as (a, b), watching(a, MAIL) as here, watching(b, MAIL) as there:
        a.hub.publish([change(1)])
        await there.until(lambda: bool(there.heard))
        b.hub.publish([change(2)])
        await here.until(lambda: len(here.heard) == 2)
        a.hub.publish([change(3)])
        await there.until(lambda: len(there.heard) == 3)
        assert here.heard == there.heard == [change(1), change(2), change(3)]


async def test_an_interruption_is_passed_on_once() -> None:
    async with pair() as (a, b), watching(a, MAIL) as here, watching(b, MAIL) as there:
        b.hub.interrupt()
        await here.until(lambda: here.gaps == 1)
        for version in range(3):  # had it come back, it would be there before these
            a.hub.publish([change(1, version)])
            await there.until(partial(tells, there, id_of(1), version))
            b.hub.publish([change(2, version)])
            await here.until(partial(tells, here, id_of(2), version))
        assert (here.gaps, there.gaps) == (1, 1)


async def test_a_change_that_comes_after_a_later_one_is_told_to_nobody() -> None:
    async with pair() as (a, b), watching(a, MAIL) as ear:
        a.hub.publish([change(1, 4)])
        b.hub.publish([change(1, 3), change(1, 4), change(2, 0)])
        await ear.until(lambda: len(ear.heard) >= 2)
        assert ear.heard == [change(1, 4), change(2, 0)]


async def test_more_than_a_link_can_hold_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "RELAYED", 3)
    async with pair() as (a, b), watching(a, MAIL) as ear:
        b.hub.publish([change(number) for number in range(5)])
        await ear.until(lambda: bool(ear.heard))
        assert (ear.heard, ear.gaps) == ([change(4)], 1)


async def test_a_link_that_was_cut_is_a_gap_for_those_who_watch() -> None:
    async with pair() as (a, b), watching(a, MAIL) as ear:
        await (await a.linked(b)).cut()
        await b.hub.until(lambda: b.hub.watchers == 0)
        b.hub.publish([change(1)])
        await ear.until(lambda: ear.gaps == 1)
        b.hub.publish([change(2)])
        await ear.until(lambda: bool(ear.heard))
        assert ear.heard == [change(2)], "what was lost is for a snapshot to show"


async def test_a_node_that_goes_is_a_gap_for_those_who_watch() -> None:
    async with pair() as (a, _), watching(a, MAIL) as ear:
        a.see()
        assert ear.gaps == 1


async def test_a_node_that_comes_is_told_what_is_watched() -> None:
    async with pair() as (a, b):
        b.see()
        a.see()
        async with watching(a, MAIL) as ear:
            a.see(b)
            b.see(a)
            await ear.until(lambda: ear.gaps == 1)
            b.hub.publish([change(1)])
            await ear.until(lambda: bool(ear.heard))


async def test_what_nobody_watches_any_more_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair() as (a, b):
        async with watching(a, MAIL), watching(a, id_of(1)):
            assert (b.hub.watchers, b.hub.feeds(MAIL)) == (1, 1)
        a.see(b)
        async with watching(a, id_of(2)):
            assert b.hub.feeds(MAIL) == 1, "who comes back soon finds it all"
        monkeypatch.setattr(interest, "LINGER_S", 0.0)
        a.see(b)
        await b.hub.until(lambda: b.hub.watchers == 0)
        assert b.hub.feeds(MAIL) == 0


async def test_who_is_slow_to_say_that_it_tells_is_a_gap_when_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "WATCH_S", 0.05)
    held = hold_watching(monkeypatch)
    async with pair() as (a, b), watching(a, MAIL) as ear:
        assert ear.gaps == 0
        b.hub.publish([change(1)])
        await ear.until(lambda: ear.heard == [change(1)])
        (say,) = held
        say()
        await ear.until(lambda: ear.gaps == 1)
        assert await a.peers.ask("boot-b", command()) is not None, "the link lives"


async def test_whoever_leaves_before_it_was_told_disturbs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    held = hold_watching(monkeypatch)
    async with pair() as (a, b), asyncio.TaskGroup() as group:
        leaving = group.create_task(a_watch(a))
        await b.hub.until(lambda: b.hub.feeds(MAIL) == 1)
        leaving.cancel()
        await asyncio.wait([leaving])
        held.pop()()
        monkeypatch.undo()
        async with watching(a, MAIL) as ear:
            b.hub.publish([change(1)])
            await ear.until(lambda: bool(ear.heard))
            assert (ear.heard, ear.gaps) == ([change(1)], 0)


async def a_watch(at: End) -> None:
    async with watching(at, MAIL):
        raise AssertionError("the other node does not say that it tells")


def hold_watching(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What was to be said, and is said when it is called."""
    held: list[Callable[[], None]] = []
    say = Guest._say

    def hold(guest: Guest, message: Message) -> None:
        if isinstance(message, Watching):
            held.append(partial(say, guest, message))
        else:
            say(guest, message)

    monkeypatch.setattr(Guest, "_say", hold)
    return held


BLUE_LABEL = '{"team":"blue"}'


async def test_a_queue_that_is_new_is_no_gap_for_anybody() -> None:
    async with pair() as (a, b), watching(a, BLUE) as blue, watching(a, MAIL) as mail:
        a.node.learned = [NEW]
        a.node.table.clear()
        b.hub.publish([change(1, 0, NEW, BLUE_LABEL), change(2, 0, QUEUE, BLUE_LABEL), change(1, 1, NEW, BLUE_LABEL)])
        await a.node.until(lambda: a.node.reads == [[NEW.id]])
        await mail.until(lambda: tells(mail, id_of(2), 0))
        b.hub.publish([change(1, 2, NEW, BLUE_LABEL), change(2, 1)])
        await mail.until(lambda: tells(mail, id_of(2), 1))
        assert not tells(blue, id_of(1), 0)
        a.node.table.set()
        await blue.until(lambda: tells(blue, id_of(1), 2))
        assert [told.version for told in blue.heard if told.id == id_of(1)] == [0, 1, 2]
        assert (blue.gaps, mail.gaps) == (0, 0)
        assert a.node.reads == [[NEW.id]]


async def test_a_queue_that_can_not_be_read_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "FAILED_S", 0.0)
    monkeypatch.setattr(strange, "MISS_S", 0.0)
    async with pair() as (a, b), watching(a, BLUE) as ear:
        b.hub.publish([change(1, 0, NEW, BLUE_LABEL), change(2, 0, QUEUE, BLUE_LABEL)])
        await ear.until(lambda: ear.gaps == 1)
        assert [told.id for told in ear.heard] == [id_of(2)]
        a.node.learned = [NEW]
        b.hub.publish([change(1, 1, NEW, BLUE_LABEL)])
        await ear.until(lambda: tells(ear, id_of(1), 1))
        assert ear.gaps == 1


@pytest.mark.parametrize("bound", ["HELD", "HELD_BYTES"])
async def test_more_than_can_be_held_is_a_gap(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    async with pair() as (a, b), watching(a, BLUE) as ear:
        monkeypatch.setattr(strange, bound, 2 if bound == "HELD" else 2 * len(BLUE_LABEL))
        a.node.learned = [NEW]
        a.node.table.clear()
        b.hub.publish([change(1, 0, NEW, BLUE_LABEL), change(1, 1, NEW, BLUE_LABEL)])
        await a.node.until(lambda: bool(a.node.reads))
        assert ear.gaps == 0
        b.hub.publish([change(1, 2, NEW, BLUE_LABEL)])
        await ear.until(lambda: ear.gaps == 1)
        b.hub.publish([change(1, 3, NEW, BLUE_LABEL)])
        a.node.table.set()
        await ear.until(lambda: bool(ear.heard))
        assert ([told.version for told in ear.heard], ear.gaps) == ([3], 1)


async def test_what_was_held_when_a_link_broke_is_for_a_snapshot_to_show() -> None:
    async with pair() as (a, b), watching(a, BLUE) as ear:
        a.node.learned = [NEW]
        a.node.table.clear()
        b.hub.publish([change(1, 0, NEW, BLUE_LABEL)])
        await a.node.until(lambda: bool(a.node.reads))
        await (await a.linked(b)).cut()
        await ear.until(lambda: ear.gaps == 1)
        a.node.table.set()
        b.hub.publish([change(1, 1, NEW, BLUE_LABEL)])
        await ear.until(lambda: bool(ear.heard))
        assert [told.version for told in ear.heard] == [1]
