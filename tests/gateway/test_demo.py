"""Where the demo's webhook target listens."""

import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from gateway.demo import ABOVE, listen


@pytest.fixture
async def runner() -> AsyncIterator[web.AppRunner]:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    yield runner
    await runner.cleanup()


async def test_it_is_beside_the_service(runner: web.AppRunner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    await listen(runner, port - ABOVE)
    assert runner.addresses == [("127.0.0.1", port)]


async def test_it_is_elsewhere_when_somebody_is_there(runner: web.AppRunner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        await listen(runner, port - ABOVE)
        assert runner.addresses[0][1] not in (0, port)


async def test_there_is_no_port_beyond_the_last(runner: web.AppRunner) -> None:
    await listen(runner, 65_535)
    assert 0 < runner.addresses[0][1] <= 65_535
