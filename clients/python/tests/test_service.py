"""The client and the real service: each call once, and what comes of it."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from ringwheel import Change, Client, Conflict, Draft, Invalid, NotFound
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
