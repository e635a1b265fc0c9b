"""Queues as a resource, over a real socket."""

from typing import Any

import pytest

from actors.core.errors import Conflict, Unavailable
from actors.core.events import Change, Command
from actors.core.task import Move
from tests.gateway.served import served
from tests.gateway.watched import a_change

DAY_S = 86_400
DEFAULTS: dict[str, Any] = {
    "name": "emails",
    "paused": False,
    "retry": {
        "max_attempts": 5,
        "min_backoff": 1,
        "max_backoff": 3600,
        "max_doublings": 16,
        "max_retry_duration": None,
    },
    "dispatch_deadline": 30,
    "retention": {"succeeded": DAY_S, "cancelled": DAY_S, "expired": 7 * DAY_S, "dead": 7 * DAY_S},
    "unknown": "retry",
}
URL = "/v1/queues/emails"


async def test_put_makes_a_queue_with_what_it_says_and_defaults_for_the_rest() -> None:
    async with served() as world:
        answer = await world.send("PUT", URL, {})
        assert (answer.status, answer.json) == (201, DEFAULTS)
        asked = {"retry": {"max_attempts": 2}, "dispatch_deadline": "1m", "retention": {"succeeded": "3d"}}
        answer = await world.send("PUT", URL, asked | {"paused": True})
        changed = DEFAULTS | {
            "paused": True,
            "retry": DEFAULTS["retry"] | {"max_attempts": 2},
            "dispatch_deadline": 60,
            "retention": DEFAULTS["retention"] | {"succeeded": 3 * DAY_S},
        }
        assert (answer.status, answer.json) == (200, changed)
        assert (await world.send("PUT", URL, {})).json == DEFAULTS


async def test_patch_changes_what_it_names_and_null_is_the_default() -> None:
    async with served() as world:
        await world.send("PUT", URL, {"dispatch_deadline": 7, "retention": {"dead": "2d"}})
        await world.send("PATCH", URL, {"paused": True})
        assert (await world.send("PATCH", URL, {"paused": None})).json["paused"] is False
        answer = await world.send("PATCH", URL, {"paused": True, "retention": None})
        assert (answer.status, answer.json) == (200, DEFAULTS | {"paused": True, "dispatch_deadline": 7})


async def test_a_queue_that_was_used_is_there_with_its_backlog() -> None:
    async with served() as world:
        for delay in (0, 60):
            await world.create(queue="emails", delay=delay)
        answer = await world.get(URL)
        assert answer.json == DEFAULTS | {"backlog": {"live": 2, "due": 1, "held": 0, "counted_to": 10_000}}


async def test_figures_that_take_too_long_are_left_out() -> None:
    async with served() as world:
        await world.send("PUT", URL, {})

        async def backlog(*_: object) -> None:
            raise Unavailable("too slow")

        world.stores.reader.backlog = backlog  # type: ignore[assignment, method-assign]
        figures = {"live": None, "due": None, "held": None, "counted_to": None}
        assert (await world.get(URL)).json["backlog"] == figures


async def test_what_becomes_of_unknown_ends_is_set_like_all_else() -> None:
    async with served() as world:
        assert (await world.send("PUT", URL, {"unknown": "hold"})).json == DEFAULTS | {"unknown": "hold"}
        assert (await world.send("PATCH", URL, {"paused": True})).json["unknown"] == "hold"
        assert (await world.send("PATCH", URL, {"unknown": "wait_deadline"})).json["unknown"] == "wait_deadline"
        assert (await world.send("PATCH", URL, {"unknown": None})).json["unknown"] == "retry"


async def test_queues_are_listed_by_name_in_pages() -> None:
    async with served() as world:
        for name in ("b", "a", "c"):
            await world.send("PUT", f"/v1/queues/{name}", {})
        first = (await world.get("/v1/queues?limit=2")).json
        rest = (await world.get(f"/v1/queues?limit=2&cursor={first['next_cursor']}")).json
        assert [queue["name"] for queue in first["queues"] + rest["queues"]] == ["a", "b", "c"]
        assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("method", "rest", "body"),
    [("GET", "", None), ("PATCH", "", {}), ("DELETE", "", None), ("POST", ":pause", None), ("POST", ":purge", None)],
)
async def test_an_unknown_queue_is_not_found(method: str, rest: str, body: object) -> None:
    async with served() as world:
        answer = await world.send(method, URL + rest, body)
        assert (answer.status, answer.json["detail"]) == (404, "no such queue")


@pytest.mark.parametrize(
    ("body", "kind", "pointer"),
    [
        ({"max_dispatches_per_second": 5}, "not-supported", "/max_dispatches_per_second"),
        ({"durability": "relaxed"}, "not-supported", "/durability"),
        ({"speed": 1}, "invalid", "/speed"),
        ({"paused": 1}, "invalid", "/paused"),
        ({"unknown": "HOLD"}, "invalid", "/unknown"),
        ({"unknown": 1}, "invalid", "/unknown"),
        ({"retry": {"max_attempts": 0}}, "invalid", "/retry/max_attempts"),
        ({"dispatch_deadline": 0}, "invalid", "/dispatch_deadline"),
        ({"retention": {"succeeded": "1h"}}, "invalid", "/retention/succeeded"),
        ({"retention": {"dead": "8d"}}, "invalid", "/retention/dead"),
        ({"retention": {"running": "2d"}}, "invalid", "/retention/running"),
    ],
)
async def test_a_bad_setting_is_pointed_at_and_changes_nothing(body: object, kind: str, pointer: str) -> None:
    async with served() as world:
        for method in ("PUT", "PATCH"):
            if method == "PATCH":
                await world.send("PUT", URL, {"dispatch_deadline": 7})
            answer = await world.send(method, URL, body)
            assert (answer.status, answer.json["type"], answer.pointers) == (422, kind, [pointer])
        assert (await world.get(URL)).json["dispatch_deadline"] == 7


async def test_a_name_that_no_queue_can_have_is_refused() -> None:
    async with served() as world:
        answer = await world.send("PUT", "/v1/queues/a%20b", {})
        assert (answer.status, answer.pointers) == (422, ["/queue"])


async def test_pause_and_resume() -> None:
    async with served() as world:
        await world.send("PUT", URL, {"dispatch_deadline": 7})
        for command, paused in (("pause", True), ("pause", True), ("resume", False)):
            answer = await world.post(f"{URL}:{command}")
            assert (answer.status, answer.json) == (200, DEFAULTS | {"paused": paused, "dispatch_deadline": 7})


async def test_a_change_that_came_between_is_kept() -> None:
    async with served() as world:
        await world.send("PUT", URL, {})
        change = world.stores.queues.change

        async def late(queue: Any, version: int, settings: Any) -> Any:
            world.stores.queues.change = change  # type: ignore[method-assign]
            other = queue.settings
            await change(queue, version, type(other)(True, other.retry, other.dispatch_deadline_ms, other.retention_ms))
            return await change(queue, version, settings)

        world.stores.queues.change = late  # type: ignore[method-assign]
        answer = await world.send("PATCH", URL, {"dispatch_deadline": 7})
        assert answer.json == DEFAULTS | {"paused": True, "dispatch_deadline": 7}


async def test_delete_wants_a_queue_without_live_tasks() -> None:
    async with served() as world:
        await world.create(queue="emails")
        assert (await world.send("DELETE", URL)).status == 409
        await world.send("PUT", "/v1/queues/empty", {"paused": True})
        assert (await world.send("DELETE", "/v1/queues/empty")).status == 204
        assert (await world.get("/v1/queues/empty")).status == 404
        await world.create(queue="empty")
        assert (await world.get("/v1/queues/empty")).json["paused"] is False


async def test_purge_asks_the_owners_and_counts_what_they_cancelled() -> None:
    async with served() as world:
        ids = [await world.create(queue="emails") for _ in range(3)]
        await world.create(queue="other")

        def answer(command: Command) -> Change | None:
            if command.id == ids[1]:
                raise Conflict("can't cancel a task that is running", "running")
            return a_change(1, 1)

        world.node.answer = answer
        purged = await world.post(f"{URL}:purge")
        assert (purged.status, purged.json) == (200, {"purged": 2, "done": True})
        assert sorted((command.move, command.id) for command in world.node.asked) == [(Move.CANCEL, i) for i in ids]


async def test_a_purge_that_does_not_reach_an_owner_says_so() -> None:
    async with served() as world:
        await world.create(queue="emails")

        def answer(command: Command) -> Change | None:
            raise Unavailable("no owner", 2_000)

        world.node.answer = answer
        assert (await world.post(f"{URL}:purge")).status == 503
