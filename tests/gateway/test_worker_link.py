"""A worker's link on a real socket: what it says and hears, how it ends, and what a worker that does not read costs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
import pytest
from aiohttp import WSMsgType, WSServerHandshakeError
from msgspec.structs import replace

from actors.core.errors import Unavailable
from actors.core.events import Verdict
from actors.core.keys import ALL, Scope
from actors.core.lease import Extension, Said
from gateway import crew, farewell, worker_link, worker_writer
from gateway.crew import NO_ROOM, UNSENT, WENT
from gateway.outbox import CHUNK_BYTES
from gateway.server import Bounds
from gateway.session import Limits
from gateway.worker_frames import NAME_CHARS
from gateway.worker_writer import OUTBOX_BYTES
from tests.gateway.lent import EPOCH, a_kept, a_lent, a_word, held, lease_text
from tests.gateway.served import NOW_MS, Served, served
from tests.gateway.working import Worker, recorded, working
from tests.support.builders import task_id
from tests.support.keys import bearer, new_key


async def key(world: Served, **more: Any) -> str:
    """A key that the node has heard of."""
    new, text = new_key("default", **more)
    await world.stores.keys.create(new)
    await world.gateway.keyring.refresh()
    return text


def verdicts(world: Served) -> list[tuple[str, Verdict, str | None]]:
    return [
        (report.id, Verdict(report.verdict), report.error)
        for _, _, reports in world.node.pulling.reported
        for report in reports
    ]


# --- tasks and their ends


async def test_tasks_come_as_far_as_the_credits_go() -> None:
    async with served() as world, working(world) as worker:
        queue = await worker.ready(3)
        frame = await worker.given(queue, [a_lent(n, queue.id, payload=b'{"n": 1}') for n in range(5)])
        assert worker.ws.protocol == "ringwheel.v1.json"
        assert (frame["type"], [task["id"] for task in frame["tasks"]]) == ("tasks", [task_id(n) for n in range(3)])
        assert (frame["tasks"][0]["lease"], frame["tasks"][0]["payload"]) == (lease_text(), {"n": 1})
        assert verdicts(world) == [(task_id(n), Verdict.SNOOZED, NO_ROOM) for n in (3, 4)]
        await worker.ready(1)
        await worker.ready(1)
        frame = await worker.given(queue, [a_lent(n, queue.id) for n in range(5, 8)])
        assert [task["id"] for task in frame["tasks"]] == [task_id(5), task_id(6)]


async def test_a_worker_of_several_queues_is_given_of_each_what_it_takes() -> None:
    async with served() as world, working(world) as worker:
        mail, other = await worker.ready(1, "mail"), await worker.ready(2, "other")
        for queue, number in ((mail, 1), (other, 2)):
            frame = await worker.given(queue, [a_lent(number, queue.id)])
            assert [(task["id"], task["queue"]) for task in frame["tasks"]] == [(task_id(number), queue.name)]
        assert world.gateway.crew.room(other.id) == 1


async def test_a_result_is_answered_when_it_is_committed() -> None:
    async with served() as world, working(world) as worker:
        queue = await worker.ready(4)
        await worker.given(queue, [a_lent(n, queue.id) for n in range(4)])
        await worker.say(
            "done",
            results=[
                held(0, ok=True, result={"a": 1}),
                held(1, ok=False, error="x", retry=2),
                held(2, snooze=3),
            ],
        )
        link, tenant, reports = await worker.heard(0)
        assert tenant == "default"
        assert [(report.id, report.epoch, report.attempt) for report in reports] == [
            (task_id(n), EPOCH, 1) for n in range(3)
        ]
        assert [report.verdict for report in reports] == [Verdict.SUCCEEDED, Verdict.FAILED, Verdict.SNOOZED]
        assert (reports[0].result, reports[1].retry_after_ms) == (b'{"a":1}', 2_000)
        assert world.gateway.crew.leases == 1
        link.answer([a_word(0, state="succeeded"), a_word(2, state="scheduled")])
        link.answer([a_word(1, Said.OVER, state="cancelled", detail="it was cancelled")])
        assert await worker.hear() == {"type": "recorded", "ids": [task_id(0), task_id(2)]}
        frame = await worker.hear()
        (result,) = frame["results"]
        assert (frame["type"], result["id"], result["lease"]) == ("refused", task_id(1), lease_text())
        assert (result["problem"]["status"], result["problem"]["state"]) == (409, "cancelled")
        assert link._names == {}, "nothing is kept of what was answered"


@pytest.mark.parametrize(("said", "status"), [(Said.OVER, 409), (Said.UNKNOWN, 404), (Said.UNSURE, 503)])
async def test_a_result_is_refused_as_its_owner_says(said: Said, status: int) -> None:
    async with served() as world, working(world) as worker:
        link = await worker.done(1)
        link.answer([a_word(1, said)])
        frame = await worker.hear()
        assert [result["problem"]["status"] for result in frame["results"]] == [status]


async def test_a_bad_result_spoils_no_other() -> None:
    async with served() as world, working(world) as worker:
        results = [held(1, ok=True), held(2, ok=1), held(3), {"id": "x", "lease": "y", "ok": True}, held(1, ok=False)]
        frame = await worker.ask("done", results=results)
        assert frame["type"] == "refused"
        assert [(result["id"], result["problem"]["status"]) for result in frame["results"]] == [
            (task_id(2), 422),
            (task_id(3), 422),
            ("x", 422),
            (task_id(1), 422),
        ]
        link, _, reports = await worker.heard(0)
        assert [(report.id, report.verdict) for report in reports] == [(task_id(1), Verdict.SUCCEEDED)]
        recorded(link, (1,))
        assert await worker.hear() == {"type": "recorded", "ids": [task_id(1)]}


async def test_more_results_than_can_wait_are_to_be_said_again() -> None:
    async with served() as world, working(world) as worker:
        queue = await worker.ready(1)
        await worker.given(queue, [a_lent(1, queue.id)])
        world.node.pulling.full = True
        frame = await worker.ask("done", results=[held(1, ok=True)])
        assert [(result["id"], result["problem"]["status"]) for result in frame["results"]] == [(task_id(1), 503)]
        assert (world.node.pulling.reported, world.gateway.crew.leases) == ([], 1)


async def test_answers_bear_the_names_that_the_worker_used() -> None:
    async with served() as world, working(world) as worker:
        name = task_id(0xABCDEF).upper()
        await worker.say("done", results=[held(1) | {"id": name, "ok": True}])
        link, _, _ = await worker.heard(0)
        link.answer([a_word(0xABCDEF)])
        assert await worker.hear() == {"type": "recorded", "ids": [name]}


# --- leases


async def test_an_extension_is_answered_with_its_time() -> None:
    async with served() as world, working(world) as worker:
        await worker.say("extend", leases=[held(1, by="1m"), held(2), held(3, by=0)])
        frame = await worker.hear()
        assert [(bad["id"], bad["problem"]["errors"][0]["pointer"]) for bad in frame["results"]] == [
            (task_id(3), "/by")
        ]
        ((link, tenant, extensions),) = world.node.pulling.extended
        assert (tenant, extensions) == (
            "default",
            [Extension(task_id(1), EPOCH, 1, 60_000), Extension(task_id(2), EPOCH, 1)],
        )
        link.keep([a_kept(1, until_ms=NOW_MS), a_kept(2, Said.OVER)])
        assert await worker.hear() == {
            "type": "extended",
            "leases": [held(1, lease_expire_time="2026-09-21T14:13:20.000Z")],
        }
        frame = await worker.hear()
        assert [(bad["id"], bad["problem"]["status"]) for bad in frame["results"]] == [(task_id(2), 409)]


async def test_what_is_extended_and_ended_at_once_keeps_its_name_in_both_answers() -> None:
    async with served() as world, working(world) as worker:
        await worker.say("extend", leases=[held(1)])
        link = await worker.done(1)
        recorded(link, (1,))
        assert await worker.hear() == {"type": "recorded", "ids": [task_id(1)]}
        link.keep([a_kept(1, Said.OVER)])
        (bad,) = (await worker.hear())["results"]
        assert (bad["id"], bad["lease"]) == (task_id(1), lease_text())


async def test_who_works_on_what_was_cancelled_is_told() -> None:
    async with served() as world, working(world) as worker:
        queue = await worker.ready(2)
        await worker.given(queue, [a_lent(n, queue.id) for n in range(2)])
        world.gateway.crew.revoke([(task_id(0), 1), (task_id(1), 2), (task_id(7), 1)])
        assert await worker.hear() == {"type": "cancel", "ids": [task_id(0)]}


async def test_after_stop_no_task_comes_until_the_next_ready() -> None:
    async with served() as world, working(world) as worker:
        queue = await worker.ready(10)
        await worker.given(queue, [a_lent(1, queue.id)])
        assert await worker.ask("stop") == {"type": "stopped"}
        world.gateway.crew.deliver(queue.id, [a_lent(2, queue.id)])
        assert world.gateway.crew.room(queue.id) == 0
        await worker.ready(1)
        frame = await worker.given(queue, [a_lent(3, queue.id)])
        assert [task["id"] for task in frame["tasks"]] == [task_id(3)], "of ten credits nine were taken back"
        link = await worker.done(1)
        recorded(link, (1,))
        assert await worker.hear() == {"type": "recorded", "ids": [task_id(1)]}


# --- tasks that keep coming


async def test_tasks_that_come_soon_after_others_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_writer, "FRAME_S", 0.5)
    async with served() as world, working(world) as worker:
        queue = await worker.ready(10)
        assert [task["id"] for task in (await worker.given(queue, [a_lent(0, queue.id)]))["tasks"]] == [task_id(0)]
        for number in range(1, 4):
            world.gateway.crew.deliver(queue.id, [a_lent(number, queue.id)])
        assert [task["id"] for task in (await worker.hear())["tasks"]] == [task_id(n) for n in range(1, 4)]


async def test_after_many_tasks_more_of_them_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_writer, "FRAME_S", 0.5)
    async with served() as world, working(world) as worker:
        queue = await worker.ready(100)
        many = worker_writer.BUSY_TASKS
        began_s = asyncio.get_running_loop().time()
        await worker.given(queue, [a_lent(number, queue.id) for number in range(many)])
        world.gateway.crew.deliver(queue.id, [a_lent(many, queue.id)])
        assert [task["id"] for task in (await worker.hear())["tasks"]] == [task_id(many)]
        assert asyncio.get_running_loop().time() - began_s >= 1.0


@pytest.fixture
def _rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second frame of tasks is further away than the end of a test."""
    monkeypatch.setattr(worker_writer, "FRAME_S", 60.0)


@pytest.mark.usefixtures("_rare")
async def test_what_is_said_of_a_task_comes_after_it() -> None:
    async with served() as world, working(world) as worker:
        queue = await worker.ready(10)
        await worker.given(queue, [a_lent(0, queue.id)])
        world.gateway.crew.deliver(queue.id, [a_lent(1, queue.id)])
        world.gateway.crew.revoke([(task_id(1), 1)])
        assert [task["id"] for task in (await worker.hear())["tasks"]] == [task_id(1)]
        assert await worker.hear() == {"type": "cancel", "ids": [task_id(1)]}
        world.gateway.crew.deliver(queue.id, [a_lent(2, queue.id)])
        assert [task["id"] for task in (await worker.ask("stop"))["tasks"]] == [task_id(2)]
        assert await worker.hear() == {"type": "stopped"}


@pytest.mark.usefixtures("_rare")
async def test_tasks_that_one_read_brings_are_written_once_when_all_of_it_was_heard() -> None:
    """At once, though others were just written; with them goes what gathered until then."""
    async with served() as world, working(world) as worker:
        queue = await worker.ready(10)
        turn, deliver = world.gateway.turn, world.gateway.crew.deliver
        for first in (0, 3):
            with turn:
                for number in range(first, first + 3):
                    deliver(queue.id, [a_lent(number, queue.id)])
            assert [task["id"] for task in (await worker.hear())["tasks"]] == [
                task_id(number) for number in range(first, first + 3)
            ]
        deliver(queue.id, [a_lent(6, queue.id)])
        with turn:
            deliver(queue.id, [a_lent(7, queue.id)])
        assert [task["id"] for task in (await worker.hear())["tasks"]] == [task_id(6), task_id(7)]


@pytest.mark.usefixtures("_rare")
async def test_what_is_said_of_a_task_in_the_turn_in_which_it_comes_comes_after_it() -> None:
    async with served() as world, working(world) as worker:
        queue = await worker.ready(10)
        await worker.given(queue, [a_lent(0, queue.id)])
        with world.gateway.turn:
            world.gateway.crew.deliver(queue.id, [a_lent(1, queue.id)])
            world.gateway.crew.revoke([(task_id(1), 1)])
            world.gateway.crew.deliver(queue.id, [a_lent(2, queue.id)])
        assert [task["id"] for task in (await worker.hear())["tasks"]] == [task_id(1)]
        assert await worker.hear() == {"type": "cancel", "ids": [task_id(1)]}
        assert [task["id"] for task in (await worker.hear())["tasks"]] == [task_id(2)]


@pytest.mark.usefixtures("_rare")
async def test_each_of_several_workers_is_written_to_once_in_a_turn() -> None:
    async with served() as world, working(world) as one, working(world) as other:
        queue = await one.ready(1)
        await other.ready(1)
        with world.gateway.turn:
            for number in (1, 2):
                world.gateway.crew.deliver(queue.id, [a_lent(number, queue.id)])
        told = [task["id"] for worker in (one, other) for task in (await worker.hear())["tasks"]]
        assert sorted(told) == [task_id(1), task_id(2)]


@pytest.mark.usefixtures("_rare")
async def test_more_than_a_chunk_does_not_wait() -> None:
    async with served() as world, working(world) as worker:
        queue = await worker.ready(10)
        await worker.given(queue, [a_lent(0, queue.id)])
        (link,) = world.gateway.crew._members
        for number in range(1, 6):
            world.gateway.crew.deliver(queue.id, [a_lent(number, queue.id, payload=LARGE)])
        assert link.room_bytes < OUTBOX_BYTES - 5 * len(LARGE), "what gathers has its place"
        world.gateway.crew.deliver(queue.id, [a_lent(6, queue.id, payload=LARGE)])
        assert [len((await worker.hear())["tasks"]) for _ in range(2)] == [5, 1]


@pytest.mark.usefixtures("_rare")
async def test_tasks_that_gather_for_a_worker_that_goes_are_given_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "GRACE_S", 60.0)
    async with served() as world, working(world) as worker:
        queue = await worker.ready(10)
        await worker.given(queue, [a_lent(0, queue.id)])
        world.gateway.crew.deliver(queue.id, [a_lent(1, queue.id)])
        await worker.ws.close()
        await world.node.pulling.until(lambda: world.node.pulling.reported)
        assert verdicts(world) == [(task_id(1), Verdict.SNOOZED, UNSENT)]


# --- hello


async def test_a_worker_that_has_nothing_is_greeted_at_once() -> None:
    async with served() as world, working(world) as worker:
        name = "w" * NAME_CHARS
        assert await worker.ask("hello", worker=name) == {"type": "hello", "worker": name, "leases": []}
        assert world.node.pulling.extended == []


async def test_who_comes_back_is_told_which_leases_are_its_own() -> None:
    async with served() as world, working(world) as worker:
        await worker.say("hello", worker="w", leases=[held(n) for n in range(1, 6)] + [{"id": "x", "lease": "y"}])
        await world.node.pulling.until(lambda: world.node.pulling.extended)
        ((link, _, extensions),) = world.node.pulling.extended
        assert extensions == [Extension(task_id(n), EPOCH, 1) for n in range(1, 6)], "each for a full period"
        link.keep([a_kept(1), a_kept(2, Said.OVER), a_kept(3, Said.UNKNOWN)])
        assert world.gateway.crew.leases == 3, "those that may be its own, before all have said so"
        link.keep([a_kept(4, Said.UNSURE), a_kept(5)])
        frame = await worker.hear()
        assert frame == {"type": "hello", "worker": "w", "leases": [held(n) for n in (1, 4, 5)]}
        assert world.gateway.crew.leases == 3
        world.gateway.crew.revoke([(task_id(4), 1)])
        assert await worker.hear() == {"type": "cancel", "ids": [task_id(4)]}


async def test_a_lease_whose_owner_says_nothing_may_be_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_link, "HELLO_S", 0.05)
    async with served() as world, working(world) as worker:
        frame = await worker.ask("hello", leases=[held(1), held(2)])
        assert frame == {"type": "hello", "worker": "", "leases": [held(1), held(2)]}
        ((link, _, _),) = world.node.pulling.extended
        link.keep([a_kept(1, Said.OVER)])
        assert (await worker.hear())["results"][0]["problem"]["status"] == 409, "what comes late is told by itself"


async def test_hello_comes_first_or_not_at_all() -> None:
    async with served() as world, working(world) as worker:
        await worker.ready(1)
        frame = await worker.ask("hello", leases=[held(1)])
        assert (frame["type"], frame["errors"][0]["pointer"]) == ("error", "/type")
        assert world.node.pulling.extended == []
        assert await worker.ask("stop") == {"type": "stopped"}


async def test_who_comes_back_in_time_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "GRACE_S", 0.3)
    async with served() as world:
        async with working(world) as worker:
            queue = await worker.ready(2)
            await worker.given(queue, [a_lent(n, queue.id) for n in (1, 2)])
        async with working(world) as again:
            await again.say("hello", leases=[held(1)])
            await world.node.pulling.until(lambda: world.node.pulling.extended)
            world.node.pulling.extended[0][0].keep([a_kept(1)])
            assert (await again.hear())["leases"] == [held(1)]
            await world.node.pulling.until(lambda: world.node.pulling.reported)
            assert verdicts(world) == [(task_id(2), Verdict.LOST, WENT)]


# --- bad messages


async def test_what_can_not_be_read_is_answered_and_the_link_stays() -> None:
    async with served() as world, working(world) as worker:
        for data, pointer in (
            (b"", ""),
            (b"nonsense", ""),
            (b"\xff", ""),
            (b"[" * 20_000, ""),
            (b'{"type":"ready","queue":"a/b","credits":1}', "/queue"),
            (b'{"type":"ready","queue":"mail","credits":0}', "/credits"),
            (b'{"type":"done","results":7}', "/results"),
        ):
            await worker.ws.send_bytes(data)
            frame = await worker.hear()
            assert (frame["type"], [error["pointer"] for error in frame["errors"]]) == ("error", [pointer]), data
            assert frame["detail"]
        await worker.ready(1)
        assert world.node.pulling.reported == []
        assert world.node.pulling.wanted == [{1}]


async def test_a_queue_that_can_not_be_made_now_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ensure(tenant: str, name: str) -> None:
        raise Unavailable("the database is away")

    async with served() as world, working(world) as worker:
        monkeypatch.setattr(world.stores.queues, "ensure", ensure)
        frame = await worker.ask("ready", queue="mail", credits=1)
        assert (frame["type"], frame["detail"]) == ("error", "the database is away")
        assert await worker.ask("stop") == {"type": "stopped"}


async def test_a_message_that_is_too_long_ends_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_link, "MESSAGE_BYTES", 100)
    async with served() as world, working(world) as worker:
        await worker.ws.send_str("x" * 200)
        assert await worker.closed() == 1009


HANDSHAKE = (
    b"GET /v1/worker HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==\r\n\r\n"
)
TOO_BIG = b"\x88\x02" + (1009).to_bytes(2, "big")
"""A close frame."""


@asynccontextmanager
async def too_long(world: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that has written a message which is much too long, all of it, before it reads."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.server.port)
    try:
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        size = 2 * worker_link.MESSAGE_BYTES
        writer.write(b"\x81\xff" + size.to_bytes(8, "big") + bytes(4 + size))
        await writer.drain()
        yield reader, writer
    finally:
        writer.close()


async def test_who_is_still_writing_its_long_message_hears_the_code_too() -> None:
    async with served() as world, too_long(world) as (reader, writer):
        assert await reader.readexactly(len(TOO_BIG)) == TOO_BIG
        writer.write_eof()
        assert await reader.read() == b"", "it need not wait for more than that"


async def test_who_does_not_close_after_a_message_that_is_too_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell, "LINGER_S", 1.0)
    async with served() as world, too_long(world) as (reader, _):
        assert await reader.readexactly(len(TOO_BIG)) == TOO_BIG
        with suppress(ConnectionResetError):  # what it wrote lies there unread
            await reader.read()
        assert len(world.gateway.crew) == 0


async def test_who_wrote_a_message_that_is_too_long_is_given_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_link, "MESSAGE_BYTES", 100)
    async with served() as world, working(world, autoclose=False) as worker:
        queue = await worker.ready(5)
        await worker.ws.send_str("x" * 200)
        await world.node.pulling.until(lambda: world.node.pulling.wanted[-1] == frozenset())
        world.gateway.crew.deliver(queue.id, [a_lent(1, queue.id)])
        assert (await worker.ws.receive()).type is WSMsgType.CLOSE
        assert verdicts(world) == [(task_id(1), Verdict.SNOOZED, NO_ROOM)]


async def test_a_bug_ends_the_link_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with served() as world, working(world) as worker:
        monkeypatch.setattr(world.node.pulling, "report", lambda *words: 1 // 0)
        await worker.say("done", results=[held(1, ok=True)])
        assert await worker.closed() == 1011
    assert "a worker's link broke" in caplog.text


async def test_what_a_link_is_given_while_it_breaks_goes_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    close = farewell.PatientSocket.close

    async def give(ws: farewell.PatientSocket, **words: Any) -> bool:
        monkeypatch.undo()
        world.gateway.crew.deliver(queue.id, [a_lent(1, queue.id)])
        return await close(ws, **words)

    async with served() as world, working(world) as worker:
        queue = await worker.ready(2)
        monkeypatch.setattr(farewell.PatientSocket, "close", give)
        monkeypatch.setattr(worker_link.WorkerLink, "receive", lambda *_: 1 // 0)
        await worker.say("stop")
        assert await worker.closed() == 1011
        await world.node.pulling.until(lambda: world.node.pulling.reported)
        assert verdicts(world) == [(task_id(1), Verdict.SNOOZED, UNSENT)]


@pytest.mark.parametrize(
    ("headers", "status"), [({"Sec-WebSocket-Protocol": "mqtt"}, 400), ({"Origin": "https://evil.example"}, 403)]
)
async def test_what_is_no_link_of_ours_is_refused(headers: dict[str, str], status: int) -> None:
    async with served() as world:
        with pytest.raises(WSServerHandshakeError) as caught:
            async with working(world, headers=headers, protocols=()):
                pass
        assert caught.value.status == status
        assert (await world.get("/v1/worker")).status == 400


# --- keys


async def test_a_key_by_header_or_by_the_first_message() -> None:
    async with served() as world:
        text = await key(world, scopes=frozenset({Scope.WORK}))
        async with working(world, headers=bearer(text)) as worker:
            assert (await worker.ask("hello"))["type"] == "hello"
        async with working(world) as worker:
            await worker.ws.ping()
            await worker.ws.pong()
            assert await worker.ask("authenticate", key=text) == {"type": "authenticated"}
            assert (await worker.ask("hello"))["type"] == "hello", "it is the first message yet"


async def test_working_has_a_scope_of_its_own() -> None:
    async with served() as world:
        text = await key(world, scopes=ALL - {Scope.WORK})
        async with working(world) as worker:
            await worker.say("authenticate", key=text)
            assert await worker.closed() == 4403
        with pytest.raises(WSServerHandshakeError) as caught:
            async with working(world, headers=bearer(text)):
                pass
        assert caught.value.status == 403


async def test_another_first_message_or_none_ends_the_link() -> None:
    async with served(limits=Limits(authenticate_s=0.05)) as world:
        await key(world)
        async with working(world) as worker:
            await worker.say("ready", queue="mail", credits=1)
            assert await worker.closed() == 4401
        async with working(world) as worker:
            assert await worker.closed() == 4408
        assert world.node.pulling.wanted == []


async def test_a_link_ends_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "GRACE_S", 0.0)
    monkeypatch.setattr(worker_writer, "FRAME_S", 60.0)
    async with served() as world:
        text = await key(world)
        async with working(world, headers=bearer(text)) as worker:
            queue = await worker.ready(2)
            await worker.given(queue, [a_lent(1, queue.id)])
            world.gateway.crew.deliver(queue.id, [a_lent(2, queue.id)])
            await world.stores.keys.revoke(text.split("_")[1])
            await world.gateway.keyring.refresh()
            assert await worker.closed() == 4401
        await world.node.pulling.until(lambda: len(world.node.pulling.reported) == 2)
        assert verdicts(world) == [(task_id(2), Verdict.SNOOZED, UNSENT), (task_id(1), Verdict.LOST, WENT)]


# --- the end


async def test_a_node_that_goes_away_says_so_and_gives_out_nothing_more() -> None:
    async with served() as world, working(world) as worker:
        queue = await worker.ready(5)
        await worker.given(queue, [a_lent(1, queue.id)])
        world.gateway.leaving.set()
        assert await worker.hear() == {"type": "drain"}
        assert world.gateway.crew.room(queue.id) == 0
        await worker.say("ready", queue="mail", credits=5)
        link = await worker.done(1)
        recorded(link, (1,))
        assert await worker.hear() == {"type": "recorded", "ids": [task_id(1)]}, "results are still taken"
        assert world.gateway.crew.room(queue.id) == 0
        world.gateway.hub.close()
        assert await worker.closed() == 1001


async def test_who_is_ready_for_a_queue_that_is_being_made_while_the_node_goes_gets_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served() as world, working(world) as worker:
        ensure = world.stores.queues.ensure

        async def go_away(tenant: str, name: str) -> Any:
            world.gateway.leaving.set()
            return await ensure(tenant, name)

        monkeypatch.setattr(world.stores.queues, "ensure", go_away)
        await worker.say("ready", queue="mail", credits=5)
        assert await worker.hear() == {"type": "drain"}
        assert await worker.ask("stop") == {"type": "stopped"}
        assert world.node.pulling.looked == []


async def test_who_comes_while_the_node_goes_away_is_told_at_once() -> None:
    async with served() as world:
        world.gateway.leaving.set()
        async with working(world) as worker:
            assert await worker.hear() == {"type": "drain"}


async def test_what_a_worker_had_when_its_link_was_closed_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "GRACE_S", 0.0)
    async with served() as world:
        async with working(world) as worker:
            queue = await worker.ready(2)
            await worker.given(queue, [a_lent(n, queue.id) for n in (1, 2)])
            await worker.say("extend", leases=[held(2)])
            await worker.done(1)
            assert len(world.node.pulling.extended) == 1
        await world.node.pulling.until(lambda: len(world.node.pulling.reported) == 2)
        assert verdicts(world) == [(task_id(1), Verdict.SUCCEEDED, None), (task_id(2), Verdict.LOST, WENT)]
        assert world.node.pulling.extended == [], "nobody waits for that any more"
        assert (len(world.gateway.crew), world.gateway.crew.leases) == (0, 0)


async def test_a_link_that_falls_silent_gives_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker may be at work all the same: the leases run to their end."""
    monkeypatch.setattr(crew, "GRACE_S", 0.0)
    monkeypatch.setattr(worker_link, "HEARTBEAT_S", 0.05)
    async with served() as world, working(world, autoping=False) as worker:
        queue = await worker.ready(1)
        await worker.given(queue, [a_lent(1, queue.id)])
        await world.node.pulling.until(lambda: world.node.pulling.wanted[-1] == frozenset())
        assert (world.gateway.crew.leases, world.gateway.crew._parted) == (0, {})
        assert world.node.pulling.reported == []


# --- a worker that does not read


LARGE = orjson.dumps("x" * 100_000)


async def crowded(world: Served, worker: Worker) -> tuple[int, int]:
    """The queue and how many tasks were sent, once no more fits in what waits to be written."""
    queue = await worker.ready(10_000)
    worker.deafen()
    count = 0
    while world.gateway.crew.room(queue.id):
        world.gateway.crew.deliver(queue.id, [a_lent(count, queue.id, payload=LARGE)])
        count += 1
        await asyncio.sleep(0)
    await asyncio.sleep(worker_writer.FRAME_S)  # what gathers has its place by then
    return queue.id, count


async def test_a_worker_that_reads_nothing_is_given_nothing_more_and_is_not_read() -> None:
    async with served() as world, working(world) as worker:
        queue, count = await crowded(world, worker)
        (link,) = world.gateway.crew._members
        assert isinstance(link, worker_link.WorkerLink)
        assert OUTBOX_BYTES < link._writer._outbox.bytes < OUTBOX_BYTES + 2 * len(LARGE)
        world.node.pulling.looked.clear()
        transport = worker.deafen()
        for number in range(3):
            await worker.say("done", results=[held(number, ok=True)])
        await world.node.pulling.until(lambda: len(world.node.pulling.reported) == 1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(world.node.pulling.reported) == 1, "one was being read already"
        transport.resume_reading()
        got = 0
        while got < count:
            got += len((await worker.hear())["tasks"])
        await world.node.pulling.until(lambda: len(world.node.pulling.reported) == 3)
        assert world.node.pulling.looked == [queue], "and it is given more"
        assert world.gateway.crew._members[link][queue].count == 10_000 - count


async def cut_off(world: Served, worker: Worker) -> int:
    """A worker that reads nothing has gone, and may be at work; answers how many tasks were sent."""
    _, count = await crowded(world, worker)
    await world.node.pulling.until(lambda: world.node.pulling.wanted[-1] == frozenset())
    assert (world.gateway.crew.leases, world.gateway.crew._parted) == (0, {})
    assert {(verdict, why) for _, verdict, why in verdicts(world)} == {(Verdict.SNOOZED, UNSENT)}
    return count


async def test_a_worker_that_reads_nothing_for_long_is_cut_off_and_may_be_at_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was written to it runs to the end of its leases; what was not is given to others, without an attempt."""
    monkeypatch.setattr(crew, "GRACE_S", 0.0)
    async with served(limits=Limits(stall_s=0.6)) as world, working(world) as worker:
        count = await cut_off(world, worker)
        told = verdicts(world)
        assert [task_id for task_id, _, _ in told] == [task_id(n) for n in range(count - len(told), count)], "the last"
        assert len(told) * len(LARGE) > OUTBOX_BYTES - 2 * CHUNK_BYTES
        worker.deafen().resume_reading()


async def test_the_bound_of_the_connection_tells_the_same_of_a_worker_that_reads_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crew, "GRACE_S", 0.0)
    async with served(bounds=Bounds(stall_s=0.05)) as world, working(world) as worker:
        await cut_off(world, worker)
        worker.deafen().resume_reading()


async def test_what_a_worker_does_not_take_for_a_while_goes_to_others_and_it_is_given_more_when_it_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_writer, "STALLS", 600)
    async with served(limits=Limits(stall_s=60.0)) as world, working(world) as worker:
        queue, count = await crowded(world, worker)
        (link,) = world.gateway.crew._members
        await world.node.pulling.until(lambda: world.node.pulling.reported)
        unsent = len(verdicts(world))
        assert {(verdict, why) for _, verdict, why in verdicts(world)} == {(Verdict.SNOOZED, UNSENT)}
        assert world.gateway.crew.leases == count - unsent
        assert (link.room_bytes, world.gateway.crew.room(queue)) == (0, 0), "it is given nothing more as yet"
        assert world.gateway.crew._members[link][queue].count == 10_000 - count + unsent
        world.node.pulling.looked.clear()
        worker.deafen().resume_reading()
        got = 0
        while got < count - unsent:
            got += len((await worker.hear())["tasks"])
        await world.node.pulling.until(lambda: world.node.pulling.looked)
        world.gateway.crew.deliver(queue, [a_lent(count, queue)])
        assert [task["id"] for task in (await worker.hear())["tasks"]] == [task_id(count)]


async def test_of_many_large_tasks_few_wait_for_one_that_does_not_read_and_others_get_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crew, "WAIT_S", 60.0)
    async with served() as world, working(world) as deaf, working(world) as other:
        queue = await deaf.ready(300)
        await other.ready(300)
        transport = deaf.deafen()
        link, _ = world.gateway.crew._members
        assert isinstance(link, worker_link.WorkerLink)
        world.gateway.crew.deliver(queue.id, [a_lent(n, queue.id, payload=LARGE) for n in range(300)])
        assert OUTBOX_BYTES < link._writer._outbox.bytes < OUTBOX_BYTES + 2 * len(LARGE)
        lengths, got = [], 0
        while got < world.gateway.crew._members[link][queue.id].count:  # what the other one did not get
            message = await other.ws.receive_str()
            lengths.append(len(message))
            got += len(orjson.loads(message)["tasks"])
        assert world.gateway.crew._waiting == {}
        assert link._writer._outbox.bytes < OUTBOX_BYTES + 2 * len(LARGE)
        assert got > 150
        assert max(lengths) <= CHUNK_BYTES + len(LARGE), "messages that no usual client finds too long"
        assert verdicts(world) == []
        transport.resume_reading()


async def test_who_stops_while_tasks_wait_for_it_gets_them_and_has_no_more_credits_than_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_writer, "STALLS", 600)
    async with served(limits=Limits(stall_s=60.0)) as world, working(world) as worker:
        queue, count = await crowded(world, worker)
        await worker.say("stop")
        await world.node.pulling.until(lambda: world.node.pulling.wanted[-1] == frozenset())
        worker.deafen().resume_reading()
        got = 0
        while got < count:
            got += len((await worker.hear())["tasks"])
        assert await worker.hear() == {"type": "stopped"}
        await worker.ready(7)
        assert world.gateway.crew._members.popitem()[1][queue].count == 7


async def test_what_was_not_sent_to_one_that_stopped_and_went_goes_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_writer, "STALLS", 600)
    monkeypatch.setattr(crew, "GRACE_S", 60.0)
    async with served(limits=Limits(stall_s=60.0)) as world, working(world) as worker:
        _, count = await crowded(world, worker)
        await worker.say("stop")
        await world.node.pulling.until(lambda: world.node.pulling.wanted[-1] == frozenset())
        assert world.node.pulling.reported == []
        assert worker.ws._conn is not None
        assert worker.ws._conn.transport is not None
        worker.ws._conn.transport.abort()
        await world.node.pulling.until(lambda: world.node.pulling.reported)
        told = verdicts(world)
        assert {(verdict, why) for _, verdict, why in told} == {(Verdict.SNOOZED, UNSENT)}
        assert len(told) * len(LARGE) > OUTBOX_BYTES - 2 * CHUNK_BYTES
        assert world.gateway.crew.leases == count - len(told)


async def test_who_lets_its_first_lease_end_without_a_word_is_given_nothing_until_it_speaks() -> None:
    async with served() as world, working(world) as worker, working(world) as other:
        queue = await worker.ready(10)
        await worker.given(queue, [replace(a_lent(1, queue.id), period_ms=20)])
        assert world.gateway.crew.room(queue.id) == 9, "its lease goes on"
        await asyncio.sleep(0.03)
        assert world.gateway.crew.room(queue.id) == 0
        await other.ready(2)
        assert world.gateway.crew.room(queue.id) == 2
        frame = await other.given(queue, [a_lent(n, queue.id) for n in (2, 3)])
        assert [task["id"] for task in frame["tasks"]] == [task_id(2), task_id(3)]
        looked = len(world.node.pulling.looked)
        await worker.say("extend", leases=[held(1)])
        await world.node.pulling.until(lambda: world.node.pulling.extended)
        assert world.gateway.crew.room(queue.id) == 9
        assert world.node.pulling.looked[looked:] == [queue.id], "there may be some that it could not be given"


async def test_one_that_is_alive_need_not_say_anything() -> None:
    """It is asked, and its library answers."""
    async with served() as world, working(world, autoping=False) as worker:
        queue = await worker.ready(10)
        await worker.given(queue, [replace(a_lent(1, queue.id), period_ms=20)])
        looked = len(world.node.pulling.looked)
        await asyncio.sleep(0.03)
        assert [world.gateway.crew.room(queue.id) for _ in range(3)] == [0, 0, 0]
        assert (await worker.ws.receive()).type is WSMsgType.PING
        assert world.gateway.crew.room(queue.id) == 0, "until it answers"
        await worker.ws.pong()
        await world.node.pulling.until(lambda: len(world.node.pulling.looked) > looked)
        assert world.gateway.crew.room(queue.id) == 9
        await worker.given(queue, [replace(a_lent(2, queue.id), period_ms=20)])
        await asyncio.sleep(0.03)
        assert world.gateway.crew.room(queue.id) == 0
        await worker.ws.ping(b"me too")
        assert (await worker.ws.receive()).type is WSMsgType.PING, "it was asked again"
        answer = await worker.ws.receive()
        assert (answer.type, answer.data) == (WSMsgType.PONG, b"me too")
        assert world.gateway.crew.room(queue.id) == 8


async def test_a_task_whose_lease_ran_out_is_not_given_again_to_who_has_been_silent_for_half_of_it() -> None:
    async with served() as world, working(world) as worker:
        queue = await worker.ready(10)
        lent = replace(a_lent(1, queue.id), period_ms=60)
        await worker.given(queue, [lent])
        await worker.say("extend", leases=[held(1)])
        await world.node.pulling.until(lambda: world.node.pulling.extended)
        assert world.gateway.crew.room(queue.id) == 9, "it was given nothing since, and owes no word"
        await worker.given(queue, [replace(lent, attempt=2)])
        await worker.say("extend", leases=[held(1, 2)])
        await world.node.pulling.until(lambda: len(world.node.pulling.extended) == 2)
        await asyncio.sleep(0.03)
        world.gateway.crew.deliver(queue.id, [replace(lent, attempt=3)])
        assert world.gateway.crew.room(queue.id) == 0
        await worker.say("extend", leases=[held(1, 2)])
        frame = await worker.hear()
        assert [task["attempt"] for task in frame["tasks"]] == [3]


async def test_frames_of_every_length_arrive() -> None:
    async with served() as world, working(world) as worker:
        queue = await worker.ready(100)
        for size in (0, 1, 100, 65_000, 65_536, 1_000_000):
            frame = await worker.given(queue, [a_lent(size, queue.id, payload=orjson.dumps("x" * size))])
            assert [len(task["payload"]) for task in frame["tasks"]] == [size]
