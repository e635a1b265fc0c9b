"""What becomes of an error that no handler has caught."""

import asyncio
import logging

import aiohttp
import pytest
from aiohttp import web

from gateway.problems import answering


async def test_a_client_that_went_before_its_answer_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """As another node's link does when this one was stopped for a while."""
    tried = asyncio.Event()

    async def late(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        ws = web.WebSocketResponse()
        try:
            await ws.prepare(request)
        finally:
            tried.set()
        return ws

    app = web.Application()
    app.router.add_get("/", answering(late))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    with caplog.at_level(logging.INFO):
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.ws_connect(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        await tried.wait()
        await runner.cleanup()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
