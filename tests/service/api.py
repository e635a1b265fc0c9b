"""A client of a running service, and a second pair of eyes on its tables."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiohttp
import asyncpg
import orjson

from tests.gateway.held import hold

LIMIT_S = 30.0
STATES = ("scheduled", "running", "succeeded", "dead", "expired", "cancelled")
TERMINAL = STATES[2:]


@dataclass
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: Mapping[str, str]


class Api:
    """Calls to one node."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Any request; `headers` are written with _ for -."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else orjson.dumps(body)
        if data is not None:
            sent["Content-Type"] = "application/json"
        async with self.session.request(method, self.url + path, data=data, headers=sent) as response:
            raw = await response.read()
            hold(method, path, response.status, response.headers, raw)
            is_json = "json" in response.content_type
            return Answer(response.status, orjson.loads(raw) if is_json else raw, response.headers)

    async def submit(self, **task: object) -> dict[str, Any]:
        """The task as accepted."""
        answer = await self.call("POST", "/v1/tasks", task)
        assert answer.status == 201, answer
        return answer.body  # type: ignore[no-any-return]

    async def submit_many(self, tasks: list[dict[str, Any]]) -> list[str]:
        """The ids of a batch."""
        answer = await self.call("POST", "/v1/tasks:batch", tasks)
        assert answer.status == 200, answer
        return [item["id"] for item in answer.body["results"]]

    async def get(self, task_id: str, query: str = "") -> dict[str, Any]:
        """The task as it is now."""
        answer = await self.call("GET", f"/v1/tasks/{task_id}{query}")
        assert answer.status == 200, answer
        return answer.body  # type: ignore[no-any-return]

    async def attempts(self, task_id: str) -> list[dict[str, Any]]:
        """The recorded attempts."""
        answer = await self.call("GET", f"/v1/tasks/{task_id}/attempts")
        assert answer.status == 200, answer
        return answer.body["attempts"]  # type: ignore[no-any-return]

    async def command(self, task_id: str, name: str, **body: object) -> Answer:
        """`POST /v1/tasks/{id}:name`."""
        return await self.call("POST", f"/v1/tasks/{task_id}:{name}", body)

    async def wait(self, task_id: str, *states: str, attempt: int = 0) -> dict[str, Any]:
        """The task, once the stream said that it is in one of these states (terminal ones when none are named)."""
        wanted = states or TERMINAL
        async with asyncio.timeout(LIMIT_S), self.stream() as stream:
            await stream.subscribe("w", id=task_id)
            async for task in stream.tasks():
                if task["state"] in wanted and task["attempt"] >= attempt:
                    break
        return await self.get(task_id)

    async def listed(self, **query: object) -> list[dict[str, Any]]:
        """All pages of a list."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, object] = {}
        while True:
            text = "&".join(f"{name}={value}" for name, value in (query | cursor).items())
            answer = await self.call("GET", f"/v1/tasks?{text}")
            assert answer.status == 200, answer
            found += answer.body["tasks"]
            if answer.body["next_cursor"] is None:
                return found
            cursor = {"cursor": answer.body["next_cursor"]}

    @asynccontextmanager
    async def stream(self) -> AsyncIterator["Stream"]:
        """A websocket."""
        async with self.session.ws_connect(f"{self.url}/v1/stream", protocols=("ringwheel.v1.json",)) as socket:
            yield Stream(socket)


class Stream:
    """A client's end of the stream."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.cursor: str | None = None
        """Of the last message that had one."""

    async def subscribe(self, sub: str, cursor: str | None = None, **wanted: object) -> None:
        start = {} if cursor is None else {"from": cursor}
        await self.socket.send_str(
            orjson.dumps({"type": "subscribe", "sub": sub, "filter": wanted, **start}).decode(),
        )

    async def hear(self) -> dict[str, Any]:
        """The next message."""
        async with asyncio.timeout(LIMIT_S):
            message: dict[str, Any] = orjson.loads(await self.socket.receive_str())
        self.cursor = message.get("cursor", self.cursor)
        return message

    async def tasks(self) -> AsyncIterator[dict[str, Any]]:
        """Tasks as they are told, of snapshots and events alike."""
        while True:
            message = await self.hear()
            assert message["type"] in ("snapshot", "event", "resumed", "gap"), message
            for task in message.get("tasks", ()):
                yield task
            if "task" in message:
                yield message["task"]


class Tables:
    """The database as it is, read past the service."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()

    async def rows(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Any statement."""
        async with self._turn:
            rows: list[asyncpg.Record] = await self._connection.fetch(statement, *arguments)
        return rows

    async def value(self, statement: str, *arguments: object) -> Any:
        """The first column of the first row."""
        rows = await self.rows(statement, *arguments)
        return rows[0][0] if rows else None

    async def state(self, task_id: str) -> str | None:
        """The stored state: `scheduled` for a live row, `running` with a claim, None when there is no row."""
        state = await self.value(
            "SELECT 0 + (claim_ms IS NOT NULL)::int AS state FROM tasks WHERE id = $1 "
            "UNION ALL SELECT state FROM finished WHERE id = $1",
            task_id,
        )
        return None if state is None else STATES[state]

    async def promised(self, task_id: str) -> None:
        """Return once it is written that the target completes the task by itself: then nothing is due before."""
        async with asyncio.timeout(LIMIT_S):
            while not await self.value("SELECT due_ms = claim_ms FROM tasks WHERE id = $1", task_id):
                pass

    async def empty(self) -> None:
        """Return once no live task is left."""
        async with asyncio.timeout(LIMIT_S):
            while await self.value("SELECT EXISTS (SELECT FROM tasks)"):
                pass


@asynccontextmanager
async def tables_of(dsn: str) -> AsyncIterator[Tables]:
    """Eyes on this database."""
    connection = await asyncpg.connect(dsn)
    try:
        yield Tables(connection)
    finally:
        connection.terminate()


def ms(time: str) -> float:
    """RFC 3339 to milliseconds since 1970."""
    return datetime.fromisoformat(time).timestamp() * 1e3
