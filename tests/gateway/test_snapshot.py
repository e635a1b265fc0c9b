"""Snapshots: rows, laid over with memory and with what was published while they were read."""

import asyncio
from collections.abc import Sequence

import pytest

from actors.core.live import live
from actors.core.spec import Spec
from actors.core.task import Phase, State, Task
from gateway.snapshot import Snapshot, as_change, read_snapshot
from gateway.topics import Labelled, Topic
from tests.gateway.watched import FOREIGN, NOW_MS, OTHER, QUEUE, World, a_change, a_row, id_of, make_world

MAIL = ("default", "mail")


def held(number: int, phase: Phase, rev: int, started_ms: int = 0, claim_ms: int | None = None) -> Task:
    task = Task(id_of(number), 0, QUEUE, NOW_MS, NOW_MS, 0, Spec(), rev=rev, attempt=rev + 1, started_ms=started_ms)
    task.claim_ms = claim_ms
    task.phase = phase
    task.step = int(phase is Phase.RUNNING or started_ms > 0 or claim_ms is not None)
    return task


async def snapshot(world: World, topic: Topic = MAIL, most: int = 100) -> Snapshot:
    found = await read_snapshot(world.gateway, topic, "default", most, 3)
    assert found is not None
    return found


def states(found: Snapshot) -> list[tuple[int, str, int]]:
    return [(int(change.id[:8], 16), change.state.value, change.version) for change in found.tasks.values()]


async def test_a_queue_shows_its_live_tasks() -> None:
    world = make_world()
    world.tables.put(a_row(2), a_row(1, 3), a_row(3, 4, State.DEAD), a_row(4, queue=OTHER), a_row(5, queue=FOREIGN))
    found = await snapshot(world)
    assert states(found) == [(1, "scheduled", 6), (2, "scheduled", 0)]
    assert not found.truncated


async def test_labels_show_the_live_tasks_that_carry_them() -> None:
    world = make_world()
    blue = '{"team":"blue"}'
    world.tables.put(a_row(1, labels=blue), a_row(2), a_row(3, 4, State.DEAD, labels=blue))
    world.tables.put(a_row(4, queue=OTHER, labels=blue), a_row(5, queue=FOREIGN, labels=blue))
    labels = (("team", "blue"),)
    assert states(await snapshot(world, Labelled("default", None, labels))) == [
        (1, "scheduled", 0),
        (4, "scheduled", 0),
    ]
    assert states(await snapshot(world, Labelled("default", "other", labels))) == [(4, "scheduled", 0)]


async def test_a_task_shows_itself_in_any_state() -> None:
    world = make_world()
    world.tables.put(a_row(3, 4, State.DEAD, last_status=503, last_error="busy", labels='{"a":"b"}', lateness_ms=7))
    (change,) = (await snapshot(world, id_of(3))).tasks.values()
    assert change == a_change(
        3, 8, State.DEAD, status=503, error="busy", labels='{"a":"b"}', lateness_ms=7
    )  # fmt: skip
    assert states(await snapshot(world, id_of(9))) == []


async def test_more_than_fit_are_cut_and_it_says_so() -> None:
    world = make_world()
    world.tables.put(*(a_row(number) for number in range(5)))
    found = await snapshot(world, most=4)
    assert [number for number, _, _ in states(found)] == [0, 1, 2, 3]
    assert found.truncated
    assert not (await snapshot(world, most=5)).truncated


@pytest.mark.parametrize(
    ("task", "claimed", "expected"),
    [
        (None, False, ("scheduled", 6)),
        (None, True, ("running", 7)),
        (held(1, Phase.WAITING, 3, claim_ms=NOW_MS), True, ("running", 7)),
        (held(1, Phase.OFFERED, 3), False, ("scheduled", 6)),
        (held(1, Phase.RUNNING, 3, NOW_MS), False, ("running", 7)),
        (held(1, Phase.RUNNING, 4, NOW_MS), False, ("running", 9)),
        (held(1, Phase.WRITING, 3, NOW_MS), False, ("running", 7)),
        (held(1, Phase.WRITING, 3), False, ("scheduled", 6)),
        (held(1, Phase.WRITING, 2, NOW_MS), False, ("scheduled", 6)),
        (held(1, Phase.WAITING, 4), True, ("running", 7)),
    ],
)
def test_a_row_and_what_its_owner_knows(task: Task | None, claimed: bool, expected: tuple[str, int]) -> None:
    known = None if task is None else live(task)
    change = as_change(a_row(1, 3, claim_ms=NOW_MS if claimed else None), known)
    assert (change.state.value, change.version) == expected


async def test_changes_of_the_meantime_are_laid_over() -> None:
    world = make_world()
    world.tables.answer.clear()
    world.tables.put(a_row(1, 1), a_row(2, 1), a_row(3, 1))
    with world.hub.watching():
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(snapshot(world))
            await world.tables.asked.wait()
            world.hub.publish(
                [
                    a_change(1, 3),
                    a_change(1, 4, State.SUCCEEDED),
                    a_change(2, 1),
                    a_change(4, 0),
                    a_change(5, 2, State.SUCCEEDED),
                    a_change(6, 0, queue=OTHER),
                    a_change(7, 0, queue=FOREIGN),
                ]
            )
            world.tables.answer.set()
    found = reading.result()
    assert states(found) == [(1, "succeeded", 4), (2, "scheduled", 2), (3, "scheduled", 2), (4, "scheduled", 0)]
    assert found.seq == world.hub.seq


async def test_a_new_task_that_has_no_room_is_said_to_be_missing() -> None:
    found = Snapshot(MAIL, {}, False, 0)
    found.lay_over([a_change(1), a_change(2)], "default", 1)
    assert states(found) == [(1, "scheduled", 0)]
    assert found.truncated


async def test_too_much_happened_to_be_sure() -> None:
    world = make_world(kept=3)
    world.tables.answer.clear()
    with world.hub.watching():
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read_snapshot(world.gateway, MAIL, "default", 9, 9))
            await world.tables.asked.wait()
            world.hub.publish([a_change(number) for number in range(4)])
            world.tables.answer.set()
    assert reading.result() is None


async def test_other_nodes_tell_of_a_topic_before_its_tables_are_read() -> None:
    world = make_world()
    reads: list[tuple[int, list[Topic]]] = []

    async def tell(topics: Sequence[Topic]) -> None:
        await asyncio.sleep(0)
        reads.append((world.tables.reads, list(topics)))

    interest = world.hub.interest
    interest.alone, interest.tell = False, tell
    interest.take(MAIL)
    await snapshot(world)
    await snapshot(world)
    assert (reads, world.tables.reads) == ([(0, [MAIL])], 2)
