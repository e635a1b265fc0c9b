"""`queue` and the commands on tasks, as real processes against a service that answers as told."""

from typing import Any

import orjson
import pytest

from tests.gateway.cli.double import a_problem, a_task, double
from tests.gateway.watched import id_of

DAY_S = 86_400


def a_queue(name: str = "mail", **more: Any) -> dict[str, Any]:
    kept = {"succeeded": DAY_S, "cancelled": DAY_S, "expired": 7 * DAY_S, "dead": 7 * DAY_S}
    return {
        "name": name,
        "paused": False,
        "retry": {"max_attempts": 5},
        "dispatch_deadline": 30,
        "retention": kept,
    } | more


async def test_queue_list_follows_the_cursor() -> None:
    async with double() as service:
        service.answer({"queues": [a_queue("a", paused=True)], "next_cursor": "a"})
        service.answer({"queues": [a_queue("b")], "next_cursor": None})
        done = await service.run("queue", "list")
        assert done.code == 0
        assert [line.split()[0] for line in done.out.splitlines()] == ["name", "a", "b"]
        assert "paused" in done.out.splitlines()[1]
        assert [asked.line for asked in service.asked][1] == "GET /v1/queues?limit=500&cursor=a"


@pytest.mark.parametrize(
    ("words", "line", "body"),
    [
        (("get", "a b"), "GET /v1/queues/a%20b", b""),
        (("pause", "mail"), "POST /v1/queues/mail:pause", b""),
        (("resume", "mail"), "POST /v1/queues/mail:resume", b""),
        (("set", "mail", "--paused"), "PATCH /v1/queues/mail", {"paused": True}),
        (("set", "mail", "--unknown", "hold"), "PATCH /v1/queues/mail", {"unknown": "hold"}),
        (("set", "mail", "--replace"), "PUT /v1/queues/mail", {}),
        (
            ("set", "mail", "--dispatch-deadline", "1m", "--retry", "max_attempts=3", "--retain", "dead=2d"),
            "PATCH /v1/queues/mail",
            {"dispatch_deadline": "1m", "retry": {"max_attempts": 3}, "retention": {"dead": "2d"}},
        ),
    ],
)
async def test_a_queue_command_asks_and_shows_the_queue(words: tuple[str, ...], line: str, body: object) -> None:
    async with double() as service:
        service.answer(a_queue())
        done = await service.run("queue", *words, "--json")
        assert (done.code, done.json) == (0, [a_queue()])
        (asked,) = service.asked
        assert asked.line == line
        assert (orjson.loads(asked.body) if asked.body else b"") == body


@pytest.mark.parametrize(("more", "hint"), [((), True), (("--replace",), False)])
async def test_how_a_queue_is_made_is_said_to_who_changes_none(more: tuple[str, ...], hint: bool) -> None:
    async with double() as service:
        service.answer(a_problem(404, "Not found", "no such queue"), 404)
        done = await service.run("queue", "set", "mail", "--paused", *more)
        assert done.code == 3
        assert done.err == f"error: Not found: no such queue{'; with --replace it is made' * hint}\n"


async def test_queue_purge_asks_first_and_goes_on_until_it_is_done() -> None:
    async with double() as service:
        assert (await service.run("queue", "purge", "mail", stdin=b"n\n")).code == 1
        assert service.asked == []
        service.answer({"purged": 500, "done": False})
        service.answer({"purged": 7, "done": True})
        done = await service.run("queue", "purge", "mail", "--yes")
        assert (done.code, done.out) == (0, "507 cancelled\n")


async def test_queue_delete_says_conflict_by_its_exit_code() -> None:
    async with double() as service:
        service.answer(a_problem(409, "Not possible", "the queue has live tasks"), 409)
        assert (await service.run("queue", "delete", "mail")).code == 4


@pytest.mark.parametrize(
    "words",
    [
        ("set", "mail"),
        ("set", "mail", "--retain", "running=1d"),
        ("set", "mail", "--retry", "x"),
        ("set", "mail", "--unknown", "x"),
    ],
)
async def test_a_queue_set_that_says_nothing_is_wrong_usage(words: tuple[str, ...]) -> None:
    async with double() as service:
        assert (await service.run("queue", *words)).code == 2
        assert service.asked == []


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (("run",), b""),
        (("redrive",), b""),
        (("reschedule", "--delay", "1.5"), b'{"delay": 1.5}'),
        (("reschedule", "--at", "2027-01-01T00:00:00Z"), b'{"schedule_time": "2027-01-01T00:00:00Z"}'),
    ],
)
async def test_commands_on_tasks_go_on_after_a_refusal(words: tuple[str, ...], body: bytes) -> None:
    async with double() as service:
        service.answer(a_problem(404, "Not found", "no such task"), 404)
        service.answer(a_task(2))
        done = await service.run(words[0], id_of(1), id_of(2), *words[1:])
        assert done.code == 3
        assert id_of(2) in done.out
        assert [(asked.line, asked.body) for asked in service.asked] == [
            (f"POST /v1/tasks/{id_of(n)}:{words[0]}", body) for n in (1, 2)
        ]


async def test_reschedule_needs_one_time() -> None:
    async with double() as service:
        assert (await service.run("reschedule", id_of(1))).code == 2


async def test_list_sends_labels_and_times() -> None:
    async with double() as service:
        service.answer({"tasks": [a_task()], "next_cursor": None})
        words = ["--label", "team=red", "--label", "x=a=b", "--from", "2027-01-01T00:00:00Z", "--state", "dead"]
        assert (await service.run("list", *words)).code == 0
        (asked,) = service.asked
        assert asked.line == (
            "GET /v1/tasks?state=dead&schedule_time.gte=2027-01-01T00:00:00Z&order=desc&label.team=red&label.x=a%3Db"
            "&limit=100"
        )
