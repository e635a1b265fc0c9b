"""The life of a task, from its acceptance to its end."""

import asyncio
import base64
import itertools
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.service.api import Api, Tables, ms
from tests.service.hook import LATER, OK, Held, Hook, closes
from tests.service.served import serving
from tests.support.raw_target import Script, answers, hangs

SLEWED_MS = 20
SOON: dict[str, Any] = {"min_backoff": 0.02, "max_backoff": 0.05}


def fences(attempts: list[dict[str, Any]]) -> list[str]:
    return [attempt["fence"] for attempt in attempts]


def rising(values: list[str]) -> bool:
    return values == sorted(set(values))


async def test_a_task_due_at_once(service: Api, hook: Hook, tables: Tables) -> None:
    asked = {"http": {"url": hook.url(), "headers": {"X-Mine": "1"}}, "payload": {"n": [1, 2.5, "ü"]}}
    answer = await service.call("POST", "/v1/tasks", {**asked, "queue": "mail", "labels": {"b": "2", "a": "é"}})
    assert answer.status == 201
    task = answer.body
    assert answer.headers["Location"] == f"/v1/tasks/{task['id']}"
    assert await tables.state(task["id"]) is not None, "accepted = committed"
    [call] = await hook.called(task["id"])
    assert call.exchange.lines[0].startswith("POST /0 ")
    assert call.body == '{"n":[1,2.5,"ü"]}'.encode()
    headers = call.headers
    assert (headers["x-mine"], headers["content-type"]) == ("1", "application/json")
    assert (headers["ringwheel-queue"], headers["ringwheel-attempt"]) == ("mail", "1")
    assert headers["ringwheel-schedule-time"] == task["schedule_time"]
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    done = await service.wait(task["id"])
    assert done["state"] == "succeeded"
    assert done["result"] == {"done": True}
    assert done["labels"] == {"a": "é", "b": "2"} == task["labels"]
    assert (done["attempt"], done["fence"]) == (1, None)
    assert done["lateness_ms"] >= 0
    assert done["last_attempt"]["status"] == 200
    assert ms(done["schedule_time"]) <= ms(done["last_attempt"]["start_time"]) <= ms(done["finish_time"])
    assert (await service.get(task["id"], "?view=full"))["payload"] is None, "a success keeps no payload"
    assert done.keys() == task.keys()


async def test_nothing_starts_early(service: Api, hook: Hook) -> None:
    roll, url = random.Random(7), hook.url()
    now = datetime.now(UTC)
    asked: list[dict[str, Any]] = [{"http": {"url": url}, "delay": round(roll.random(), 3)} for _ in range(60)]
    for item in asked[::2]:
        item["schedule_time"] = (now + timedelta(seconds=item.pop("delay"))).isoformat()
    ids = await service.submit_many(asked)
    await hook.all_called(ids)
    for task_id in ids:
        task = await service.wait(task_id, "succeeded")
        [call] = hook.calls[task_id]
        assert call.arrived_ms >= ms(task["schedule_time"])
        assert task["lateness_ms"] >= 0
        assert ms(task["last_attempt"]["start_time"]) >= ms(task["schedule_time"])


async def test_a_time_that_is_past_is_now(service: Api, hook: Hook) -> None:
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    task = await service.submit(http={"url": hook.url()}, schedule_time=past)
    await hook.called(task["id"])
    # A node's clock is never ahead of the primary's, but may be some milliseconds behind it.
    assert (await service.wait(task["id"]))["lateness_ms"] >= 3_599_000


FAILURES: list[tuple[str, Script, int | None, str]] = [
    ("500", answers(500), 500, "HTTP 500"),
    ("302", answers(302, "location: /elsewhere"), 302, "HTTP 302"),
    ("429", answers(429, "retry-after: 1"), 429, "HTTP 429"),
    ("close", closes, None, "connection closed"),
    ("hang", hangs, None, "timed out after 0.3 s"),
]


async def test_what_fails_is_tried_again(service: Api, hook: Hook) -> None:
    urls = {name: hook.url(step, step, OK) for name, step, _, _ in FAILURES}
    ids = {
        name: (await service.submit(http={"url": url}, retry=SOON, dispatch_deadline=0.3))["id"]
        for name, url in urls.items()
    }
    for name, _, status, error in FAILURES:
        done = await service.wait(ids[name])
        assert (done["state"], done["attempt"]) == ("succeeded", 3), name
        calls = hook.calls[ids[name]]
        assert [call.attempt for call in calls] == [1, 2, 3]
        assert rising([call.fence for call in calls])
        attempts = await service.attempts(ids[name])
        assert [(a["attempt"], a["status"], a["error"], a["outcome"]) for a in attempts] == [
            (number, status, error, "failed") for number in (1, 2)
        ], name
        assert fences(attempts) == [call.fence for call in calls[:2]]
    waits_ms = [after.arrived_ms - before.arrived_ms for before, after in itertools.pairwise(hook.calls[ids["429"]])]
    # A node's estimate of the primary's clock comes up to it in its first seconds: a span may be short by that.
    assert min(waits_ms) >= 1_000 - SLEWED_MS, "Retry-After"
    assert all(attempt["duration_ms"] >= 300 for attempt in await service.attempts(ids["hang"]))


async def test_between_attempts_it_is_scheduled(service: Api, hook: Hook) -> None:
    task = await service.submit(http={"url": hook.url(answers(500))}, retry={"min_backoff": 3600})
    between = await service.wait(task["id"], "scheduled", attempt=1)
    assert (between["attempt"], between["fence"], between["finish_time"]) == (1, None, None)
    last = between["last_attempt"]
    assert last["error"] == "HTTP 500"
    assert between["deadline_time"] is None
    assert ms(last["start_time"]) < ms(between["next_attempt_time"]) <= ms(last["start_time"]) + 3_600_000 + SLEWED_MS
    await service.command(task["id"], "run")
    await hook.called(task["id"], 2)


async def test_a_target_that_wants_no_more(service: Api, hook: Hook) -> None:
    for answer in (answers(410), answers(500, "ringwheel-retry: never")):
        task = await service.submit(http={"url": hook.url(answer)}, payload=[1], retry=SOON)
        dead = await service.wait(task["id"])
        assert (dead["state"], dead["attempt"]) == ("dead", 1)
        [attempt] = await service.attempts(task["id"])
        assert attempt["outcome"] == "never"
        assert (await service.get(task["id"], "?view=full"))["payload"] == [1], "a dead letter keeps its payload"
        assert len(hook.calls[task["id"]]) == 1


async def test_dead_letters_are_redriven(service: Api, hook: Hook) -> None:
    url = hook.url(*[answers(500)] * 3, OK)
    task = await service.submit(http={"url": url}, payload="x", labels={"k": "v"}, retry=SOON | {"max_attempts": 2})
    dead = await service.wait(task["id"])
    assert (dead["state"], dead["attempt"], dead["max_attempts"]) == ("dead", 2, 2)
    assert dead["finish_time"] is not None
    assert [t["id"] for t in await service.listed(state="dead")] == [task["id"]]
    answer = await service.command(task["id"], "redrive")
    assert answer.status == 200
    assert (answer.body["max_attempts"], answer.body["finish_time"]) == (4, None)
    done = await service.wait(task["id"])
    assert (done["state"], done["attempt"], done["labels"]) == ("succeeded", 4, {"k": "v"})
    attempts = await service.attempts(task["id"])
    assert [attempt["attempt"] for attempt in attempts] == [1, 2, 3]
    calls = hook.calls[task["id"]]
    assert rising([call.fence for call in calls])
    assert {call.body for call in calls} == {b'"x"'}


async def test_a_redriven_task_may_die_again(service: Api, hook: Hook) -> None:
    task = await service.submit(http={"url": hook.url(answers(500))}, retry={"max_attempts": 1})
    for attempt in (1, 2, 3):
        dead = await service.wait(task["id"], "dead", attempt=attempt)
        assert (dead["attempt"], dead["max_attempts"]) == (attempt, attempt)
        await service.command(task["id"], "redrive")
    assert rising(fences(await service.attempts(task["id"])))


async def test_what_does_not_start_in_time_expires(
    database_url: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.node.HELD", 1)
    async with serving(database_url) as service:
        early = await service.submit(queue="late", ttl=0.2)
        # 16 tasks a shard and queue are in memory: most of these rest in the table when their time comes.
        ids = await service.submit_many([{"queue": "late", "ttl": 0.5, "payload": n} for n in range(8_000)])
        stays = await service.submit(queue="late", ttl="1h")
        gone = await service.wait(early["id"])
        assert (gone["state"], gone["attempt"], gone["lateness_ms"]) == ("expired", 0, None)
        assert ms(gone["finish_time"]) >= ms(gone["schedule_time"]) + 200
        async with asyncio.timeout(30):
            while await tables.value("SELECT count(*) FROM tasks") > 1:
                pass
        assert await tables.value("SELECT count(*) FROM finished WHERE state = 4") == len(ids) + 1
        assert (
            await tables.value("SELECT min(finish_ms - schedule_ms) FROM finished WHERE id <> $1", early["id"]) >= 500
        )
        assert (await service.get(ids[-1], "?view=full"))["payload"] == len(ids) - 1
        assert (await service.get(stays["id"]))["state"] == "scheduled"


async def test_ttl_does_not_touch_what_has_started(service: Api, hook: Hook) -> None:
    held = Held()
    await hook.called((await service.submit(http={"url": hook.url()}))["id"])  # the service is at full speed
    task = await service.submit(http={"url": hook.url(held)}, ttl=0.4)
    [call] = await hook.called(task["id"])
    await asyncio.sleep(0.6)  # it is the passing of this time that must do nothing
    assert (await service.get(task["id"]))["fence"] == call.fence
    held.release.set()
    assert (await service.wait(task["id"]))["state"] == "succeeded"


async def test_bytes_travel_as_they_are(service: Api, hook: Hook) -> None:
    data = random.Random(1).randbytes(3_000)
    text = base64.b64encode(data).decode()
    body = {"payload_base64": text, "content_type": "image/png"}
    task = await service.submit(http={"url": hook.url(), "method": "PUT"}, delay="1h", **body)
    full = await service.get(task["id"], "?view=full")
    assert (full["payload_base64"], full["content_type"]) == (text, "image/png")
    assert "payload" not in full
    assert "payload_base64" not in await service.get(task["id"])
    await service.command(task["id"], "run")
    [call] = await hook.called(task["id"])
    assert (call.body, call.headers["content-type"]) == (data, "image/png")
    assert call.exchange.lines[0].startswith("PUT ")


async def test_a_large_payload_rests_in_the_table(service: Api, hook: Hook) -> None:
    payload = random.Random(2).randbytes(128 * 1024 - 1).hex()
    soon = await service.submit(http={"url": hook.url()}, payload=payload, delay="500ms")
    far = await service.submit(http={"url": hook.url()}, payload=payload, delay="10000d")
    assert ms(far["schedule_time"]) > time.time() * 1e3 + 9_999 * 86_400_000
    assert (await service.get(far["id"], "?view=full"))["payload"] == payload
    await service.command(far["id"], "run")
    for task in (soon, far):
        [call] = await hook.called(task["id"])
        assert call.body == f'"{payload}"'.encode()
        assert (await service.wait(task["id"]))["state"] == "succeeded"


async def test_a_payload_beyond_the_limit_is_refused(service: Api) -> None:
    answer = await service.call("POST", "/v1/tasks", {"payload": "x" * (256 * 1024 - 1)})
    assert (answer.status, answer.headers["Content-Type"]) == (413, "application/problem+json")


async def test_every_read_sees_what_was_written(service: Api, hook: Hook) -> None:
    url = hook.url()

    async def one(number: int) -> None:
        task = await service.submit(queue=f"q{number % 3}", payload=number, http={"url": url}, delay=number % 2 * 3600)
        assert (await service.get(task["id"]))["id"] == task["id"]
        answer = await service.command(task["id"], "cancel")
        assert (await service.get(task["id"]))["state"] == answer.body.get("state") or answer.status == 409

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(one(number))


async def test_pages_have_no_gaps_while_tasks_end(service: Api, hook: Hook) -> None:
    url = hook.url()
    over = await service.submit_many([{"queue": "mine", "http": {"url": url}} for _ in range(20)])
    for task_id in over:
        await service.wait(task_id)
    moving = await service.submit_many(
        [{"queue": "mine", "http": {"url": url}, "delay": 0.002 * n} for n in range(100)]
    )
    waiting = await service.submit_many([{"queue": "mine", "delay": 3_600 + n} for n in range(20)])
    await service.submit_many([{"queue": "other", "delay": 60}])
    listed = await service.listed(queue="mine", limit=7)
    ids = [task["id"] for task in listed]
    assert len(ids) == len(set(ids))
    assert set(ids) == {*over, *moving, *waiting}
    times = [(task["schedule_time"], task["id"]) for task in listed]
    assert times == sorted(times)
    await hook.all_called(moving)
    for task_id in moving:
        await service.wait(task_id)
    assert {t["id"] for t in await service.listed(queue="mine", state="succeeded", limit=9)} == {*over, *moving}
    assert [t["id"] for t in await service.listed(queue="mine", state="scheduled", limit=3)] == waiting


# --- 202, completed later


async def test_completed_later(service: Api, hook: Hook, tables: Tables) -> None:
    task = await service.submit(http={"url": hook.url(LATER)})
    [call] = await hook.called(task["id"])
    running = await service.wait(task["id"], "running")
    assert running["fence"] == call.fence
    wrong = call.fence[:-1] + str((int(call.fence[-1]) + 1) % 10)
    answer = await service.command(task["id"], "complete", fence=wrong, result=1)
    assert (answer.status, answer.body["state"]) == (409, "running")
    answer = await service.command(task["id"], "complete", fence=call.fence, result={"x": None})
    assert (answer.status, answer.body["state"], answer.body["result"]) == (200, "succeeded", {"x": None})
    assert await tables.state(task["id"]) == "succeeded"
    again = await service.command(task["id"], "complete", fence=call.fence)
    assert (again.status, again.body["state"]) == (409, "succeeded")


async def test_completed_later_as_failed(service: Api, hook: Hook) -> None:
    task = await service.submit(http={"url": hook.url(LATER)}, retry=SOON)
    [first] = await hook.called(task["id"])
    await service.wait(task["id"], "running")
    answer = await service.command(task["id"], "complete", fence=first.fence, ok=False, error="no", retry=0.5)
    assert (answer.status, answer.body["state"]) == (200, "scheduled")
    _, second = await hook.called(task["id"], 2)
    assert second.arrived_ms >= first.arrived_ms + 500 - SLEWED_MS
    await service.wait(task["id"], "running", attempt=2)
    assert (await service.command(task["id"], "complete", fence=first.fence)).status == 409
    answer = await service.command(task["id"], "complete", fence=second.fence, ok=False, error="no!", retry="never")
    assert (answer.status, answer.body["state"]) == (200, "dead")
    assert [a["error"] for a in await service.attempts(task["id"])] == ["no", "no!"]


async def test_not_completed_in_time(service: Api, hook: Hook) -> None:
    task = await service.submit(http={"url": hook.url(LATER, OK)}, retry=SOON, dispatch_deadline=0.3)
    first, second = await hook.called(task["id"], 2)
    assert second.arrived_ms >= first.arrived_ms + 300 - SLEWED_MS
    assert (await service.wait(task["id"]))["state"] == "succeeded"
    assert [a["error"] for a in await service.attempts(task["id"])] == ["not completed in time"]


async def test_completed_after_a_restart(database_url: str, hook: Hook, tables: Tables) -> None:
    async with serving(database_url) as service:
        kept = await service.submit(http={"url": hook.url(LATER)})
        late = await service.submit(http={"url": hook.url(LATER, OK)}, dispatch_deadline=2, retry=SOON)
        for task in (kept, late):
            await hook.called(task["id"])
            await tables.promised(task["id"])
    async with serving(database_url) as service:
        assert (await service.get(kept["id"]))["state"] == "running"
        [call] = hook.calls[kept["id"]]
        epoch = call.fence.split(".")[1]
        wrong = call.fence.replace(epoch, f"{int(epoch) + 1:010d}")
        assert (await service.command(kept["id"], "complete", fence=wrong)).status == 409
        answer = await service.command(kept["id"], "complete", fence=call.fence, result=[7])
        assert answer.status == 200, answer
        assert (answer.body["state"], answer.body["result"]) == ("succeeded", [7])
        assert (await service.wait(late["id"]))["state"] == "succeeded"
        assert rising([call.fence for call in hook.calls[late["id"]]])
        assert len(hook.calls[late["id"]]) == 2


# --- restarts


async def test_a_restart_keeps_everything(database_url: str, hook: Hook) -> None:
    url = hook.url()
    async with serving(database_url, grace_s=20.0) as service:
        ids = await service.submit_many([{"http": {"url": url}, "delay": 0.01 * n} for n in range(100)])
        future = await service.submit(delay="300d", payload="kept", labels={"a": "b"})
        pull = await service.submit(queue="pulled")
    async with serving(database_url, grace_s=20.0) as service:
        await hook.all_called(ids)
        for task_id in ids:
            await service.wait(task_id, "succeeded")
        assert (await service.get(future["id"], "?view=full"))["payload"] == "kept"
        assert (await service.get(pull["id"]))["state"] == "scheduled"
    assert all(len(calls) == 1 for calls in hook.calls.values()), "it left in good order: nothing ran twice"


async def test_tasks_to_pull_wait(service: Api, tables: Tables) -> None:
    now = await service.submit(queue="pulled", payload=1)
    later = await service.submit(queue="pulled", delay=3600)
    assert now["http"] is None
    await asyncio.sleep(0.2)  # it is due: nothing may happen
    assert (await service.get(now["id"]))["state"] == "scheduled"
    answer = await service.command(now["id"], "reschedule", delay="2h")
    assert (answer.status, answer.body["state"]) == (200, "scheduled")
    assert ms(answer.body["schedule_time"]) >= ms(now["schedule_time"]) + 7_200_000
    assert (await service.command(later["id"], "run")).status == 200
    for task in (now, later):
        assert (await service.command(task["id"], "cancel")).body["state"] == "cancelled"
        assert await tables.state(task["id"]) == "cancelled"
