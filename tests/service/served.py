"""The service in the test's own loop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from gateway.__main__ import Service
from gateway.link import Link
from gateway.settings import ServeSettings
from gateway.tls import trusting
from tests.service.api import LIMIT_S, Api

DEFAULTS: dict[str, Any] = {"port": 0, "name": "node-a", "grace_s": 0.05, "allow_targets": ("127.0.0.0/8",)}


class Node(Api):
    """A client of the service, and the service itself."""

    def __init__(self, service: Service, session: aiohttp.ClientSession) -> None:
        super().__init__(service.url, session)
        self.service = service


@asynccontextmanager
async def serving(dsn: str, **settings: Any) -> AsyncIterator[Node]:
    """A node that owns what it should own; it leaves in good order."""
    async with starting(dsn, **settings) as api:
        await ready(api)
        yield api


@asynccontextmanager
async def starting(dsn: str, **settings: Any) -> AsyncIterator[Node]:
    """A node that listens, whether it has its database or not."""
    service = Service(ServeSettings(dsn, **(DEFAULTS | settings)))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(service.run(), name="service")
        try:
            async with asyncio.timeout(LIMIT_S):
                while not service.url:
                    assert not running.done()
                    await asyncio.sleep(0)
            connector = aiohttp.TCPConnector(limit=0, ssl=trusting(settings.get("tls_authorities")))
            async with aiohttp.ClientSession(connector=connector) as session:
                yield Node(service, session)
        finally:
            service.stop()


async def ready(api: Api) -> None:
    """Return once `/readyz` says so."""
    async with asyncio.timeout(LIMIT_S):
        while (await api.call("GET", "/readyz")).status != 200:
            pass


def way(here: Node, there: Node) -> Link | None:
    """The link from one to the other, if it lives."""
    return here.service.peers.link(there.service.node.membership.boot)


def up(here: Node, there: Node) -> bool:
    """Whether they can talk over it."""
    found = way(here, there)
    return found is not None and found.up.is_set()


async def until(api: Api, true: Callable[[], bool]) -> None:
    """Ask again after each of many calls."""
    async with asyncio.timeout(LIMIT_S):
        while not true():
            await api.call("GET", "/livez")
