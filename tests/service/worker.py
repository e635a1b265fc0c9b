"""A worker of a running service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson

from tests.service.api import LIMIT_S, Api

Task = dict[str, Any]


class Worker:
    """A client's end of a worker's link; frames that were not asked for yet are kept."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, queue: str) -> None:
        self.socket = socket
        self.queue = queue
        self._early: list[dict[str, Any]] = []

    async def say(self, kind: str, **fields: Any) -> None:
        await self.socket.send_bytes(orjson.dumps({"type": kind, **fields}))

    async def hear(self, *kinds: str) -> dict[str, Any]:
        """The next frame of these kinds (any, when none are named)."""
        for at, early in enumerate(self._early):
            if not kinds or early["type"] in kinds:
                return self._early.pop(at)
        async with asyncio.timeout(LIMIT_S):
            while True:
                frame: dict[str, Any] = orjson.loads(await self.socket.receive_str())
                if not kinds or frame["type"] in kinds:
                    return frame
                self._early.append(frame)

    async def ready(self, credits_: int = 1) -> None:
        await self.say("ready", queue=self.queue, credits=credits_)

    async def stop(self) -> list[Task]:
        """Take nothing more; what came before that was said."""
        await self.say("stop")
        await self.hear("stopped")
        return [task for frame in self._early if frame["type"] == "tasks" for task in frame["tasks"]]

    async def tasks(self, count: int = 1) -> list[Task]:
        """As many as come in the frames up to the one that brings the last of so many."""
        found: list[Task] = []
        while len(found) < count:
            found += (await self.hear("tasks"))["tasks"]
        return found

    async def take(self, credits_: int = 1) -> list[Task]:
        """Say that it takes so many, and take them."""
        await self.ready(credits_)
        return await self.tasks(credits_)

    async def done(self, *results: dict[str, Any]) -> dict[str, Any]:
        """Say how attempts ended; the answer, which is one for all."""
        await self.say("done", results=list(results))
        return await self.hear("recorded", "refused")

    async def hello(self, *tasks: Task) -> list[str]:
        """Come back; the ids of the tasks that are still its own."""
        await self.say("hello", worker="test", leases=[lease_of(task) for task in tasks])
        return [lease["id"] for lease in (await self.hear("hello"))["leases"]]

    async def recorded(self, count: int) -> set[str]:
        """The ids of so many results, once all are committed."""
        ids: set[str] = set()
        while len(ids) < count:
            frame = await self.hear("recorded", "refused")
            assert frame["type"] == "recorded", frame
            ids |= set(frame["ids"])
        return ids

    async def drop(self) -> None:
        """Go without a word, as a process does that was killed: its sockets are closed."""
        assert self.socket._conn is not None
        assert self.socket._conn.transport is not None
        self.socket._conn.transport.abort()
        await self.socket.receive()


def lease_of(task: Task, **said: Any) -> dict[str, Any]:
    """What names the attempt, and what is said of it."""
    return {"id": task["id"], "lease": task["lease"], **said}


def ok(task: Task, **said: Any) -> dict[str, Any]:
    """It went well."""
    return lease_of(task, ok=True, **said)


@asynccontextmanager
async def working(api: Api, queue: str) -> AsyncIterator[Worker]:
    """A worker of this queue that is linked to this node."""
    async with api.session.ws_connect(f"{api.url}/v1/worker", protocols=("ringwheel.v1.json",)) as socket:
        yield Worker(socket, queue)


async def drain_all(worker: Worker, ids: set[str], credits_: int) -> list[str]:
    """Take and end these tasks, with so many under way at most; their ids as they came."""
    await worker.ready(credits_)
    came: list[str] = []
    while set(came) != ids:
        tasks = await worker.tasks()
        came += [task["id"] for task in tasks]
        assert len(came) <= credits_, "never more than the credits, in all"
        await worker.say("done", results=[ok(task) for task in tasks])
        await worker.ready(len(tasks))
        credits_ += len(tasks)
    assert await worker.recorded(len(ids)) == ids
    return came
