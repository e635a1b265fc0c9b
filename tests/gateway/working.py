"""A worker at the other end of a link to the application of `served.py`."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

import orjson
from aiohttp import ClientWebSocketResponse, WSMsgType

from actors.core.lease import Lent, Said
from actors.core.queue import Queue
from gateway.stream import SUBPROTOCOL
from gateway.worker_link import WorkerLink
from tests.gateway.lent import a_word, held
from tests.gateway.served import Served

LIMIT_S = 10.0


class Worker:
    """A client's end of a worker's link."""

    def __init__(self, world: Served, ws: ClientWebSocketResponse) -> None:
        self.ws = ws
        self._world = world

    async def say(self, kind: str, **fields: Any) -> None:
        await self.ws.send_bytes(orjson.dumps({"type": kind, **fields}))

    async def hear(self) -> dict[str, Any]:
        """The next frame."""
        async with asyncio.timeout(LIMIT_S):
            return cast(dict[str, Any], orjson.loads(await self.ws.receive_str()))

    async def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Say something; the next frame."""
        await self.say(kind, **fields)
        return await self.hear()

    async def ready(self, credits_: int, queue: str = "mail") -> Queue:
        """The queue, once the credits are there."""
        looked = len(self._world.node.pulling.looked)
        await self.say("ready", queue=queue, credits=credits_)
        await self._world.node.pulling.until(lambda: len(self._world.node.pulling.looked) > looked)
        found = self._world.stores.book.by_name("default", queue)
        assert found is not None
        return found

    async def given(self, queue: Queue, tasks: list[Lent]) -> dict[str, Any]:
        """The frame by which these tasks come."""
        self._world.gateway.crew.deliver(queue.id, tasks)
        return await self.hear()

    async def done(self, *numbers: int) -> WorkerLink:
        """Say that these went well; the service's end, as it waits for the words."""
        said = len(self._world.node.pulling.reported)
        await self.say("done", results=[held(number, ok=True) for number in numbers])
        return (await self.heard(said))[0]

    async def heard(self, said: int) -> tuple[WorkerLink, str, list[Any]]:
        """Who said what to the owners, after so many others."""
        pulling = self._world.node.pulling
        await pulling.until(lambda: len(pulling.reported) > said)
        return cast(tuple[WorkerLink, str, list[Any]], pulling.reported[said])

    async def closed(self) -> int | None:
        """The close code, once it is closed."""
        async with asyncio.timeout(LIMIT_S):
            async for message in self.ws:
                assert message.type is WSMsgType.TEXT
        return self.ws.close_code

    def deafen(self) -> asyncio.ReadTransport:
        """Take nothing any more, until `resume_reading`."""
        assert self.ws._conn is not None
        transport = self.ws._conn.transport
        assert isinstance(transport, asyncio.ReadTransport)
        transport.pause_reading()
        return transport


@asynccontextmanager
async def working(world: Served, **options: Any) -> AsyncIterator[Worker]:
    """A worker that is linked."""
    url = world.server.make_url("/v1/worker")
    async with world.client.ws_connect(url, **{"protocols": (SUBPROTOCOL,)} | options) as ws:
        yield Worker(world, ws)


def recorded(link: WorkerLink, numbers: Iterable[int]) -> None:
    """The owners say that these were committed."""
    link.answer([a_word(number, Said.RECORDED) for number in numbers])
