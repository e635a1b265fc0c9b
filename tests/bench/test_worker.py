import json
from typing import Any

import pytest

from bench.crew import crew, total
from bench.load import ask, get
from bench.processes import Failed, process
from bench.worker import Seen
from tests.bench.fake_service import FakeService, fake_service, task


async def seen(port: int, path: str = "/seen") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await ask(port, get(path)))
    return found


async def give(service: FakeService, *numbers: int) -> list[str]:
    """Have the worker do these; the leases that it answers with."""
    await service.say({"type": "tasks", "tasks": [task(number) for number in numbers]})
    done = await service.hear("done")
    assert all(result["ok"] for result in done["results"])
    return [result["lease"] for result in done["results"]]


async def test_a_worker_does_what_comes_and_asks_for_more() -> None:
    async with fake_service() as service, process("-m", "bench.worker", str(service.port), "bench", "4") as child:
        assert await service.hear("ready") == {"type": "ready", "queue": "bench", "credits": 4}
        assert await give(service, 1, 2, 3) == ["lease-1-1", "lease-2-1", "lease-3-1"]
        assert (await service.hear("ready"))["credits"] == 3
        await service.say({"type": "recorded", "ids": [task(number)["id"] for number in (1, 2)]})
        await service.say({"type": "refused", "results": [{"id": task(3)["id"], "lease": "lease-3-1"}]})
        await give(service, 4)
        found = await seen(child.port)
        assert (found["tasks"], found["recorded"], found["refused"], found["above"]) == (4, 2, 1, 0)
        assert "lease-3-1" in found["refusal"]
        assert found["last_ms"] > 0
        assert found["cpu_s"] > 0
        assert found["lateness_ms"] == {}
        assert (await seen(child.port, "/reset"))["tasks"] == 0


async def test_more_tasks_than_credits_are_counted() -> None:
    async with fake_service() as service, process("-m", "bench.worker", str(service.port), "bench", "2") as child:
        await give(service, 1, 2, 3, 4, 5)
        assert (await seen(child.port))["above"] == 3


async def test_results_go_in_frames_of_a_thousand() -> None:
    async with fake_service() as service, process("-m", "bench.worker", str(service.port), "bench", "4000"):
        assert len(await give(service, *range(2_500))) == 1_000
        assert [len((await service.hear("done"))["results"]) for _ in range(2)] == [1_000, 500]


async def test_a_worker_that_notes_how_late_tasks_are() -> None:
    async with fake_service() as service, crew([service.port], "bench", 10, "timed") as workers:
        await give(service, 1, 2)
        await service.say({"type": "recorded", "ids": [task(number)["id"] for number in (1, 2)]})
        assert (await workers.seen()).lateness_ms == {}, "of no interest while tasks come"
        found = await workers.recorded(2)
        assert list(found.lateness_ms) == [0], "the shard of both"
        assert len(found.lateness_ms[0]) == 2
        await workers.reset()
        assert (await workers.seen("/late")).lateness_ms == {}


async def test_a_crew_does_not_wait_for_what_was_refused() -> None:
    async with fake_service() as service, crew([service.port], "bench", 10) as workers:
        await service.say({"type": "refused", "results": [{"id": "a", "lease": "b"}]})
        with pytest.raises(RuntimeError, match='"lease"'):
            await workers.recorded(1)


async def test_a_worker_ends_with_its_link() -> None:
    async with fake_service() as service, process("-m", "bench.worker", str(service.port), "bench", "2") as child:
        await service.cut()
        await child.ended
        with pytest.raises(Failed, match="closed with 1000"):
            child.check()


async def test_a_worker_ends_when_the_service_complains() -> None:
    async with fake_service() as service, process("-m", "bench.worker", str(service.port), "bench", "2") as child:
        await service.say({"type": "error", "detail": "no such queue"})
        await child.ended
        with pytest.raises(Failed, match="no such queue"):
            child.check()


def test_a_crew_counts_together() -> None:
    one = Seen(tasks=2, recorded=1, refused=1, refusal="first", above=1, last_ms=5.0, cpu_s=1.0, lateness_ms={1: [1.0]})
    two = Seen(tasks=3, recorded=3, refusal="second", last_ms=4.0, cpu_s=0.5, lateness_ms={1: [2.0], 2: [3.0]})
    assert total([one, two]) == Seen(5, 4, 1, "first", 1, 5.0, 1.5, {1: [1.0, 2.0], 2: [3.0]})
    assert total([]) == Seen()
