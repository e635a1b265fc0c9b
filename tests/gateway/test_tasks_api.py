"""Taking tasks in and showing them, over a real socket."""

import asyncio
from collections import Counter
from typing import Any

import orjson
import pytest

from actors.core.draft import Draft, Receipt
from actors.core.errors import Overloaded, Unavailable
from actors.core.task import Phase, Task
from actors.ports.reader import TaskRow
from gateway import tasks_api
from gateway.bodies import Item
from gateway.context import Settings
from gateway.decode import TaskDecoder
from gateway.tasks_api import READS
from tests.gateway.served import NOW_MS, Served, raw, served

FULL = {
    "queue": "emails",
    "schedule_time": "2026-09-22T00:00:00.0001+02:00",
    "http": {"url": "https://api.example.com/hook?x=1", "method": "PUT", "headers": {"X-A": "b"}},
    "payload": {"n": 2**70, "nul": "\x00", "text": "zoë"},
    "retry": {"max_attempts": 3, "min_backoff": "250ms", "max_backoff": 60},
    "dispatch_deadline": "1m",
    "ttl": "1h30m",
    "labels": {"team": "zoë", "app": "shop"},
    "priority": 3,
}
FULL_BODY = orjson.dumps({**FULL, "payload": 0}).replace(
    b'"payload":0', b'"payload":{"n":1180591620717411303424,"nul":"\\u0000","text":"zo\xc3\xab"}'
)


async def test_a_task_is_answered_in_full() -> None:
    async with served() as world:
        answer = await world.post("/v1/tasks", FULL_BODY)
        task = answer.json
        assert answer.status == 201
        assert answer.headers["Location"] == f"/v1/tasks/{task['id']}"
        assert task == {
            "id": task["id"],
            "queue": "emails",
            "state": "scheduled",
            "schedule_time": "2026-09-21T22:00:00.001Z",
            "next_attempt_time": "2026-09-21T22:00:00.001Z",
            "deadline_time": None,
            "held": False,
            "create_time": "2026-09-21T14:13:20.000Z",
            "attempt": 0,
            "max_attempts": 3,
            "priority": 3,
            "labels": {"team": "zoë", "app": "shop"},
            "http": FULL["http"],
            "fence": None,
            "lateness_ms": None,
            "last_attempt": None,
            "finish_time": None,
            "result": None,
            "shard": task["shard"],
        }


async def test_a_read_shows_what_the_write_answered() -> None:
    async with served() as world:
        for body in (FULL_BODY, b"{}", b'{"delay":"90s"}', b'{"schedule_time":"2026-09-01T00:00:00Z"}'):
            created = await world.post("/v1/tasks", body)
            read = await world.get(created.headers["Location"])
            assert (read.status, read.json) == (200, created.json)


async def test_the_payload_comes_back_as_it_went_in() -> None:
    async with served() as world:
        path = (await world.post("/v1/tasks", FULL_BODY)).headers["Location"]
        read = await world.get(f"{path}?view=full")
        assert b'"payload":{"n":1180591620717411303424,"nul":"\\u0000","text":"zo\xc3\xab"}' in read.body
        task_id = await world.create(payload_base64="AP8=", content_type="image/png")
        full = (await world.get(f"/v1/tasks/{task_id}?view=full")).json
        assert (full["payload_base64"], full["content_type"]) == ("AP8=", "image/png")
        assert "payload" not in (await world.get(path)).json
        assert (await world.get(f"{path}?view=everything")).pointers == ["/view"]
        assert (await world.get(f"{path}?veiw=full")).pointers == ["/veiw"]
        assert (await world.get(f"{path}/attempts?view=full")).pointers == ["/view"]


@pytest.mark.parametrize(
    "task_id",
    [
        "x",
        "%00",
        "..%2F",
        "x" * 3_000,
        "00000000-0000-7000-8000-000000000000",
        "0000000g-0000-7000-8000-000000000000",
    ],
)
async def test_an_unknown_or_malformed_id_is_404(task_id: str) -> None:
    async with served() as world:
        for path in (f"/v1/tasks/{task_id}", f"/v1/tasks/{task_id}/attempts"):
            answer = await world.get(path)
            assert (answer.status, answer.json["type"]) == (404, "not-found")


async def test_an_id_in_capitals_names_the_same_task() -> None:
    async with served() as world:
        task_id = await world.create(idempotency_key="a")
        assert (await world.get(f"/v1/tasks/{task_id.upper()}")).json["id"] == task_id


async def test_a_replay_is_the_task_as_it_is_now_and_another_body_is_refused() -> None:
    async with served() as world:
        key = {"Idempotency-Key": "order-7"}
        first = await world.post("/v1/tasks", FULL_BODY, headers=key)
        again = await world.post("/v1/tasks", FULL_BODY, headers=key)
        other = await world.post("/v1/tasks", b'{"queue":"emails"}', headers=key)
        assert (first.status, again.status, other.status) == (201, 200, 422)
        assert "Idempotent-Replayed" not in first.headers
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.headers["Location"] == first.headers["Location"]
        assert again.json == first.json
        assert other.json["type"] == "key-reused"


async def test_an_empty_key_is_none_for_a_batch_either() -> None:
    async with served() as world:
        answer = await world.post("/v1/tasks:batch", [{}, {}], headers={"Idempotency-Key": ""})
        assert (answer.status, answer.json["type"]) == (422, "invalid")
        assert world.intake.drafts == []


async def test_items_of_a_batch_have_keys_of_their_own() -> None:
    async with served() as world:
        items = [{"queue": "a"}, {"queue": "b", "idempotency_key": "mine"}]
        for _ in range(2):
            answer = await world.post("/v1/tasks:batch", items, headers={"Idempotency-Key": "load-1"})
        assert [draft.key for draft in world.intake.drafts] == ["load-1/0", "mine"] * 2
        assert [result["state"] for result in answer.json["results"]] == ["scheduled"] * 2
        assert len(list(world.stores.link.database.live.all())) == 2


async def test_a_batch_is_one_submission_and_is_answered_in_order() -> None:
    async with served(Settings()) as world:
        answer = await world.post("/v1/tasks:batch", [{"queue": f"q{n % 3}", "payload": n} for n in range(1_200)])
        assert world.intake.batches == 1
        assert [draft.payload for draft in world.intake.drafts] == [str(n).encode() for n in range(1_200)]
        ids = [result["id"] for result in answer.json["results"]]
        for n in (0, 1, 1_199):
            assert (await world.get(f"/v1/tasks/{ids[n]}?view=full")).json["payload"] == n


async def test_a_batch_keeps_the_loop_for_no_more_than_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    turn, now_s = 0, 0.0
    decoded: Counter[int] = Counter()
    answered: Counter[int] = Counter()
    draft, item_of = TaskDecoder.draft, tasks_api._item

    async def drafted(self: TaskDecoder, data: Item, *rest: Any) -> Draft:
        nonlocal now_s
        now_s += 0.002  # what an item with many headers takes on a slow machine
        decoded[turn] += 1
        return await draft(self, data, *rest)

    def answered_item(answer: Draft | Receipt | Exception) -> str:
        answered[turn] += 1
        return item_of(answer)

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(TaskDecoder, "draft", drafted)
    monkeypatch.setattr(tasks_api, "_item", answered_item)
    monkeypatch.setattr(tasks_api, "clock_s", lambda: now_s)
    items = [{}, 0] * tasks_api.SLICE
    async with served(Settings()) as world, asyncio.TaskGroup() as group:
        counting = group.create_task(count())
        answer = await world.post("/v1/tasks:batch", items)
        counting.cancel()
        assert len(answer.json["results"]) == len(items)
    assert max(decoded.values()) <= tasks_api.SLICE_S / 0.002 + 1
    assert max(answered.values()) <= tasks_api.SLICE


async def test_an_item_that_the_intake_refuses_leaves_its_neighbours() -> None:
    async with served() as world:
        await world.create(idempotency_key="k", payload=1)
        answer = await world.post("/v1/tasks:batch", [{}, {"idempotency_key": "k", "payload": 2}, {}])
        first, second, third = answer.json["results"]
        assert second["problem"]["type"] == "key-reused"
        assert first["state"] == third["state"] == "scheduled"


async def test_a_batch_of_bad_items_alone_is_no_submission() -> None:
    async with served() as world:
        answer = await world.post("/v1/tasks:batch", [{"x": 1}])
        assert (answer.status, world.intake.batches) == (200, 0)


@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/tasks:batch"])
@pytest.mark.parametrize(
    ("error", "status", "after"), [(Overloaded("full", 2_500), 429, "3"), (Unavailable("no database"), 503, "1")]
)
async def test_a_full_or_cut_off_service_says_when_to_come_back(
    path: str, error: Exception, status: int, after: str
) -> None:
    async with served() as world:
        world.intake.error = error
        answer = await world.post(path, b"{}" if path == "/v1/tasks" else b"[{}]")
        assert (answer.status, answer.headers["Retry-After"]) == (status, after)


async def test_a_node_that_goes_away_takes_no_tasks_but_shows_them() -> None:
    async with served() as world:
        task_id = await world.create()
        world.gateway.draining = True
        for path, body in (("/v1/tasks", b"{}"), ("/v1/tasks:batch", b"[{}]")):
            answer = await world.post(path, body)
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert (await world.get(f"/v1/tasks/{task_id}")).status == 200


async def test_bodies_are_cut_off_at_their_limit() -> None:
    async with served(Settings(body_bytes=1_000, batch_bytes=2_000)) as world:
        for path, size, status in (("/v1/tasks", 1_001, 413), ("/v1/tasks:batch", 2_001, 413)):
            answer = await world.post(path, b" " * size)
            assert (answer.status, answer.json["type"]) == (status, "too-large")
        assert (await world.post("/v1/tasks", b"{}" + b" " * 998)).status == 201


async def test_an_item_of_a_batch_is_no_larger_than_a_task_of_its_own() -> None:
    async with served(Settings(body_bytes=1_000)) as world:
        for item, status in ((b"{}" + b" " * 998, None), (b'{"payload":"' + b"x" * 1_000 + b'"}', 413)):
            answer = await world.post(
                "/v1/tasks:batch", item + b"\n{}", headers={"Content-Type": "application/x-ndjson"}
            )
            first, second = answer.json["results"]
            assert first.get("problem", {}).get("status") == status
            assert second["state"] == "scheduled"


async def test_a_chunked_body_is_cut_off_while_it_comes() -> None:
    async with served(Settings(body_bytes=1_000)) as world:
        head = b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"200\r\n" + b" " * 512 + b"\r\n"
        answer = await raw(world.server, head + chunk * 4 + b"0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        answer = await raw(world.server, head + b"2\r\n{}\r\n0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 201 ")


async def test_large_answers_are_compressed_for_those_who_ask() -> None:
    async with served() as world:
        for encoding, expected in (("gzip", "gzip"), ("identity", None), ("gzip;q=0", None), ("xgzipx", None)):
            answer = await world.post("/v1/tasks:batch", [{}] * 50, headers={"Accept-Encoding": encoding})
            assert answer.headers.get("Content-Encoding") == expected
            assert answer.headers["Vary"] == "Accept-Encoding"
            assert len(answer.json["results"]) == 50


def running(world: Served, task_id: str) -> Task:
    """The task as the node has it while attempt 2 runs."""
    queue = world.stores.book.by_name("default", "default")
    assert queue is not None
    task = Task(task_id, 0, queue, NOW_MS, NOW_MS, 0, world.intake.drafts[-1].spec, attempt=2)
    task.phase, task.epoch = Phase.RUNNING, 7
    world.node.tasks[task_id] = task
    return task


async def test_a_running_task_is_shown_as_its_owner_knows_it() -> None:
    async with served() as world:
        task_id = await world.create()
        task = running(world, task_id)
        shown = (await world.get(f"/v1/tasks/{task_id}")).json
        assert (shown["state"], shown["attempt"]) == ("running", 2)
        assert shown["fence"] == "00000001.0000000007.000002"
        task.phase = Phase.WRITING  # how the attempt ended is not in the tables yet
        assert (await world.get(f"/v1/tasks/{task_id}")).json == shown
        task.phase = Phase.WAITING
        shown = (await world.get(f"/v1/tasks/{task_id}")).json
        assert (shown["state"], shown["attempt"], shown["fence"]) == ("scheduled", 0, None)


async def test_a_task_that_changes_while_it_is_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a task that was seen running a moment ago would be shown as it was before."""
    async with served() as world:
        task_id = await world.create()
        get, reads = world.gateway.reader.get, 0

        async def late(tenant: str, wanted: str, *, payload: bool = False) -> TaskRow | None:
            nonlocal reads
            reads += 1
            row = await get(tenant, wanted, payload=payload)
            assert row is not None
            row.rev, row.claim_ms = (0, None) if reads < 2 else (1, NOW_MS)
            return row

        monkeypatch.setattr(world.gateway.reader, "get", late)
        world.node.revs[task_id] = 1
        assert (await world.get(f"/v1/tasks/{task_id}")).json["state"] == "running"
        assert reads == 2
        world.node.revs[task_id] = 2  # it changes all the time
        assert (await world.get(f"/v1/tasks/{task_id}")).status == 200
        assert reads == 2 + READS


@pytest.mark.parametrize("order", ["", "&order=asc", "&order=desc"])
async def test_pages_follow_the_cursor_to_the_end(order: str) -> None:
    async with served() as world:
        for n in range(7):
            await world.create(queue="a" if n < 5 else "b", delay=n)
        seen: list[str] = []
        query = f"/v1/tasks?queue=a&limit=2{order}"
        cursor = None
        for _ in range(3):
            page = (await world.get(query + (f"&cursor={cursor}" if cursor else ""))).json
            seen += [task["schedule_time"] for task in page["tasks"]]
            cursor = page["next_cursor"]
        assert cursor is None
        assert seen == sorted((f"2026-09-21T14:13:{20 + n}.000Z" for n in range(5)), reverse=order == "&order=desc")
        assert len((await world.get("/v1/tasks")).json["tasks"]) == 7


async def test_pages_by_state_know_what_runs() -> None:
    async with served() as world:
        first, second = await world.create(), await world.create(delay=1)
        running(world, second)
        for state, ids in (("running", [second]), ("scheduled", [first]), ("scheduled,running", [first, second])):
            page = (await world.get(f"/v1/tasks?state={state}")).json
            assert [task["id"] for task in page["tasks"]] == ids
        assert (await world.get("/v1/tasks?state=dead")).json["tasks"] == []


@pytest.mark.parametrize(
    ("query", "delays"),
    [
        ("label.team=red", [0, 2, 4]),
        ("label.team=red&label.n=4", [4]),
        ("label.team=blue&label.n=4", []),
        ("schedule_time.gte=2026-09-21T14:13:23Z", [3, 4]),
        ("schedule_time.gt=2026-09-21T14:13:23Z", [4]),
        ("schedule_time.lt=2026-09-21T14:13:22Z", [0, 1]),
        ("schedule_time.lte=2026-09-21T14:13:22Z", [0, 1, 2]),
        ("label.team=red&schedule_time.gt=2026-09-21T14:13:20Z&schedule_time.lt=2026-09-21T14:13:24Z", [2]),
    ],
)
async def test_lists_by_labels_and_times(query: str, delays: list[int]) -> None:
    async with served() as world:
        for n in range(5):
            await world.create(delay=n, labels={"team": ("red", "blue")[n % 2], "n": str(n)})
        page = (await world.get(f"/v1/tasks?{query}")).json
        assert [int(task["labels"]["n"]) for task in page["tasks"]] == delays


@pytest.mark.parametrize(
    ("query", "kind", "pointer"),
    [
        ("limit=0", "invalid", "/limit"),
        ("limit=1001", "invalid", "/limit"),
        ("limit=²", "invalid", "/limit"),
        ("limit=x", "invalid", "/limit"),
        ("limit=", "invalid", "/limit"),
        ("limit=1&limit=2", "invalid", "/limit"),
        ("order=up", "invalid", "/order"),
        ("order=", "invalid", "/order"),
        ("order=asc&order=asc", "invalid", "/order"),
        ("queue=a&queue=b", "invalid", "/queue"),
        ("queue=", "invalid", "/queue"),
        ("queue=%00", "invalid", "/queue"),
        ("queue=a%0A", "invalid", "/queue"),
        ("queue=%FF", "invalid", "/queue"),
        ("queue=" + "q" * 101, "invalid", "/queue"),
        ("state=asleep", "invalid", "/state"),
        ("cursor=x", "invalid", "/cursor"),
        ("cursor=é", "invalid", "/cursor"),
        ("cursor=MSB4", "invalid", "/cursor"),
        ("colour=red", "invalid", "/colour"),
        ("label.team=a&label.team=b", "invalid", "/label.team"),
        ("label.=a", "invalid", "/label."),
        ("label.a~b=c", "invalid", "/label.a~0b"),
        ("label.team=" + "x" * 256, "invalid", "/label.team"),
        ("&".join(f"label.n{n}=x" for n in range(17)), "invalid", "/label.n16"),
        ("schedule_time.lt=2027", "invalid", "/schedule_time.lt"),
        (
            "schedule_time.gte=2027-01-01T00:00:00Z&schedule_time.gte=2027-01-01T00:00:00Z",
            "invalid",
            "/schedule_time.gte",
        ),
        ("schedule_time.eq=2027-01-01T00:00:00Z", "invalid", "/schedule_time.eq"),
    ],
)
async def test_filters_are_checked(query: str, kind: str, pointer: str) -> None:
    async with served() as world:
        answer = await world.get(f"/v1/tasks?{query}")
        assert (answer.status, answer.json["type"], answer.pointers) == (422, kind, [pointer])


async def test_a_task_without_attempts_has_an_empty_history() -> None:
    async with served() as world:
        task_id = await world.create()
        assert (await world.get(f"/v1/tasks/{task_id}/attempts")).json == {"attempts": []}


async def test_tasks_of_another_tenant_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as world:
        task_id = await world.create()
        monkeypatch.setattr("gateway.tasks_api.tenant_of", lambda request: "other")
        assert (await world.get(f"/v1/tasks/{task_id}")).status == 404
        assert (await world.get(f"/v1/tasks/{task_id}/attempts")).status == 404
        assert (await world.get("/v1/tasks")).json["tasks"] == []


async def test_a_client_that_leaves_in_the_middle_hurts_nobody() -> None:
    async with served() as world:
        assert world.server.port is not None
        _, writer = await asyncio.open_connection("127.0.0.1", world.server.port)
        writer.write(b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert await world.create()
