"""Workers over plain HTTP: what a call waits for, what it answers, and what becomes of tasks whose call has ended."""

import asyncio
from typing import Any, cast

import msgspec
import pytest
from aiohttp import ClientTimeout

from actors.core.errors import Unavailable
from actors.core.events import Verdict
from actors.core.keys import Scope
from actors.core.lease import Extension, Said
from gateway import crew, leases_api
from gateway.crew import HEAD_BYTES, MOST_BYTES, NO_ROOM, UNSENT
from gateway.leases_api import CALL_BYTES, _Waiting
from gateway.server import Connection
from tests.gateway.lent import EPOCH, a_kept, a_lent, a_word, held, lease_text
from tests.gateway.served import NOW_MS, Answer, Served, served
from tests.support.builders import task_id
from tests.support.keys import bearer, new_key

LEASE, COMPLETE, EXTEND = "/v1/queues/mail:lease", "/v1/tasks:complete", "/v1/tasks:extend"


async def waiting(world: Served, calls: int = 1) -> int:
    """The queue's number, once so many calls wait for its tasks."""
    await world.node.pulling.until(lambda: len(world.gateway.crew) == calls)
    found = world.stores.book.by_name("default", "mail")
    assert found is not None
    return found.id


async def said(world: Served, results: list[Any]) -> tuple["asyncio.Task[Answer]", _Waiting]:
    """A call that says how these ended, and who waits for the words."""
    call = asyncio.get_running_loop().create_task(world.post(COMPLETE, {"results": results}))
    await world.node.pulling.until(lambda: world.node.pulling.reported)
    return call, cast(_Waiting, world.node.pulling.reported[0][0])


# --- lease


@pytest.mark.parametrize(("body", "count"), [(None, 1), ({}, 1), ({"max": 3}, 3), ({"max": 3, "wait": 60}, 3)])
async def test_tasks_come_as_soon_as_there_are_some(body: Any, count: int) -> None:
    async with served() as world, asyncio.TaskGroup() as group:
        call = group.create_task(world.post(LEASE, body))
        queue = await waiting(world)
        assert world.gateway.crew.room(queue) == count
        world.gateway.crew.deliver(queue, [a_lent(n, queue, payload=b"[1]") for n in range(count)])
        answer = await call
        assert (answer.status, [task["id"] for task in answer.json["tasks"]]) == (
            200,
            [task_id(n) for n in range(count)],
        )
        assert (answer.json["tasks"][0]["lease"], answer.json["tasks"][0]["payload"]) == (lease_text(), [1])
        assert (len(world.gateway.crew), world.gateway.crew.leases) == (0, 0), "no link stands for them"
        assert world.node.pulling.reported == []


async def test_fewer_than_the_most_are_not_waited_for() -> None:
    async with served() as world, asyncio.TaskGroup() as group:
        call = group.create_task(world.post(LEASE, {"max": 1_000, "wait": 60}))
        queue = await waiting(world)
        world.gateway.crew.deliver(queue, [a_lent(1, queue)])
        world.gateway.crew.deliver(queue, [a_lent(2, queue)])
        assert [task["id"] for task in (await call).json["tasks"]] == [task_id(1)]
        again = await world.post(LEASE, {"max": 1_000, "wait": 60})
        assert [task["id"] for task in again.json["tasks"]] == [task_id(2)], "it waits a moment for the next call"
        assert world.node.pulling.reported == []


async def test_a_call_brings_no_more_bytes_than_one_should(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "WAIT_S", 0.0)
    async with served() as world, asyncio.TaskGroup() as group:
        call = group.create_task(world.post(LEASE, {"max": 1_000, "wait": 60}))
        queue = await waiting(world)
        payload = b'"%b"' % (b"x" * 100_000)
        most = -(-CALL_BYTES // (len(payload) + HEAD_BYTES))
        assert world.gateway.crew.room(queue) == -(-CALL_BYTES // MOST_BYTES), "whatever comes"
        world.gateway.crew.deliver(queue, [a_lent(n, queue, payload=payload) for n in range(most + 5)])
        tasks = (await call).json["tasks"]
        assert len(tasks) == most
        await world.node.pulling.until(lambda: world.node.pulling.reported)
        (_, _, reports) = world.node.pulling.reported[0]
        assert [report.id for report in reports] == [task_id(n) for n in range(most, most + 5)]
        assert {(report.verdict, report.error) for report in reports} == {(Verdict.SNOOZED, NO_ROOM)}


async def test_when_nothing_comes_in_time_the_answer_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_api, "LOOK_S", 0.02)
    async with served() as world:
        loop = asyncio.get_running_loop()
        for body, wait_s in ((None, 0.02), ({"wait": 0.1}, 0.1)):
            began_s = loop.time()
            answer = await world.post(LEASE, body)
            assert (answer.status, answer.json) == (200, {"tasks": []})
            assert wait_s <= loop.time() - began_s < 5
        assert len(world.gateway.crew) == 0


async def test_a_node_that_goes_away_lets_nobody_wait() -> None:
    async with served() as world, asyncio.TaskGroup() as group:
        call = group.create_task(world.post(LEASE, {"wait": 60}))
        await waiting(world)
        world.gateway.leaving.set()
        for answer in (await call, await world.post(LEASE, {"wait": 60})):
            assert (answer.status, answer.json) == (200, {"tasks": []})


async def test_calls_that_wait_have_their_turns() -> None:
    async with served() as world, asyncio.TaskGroup() as group:
        calls = [group.create_task(world.post(LEASE, {"max": 10, "wait": 60})) for _ in range(3)]
        queue = await waiting(world, 3)
        world.gateway.crew.deliver(queue, [a_lent(n, queue) for n in range(6)])
        assert [len((await call).json["tasks"]) for call in calls] == [2, 2, 2]


async def abandoned(world: Served) -> None:
    """A call whose client does not wait for it."""
    assert world.server.runner is not None
    assert world.server.runner.server is not None
    world.server.runner.server.handler_cancellation = False  # as in the service
    with pytest.raises(TimeoutError):
        await world.client.post(world.server.make_url(LEASE), json={"wait": 60}, timeout=ClientTimeout(total=0.05))


async def test_a_call_whose_client_has_gone_takes_nothing() -> None:
    async with served() as world:
        await abandoned(world)
        await world.node.pulling.until(lambda: len(world.node.pulling.wanted) == 2)
        assert world.node.pulling.wanted == [{1}, frozenset()]
        assert (len(world.gateway.crew), world.node.pulling.reported) == (0, [])


async def test_a_call_whose_client_goes_as_tasks_come_gives_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    lose = Connection.connection_lost
    async with served() as world:

        def lost(connection: Connection, error: BaseException | None) -> None:
            lose(connection, error)
            for queue in world.node.pulling.wanted[-1]:
                world.gateway.crew.deliver(queue, [a_lent(1, queue)])

        monkeypatch.setattr(Connection, "connection_lost", lost)
        await abandoned(world)
        await world.node.pulling.until(lambda: world.node.pulling.reported)
        (_, tenant, (report,)) = world.node.pulling.reported[0]
        assert (tenant, report.id, report.verdict, report.error) == ("default", task_id(1), Verdict.SNOOZED, UNSENT)
        assert (len(world.gateway.crew), world.gateway.crew.leases) == (0, 0)
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("path", "body", "status", "pointer"),
    [
        (LEASE, {"max": 0}, 422, "/max"),
        (LEASE, {"max": 1_001}, 422, "/max"),
        (LEASE, {"wait": -1}, 422, "/wait"),
        (LEASE, {"wait": 60.5}, 422, "/wait"),
        (LEASE, {"wait": "1s"}, 422, "/wait"),
        (LEASE, {"more": 1}, 422, "/more"),
        (LEASE, [], 422, ""),
        (LEASE, b"{", 400, ""),
        ("/v1/queues/a%20b:lease", None, 422, "/queue"),
        (COMPLETE, {}, 422, "/results"),
        (COMPLETE, {"results": 5}, 422, "/results"),
        (COMPLETE, {"results": [{"id": "x", "ok": True}]}, 422, "/results/0/lease"),
        (COMPLETE, {"results": [held(1, ok=True)] * 1_001}, 422, "/results"),
        (COMPLETE, b"", 400, ""),
        (EXTEND, {"leases": [held(1, by=[])]}, 422, "/leases/0/by"),
        (EXTEND, {"leases": [held(1)] * 10_001}, 422, "/leases"),
    ],
)
async def test_bodies_are_checked(path: str, body: Any, status: int, pointer: str) -> None:
    async with served() as world:
        answer = await world.post(path, body)
        assert (answer.status, answer.pointers) == (status, [pointer])
        assert (world.node.pulling.reported, world.node.pulling.extended, world.node.pulling.wanted) == ([], [], [])


# --- complete


async def test_results_are_answered_in_their_order_when_all_are_committed() -> None:
    async with served() as world:
        call, waiter = await said(
            world,
            [
                held(1, ok=True, result=[1]),
                held(2, ok=False, error="x", retry="never"),
                held(3),
                held(4, snooze=2),
                {"id": "x", "lease": "y", "ok": True},
                held(5, ok=True),
            ],
        )
        ((_, tenant, reports),) = world.node.pulling.reported
        assert (tenant, [(report.id, report.epoch) for report in reports]) == (
            "default",
            [(task_id(n), EPOCH) for n in (1, 2, 4, 5)],
        )
        assert [report.verdict for report in reports] == [
            Verdict.SUCCEEDED,
            Verdict.NEVER,
            Verdict.SNOOZED,
            Verdict.SUCCEEDED,
        ]
        waiter.answer([a_word(4, state="scheduled"), a_word(2, state="dead")])
        waiter.answer([a_word(5, Said.OVER, state="cancelled")])
        assert not call.done()
        waiter.answer([a_word(1, state="succeeded")])
        one, two, three, four, x, five = (await call).json["results"]
        assert (one, two, four) == (
            {"id": task_id(1), "state": "succeeded"},
            {"id": task_id(2), "state": "dead"},
            {"id": task_id(4), "state": "scheduled"},
        )
        assert [(bad["id"], bad["problem"]["status"]) for bad in (three, x, five)] == [
            (task_id(3), 422),
            ("x", 422),
            (task_id(5), 409),
        ]
        assert five["problem"]["state"] == "cancelled"


@pytest.mark.parametrize(("told", "status"), [(Said.OVER, 409), (Said.UNKNOWN, 404), (Said.UNSURE, 503)])
async def test_a_result_is_refused_as_its_owner_says(told: Said, status: int) -> None:
    async with served() as world:
        call, waiter = await said(world, [held(1, ok=True)])
        waiter.answer([a_word(1, told)])
        (result,) = (await call).json["results"]
        assert (result["id"], result["problem"]["status"]) == (task_id(1), status)


async def test_what_was_recorded_before_has_no_state() -> None:
    async with served() as world:
        call, waiter = await said(world, [held(1, ok=True)])
        waiter.answer([a_word(1)])
        assert (await call).json["results"] == [{"id": task_id(1), "state": None}]


async def test_of_one_attempt_the_first_word_counts_however_it_is_named() -> None:
    """Capitals name the same task; under another owner an attempt of the same number is another one."""
    async with served() as world:
        name = task_id(0xABCDEF)
        call, waiter = await said(
            world,
            [
                {"id": name, "lease": lease_text(), "ok": True},
                {"id": name.upper(), "lease": lease_text(), "ok": False},
                {"id": name, "lease": "00000001.0000000009.000001", "ok": True},
            ],
        )
        waiter.answer([a_word(0xABCDEF, state="succeeded")])
        waiter.answer([msgspec.structs.replace(a_word(0xABCDEF, Said.OVER), epoch=9)])
        first, *others = (await call).json["results"]
        assert first == {"id": name, "state": "succeeded"}
        assert [(bad["id"], bad["problem"]["status"]) for bad in others] == [(name.upper(), 422), (name, 409)]


async def test_a_call_with_nothing_to_wait_for_is_answered_at_once() -> None:
    async with served() as world:
        answer = await world.post(COMPLETE, {"results": []})
        assert (answer.status, answer.json) == (200, {"results": []})
        (bad,) = (await world.post(COMPLETE, {"results": [held(1)]})).json["results"]
        assert bad["problem"]["errors"][0]["pointer"] == "/ok"


async def test_results_that_find_no_room_are_refused_whole() -> None:
    async with served() as world:
        world.node.pulling.full = True
        answer = await world.post(COMPLETE, {"results": [held(1, ok=True)]})
        assert (answer.status, "Retry-After" in answer.headers) == (503, True)
        assert world.node.pulling.reported == []


async def test_a_word_that_another_call_heard_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client gave up and said it again: the second call has the word."""
    monkeypatch.setattr(leases_api, "WORDS_S", 0.05)
    async with served() as world:
        call, _ = await said(world, [held(1, ok=True)])
        (result,) = (await call).json["results"]
        assert (result["id"], result["problem"]["status"]) == (task_id(1), 503)


async def test_a_result_ends_the_lease_that_a_link_has() -> None:
    """What a link took may be completed by a call."""
    async with served() as world, asyncio.TaskGroup() as group:
        group.create_task(world.post(LEASE, {"wait": 60}))
        queue = await waiting(world)
        (member,) = world.gateway.crew._members
        world.gateway.crew.come_back(member, [Extension(task_id(1), EPOCH, 1)])
        call, waiter = await said(world, [held(1, ok=True)])
        assert world.gateway.crew.leases == 0
        waiter.answer([a_word(1)])
        await call
        world.gateway.crew.deliver(queue, [a_lent(2, queue)])


# --- extend


async def test_extensions_are_answered_in_their_order() -> None:
    async with served() as world, asyncio.TaskGroup() as group:
        leases = [held(1, by=60), held(2, by=0), held(3), held(4), held(1)]
        call = group.create_task(world.post(EXTEND, {"leases": leases}))
        await world.node.pulling.until(lambda: world.node.pulling.extended)
        ((speaker, tenant, extensions),) = world.node.pulling.extended
        assert (tenant, extensions) == (
            "default",
            [Extension(task_id(1), EPOCH, 1, 60_000), *(Extension(task_id(n), EPOCH, 1) for n in (3, 4))],
        )
        speaker.keep([a_kept(4, Said.OVER)])
        speaker.keep([a_kept(1, until_ms=NOW_MS), a_kept(3, until_ms=NOW_MS + 5)])
        results = (await call).json["results"]
        assert results[0] == held(1, lease_expire_time="2026-09-21T14:13:20.000Z")
        assert results[2] == held(3, lease_expire_time="2026-09-21T14:13:20.005Z")
        assert [(bad["id"], bad["problem"]["status"]) for bad in (results[1], results[3], results[4])] == [
            (task_id(2), 422),
            (task_id(4), 409),
            (task_id(1), 422),
        ]


async def test_an_owner_that_says_nothing_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_api, "KEPT_S", 0.05)
    async with served() as world, asyncio.TaskGroup() as group:
        call = group.create_task(world.post(EXTEND, {"leases": [held(1), held(2)]}))
        await world.node.pulling.until(lambda: world.node.pulling.extended)
        world.node.pulling.extended[0][0].keep([a_kept(1, until_ms=NOW_MS)])
        one, two = (await call).json["results"]
        assert ("lease_expire_time" in one, two["problem"]["status"]) == (True, 503)
        assert world.node.pulling.extended == [], "forgotten"


# --- who


async def test_a_tenant_has_queues_of_its_own() -> None:
    async with served() as world, asyncio.TaskGroup() as group:
        new, text = new_key("acme", frozenset({Scope.WORK}))
        await world.stores.keys.create(new)
        await world.gateway.keyring.refresh()
        call = group.create_task(world.post(LEASE, {"wait": 60}, headers=bearer(text)))
        await world.node.pulling.until(lambda: len(world.gateway.crew) == 1)
        mine = world.stores.book.by_name("acme", "mail")
        assert mine is not None
        assert world.stores.book.by_name("default", "mail") is None
        world.gateway.crew.deliver(mine.id, [a_lent(1, mine.id)])
        assert len((await call).json["tasks"]) == 1
        finishing = group.create_task(world.post(COMPLETE, {"results": [held(1, ok=True)]}, headers=bearer(text)))
        await world.node.pulling.until(lambda: world.node.pulling.reported)
        speaker, tenant, _ = world.node.pulling.reported[0]
        assert tenant == "acme"
        speaker.answer([a_word(1)])
        await finishing


async def test_a_queue_that_can_not_be_made_now_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ensure(tenant: str, name: str) -> None:
        raise Unavailable("the database is away")

    async with served() as world:
        monkeypatch.setattr(world.stores.queues, "ensure", ensure)
        assert (await world.post(LEASE)).status == 503
        assert len(world.gateway.crew) == 0
