"""A service that speaks the contract of workers word by word, as its test says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from aiohttp import web

from bench.websocket import SUBPROTOCOL

Message = dict[str, Any]
BEGIN = datetime(2027, 1, 31, 9, tzinfo=UTC)


class FakeService:
    """One that listens on `port`; the last link that was opened is its link."""

    def __init__(self) -> None:
        self.port = 0
        self.heard: asyncio.Queue[Message] = asyncio.Queue()
        self.links: asyncio.Queue[web.WebSocketResponse] = asyncio.Queue()
        self._link: web.WebSocketResponse | None = None

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        link = web.WebSocketResponse(protocols=(SUBPROTOCOL,), compress=False)
        await link.prepare(request)
        self._link = link
        self.links.put_nowait(link)
        async for message in link:
            if message.type is aiohttp.WSMsgType.TEXT:
                self.heard.put_nowait(message.json())
        return link

    async def say(self, message: Message) -> None:
        """To whoever came last."""
        assert self._link is not None
        await self._link.send_json(message)

    async def hear(self, kind: str) -> Message:
        """The next message of this kind; others are forgotten."""
        async with asyncio.timeout(30):
            while (message := await self.heard.get())["type"] != kind:
                pass
            return message

    async def cut(self) -> None:
        """End the link."""
        assert self._link is not None
        await self._link.close()


@asynccontextmanager
async def fake_service() -> AsyncIterator[FakeService]:
    """Runs one."""
    service = FakeService()
    app = web.Application()
    app.router.add_get("/v1/worker", service.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        service.port = runner.addresses[0][1]
        yield service
    finally:
        await runner.cleanup()


def task(number: int, script: str = "ok", *, attempt: int = 1, lease_s: float = 2.0, **others: Any) -> Message:
    """One task of a `tasks` frame, due and leased at BEGIN."""
    return {
        "id": f"00000000-0000-7000-8000-{number:012x}",
        "queue": "bench",
        "attempt": attempt,
        "max_attempts": 5,
        "fence": f"00000001.0000000001.{attempt:06d}",
        "lease": f"lease-{number}-{attempt}",
        "lease_expire_time": rfc3339(BEGIN + timedelta(seconds=lease_s)),
        "lease_seconds": lease_s,
        "schedule_time": rfc3339(BEGIN),
        "payload": {"script": script, "number": number},
        **others,
    }


def rfc3339(when: datetime) -> str:
    """As the service answers times."""
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
