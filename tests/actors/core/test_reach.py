"""What a holding tells of itself; that it is true at any time is shown in `test_holding.py`."""

import pytest

from actors.core.events import LAST_ID, Loaded
from actors.core.holding import Holding
from actors.core.queue import Queue
from actors.core.reach import ENDS, Reach, reach
from actors.core.task import Task
from tests.support.builders import T0_MS, make_task, task_id

HORIZON_MS = 60_000
UNTIL_MS = T0_MS + HORIZON_MS
NOW_US = T0_MS * 1_000 + 500
MAIL = Queue(1, "default", "mail")


def fresh(limit: int = 4) -> Holding:
    return Holding(3, 1, T0_MS, limit=limit, total=100, horizon_ms=HORIZON_MS)


def loaded(*tasks: Task, full: dict[int, tuple[int, str]] | None = None, limit: int = 4) -> Holding:
    made = fresh(limit)
    [page] = made.pages(T0_MS)
    made.loaded(Loaded(page, list(tasks), full or {}), T0_MS)
    return made


def test_one_that_has_read_nothing_claims_nothing() -> None:
    made = fresh()
    assert reach(made, NOW_US) == Reach(3, -1, 0)
    made.pages(T0_MS)
    made.admit([make_task(1, MAIL)], T0_MS)
    assert reach(made, NOW_US) == Reach(3, -1, 0), "what it asked for is not here yet"


def test_it_claims_what_is_due_within_the_horizon() -> None:
    made = loaded(*(make_task(n, MAIL, due_ms=T0_MS + n) for n in range(3)))
    assert reach(made, NOW_US) == Reach(3, UNTIL_MS, 3)


def test_tasks_of_the_last_moments_are_left_out() -> None:
    made = loaded(*(make_task(n, MAIL) for n in range(5)))
    assert reach(made, T0_MS * 1_000 + 2).entries == 3


def test_a_backlog_is_claimed_up_to_its_position() -> None:
    other = Queue(2, "default", "other")
    rows = [make_task(n, MAIL, due_ms=T0_MS + n) for n in range(3)]
    end = (T0_MS + 2, task_id(2))
    made = loaded(*rows, make_task(9, other, due_ms=T0_MS + 9_000), full={MAIL.id: end})
    assert reach(made, NOW_US) == Reach(3, UNTIL_MS, 4, {MAIL.id: end})
    made.spilled[MAIL.id].lower((T0_MS, LAST_ID))
    assert reach(made, NOW_US) == Reach(3, UNTIL_MS, 2, {MAIL.id: (T0_MS, LAST_ID)})


def test_a_position_beyond_what_is_claimed_anyway_is_not_told() -> None:
    made = loaded(make_task(1, MAIL), full={MAIL.id: (UNTIL_MS + 5, task_id(1))})
    assert reach(made, NOW_US).ends == {}


@pytest.mark.parametrize(
    ("queues", "until_ms", "entries", "ends"), [(ENDS, UNTIL_MS, ENDS, ENDS), (ENDS + 1, T0_MS + 3_999, 3, 0)]
)
def test_many_backlogs_are_told_by_the_nearest_of_their_ends(
    queues: int, until_ms: int, entries: int, ends: int
) -> None:
    many = [Queue(n, "default", f"q{n}") for n in range(1, queues + 1)]
    rows = [make_task(n, queue, due_ms=T0_MS + 1_000 * n) for n, queue in enumerate(many, 1)]
    found = reach(loaded(*rows, full={task.queue.id: (task.due_ms + 3_000, task.id) for task in rows}), NOW_US)
    assert (found.until_ms, found.entries, len(found.ends)) == (until_ms, entries, ends)
