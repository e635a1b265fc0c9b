"""Hints: with which epoch they are told on."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from actors.clock import Clock
from actors.core.events import Event, Submitted
from actors.core.queue import Queue
from actors.core.task import Task
from actors.hand import Hand
from actors.hints import Hints
from actors.ports.links import Links
from tests.support.builders import T0_MS, make_task

QUEUE = Queue(1, "default", "emails")
MINE, PARTING, THEIRS = 1, 2, 3


class World:
    """A node that has two shards, one of which it is about to give away, and knows who has the third."""

    def __init__(self) -> None:
        self.now_ms = T0_MS
        self.told: list[tuple[int, int, int]] = []
        self.said: list[tuple[str, int, dict[int, int]]] = []
        self.holders: dict[int, str] = {THEIRS: "boot-b"}
        self.actors: dict[int, Any] = {
            shard: SimpleNamespace(state=SimpleNamespace(epoch=shard * 10, born_ms=T0_MS - 50))
            for shard in (MINE, PARTING)
        }
        self.hints = Hints(
            cast(Hand, self),
            cast(Clock, SimpleNamespace(now_ms=lambda: self.now_ms)),
            cast(Links, self),
            horizon_ms=60_000,
            may_fire=lambda: True,
            is_closing=lambda shard: shard == PARTING,
            holder=self.holders.get,
            heir=lambda shard: None,
            epoch=lambda shard, at_ms: shard * 10 if at_ms > T0_MS - 50 else 0,
            publish=lambda changes: None,
            watched=lambda: False,
        )

    def post(self, shard: int, event: Event) -> bool:
        assert isinstance(event, Submitted)
        self.told.append((shard, event.at_ms, event.epoch))
        return True

    def hint(self, boot: str, tasks: Sequence[Task], at_ms: int, epochs: dict[int, int]) -> None:
        self.said.append((boot, at_ms, epochs))


def tasks() -> list[Task]:
    return [make_task(number, QUEUE, shard=number) for number in (MINE, PARTING, THEIRS)]


def test_what_was_accepted_here_bears_the_epochs_that_were_known_before() -> None:
    world = World()
    world.hints.committed(tasks(), T0_MS - 49)
    world.hints.committed(tasks(), T0_MS - 50)
    assert world.told == [(MINE, T0_MS - 49, 10), (MINE, T0_MS - 50, 0)]
    assert world.said == [("boot-b", T0_MS - 49, {THEIRS: 30}), ("boot-b", T0_MS - 50, {THEIRS: 0})]


def test_what_another_node_accepted_bears_those_that_it_knew_and_passes_them_on() -> None:
    world = World()
    world.hints.take(tasks()[:2], T0_MS, {MINE: 9, PARTING: 19})
    assert world.told == [(MINE, T0_MS, 9)]
    del world.actors[PARTING]
    world.holders[PARTING] = "boot-c"
    world.hints.left(PARTING)
    assert world.said == [("boot-c", T0_MS, {PARTING: 19})], "its clock tells nothing of what I knew when"


def test_what_was_accepted_here_while_its_shard_parted_bears_what_was_known_before() -> None:
    world = World()
    world.hints.committed(tasks()[1:2], T0_MS - 49)
    del world.actors[PARTING]
    world.holders[PARTING] = "boot-c"
    world.hints.left(PARTING)
    assert world.said == [("boot-c", T0_MS - 49, {PARTING: 20})]
