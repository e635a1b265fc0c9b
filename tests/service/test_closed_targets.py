"""A service that may not call its own network tells nothing about it."""

import asyncio
import contextlib
from statistics import median

import pytest

from tests.service.api import Tables
from tests.service.served import serving
from tests.support.canary import canary

PORTS = 1_000
OPEN = 20
BESIDE = 10
TELLING_MS = 10


async def test_a_port_scan_learns_nothing(database_url: str, tables: Tables) -> None:
    async with contextlib.AsyncExitStack() as stack:
        birds = [await stack.enter_async_context(canary()) for _ in range(OPEN)]
        listening = {bird.port for bird in birds}
        closed = [port for port in range(20_000, 20_000 + PORTS) if port not in listening][: PORTS - OPEN]
        api = await stack.enter_async_context(serving(database_url, allow_targets=()))
        ports = list(closed)
        for number, port in enumerate(listening):  # spread, so that how busy the machine is says nothing about them
            ports.insert(number * PORTS // OPEN, port)
        assert len(ports) == PORTS
        await api.submit_many(
            [{"http": {"url": f"http://127.0.0.1:{port}/"}, "retry": {"max_attempts": 1}} for port in ports]
        )
        await tables.empty()
        rows = await tables.rows(
            "SELECT convert_from(spec, 'UTF8')::json #>> '{http,url}' AS url, state, last_status, last_error, "
            "last_duration_ms FROM finished ORDER BY last_started_ms, last_duration_ms"
        )
        assert len(rows) == PORTS
        assert sum(bird.hits for bird in birds) == 0
    said = {(row["state"], row["last_status"], row["last_error"]) for row in rows}
    assert said == {(3, None, "target address 127.0.0.1 is not allowed (loopback)")}
    times = [row["last_duration_ms"] for row in rows]
    # Calls go out in waves, each as slow as the machine is just then: a port is compared with those called beside it.
    told = [
        times[at] - median(times[max(0, at - BESIDE) : at + BESIDE + 1])
        for at, row in enumerate(rows)
        if int(row["url"].rstrip("/").rpartition(":")[2]) in listening
    ]
    assert len(told) == OPEN
    assert abs(median(told)) <= TELLING_MS


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.0.0.2"])
async def test_the_service_does_not_call_itself(database_url: str, host: str) -> None:
    """Although its network is allowed."""
    allowed = ("127.0.0.0/8", "::1/128")
    async with serving(database_url, allow_targets=allowed) as api:
        port = api.url.rpartition(":")[2]
        task = await api.submit(http={"url": f"http://{host}:{port}/v1/tasks"}, payload={"queue": "deeper"})
        ended = await api.wait(task["id"])
        found = await api.listed(queue="deeper")
    assert (ended["state"], found) == ("dead", [])
    assert "is not allowed (ringwheel itself)" in ended["last_attempt"]["error"]


async def test_nor_by_the_address_that_others_know_it_by(database_url: str) -> None:
    async with serving(database_url, advertise="8.8.8.8:7443") as api:
        task = await api.submit(http={"url": "http://8.8.8.8:7443/"})
        async with asyncio.timeout(20):
            ended = await api.wait(task["id"])
    assert ended["last_attempt"]["error"] == "target address 8.8.8.8 is not allowed (ringwheel itself)"
