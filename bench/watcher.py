"""A websocket subscriber that breaks off and comes back with its cursor, and checks what it is told.

It knows the last version of each task. A version that goes back is a fault, unless a gap was told (an attempt whose
node was killed never happened, as far as the tables know); a terminal state that is taken back is one always.
"""

import asyncio
from dataclasses import dataclass, field

import aiohttp
import orjson

TERMINAL = frozenset({"succeeded", "dead", "expired", "cancelled"})


@dataclass(slots=True)
class Watcher:
    """What one subscriber to a queue has seen."""

    port: int
    queue: str
    cursor: str | None = None
    versions: dict[str, int] = field(default_factory=dict)
    terminal: dict[str, str] = field(default_factory=dict)
    went_back: int = 0
    gaps: int = 0
    resumed: int = 0
    connections: int = 0

    async def run(self, period_s: float = 1.0) -> None:
        """Watch until cancelled, with a new connection every `period_s`."""
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with asyncio.timeout(period_s):
                        await self._watch(session)
                except (TimeoutError, aiohttp.ClientError):
                    pass
                await asyncio.sleep(0.01)

    async def _watch(self, session: aiohttp.ClientSession) -> None:
        url = f"http://127.0.0.1:{self.port}/v1/stream"
        async with session.ws_connect(url, protocols=("ringwheel.v1.json",)) as socket:
            self.connections += 1
            wish = {"type": "subscribe", "sub": "s", "filter": {"queue": self.queue}}
            if self.cursor is not None:
                wish["from"] = self.cursor
            await socket.send_str(orjson.dumps(wish).decode())
            async for frame in socket:
                if frame.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    self._take(orjson.loads(frame.data))

    def _take(self, message: dict[str, object]) -> None:
        kind = message["type"]
        if kind == "gap":
            self.gaps += 1
            self.versions.clear()
        elif kind == "resumed":
            self.resumed += 1
        elif kind == "snapshot":
            for task in message["tasks"]:  # type: ignore[attr-defined]
                self._see(task)
        elif kind == "event":
            self._see(message["task"])  # type: ignore[arg-type]
        if "cursor" in message:
            self.cursor = message["cursor"]  # type: ignore[assignment]

    def _see(self, task: dict[str, object]) -> None:
        task_id, version = str(task["id"]), int(task["version"])  # type: ignore[call-overload]
        if version < self.versions.get(task_id, -1) or (task_id in self.terminal and task["state"] not in TERMINAL):
            self.went_back += 1
        self.versions[task_id] = version
        if task["state"] in TERMINAL:
            self.terminal[task_id] = str(task["state"])
