"""Workers and a real service: a task goes to one of them at a time, and comes back when its worker is no more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from gateway import crew
from tests.service.api import Api, ms
from tests.service.served import Node, serving, until, up
from tests.service.worker import Task, Worker, drain_all, lease_of, ok, working
from tests.support import postgres

SOON = {"min_backoff": 0.02, "max_backoff": 0.05}
pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Jobs:
    """A queue that no other test has, of a node that all of them share."""

    node: Node
    queue: str

    async def submit(self, **more: Any) -> str:
        """The id of a task that waits for a worker."""
        task = await self.node.submit(queue=self.queue, **more)
        assert task["http"] is None
        return str(task["id"])

    async def submit_many(self, count: int, **more: Any) -> set[str]:
        """The ids of as many."""
        tasks = [{"queue": self.queue, "payload": n} | more for n in range(count)]
        return set(await self.node.submit_many(tasks))

    def worker(self) -> AbstractAsyncContextManager[Worker]:
        """A worker of the queue."""
        return working(self.node, self.queue)

    def room(self) -> int:
        """How many tasks workers may be given."""
        found = self.node.service.gateway.queues.by_name("default", self.queue)
        return 0 if found is None else self.node.service.gateway.crew.room(found.id)

    async def lease(self, body: object) -> list[Task]:
        """The same by a call."""
        return (await called(self.node, f"/v1/queues/{self.queue}:lease", body))["tasks"]  # type: ignore[no-any-return]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(databases: postgres.Databases) -> AsyncIterator[Node]:
    """A service on a database of its own."""
    async with databases.migrated() as dsn, serving(dsn) as node:
        yield node


@pytest.fixture
def jobs(node: Node, request: pytest.FixtureRequest) -> Jobs:
    """A queue of a test's own."""
    return Jobs(node, request.node.name.removeprefix("test_"))


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def lapsed(api: Api) -> float:
    """How many leases ran out, as `/metrics` shows it."""
    lines = (await api.call("GET", "/metrics")).body.decode().splitlines()
    (line,) = [line for line in lines if line.startswith("ringwheel_lapsed_leases_total ")]
    return float(line.partition(" ")[2])


async def called(api: Api, name: str, body: object, status: int = 200) -> Any:
    """The answer to a POST."""
    answer = await api.call("POST", name, body)
    assert answer.status == status, answer
    return answer.body


# --- how attempts end


async def test_a_task_goes_to_a_worker_and_ends_with_its_result(jobs: Jobs) -> None:
    async with jobs.worker() as worker:
        assert await worker.hello() == []
        await worker.ready(10)
        task_id = await jobs.submit(payload={"n": 1}, labels={"a": "b"})
        [task] = await worker.tasks()
        assert (task["id"], task["queue"], task["attempt"], task["max_attempts"]) == (task_id, jobs.queue, 1, 5)
        assert (task["payload"], task["labels"], task["lease_seconds"]) == ({"n": 1}, {"a": "b"}, 30)
        shown = await jobs.node.get(task_id)
        assert (shown["state"], shown["fence"]) == ("running", task["fence"])
        assert await worker.done(ok(task, result={"sum": 7})) == {"type": "recorded", "ids": [task_id]}
        ended = await jobs.node.get(task_id)
        assert (ended["state"], ended["result"], ended["attempt"]) == ("succeeded", {"sum": 7}, 1)
        assert await worker.done(ok(task, result={"sum": 7})) == {"type": "recorded", "ids": [task_id]}, "said again"
        refused = await worker.done(lease_of(task, ok=False))
        assert refused["results"][0]["problem"]["status"] == 409


async def test_bytes_and_tasks_of_later_come_as_they_are(jobs: Jobs) -> None:
    async with jobs.worker() as worker:
        task_id = await jobs.submit(payload_base64="AP8=", content_type="image/png", delay=0.2)
        [task] = await worker.take()
        assert (task["id"], task["payload_base64"], task["content_type"]) == (task_id, "AP8=", "image/png")
        assert "payload" not in task
        assert (await jobs.node.get(task_id))["lateness_ms"] >= 0
        await worker.done(ok(task))


async def test_a_failure_is_tried_again_as_it_says_or_as_the_policy_says(jobs: Jobs) -> None:
    async with jobs.worker() as worker:
        task_id = await jobs.submit(retry=SOON | {"max_attempts": 3})
        [first] = await worker.take()
        assert (await worker.done(lease_of(first, ok=False, error="no\nluck")))["type"] == "recorded"
        [second] = await worker.take()
        began_s = now_s()
        assert (await worker.done(lease_of(second, ok=False, retry=0.3)))["type"] == "recorded"
        [third] = await worker.take()
        assert now_s() - began_s >= 0.28
        assert [task["attempt"] for task in (first, second, third)] == [1, 2, 3]
        assert first["fence"] < second["fence"] < third["fence"]
        await worker.done(lease_of(third, ok=False, error="for good"))
        dead = await jobs.node.wait(task_id)
        assert (dead["state"], dead["attempt"], dead["last_attempt"]["error"]) == ("dead", 3, "for good")
        assert [attempt["error"] for attempt in await jobs.node.attempts(task_id)] == ["no luck", None, "for good"]


async def test_never_ends_it_at_once(jobs: Jobs) -> None:
    async with jobs.worker() as worker:
        task_id = await jobs.submit()
        [task] = await worker.take()
        await worker.done(lease_of(task, ok=False, error="no such user", retry="never"))
        assert (await jobs.node.wait(task_id))["state"] == "dead"
        await jobs.node.command(task_id, "redrive")
        [again] = await worker.take()
        await worker.done(ok(again))
        assert (await jobs.node.wait(task_id, "succeeded"))["attempt"] == 2


async def test_a_snooze_uses_no_attempt(jobs: Jobs) -> None:
    async with jobs.worker() as worker:
        task_id = await jobs.submit(retry={"max_attempts": 1})
        for attempt in (1, 2, 3):
            [task] = await worker.take()
            assert (task["attempt"], task["max_attempts"]) == (attempt, attempt)
            began_s = now_s()
            assert (await worker.done(lease_of(task, snooze=0.1)))["type"] == "recorded"
        [last] = await worker.take()
        assert now_s() - began_s >= 0.08
        assert await worker.done(ok(last)) == {"type": "recorded", "ids": [task_id]}
        assert (await jobs.node.get(task_id))["state"] == "succeeded"


async def test_a_bad_result_is_refused_and_its_task_goes_on(jobs: Jobs) -> None:
    async with jobs.worker() as worker:
        good, bad = sorted([await jobs.submit(), await jobs.submit()])
        tasks = {task["id"]: task for task in await worker.take(2)}
        await worker.say("done", results=[ok(tasks[good]), lease_of(tasks[bad], ok="yes")])
        refused = await worker.hear("refused")
        assert [(one["id"], one["problem"]["status"]) for one in refused["results"]] == [(bad, 422)]
        assert await worker.hear("recorded") == {"type": "recorded", "ids": [good]}
        assert (await worker.done(ok(tasks[bad])))["ids"] == [bad]


# --- credits


async def test_no_worker_is_given_more_than_its_credits(jobs: Jobs) -> None:
    ids = await jobs.submit_many(500)
    async with jobs.worker() as worker:
        came = await drain_all(worker, ids, 10)
        assert (len(came), set(came)) == (500, ids), "each once"


async def test_of_many_tasks_a_worker_holds_no_more_than_it_asked_for(jobs: Jobs) -> None:
    await jobs.submit_many(100)
    async with jobs.worker() as one, jobs.worker() as other:
        first, second = await one.take(10), await other.take(10)
        assert (len(first), len(second)) == (10, 10)
        assert not {task["id"] for task in first} & {task["id"] for task in second}
        assert [await one.stop(), await other.stop()] == [[], []]
        running = await jobs.node.listed(queue=jobs.queue, state="running")
        assert len(running) == 20


async def test_workers_share_what_there_is(jobs: Jobs) -> None:
    async with jobs.worker() as one, jobs.worker() as other:
        await one.ready(100)
        await other.ready(100)
        await until(jobs.node, lambda: jobs.room() >= 32)  # as many as fit of two, whatever comes
        await jobs.submit_many(100)
        mine, theirs = await one.tasks(20), await other.tasks(20)
        assert len({task["id"] for task in mine + theirs}) == len(mine) + len(theirs)


# --- leases


async def test_a_lease_that_runs_out_is_another_workers(jobs: Jobs) -> None:
    async with jobs.worker() as slow, jobs.worker() as other:
        before, began_s = await lapsed(jobs.node), now_s()
        await jobs.submit(dispatch_deadline=1)
        [late] = await slow.take()
        taken_s = now_s()
        [again] = await other.take()
        assert now_s() - began_s >= 1
        assert now_s() - taken_s <= 2, "the lease and a second"
        assert (again["id"], again["attempt"]) == (late["id"], 2)
        refused = await slow.done(ok(late))
        assert refused["results"][0]["problem"]["status"] == 409
        assert await other.done(ok(again)) == {"type": "recorded", "ids": [again["id"]]}
        assert await lapsed(jobs.node) > before


async def test_a_closed_link_is_another_workers_soon(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "GRACE_S", 0.3)
    async with jobs.worker() as gone, jobs.worker() as other:
        await jobs.submit(dispatch_deadline="1h", retry=SOON)
        [first] = await gone.take()
        began_s = now_s()
        await gone.drop()
        [again] = await other.take()
        assert 0.3 <= now_s() - began_s <= 1.3, "with 2 s of grace: within 3 s"
        assert (again["id"], again["attempt"]) == (first["id"], 2)
        assert (await other.done(ok(first)))["results"][0]["problem"]["status"] == 409
        await other.done(ok(again))


async def test_who_comes_back_keeps_its_leases(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "GRACE_S", 0.5)
    await jobs.submit_many(3, dispatch_deadline=60, retry=SOON)
    async with jobs.worker() as first, jobs.worker() as other:
        tasks = await first.take(3)
        await first.drop()
        async with jobs.worker() as again:
            kept = await again.hello(*tasks[:2])
            assert sorted(kept) == sorted(task["id"] for task in tasks[:2])
            [redelivered] = await other.take()
            assert (redelivered["id"], redelivered["attempt"]) == (tasks[2]["id"], 2), "it did not go on with that"
            await again.say("done", results=[ok(task) for task in tasks[:2]])
            assert await again.recorded(2) == set(kept)
            await other.done(ok(redelivered))
    async with jobs.worker() as late:
        assert await late.hello(*tasks) == [], "these are over"


async def test_extensions_hold_a_job_for_as_long_as_they_come(jobs: Jobs) -> None:
    """For several periods, whoever else is there to take it."""
    async with jobs.worker() as worker, jobs.worker() as other:
        task_id = await jobs.submit(dispatch_deadline=1)
        [task] = await worker.take()
        await other.ready(5)
        ends = [ms(task["lease_expire_time"])]
        began_s = now_s()
        while now_s() - began_s < 2.5:
            await worker.say("extend", leases=[lease_of(task)])
            (lease,) = (await worker.hear("extended"))["leases"]
            ends.append(ms(lease["lease_expire_time"]))
            await asyncio.sleep(0.4)
        assert ends == sorted(ends)
        assert ends[-1] - ends[0] >= 1_500
        assert await worker.done(ok(task)) == {"type": "recorded", "ids": [task_id]}
        assert await other.stop() == [], "it was nobody else's"
        assert (await jobs.node.get(task_id))["attempt"] == 1


async def test_an_extension_may_be_longer_or_shorter_and_none_is_given_of_what_is_over(jobs: Jobs) -> None:
    async with jobs.worker() as worker:
        await jobs.submit()
        [task] = await worker.take()
        await worker.say("extend", leases=[lease_of(task, by="1h")])
        (long,) = (await worker.hear("extended"))["leases"]
        await worker.say("extend", leases=[lease_of(task, by=10)])
        (short,) = (await worker.hear("extended"))["leases"]
        assert ms(long["lease_expire_time"]) - ms(short["lease_expire_time"]) > 3_500_000
        await worker.done(ok(task))
        await worker.say("extend", leases=[lease_of(task)])
        assert [one["problem"]["status"] for one in (await worker.hear("refused"))["results"]] == [409]


async def test_what_runs_can_be_cancelled_and_its_worker_is_told(jobs: Jobs) -> None:
    async with jobs.worker() as worker:
        ids = [await jobs.submit() for _ in range(2)]
        tasks = {task["id"]: task for task in await worker.take(2)}
        assert (await jobs.node.command(ids[0], "cancel")).body["state"] == "cancelled"
        assert await worker.hear("cancel") == {"type": "cancel", "ids": [ids[0]]}
        refused = await worker.done(ok(tasks[ids[0]]))
        assert [(one["problem"]["status"], one["problem"]["state"]) for one in refused["results"]] == [
            (409, "cancelled")
        ]
        await worker.stop()
        assert (await jobs.node.command(ids[1], "cancel")).body["state"] == "cancelled"
        assert await worker.hear("cancel") == {"type": "cancel", "ids": [ids[1]]}, "who takes nothing is told, too"


# --- nodes


async def test_workers_at_one_node_get_the_tasks_of_all(databases: postgres.Databases) -> None:
    """Also their extensions, cancellations, results, and what was theirs when they came to another node."""
    async with (
        databases.migrated() as dsn,
        serving(dsn, name="node-a") as one,
        serving(dsn, name="node-b") as other,
    ):
        await until(other, lambda: up(one, other) and up(other, one))
        await until(other, lambda: len(other.service.node.hand.actors) > 100)
        ids = set(await one.submit_many([{"queue": "jobs", "payload": n} for n in range(500)]))
        async with working(one, "jobs") as worker:
            came = await drain_all(worker, ids, 50)
            assert (len(came), set(came)) == (500, ids), "each once"
            await worker.stop()
            await other.submit_many([{"queue": "jobs", "retry": SOON} for _ in range(40)])
            tasks = await worker.take(40)
            assert {shard_owner(one, task["id"]) for task in tasks} == {True, False}
            await worker.say("extend", leases=[lease_of(task) for task in tasks])
            extended: list[Any] = []
            while len(extended) < 40:
                extended += (await worker.hear("extended"))["leases"]
            cancelled = next(task for task in tasks if not shard_owner(one, task["id"]))
            assert (await other.command(cancelled["id"], "cancel")).status == 200
            assert await worker.hear("cancel") == {"type": "cancel", "ids": [cancelled["id"]]}
            await worker.drop()
        async with working(other, "jobs") as again:
            kept = await again.hello(*tasks)
            assert sorted(kept) == sorted(task["id"] for task in tasks if task is not cancelled)
            await again.say("done", results=[ok(task) for task in tasks if task is not cancelled])
            assert await again.recorded(39) == set(kept)
        assert all(task["attempt"] == 1 for task in await one.listed(queue="jobs", state="succeeded"))


def shard_owner(node: Node, task_id: str) -> bool:
    """Whether this node has the shard of that task."""
    return (int(task_id[-4:], 16) * 256 >> 16) in node.service.node.hand.actors


async def test_a_node_that_goes_away_lets_its_workers_go_on_elsewhere(databases: postgres.Databases) -> None:
    async with databases.migrated() as dsn, serving(dsn, name="node-b", grace_s=5.0) as other:
        async with serving(dsn, name="node-a", grace_s=5.0) as one:
            await until(other, lambda: up(one, other) and up(other, one))
            await one.submit_many([{"queue": "jobs", "dispatch_deadline": 60} for _ in range(20)])
            async with working(one, "jobs") as worker:
                tasks = await worker.take(20)
                one.service.stop()
                assert await worker.hear("drain") == {"type": "drain"}
                async with working(other, "jobs") as again:
                    assert len(await again.hello(*tasks)) == 20
                    await again.say("done", results=[ok(task) for task in tasks])
                    await again.recorded(20)
        assert len(await other.listed(queue="jobs", state="succeeded")) == 20


# --- by HTTP


async def test_all_of_it_by_http(jobs: Jobs) -> None:
    ids = {await jobs.submit(payload=n, retry=SOON) for n in range(4)}
    tasks: list[Task] = []
    while len(tasks) < 4:
        tasks += await jobs.lease({"max": 4 - len(tasks), "wait": 10})
    assert {task["id"] for task in tasks} == ids
    extended = await called(jobs.node, "/v1/tasks:extend", {"leases": [lease_of(task, by=60) for task in tasks]})
    assert [lease["id"] for lease in extended["results"]] == [task["id"] for task in tasks]
    one, two, three, four = tasks
    results = [ok(one, result=1), lease_of(two, ok=False, retry="never"), lease_of(three, snooze=60), ok(four), ok(one)]
    answer = await called(jobs.node, "/v1/tasks:complete", {"results": results})
    assert [result.get("state") for result in answer["results"]] == [
        "succeeded",
        "dead",
        "scheduled",
        "succeeded",
        None,
    ]
    assert answer["results"][4]["problem"]["status"] == 422, "twice in one call"
    again = await called(jobs.node, "/v1/tasks:complete", {"results": [ok(one, result=1), ok(two)]})
    assert again["results"][0]["id"] == one["id"]
    assert "problem" not in again["results"][0], "said again"
    assert again["results"][1]["problem"]["status"] == 409
    assert await jobs.lease(None) == []


async def test_a_call_that_waits_is_answered_when_something_comes(jobs: Jobs) -> None:
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(jobs.lease({"max": 10, "wait": 60}))
        await until(jobs.node, lambda: jobs.room() == 10)
        task_id = await jobs.submit()
        [task] = await waiting
        assert task["id"] == task_id
    await called(jobs.node, "/v1/tasks:complete", {"results": [ok(task)]})
    assert (await jobs.node.get(task_id))["state"] == "succeeded"


async def test_virtual_time(databases: postgres.Databases, jobs: Jobs) -> None:
    assert (await jobs.node.call("POST", "/v1/clock:advance", {"by": 1})).status == 409
    async with databases.migrated() as dsn, serving(dsn) as node:
        node.service.gateway.movable_clock = True
        mine = Jobs(node, "jobs")
        task_id = await mine.submit(delay="2d")
        async with mine.worker() as worker:
            await worker.ready(2)
            before = await called(node, "/v1/clock:advance", {"by": 0})
            after = await called(node, "/v1/clock:advance", {"by": "2d"})
            assert ms(after["time"]) - ms(before["time"]) >= 2 * 86_400_000
            [task] = await worker.tasks()
            assert task["id"] == task_id
            await called(node, "/v1/clock:advance", {"by": 31})
            [again] = await worker.tasks()
            assert (again["id"], again["attempt"]) == (task_id, 2), "its lease ran out"
            assert (await worker.done(ok(again)))["type"] == "recorded"
