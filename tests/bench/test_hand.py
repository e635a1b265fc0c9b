"""The process: its links, its signals, and its journal. What it says is in test_holding.py."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.hands import Hands
from tests.bench.fake_service import FakeService, fake_service, rfc3339, task


def held(number: int) -> dict[str, Any]:
    """A long job whose lease lasts as long as the test."""
    expires = datetime.now(UTC) + timedelta(seconds=600)
    return task(number, "long", lease_s=600.0, lease_expire_time=rfc3339(expires))


async def greet(service: FakeService) -> list[str]:
    """Answer a hello: everything is still its own, and it gives its credits. The leases that it named."""
    hello = await service.hear("hello")
    await service.say({"type": "hello", "worker": hello["worker"], "leases": hello["leases"]})
    await service.hear("ready")
    return [lease["lease"] for lease in hello["leases"]]


@pytest.fixture
async def services() -> AsyncIterator[list[FakeService]]:
    async with fake_service() as one, fake_service() as two:
        yield [one, two]


@pytest.fixture
async def hands(services: list[FakeService], tmp_path: Path) -> AsyncIterator[Hands]:
    """One hand, at the first service."""
    async with AsyncExitStack() as stack:
        found = Hands(tmp_path, lambda: [service.port for service in services], stack)
        async with asyncio.TaskGroup() as group:
            group.create_task(found.start("h", "bench", 3, 0))
            assert await greet(services[0]) == []
        yield found


def written(hands: Hands, name: str = "h-1") -> list[str]:
    return [line.what for line in hands.journals()[name]]


async def test_a_hand_that_is_killed_has_written_what_it_got(services: list[FakeService], hands: Hands) -> None:
    await services[0].say({"type": "tasks", "tasks": [held(1)]})
    await services[0].say({"type": "tasks", "tasks": [task(2, lease_expire_time=held(2)["lease_expire_time"])]})
    await services[0].hear("done")
    child = hands.children["h"]
    os.kill(child.pid, signal.SIGKILL)
    await child.ended
    assert written(hands) == ["link", "got", "got", "said"]
    async with asyncio.TaskGroup() as group:
        group.create_task(hands.start("h", "bench", 3, 1))
        assert await greet(services[1]) == [], "it knows of nothing"
    assert hands.full_name("h") == "h-2"
    assert written(hands, "h-2") == ["link"]


async def test_a_hand_goes_to_the_next_node_with_what_it_holds(services: list[FakeService], hands: Hands) -> None:
    await services[0].say({"type": "tasks", "tasks": [held(1)]})
    await services[0].say({"type": "drain"})
    assert await greet(services[1]) == ["lease-1-1"]
    await services[1].cut()
    assert await greet(services[0]) == ["lease-1-1"]
    hands.signal("h", signal.SIGUSR2)
    assert await greet(services[1]) == ["lease-1-1"]
    assert written(hands) == ["link", "got", *(["cut", "link", "kept"] * 3)]
    ports = [line.port for line in hands.journals()["h-1"] if line.what == "link"]
    assert ports == [services[0].port, services[1].port, services[0].port, services[1].port]


async def test_a_hand_that_leaves_for_good_forgets(services: list[FakeService], hands: Hands) -> None:
    await services[0].say({"type": "tasks", "tasks": [held(1)]})
    await services[0].say({"type": "tasks", "tasks": [task(2, lease_expire_time=held(2)["lease_expire_time"])]})
    await services[0].hear("done")
    hands.signal("h", signal.SIGUSR1)
    assert await greet(services[1]) == []
    assert written(hands) == ["link", "got", "got", "said", "forgot", "cut", "link"]
    assert hands.complaints == []
    hands.check(["h"])
