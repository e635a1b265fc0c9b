"""The hub: numbers, memory, and who is told."""

from hypothesis import given
from hypothesis import strategies as st

from actors.core.events import Change
from actors.core.queue import Queue
from gateway.hub import LINGER_S, Event, Hub, Recent
from gateway.topics import Labelled
from tests.gateway.watched import FOREIGN, OTHER, a_change, id_of


class Ear:
    """A feed that remembers."""

    def __init__(self) -> None:
        self.heard: list[Event] = []
        self.interruptions = 0

    def push(self, event: Event) -> None:
        self.heard.append(event)

    def interrupt(self, *, foreign: bool) -> None:
        self.interruptions += 1

    @property
    def numbers(self) -> list[int]:
        return [event.seq for event in self.heard]


@given(st.integers(1, 7), st.lists(st.one_of(st.integers(0, 20), st.just(-1)), max_size=30))
def test_memory_is_the_tail_of_all_that_was_published(size: int, steps: list[int]) -> None:
    recent = Recent(size)
    everything: list[Change] = []
    first = 0
    for count in steps:
        batch = [a_change(len(everything) + i) for i in range(3 if count == -1 else count)]
        everything += batch
        if count == -1:
            recent.skip(len(batch))
            first = len(everything)
        else:
            recent.append(batch)
        first = max(first, len(everything) - size)
        assert (recent.first, recent.last) == (first, len(everything))
        for seq in range(first, len(everything) + 1):
            assert recent.after(seq, 3) == everything[seq : seq + 3]


def test_feeds_hear_of_their_task_and_their_queue_alone() -> None:
    hub = Hub("b")
    task, queue = Ear(), Ear()
    with hub.watching():
        hub.add(id_of(1), task)
        hub.add(("default", "mail"), queue)
        hub.publish([a_change(1), a_change(2), a_change(3, queue=OTHER), a_change(4, queue=FOREIGN)])
        assert (task.numbers, queue.numbers) == ([1], [1, 2])
        assert task.heard[0] is queue.heard[0], "one event, however many are told"


def test_feeds_hear_of_their_labels() -> None:
    hub = Hub("b")
    blue, both, of_queue, other = Ear(), Ear(), Ear(), Ear()
    topics: dict[Labelled, Ear] = {
        Labelled("default", None, (("team", "blue"),)): blue,
        Labelled("default", None, (("app", "shop"), ("team", "blue"))): both,
        Labelled("default", "other", (("team", "blue"),)): of_queue,
        Labelled("default", None, (("team", "red"),)): other,
    }
    with hub.watching():
        for topic, ear in topics.items():
            hub.add(topic, ear)
        changes = [
            a_change(1, labels='{"team":"blue"}'),
            a_change(2, labels='{"app":"shop","team":"blue"}'),
            a_change(3),
            a_change(4, labels='{"team":"blue"}', queue=OTHER),
            a_change(5, labels='{"app":"shop","team":"blue"}', queue=FOREIGN),
        ]
        hub.publish(changes)
        assert [ear.numbers for ear in topics.values()] == [[1, 2, 4], [2], [4], []]
        hub.interrupt()
        assert [ear.interruptions for ear in topics.values()] == [1, 1, 1, 1]
        for topic, ear in topics.items():
            hub.remove(topic, ear)
            hub.remove(topic, ear)
        hub.publish(changes)
    assert [len(ear.heard) for ear in topics.values()] == [3, 1, 1, 0]


def test_a_queue_can_be_watched_before_it_exists() -> None:
    hub = Hub("b")
    ear = Ear()
    with hub.watching():
        hub.add(("default", "later"), ear)
        hub.publish([a_change(1)])
        hub.publish([a_change(2, queue=Queue(9, "default", "later"))])
    assert ear.numbers == [2]


def test_added_later_and_removed() -> None:
    hub = Hub("b")
    first, second = Ear(), Ear()
    with hub.watching():
        hub.add(("default", "mail"), first)
        hub.publish([a_change(1)])
        hub.add(("default", "mail"), second)
        hub.publish([a_change(2)])
        hub.remove(("default", "mail"), first)
        hub.remove(("default", "mail"), first)
        hub.publish([a_change(3)])
        hub.remove(("default", "mail"), second)
        hub.publish([a_change(4)])
    assert (first.numbers, second.numbers) == ([1, 2], [2, 3])


def test_a_feed_may_leave_while_it_is_told() -> None:
    hub = Hub("b")

    class Leaver(Ear):
        def push(self, event: Event) -> None:
            super().push(event)
            hub.remove(("default", "mail"), self)

    leaver, stayer = Leaver(), Ear()
    with hub.watching():
        hub.add(("default", "mail"), leaver)
        hub.add(("default", "mail"), stayer)
        hub.publish([a_change(1), a_change(2)])
    assert (leaver.numbers, stayer.numbers) == ([1], [1, 2])


def test_nothing_is_kept_once_nobody_has_watched_for_long() -> None:
    now = [0.0]
    hub = Hub("b", monotonic=lambda: now[0])
    hub.publish([a_change(1)])
    assert hub.seq == 1
    assert not hub.has(0)
    with hub.watching():
        hub.publish([a_change(2)])
    now[0] += LINGER_S - 1
    hub.publish([a_change(3)])
    assert hub.has(1)
    now[0] += 1
    hub.publish([a_change(4)])
    assert hub.seq == 4
    assert not hub.has(3)
    assert hub.has(4), "nothing was missed"


def test_no_cursor_leads_over_a_time_in_which_nobody_need_have_told() -> None:
    now = [0.0]
    hub = Hub("b", monotonic=lambda: now[0])
    with hub.watching():
        hub.publish([a_change(1)])
        seen = [hub.watched]
    before = hub.seq
    with hub.watching():
        assert hub.has(before), "nothing was left out"
    now[0] += LINGER_S
    assert [*seen, hub.watched] == [True, False]
    with hub.watching():
        assert not hub.has(before)
        assert hub.has(hub.seq)


def test_cursors() -> None:
    hub = Hub("boot-1.x")
    assert hub.seq_of(hub.cursor(17)) == 17
    for bad in (
        "",
        "17",
        "boot-2.17",
        "boot-1.x.",
        "boot-1.x.-1",
        "boot-1.x.1e3",
        "boot-1.x.²",
        "boot-1.x." + "9" * 30,
    ):
        assert hub.seq_of(bad) is None


def test_an_interruption_ends_every_cursor_and_reaches_every_feed_once() -> None:
    hub = Hub("b")
    ear = Ear()
    with hub.watching():
        hub.add(id_of(1), ear)
        hub.add(("default", "mail"), ear)
        hub.publish([a_change(1)])
        hub.interrupt()
        assert ear.interruptions == 1
        assert not hub.has(0)
        assert not hub.has(1)
        hub.publish([a_change(2)])
        assert hub.after(2, 10) == [a_change(2)]


def test_among_other_nodes_what_comes_late_is_told_to_nobody() -> None:
    hub = Hub("b")
    ear = Ear()
    hub.interest.alone = False
    with hub.watching():
        hub.add(id_of(1), ear)
        hub.publish([a_change(1, 6)])
        hub.publish([a_change(1, 5), a_change(1, 6)], foreign=True)
        assert [event.change.version for event in ear.heard] == [6]
        assert hub.after(0, 9) == [a_change(1, 6)]
        hub.interrupt()
        hub.publish([a_change(1, 5)], foreign=True)
        assert [(event.change.version, event.foreign) for event in ear.heard] == [(6, False), (5, True)]
