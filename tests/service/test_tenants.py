"""Tenants and each other: whatever is called with another's id, cursor or filter, it is as if it were not there.

The routes are the application's own and so are the stream's filters: one that is new has to be told here, in
`WITHOUT_ID` or `FILTERS`, how it was looked at.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from actors.core.keys import ALL, Scope
from gateway.watch import Filter
from tests.service.api import LIMIT_S, Api
from tests.service.hook import LATER, Hook
from tests.service.keys import client, make_key
from tests.service.served import Node, serving
from tests.service.worker import lease_of, ok, working
from tests.support.keys import bearer

OPEN = {"/livez", "/readyz", "/startupz", "/openapi.json", "/docs", "/docs/{file}", "/{rest}"}
WITHOUT_ID = {
    "/v1/tasks": "test_lists_are_ones_own, test_names_and_keys_are_ones_own",
    "/v1/tasks:batch": "test_names_and_keys_are_ones_own",
    "/v1/worker": "test_workers_get_ones_own, as what follows",
    "/v1/tasks:complete": "",
    "/v1/tasks:extend": "",
    "/v1/stream": "test_streams_tell_ones_own",
    "/v1/events": "test_events_tell_ones_own",
    "/v1/queues": "test_queues_are_ones_own",
    "/v1/cluster": "of the whole cluster, as is what follows: test_no_scope_of_a_tenants_opens_what_is_of_all",
    "/v1/cluster:drain": "",
    "/v1/cluster:undrain": "",
    "/v1/clock:advance": "",
    "/metrics": "",
    "/peer/v1": "for nodes alone, who prove that they are: tests/gateway/test_peers.py",
}
BODIES: dict[str, list[Any]] = {
    ":reschedule": [{"delay": 1}],
    ":complete": [{"fence": "00000001.0000000001.000001"}, {"fence": "FENCE", "ok": False, "error": "x"}],
}
QUEUE = "mail"
TENANTS = ALL - {Scope.METRICS, Scope.OPERATE}
"""The scopes that a tenant may have."""
OF_ALL = [
    ("GET", "/metrics", "metrics"),
    ("GET", "/v1/cluster", "operate"),
    ("POST", "/v1/cluster:drain", "operate"),
    ("POST", "/v1/cluster:undrain", "operate"),
    ("POST", "/v1/clock:advance", "operate"),
]


@dataclass
class Two:
    """A service, the owner of some tasks, and a stranger."""

    node: Node
    owner: Api
    stranger: Api
    tasks: dict[str, dict[str, Any]]
    """Of the owner, by state."""

    async def now(self) -> dict[str, dict[str, Any]]:
        """The owner's tasks as they are."""
        return {state: await self.owner.get(task["id"], "?view=full") for state, task in self.tasks.items()}


@pytest.fixture
async def two(database_url: str, hook: Hook) -> AsyncIterator[Two]:
    mine, theirs = await make_key(database_url, "acme", TENANTS), await make_key(database_url, "other", TENANTS)
    async with (
        serving(database_url) as node,
        client(node.url, mine) as owner,
        client(node.url, theirs) as stranger,
    ):
        later = {"http": {"url": hook.url(LATER)}, "dispatch_deadline": 600}
        tasks = {
            "scheduled": await owner.submit(queue=QUEUE, delay="1h", payload="secret", labels={"a": "b"}),
            "running": await owner.submit(queue=QUEUE, **later),
            "cancelled": await owner.submit(queue=QUEUE, delay="1h"),
        }
        await owner.command(tasks["cancelled"]["id"], "cancel")
        await hook.called(tasks["running"]["id"])
        await owner.wait(tasks["running"]["id"], "running")
        yield Two(node, owner, stranger, tasks)


def routes(node: Node) -> list[tuple[str, str]]:
    """Method and pattern of every route that asks for a key."""
    found = []
    for route in node.service.runner.app.router.routes():
        assert route.resource is not None
        if route.resource.canonical not in OPEN and route.method != "HEAD":
            found.append((route.method, route.resource.canonical))
    return found


def test_every_route_without_an_id_was_looked_at(two: Two) -> None:
    patterns = {pattern for _, pattern in routes(two.node) if "{" not in pattern}
    assert patterns == set(WITHOUT_ID)


async def test_no_scope_of_a_tenants_opens_what_is_of_all(two: Two, database_url: str) -> None:
    for api in (two.owner, two.stranger):
        for method, path, scope in OF_ALL:
            answer = await api.call(method, path, {"node": "node-a"} if method == "POST" else None)
            assert (answer.status, answer.body["detail"]) == (403, f"the key lacks the scope {scope}")
    operators = await make_key(database_url, "default", ALL - TENANTS)
    async with aiohttp.ClientSession(headers=bearer(operators)) as session:
        api = Api(two.node.url, session)
        async with asyncio.timeout(LIMIT_S):
            while (await api.call("GET", "/metrics")).status != 200:
                pass
        refused = {(method, path): (await api.call(method, path)).status for method, path in routes(two.node)}
    opened = {(method, path): refused.pop((method, path)) for method, path, _ in OF_ALL}
    assert 403 not in opened.values()
    assert refused.pop(("GET", "/peer/v1")) != 200
    assert set(refused.values()) == {403}, "and it opens nothing of a tenant's"


async def test_another_ones_id_is_no_id(two: Two) -> None:
    before, called = await two.now(), 0
    assert [task["state"] for task in before.values()] == list(two.tasks)
    for method, pattern in routes(two.node):
        if "{" not in pattern or pattern.startswith("/v1/queues/{queue}"):  # test_queues_are_ones_own
            continue
        assert pattern.startswith("/v1/tasks/{id}"), f"{pattern}: another kind of id needs a test of its own"
        rest = pattern.partition("{id}")[2]
        for task in before.values():
            for body in BODIES.get(rest, [{}]):
                sent = None if method == "GET" else {**body}
                if sent and sent.get("fence") == "FENCE":
                    sent["fence"] = task["fence"] or "00000001.0000000001.000001"
                answers = []
                for task_id in (task["id"], str(uuid4())):
                    answer = await two.stranger.call(method, f"/v1/tasks/{task_id}{rest}", sent)
                    assert answer.status == 404, (method, pattern, answer)
                    answers.append({**answer.body, "instance": ""})
                assert answers[0] == answers[1], "it is not told from an id that nobody has"
                called += 1
    assert called >= 7 * len(before)
    assert await two.now() == before


async def test_queues_are_ones_own(two: Two) -> None:
    """A name that another has is one that nobody has."""
    before = (await two.owner.call("GET", f"/v1/queues/{QUEUE}")).body
    called = [(method, path) for method, path in routes(two.node) if path.startswith("/v1/queues/{queue}")]
    assert len(called) >= 7
    for method, path in called:
        if method != "PUT" and not path.endswith(":lease"):  # which make the stranger a queue of that name
            body: dict[str, Any] | None = None if method in ("GET", "DELETE") else {}
            answer = await two.stranger.call(method, path.replace("{queue}", QUEUE), body)
            assert answer.status == 404, (method, path, answer)
    assert (await two.stranger.call("GET", "/v1/queues")).body["queues"] == []
    made = await two.stranger.call("PUT", f"/v1/queues/{QUEUE}", {"paused": True})
    assert made.status == 201
    assert (await two.owner.call("GET", f"/v1/queues/{QUEUE}")).body == before


async def test_workers_get_ones_own(two: Two) -> None:
    """Nothing of another's is taken, ended, extended, or kept by coming back with it."""
    mine = await two.owner.submit(queue=QUEUE)
    taken = (await two.stranger.call("POST", f"/v1/queues/{QUEUE}:lease", {"max": 10})).body
    assert taken == {"tasks": []}
    async with working(two.owner, QUEUE) as worker, working(two.stranger, QUEUE) as other:
        await other.ready(10)
        [task] = await worker.take()
        assert task["id"] == mine["id"]
        none = task | {"id": str(uuid4())}
        for path, field, name, status in (("complete", "results", ok, 404), ("extend", "leases", lease_of, 409)):
            answers = []
            for one in (task, none):
                called = await two.stranger.call("POST", f"/v1/tasks:{path}", {field: [name(one)]})
                await other.say("done" if path == "complete" else "extend", **{field: [name(one)]})
                said = [*called.body["results"], *(await other.hear("refused"))["results"]]
                assert [refused["problem"]["status"] for refused in said] == [status, status], path
                answers.append(str([refused["problem"] for refused in said]).replace(one["id"], "its id"))
            assert answers[0] == answers[1], "it is not told from an id that nobody has"
        async with working(two.stranger, QUEUE) as again:
            assert await again.hello(task) == []
        own = await two.stranger.submit(queue=QUEUE)
        assert [one["id"] for one in await other.tasks()] == [own["id"]], "the first that it gets is its own"
        assert await worker.done(ok(task)) == {"type": "recorded", "ids": [mine["id"]]}


async def test_lists_are_ones_own(two: Two) -> None:
    page = (await two.owner.call("GET", "/v1/tasks?limit=1")).body
    cursor = page["next_cursor"]
    assert cursor is not None
    queries = ["", f"queue={QUEUE}", *(f"state={state}" for state in two.tasks), f"cursor={cursor}"]
    queries += [f"queue={QUEUE}&cursor={cursor}", f"queue={QUEUE}&state=scheduled,running"]
    for query in queries:
        answer = await two.stranger.call("GET", f"/v1/tasks?{query}")
        assert (answer.status, answer.body) == (200, {"tasks": [], "next_cursor": None}), query
    assert {task["id"] for task in await two.owner.listed()} == {task["id"] for task in two.tasks.values()}


async def test_names_and_keys_are_ones_own(two: Two) -> None:
    async def submit(api: Api) -> tuple[str, str]:
        one = await api.call("POST", "/v1/tasks", {"queue": QUEUE, "delay": "1h"}, Idempotency_Key="k")
        assert one.status == 201, one
        many = await api.submit_many([{"queue": QUEUE, "delay": "1h", "idempotency_key": "batch"}])
        return one.body["id"], many[0]

    mine, theirs = await submit(two.owner), await submit(two.stranger)
    assert len({*mine, *theirs}) == 4
    assert {task["id"] for task in await two.stranger.listed(queue=QUEUE)} == set(theirs)
    again = await two.stranger.call("POST", "/v1/tasks", {"queue": QUEUE, "delay": "1h"}, Idempotency_Key="k")
    assert (again.status, again.body["id"]) == (200, theirs[0])
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_streams_tell_ones_own(two: Two) -> None:
    scheduled = two.tasks["scheduled"]["id"]
    filters = {"id": scheduled, "queue": QUEUE, "labels": {"a": "b"}, "schedule": "daily"}
    assert set(Filter.__struct_fields__) == set(filters), "a new filter needs a foreign value here"
    async with two.owner.stream() as mine, two.stranger.stream() as theirs:
        await mine.subscribe("q", queue=QUEUE)
        assert {task["id"] for task in (await mine.hear())["tasks"]} >= {scheduled}
        cursor = mine.cursor
        watching = []
        for name, value in filters.items():
            await theirs.subscribe(name, **{name: value})
            answer = await theirs.hear()
            if (answer["type"], answer.get("problem")) != ("error", "not-supported"):
                assert (answer["type"], answer["tasks"]) == ("snapshot", []), name
                watching.append(name)
        await two.owner.command(scheduled, "reschedule", delay="2h")
        assert (await mine.hear())["task"]["id"] == scheduled
        for name in watching:
            await theirs.subscribe(f"{name} again", cursor, **{name: filters[name]})
            assert (await theirs.hear())["type"] == "resumed"
        await two.owner.command(scheduled, "cancel")
        assert (await mine.hear())["task"]["state"] == "cancelled"
        own = await two.stranger.submit(queue=QUEUE, delay="1h", labels={"a": "b"})
        await two.stranger.command(own["id"], "cancel")
        told = await theirs.hear()
        assert (told["type"], told["task"]["id"]) == ("event", own["id"]), "the first that it hears is its own"


async def test_events_tell_ones_own(two: Two) -> None:
    scheduled = two.tasks["scheduled"]["id"]
    for query in (f"id={scheduled}", f"queue={QUEUE}", "label.a=b", f"label.a=b&queue={QUEUE}"):
        async with two.stranger.session.get(f"{two.node.url}/v1/events?{query}") as response:
            assert response.status == 200
            told = b""
            async with asyncio.timeout(LIMIT_S):
                while b'"tasks":' not in told:
                    told += await response.content.readany()
        assert b'"tasks":[]' in told
        assert scheduled.encode() not in told
