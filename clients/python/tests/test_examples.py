"""The examples, against a real service."""

import sys
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from at_work import at_work
from ringwheel import Client, Conflict
from ringwheel.testing import DevServer

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(
    request: pytest.FixtureRequest, ringwheel_server: DevServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """The module, as its command would load it."""
    monkeypatch.setenv("RINGWHEEL_URL", ringwheel_server.url)
    monkeypatch.syspath_prepend(EXAMPLES)
    yield import_module(request.param)
    del sys.modules[request.param]


@pytest.mark.parametrize("example", ["reminders"], indirect=True)
async def test_reminders(example: ModuleType, ringwheel_server: DevServer) -> None:
    client: Client = example.client
    tomorrow = await ringwheel_server.advance(1) + timedelta(days=1)
    async with client, at_work(example.app):
        one = await example.remind_at(tomorrow, "ann@example.com", "call Ben")
        same = await example.remind_at(tomorrow, "ann@example.com", "call Ben")
        other = await example.remind_at(tomorrow, "eve@example.com", "call nobody")
        assert same.id == one.id
        await example.call_off(other)
        assert example.outbox == []
        await ringwheel_server.advance(86_400)
        assert (await client.wait(one.id)).state == "succeeded"
        assert example.outbox == ["ann@example.com: call Ben"]
        with pytest.raises(Conflict):
            await example.call_off(one)


@pytest.mark.parametrize("example", ["thumbnails"], indirect=True)
async def test_thumbnails(example: ModuleType, tmp_path: Path) -> None:
    client: Client = example.client
    pictures = [tmp_path / f"{number}.pgm" for number in range(20)]
    for picture in pictures:
        picture.write_bytes(b"P5\n128 64\n255\n" + bytes(128 * 64))
    async with client, at_work(example.app):
        submitted = await example.shrink_all([*pictures, tmp_path / "missing.pgm"], width=32)
        tasks = [await client.wait(task_id) for task_id in submitted.ids]
    assert [task.result for task in tasks[:20]] == [{"columns": 32, "rows": 16}] * 20
    assert tasks[20].state == "dead"
    assert tasks[20].last_attempt is not None
    assert tasks[20].last_attempt.error == "there is no missing.pgm"
    assert pictures[0].with_suffix(".small.pgm").read_bytes() == b"P5\n32 16\n255\n" + bytes(32 * 16)


@pytest.mark.parametrize("example", ["nightly"], indirect=True)
async def test_nightly(example: ModuleType, ringwheel_server: DevServer) -> None:
    client: Client = example.client
    time = await ringwheel_server.advance(1)
    day = time.date() + timedelta(days=1)
    example.sales[day] = 700
    async with client, at_work(example.app):
        task = await example.plan(day)
        assert (await example.plan(day)).id == task.id
        await ringwheel_server.advance((task.schedule_time - time).total_seconds())
        assert (await client.wait(task.id)).result == {"sales": 700}
        queue = [one async for one in client.list(queue="reports", state="scheduled")]
        assert [one.schedule_time.astimezone().date() for one in queue] == [day + timedelta(days=2)]
