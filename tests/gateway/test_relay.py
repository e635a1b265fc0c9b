"""What goes to another node: its topics' changes of this one, in order, bounded."""

from collections.abc import Iterator

import pytest

from actors.core.codec import SpecCodec
from actors.core.queue import QueueBook
from actors.core.wire import Changes, Message, Missed, Watch, Wire
from gateway import relay
from gateway.hub import Hub
from gateway.relay import FRAME, Relay, topic_of, wire_topic
from gateway.topics import Labelled, Topic
from tests.gateway.watched import OTHER, QUEUE, a_change, id_of

MAIL = ("default", "mail")


class World:
    """A relay, its hub, and how often it had news."""

    def __init__(self) -> None:
        book = QueueBook()
        book.put(QUEUE)
        book.put(OTHER)
        self.wire = Wire(book, SpecCodec())
        self.hub = Hub("b")
        self.hub.interest.alone = False
        self.news = 0
        self.relay = Relay(self.hub, self.wire, self._tell)

    def _tell(self) -> None:
        self.news += 1

    def watch(self, *topics: Topic, left: tuple[Topic, ...] = ()) -> None:
        self.relay.watch(Watch(1, [wire_topic(topic) for topic in topics], [wire_topic(topic) for topic in left]))

    def taken(self) -> list[Message]:
        """All that it gives."""
        messages: list[Message] = []
        while some := self.relay.take():
            messages += some
        return messages


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    with world.relay:
        yield world
    assert world.hub.watchers == 0, "it leaves nothing behind"
    assert not world.hub._feeds
    assert not world.hub._by_label


@pytest.mark.parametrize(
    "topic", [id_of(1), MAIL, Labelled("acme", None, (("a", "b"),)), Labelled("acme", "q", (("a", ""), ("c", "d")))]
)
def test_a_topic_travels(topic: Topic) -> None:
    assert topic_of(wire_topic(topic)) == topic


def test_changes_go_out_in_order_each_once(world: World) -> None:
    world.watch(MAIL, id_of(1))
    world.watch(id_of(1))
    changes = [a_change(1, 0), a_change(2, 0), a_change(1, 1)]
    world.hub.publish([*changes, a_change(3, queue=OTHER)])
    assert world.taken() == [world.wire.changes(changes)]
    assert world.taken() == []


def test_what_came_from_elsewhere_is_not_passed_on(world: World) -> None:
    world.watch(MAIL)
    world.hub.publish([a_change(1)], foreign=True)
    world.hub.interrupt(foreign=True)
    assert (world.taken(), world.news) == ([], 0)
    world.hub.interrupt()
    assert (world.taken(), world.news) == ([Missed()], 1)


def test_what_was_left_is_not_told(world: World) -> None:
    world.watch(MAIL, id_of(1))
    world.watch(left=(MAIL, ("default", "never watched")))
    world.hub.publish([a_change(1), a_change(2)])
    assert world.taken() == [world.wire.changes([a_change(1)])]
    world.watch(left=(id_of(1),))
    assert world.hub.watchers == 0
    world.watch(MAIL)
    world.hub.publish([a_change(3)])
    assert world.taken() == [world.wire.changes([a_change(3)])]


def test_what_is_watched_again_costs_nothing_more(world: World) -> None:
    blue = Labelled("default", None, (("team", "blue"),))
    for _ in range(3):
        world.watch(MAIL, blue)
    assert len(world.hub._feeds[MAIL]) == len(world.hub._by_label.items()) == world.hub.watchers == 1


def test_many_go_in_messages_of_a_size(world: World) -> None:
    world.watch(MAIL)
    world.hub.publish([a_change(number) for number in range(2 * FRAME + 1)])
    counts = [len(message.changes) for message in world.taken() if isinstance(message, Changes)]
    assert counts == [FRAME, FRAME, 1]


def test_who_does_not_take_is_told_that_it_missed_something(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "RELAYED", 3)
    world.watch(MAIL)
    world.hub.publish([a_change(number) for number in range(5)])
    assert world.taken() == [Missed(), world.wire.changes([a_change(4)])]


def test_what_waits_when_something_was_missed_is_not_told(world: World) -> None:
    world.watch(MAIL)
    world.hub.publish([a_change(1)])
    world.hub.interrupt()
    world.hub.publish([a_change(2)])
    assert world.taken() == [Missed(), world.wire.changes([a_change(2)])]
