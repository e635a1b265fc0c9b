"""The client and the real service: each call once, and what comes of it; a worker whose results are not acceptable."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import msgspec
import pytest

from at_work import at_work
from ringwheel import Change, Client, Conflict, Draft, Invalid, NotFound, Worker
from ringwheel.testing import DevServer


async def test_every_call(ringwheel_server: DevServer) -> None:
    queue = f"q-{uuid4().hex}"
    async with Client(ringwheel_server.url) as client:
        at = datetime.now(UTC) + timedelta(days=365)  # other tests let days pass
        task = await client.submit(queue, [1], at=at, labels={"run": queue}, ttl="1h", key=f"{queue}/1")
        again = await client.submit(queue, [1], at=at, labels={"run": queue}, ttl="1h", key=f"{queue}/1")
        assert again == task
        assert abs(task.schedule_time - at) < timedelta(milliseconds=1)
        with pytest.raises(Invalid, match="idempotency key"):
            await client.submit(queue, [2], key=f"{queue}/1")

        many = await client.submit_many([Draft(queue, n, delay=600 + n) for n in range(5)] + [Draft("not a name")])
        assert [refused.place for refused in many.refused] == [5]
        listed = [one async for one in client.list(queue=queue, state=["scheduled", "running"], page=2)]
        assert [one.id for one in listed] == [*many.ids[:5], task.id]
        labelled = [one.id async for one in client.list(labels={"run": queue}, latest_first=True)]
        assert labelled == [task.id]

        moved = await client.reschedule(task.id, at=at + timedelta(days=1))
        assert moved.schedule_time - task.schedule_time == timedelta(days=1)
        due = (await client.run(task.id)).next_attempt_time
        assert due is not None
        assert due < task.schedule_time
        assert (await client.cancel(task.id)).finished
        assert (await client.wait(task.id)).state == "cancelled"
        with pytest.raises(Conflict) as caught:
            await client.run(task.id)
        assert caught.value.state == "cancelled"
        assert (await client.redrive(task.id)).state == "scheduled"
        assert await client.attempts(task.id) == []
        with pytest.raises(Conflict, match="not running"):
            await client.complete(task.id, "00000001.0000000001.000001", error="no", retry="never")
        for missing in ("nothing", str(uuid4())):
            with pytest.raises(NotFound):
                await client.get(missing)


async def test_changes_are_told(ringwheel_server: DevServer) -> None:
    queue = f"q-{uuid4().hex}"
    async with Client(ringwheel_server.url) as client:
        task = await client.submit(queue, delay="1h")
        states: list[tuple[str, bool]] = []
        async for change in client.watch(queue=queue):
            assert isinstance(change, Change)
            states.append((change.state, change.snapshot))
            if change.finished:
                break
            await client.cancel(task.id)
        assert states == [("scheduled", True), ("cancelled", False)]
        with pytest.raises(NotFound):
            await anext(client.watch("nothing"))
        with pytest.raises(Invalid):
            await anext(client.watch())


async def test_a_result_that_spoils_its_frame_costs_no_other(
    ringwheel_server: DevServer, caplog: pytest.LogCaptureFixture
) -> None:
    queue = f"q-{uuid4().hex}"
    async with Client(ringwheel_server.url) as client:
        worker = Worker(client, queue, 100)

        @worker.task
        async def work(number: int) -> object:
            return msgspec.Raw(b'{"half an object') if number == 50 else number

        async with at_work(worker):
            ids = (await client.submit_many(work.draft(number) for number in range(100))).ids
            tasks = [await client.wait(str(task_id)) for task_id in ids]
        bad = tasks.pop(50)
        assert [task.result for task in tasks] == [*range(50), *range(51, 100)]
        assert {task.attempt for task in [*tasks, bad]} == {1}
        assert bad.state == "dead"
        assert bad.last_attempt is not None
        assert str(bad.last_attempt.error).startswith("the result was refused: ")
        assert "the service refuses a frame" in caplog.text
