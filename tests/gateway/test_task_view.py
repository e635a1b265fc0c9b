"""A task as answered, from rows that only a long life makes."""

from typing import Any

import orjson
import pytest

from actors.core.live import live
from actors.core.queue import Queue
from actors.core.settle import HELD_MS
from actors.core.spec import Spec
from actors.core.task import Phase, State, Task, fence_parts
from actors.ports.reader import AttemptRow, TaskRow
from gateway.task_view import attempt_object, task_object
from tests.gateway.served import NOW_MS, NodeDouble

QUEUE = Queue(1, "default", "q")


def row(**values: Any) -> TaskRow:
    base: dict[str, Any] = {
        "id": "00000000-0000-7000-8000-000000000000",
        "shard": 0,
        "queue": QUEUE,
        "state": State.SUCCEEDED,
        "schedule_ms": NOW_MS,
        "due_ms": NOW_MS,
        "accept_us": NOW_MS * 1000 - 1,
        "rev": 3,
        "attempt": 2,
        "budget": 5,
        "epoch": 1,
        "spec": Spec(),
        "labels": None,
        "payload": None,
        "claim_ms": None,
        "lateness_ms": 4,
        "finish_ms": NOW_MS + 50,
        "result": None,
        "last_started_ms": NOW_MS + 4,
        "last_duration_ms": 46,
        "last_status": 200,
        "last_error": None,
    }
    return TaskRow(**base | values)


def shown(row: TaskRow, task: Task | None = None, *, payload: bool = False) -> Any:
    known = None if task is None else live(task)
    return orjson.loads(orjson.dumps(task_object(row, known, NodeDouble().fence_of, payload=payload)))


def test_a_finished_task() -> None:
    task = shown(row(result=b'{"ok": true}'))
    assert task["state"] == "succeeded"
    assert task["create_time"] == "2026-09-21T14:13:19.999Z"
    assert task["finish_time"] == "2026-09-21T14:13:20.050Z"
    assert (task["attempt"], task["max_attempts"], task["lateness_ms"]) == (2, 5, 4)
    assert task["result"] == {"ok": True}
    start = "2026-09-21T14:13:20.004Z"
    assert task["last_attempt"] == {"start_time": start, "duration_ms": 46, "status": 200, "error": None}


@pytest.mark.parametrize(
    ("result", "seen"),
    [(b"plain", "plain"), (b"\xff", "�"), (b"NaN", "NaN"), (b"", ""), (b"[1", "[1"), (b"[" * 9_000, "[" * 9_000)],
)
def test_a_result_that_is_no_json_is_text(result: bytes, seen: str) -> None:
    assert shown(row(result=result))["result"] == seen


def test_a_payload_that_is_gone_is_null() -> None:
    assert shown(row(), payload=True)["payload"] is None


def test_a_claim_in_the_tables_means_running_also_for_nodes_that_do_not_own_it() -> None:
    task = shown(row(state=State.SCHEDULED, finish_ms=None, claim_ms=NOW_MS, last_started_ms=None))
    assert (task["state"], task["attempt"], task["last_attempt"]) == ("running", 2, None)
    assert task["fence"] is not None
    assert fence_parts(task["fence"]) == (1, row().epoch, 2)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"due_ms": NOW_MS + 5_000}, ("2026-09-21T14:13:25.000Z", None)),
        ({"claim_ms": NOW_MS + 9_000, "due_ms": NOW_MS + 9_000}, (None, "2026-09-21T14:13:29.000Z")),
        ({"finish_ms": NOW_MS, "state": State.DEAD}, (None, None)),
    ],
)
def test_when_it_goes_on_or_is_given_up(values: dict[str, Any], expected: tuple[str | None, str | None]) -> None:
    task = shown(row(**{"state": State.SCHEDULED, "finish_ms": None} | values))
    assert (task["next_attempt_time"], task["deadline_time"]) == expected


def test_a_held_task_says_so_and_has_no_deadline() -> None:
    held = row(state=State.SCHEDULED, finish_ms=None, claim_ms=HELD_MS, due_ms=HELD_MS)
    task = shown(held)
    assert (task["state"], task["held"], task["deadline_time"], task["next_attempt_time"]) == (
        "running",
        True,
        None,
        None,
    )
    assert fence_parts(task["fence"]) == (1, held.epoch, 2)
    again = Task(held.id, 0, QUEUE, 0, 0, 0, Spec(), attempt=3, started_ms=NOW_MS)
    again.phase = Phase.RUNNING
    assert shown(held, again)["held"] is False, "its owner knows more than this row"
    assert shown(row(state=State.SCHEDULED, finish_ms=None, claim_ms=NOW_MS))["held"] is False


def test_an_attempt_that_only_its_owner_knows_has_a_deadline_too() -> None:
    waiting = row(state=State.SCHEDULED, finish_ms=None, attempt=1, spec=Spec(dispatch_deadline_ms=2_000))
    task = Task(waiting.id, 0, QUEUE, 0, 0, 0, Spec(), attempt=2, started_ms=NOW_MS)
    task.phase = Phase.RUNNING
    assert shown(waiting, task)["deadline_time"] == "2026-09-21T14:13:22.000Z"


def test_memory_does_not_overrule_an_end_that_is_committed() -> None:
    ended = row()
    task = Task(ended.id, 0, QUEUE, 0, 0, 0, Spec(), attempt=9)
    task.phase = Phase.RUNNING
    assert shown(ended, task)["state"] == "succeeded"


@pytest.mark.parametrize(("recorded", "state"), [(1, "running"), (2, "scheduled")])
def test_an_attempt_runs_until_its_end_is_committed(recorded: int, state: str) -> None:
    waiting = row(state=State.SCHEDULED, finish_ms=None, attempt=recorded)
    task = Task(waiting.id, 0, QUEUE, 0, 0, 0, Spec(), attempt=2)
    task.phase = Phase.WRITING
    told = shown(waiting, task)
    assert (told["state"], told["attempt"], told["fence"] is None) == (state, 2, state == "scheduled")


def test_an_attempt_of_the_history() -> None:
    attempt = attempt_object(AttemptRow(2, "00000001.0000000001.000002", NOW_MS, 46, "failed", 500, "HTTP 500"))
    assert attempt == {
        "attempt": 2,
        "fence": "00000001.0000000001.000002",
        "start_time": "2026-09-21T14:13:20.000Z",
        "duration_ms": 46,
        "outcome": "failed",
        "status": 500,
        "error": "HTTP 500",
    }
