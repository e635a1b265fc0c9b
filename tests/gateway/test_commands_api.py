"""Commands on a task, over a real socket: what reaches the node, and what is answered."""

import pytest

from actors.core.errors import Conflict, Unavailable, Unknown
from actors.core.events import Change, Command, Verdict
from actors.core.task import Move, Phase, Task
from tests.gateway.served import NOW_MS, Served, served

FENCE = "00000001.0000000007.000002"


def refuse(error: Exception) -> object:
    def answer(command: Command) -> Change | None:
        raise error

    return answer


@pytest.mark.parametrize("move", [Move.CANCEL, Move.RUN, Move.REDRIVE])
@pytest.mark.parametrize("body", [None, b"{}"])
async def test_a_command_reaches_the_owner_and_answers_the_task(move: Move, body: bytes | None) -> None:
    async with served() as world:
        task_id = await world.create()
        answer = await world.post(f"/v1/tasks/{task_id}:{move.value}", body)
        assert (answer.status, answer.json["id"]) == (200, task_id)
        (command,) = world.node.asked
        assert (command.move, command.id, command.tenant) == (move, task_id, "default")


@pytest.mark.parametrize(
    ("body", "due_ms"),
    [
        ({"delay": 1.5}, NOW_MS + 1_500),
        ({"delay": "1h"}, NOW_MS + 3_600_000),
        ({"schedule_time": "2026-09-21T14:13:21Z"}, NOW_MS + 1_000),
    ],
)
async def test_reschedule_carries_the_new_time(body: object, due_ms: int) -> None:
    async with served() as world:
        task_id = await world.create()
        assert (await world.post(f"/v1/tasks/{task_id}:reschedule", body)).status == 200
        assert world.node.asked[0].due_ms == due_ms


@pytest.mark.parametrize(
    ("error", "status", "state"),
    [
        (Conflict("can't run a task that is dead", "dead"), 409, "dead"),
        (Unknown("x"), 404, None),
        (Unavailable("no owner", 2_000), 503, None),
    ],
)
async def test_a_refusal_of_the_owner_is_a_problem(error: Exception, status: int, state: str | None) -> None:
    async with served() as world:
        task_id = await world.create()
        world.node.answer = refuse(error)  # type: ignore[assignment]
        answer = await world.post(f"/v1/tasks/{task_id}:run")
        assert (answer.status, answer.json.get("state")) == (status, state)


@pytest.mark.parametrize("call", ["run", "reschedule", "complete"])
@pytest.mark.parametrize("body", [b"{", b"nonsense", b'{"\xff":1}'])
async def test_what_is_no_json_has_a_pointer(call: str, body: bytes) -> None:
    async with served() as world:
        answer = await world.post(f"/v1/tasks/{await world.create()}:{call}", body)
        assert (answer.status, answer.json["type"], answer.pointers) == (400, "not-json", [""])
        assert world.node.asked == []


@pytest.mark.parametrize("call", ["reschedule", "complete"])
async def test_a_command_that_says_nothing_is_told_so(call: str) -> None:
    async with served() as world:
        answer = await world.post(f"/v1/tasks/{await world.create()}:{call}", b"")
        assert (answer.status, answer.json["detail"]) == (400, "expected JSON, but there is nothing")


@pytest.mark.parametrize(
    ("call", "body", "pointer"),
    [
        ("cancel", {"reason": "x"}, "/reason"),
        ("run", [], ""),
        ("reschedule", {}, ""),
        ("reschedule", {"delay": 1, "schedule_time": "2026-09-21T14:13:21Z"}, "/delay"),
        ("reschedule", {"schedule_time": "tomorrow"}, "/schedule_time"),
        ("complete", {}, "/fence"),
        ("complete", {"fence": "x"}, "/fence"),
        ("complete", {"fence": FENCE + "\n"}, "/fence"),
        ("complete", {"fence": FENCE, "error": "x"}, "/error"),
        ("complete", {"fence": FENCE, "retry": 1}, "/retry"),
        ("complete", {"fence": FENCE, "ok": False, "result": 1}, "/result"),
        ("complete", {"fence": FENCE, "ok": False, "retry": "later"}, "/retry"),
        ("complete", {"fence": FENCE, "ok": False, "retry": -1}, "/retry"),
        ("complete", {"fence": FENCE, "result": "x" * 65_536}, "/result"),
    ],
)
async def test_bodies_are_checked(call: str, body: object, pointer: str) -> None:
    async with served() as world:
        task_id = await world.create()
        answer = await world.post(f"/v1/tasks/{task_id}:{call}", body)
        assert (answer.status, answer.pointers) == (422, [pointer])
        assert world.node.asked == []


async def test_reschedule_needs_a_body() -> None:
    async with served() as world:
        task_id = await world.create()
        assert (await world.post(f"/v1/tasks/{task_id}:reschedule")).status == 400


async def test_malformed_ids_reach_no_node() -> None:
    async with served() as world:
        for call, body in (("cancel", None), ("reschedule", {"delay": 1}), ("complete", {"fence": FENCE})):
            assert (await world.post(f"/v1/tasks/x:{call}", body)).status == 404
        assert world.node.asked == []


async def completed(world: Served, body: object) -> Command:
    task_id = await world.create()
    answer = await world.post(f"/v1/tasks/{task_id}:complete", body)
    assert answer.status == 200, answer.json
    return world.node.asked[-1]


@pytest.mark.parametrize(
    ("body", "move", "verdict", "retry_after_ms"),
    [
        ({}, Move.SUCCEED, Verdict.SUCCEEDED, None),
        ({"ok": True, "result": {"a": 1}}, Move.SUCCEED, Verdict.SUCCEEDED, None),
        ({"ok": False, "error": "x"}, Move.RETRY, Verdict.FAILED, None),
        ({"ok": False, "retry": 2.5}, Move.RETRY, Verdict.FAILED, 2_500),
        ({"ok": False, "retry": "never"}, Move.DIE, Verdict.NEVER, None),
    ],
)
async def test_complete_carries_the_outcome_under_its_fence(
    body: dict[str, object], move: Move, verdict: Verdict, retry_after_ms: int | None
) -> None:
    async with served() as world:
        command = await completed(world, {"fence": FENCE, **body})
        outcome = command.outcome
        assert outcome is not None
        assert (command.move, outcome.verdict, outcome.retry_after_ms) == (move, verdict, retry_after_ms)
        assert (outcome.epoch, outcome.attempt, outcome.task.id) == (7, 2, command.id)
        assert outcome.error == body.get("error")
        assert outcome.result == (b'{"a":1}' if "result" in body else None)
        assert 0 <= outcome.jitter < 1


async def test_the_error_of_a_completion_is_one_short_line() -> None:
    async with served() as world:
        command = await completed(world, {"fence": FENCE, "ok": False, "error": "a\nb\x00" + "c" * 2_000})
        assert command.outcome is not None
        assert command.outcome.error == "a b " + "c" * 996


async def test_a_completion_outlives_a_failover_of_the_database() -> None:
    async with served() as world:
        world.node.timeline = 3
        command = await completed(world, {"fence": FENCE})
        assert command.outcome is not None
        assert (command.outcome.epoch, command.outcome.attempt) == (7, 2)


async def test_a_fence_of_a_timeline_to_come_is_refused() -> None:
    async with served() as world:
        task_id = await world.create()
        answer = await world.post(f"/v1/tasks/{task_id}:complete", {"fence": "00000002.0000000007.000002"})
        assert (answer.status, answer.json["state"], world.node.asked) == (409, "scheduled", [])


async def test_a_completion_of_what_is_unknown_is_404() -> None:
    async with served() as world:
        answer = await world.post("/v1/tasks/00000000-0000-7000-8000-000000000000:complete", {"fence": FENCE})
        assert answer.status == 404


async def test_the_answer_shows_the_task_after_the_command() -> None:
    async with served() as world:
        task_id = await world.create()

        def start(command: Command) -> None:
            queue = world.stores.book.by_name("default", "default")
            assert queue is not None
            task = Task(task_id, 0, queue, 0, 0, 0, world.intake.drafts[0].spec, attempt=1)
            task.phase = Phase.RUNNING
            world.node.tasks[task_id] = task

        world.node.answer = start
        assert (await world.post(f"/v1/tasks/{task_id}:run")).json["state"] == "running"
