"""Keyed submits in batches at a rate, spread over the nodes, each sent again until it is answered 200.

What is accepted is remembered with what should become of it. Tasks of the script `cancel` are cancelled, as far as a
node answers that they are, before they are due.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, time

import aiohttp
import orjson

BATCH = 50
BATCHES_HZ = 20
"""At low rates batches are smaller, so that many come each second."""
UNDER_WAY = 64
AGAIN_S = 0.1
TURNS = 10_000
CANCELS = 5
RETRY = {"max_attempts": 8, "min_backoff": 0.1, "max_backoff": 1}
_JSON = {"Content-Type": "application/json"}


@dataclass(slots=True)
class Plan:
    """What is submitted: shares of scripts, and due times spread over the `span_s` after acceptance."""

    url: str
    scripts: Mapping[str, int]
    span_s: float
    queue: str = "trial"
    seed: int = 0


@dataclass(slots=True)
class Traffic:
    """What was submitted to the nodes behind `ports`, and what they answered."""

    plan: Plan
    ports: Callable[[], Sequence[int]]
    accepted: dict[str, str] = field(default_factory=dict)
    """Id -> script."""
    cancelled: dict[str, float] = field(default_factory=dict)
    """Id -> when a node had answered that it is cancelled; ms since 1970."""
    by_port: dict[str, int] = field(default_factory=dict)
    """Id -> the port that answered."""
    refused: int = 0
    """Requests that were answered 503 or cut, and sent again."""
    over: bool = False
    """Set to end: no new batch begins."""
    _number: int = 0

    async def run(
        self, rate_hz: float, tasks: int, told: Callable[[int], object] = lambda _: None, *, batch: int | None = None
    ) -> None:
        """Submit `tasks`, fewer if `over` is set; return when all are answered. `told` of each batch that is.

        The same plan in batches of the same size makes the same requests.
        """
        size = batch or batch_of(rate_hz)
        limit, begin, first = asyncio.Semaphore(UNDER_WAY), monotonic(), self._number
        roll = random.Random(self.plan.seed * 1_000_003 + first)
        scripts, shares = list(self.plan.scripts), list(self.plan.scripts.values())
        async with _session() as session, asyncio.TaskGroup() as group:
            while (sent := self._number - first) < tasks and not self.over:
                await asyncio.sleep(max(0.0, begin + sent / rate_hz - monotonic()))
                part = roll.choices(scripts, shares, k=min(size, tasks - sent))
                body = [self._item(script, roll) for script in part]
                await limit.acquire()
                group.create_task(self._submit(session, part, body, limit, told))

    @property
    def submitted(self) -> int:
        """Tasks that were sent, answered or not."""
        return self._number

    def _item(self, script: str, roll: random.Random) -> dict[str, object]:
        plan, number = self.plan, self._number
        self._number += 1
        early_s = plan.span_s / 2 if script == "cancel" else 0.0
        return {
            "queue": plan.queue,
            "http": {"url": f"{plan.url}/{script}"},
            "payload": {"number": number},
            "delay": round(early_s + roll.random() * (plan.span_s - early_s), 3),
            "dispatch_deadline": 2,
            "retry": RETRY | ({"max_attempts": 3} if script == "dead" else {}),
            "idempotency_key": f"{plan.queue}-{number}",
        }

    async def _submit(
        self,
        session: aiohttp.ClientSession,
        scripts: list[str],
        body: list[dict[str, object]],
        limit: asyncio.Semaphore,
        told: Callable[[int], object],
    ) -> None:
        try:
            port, ids = await self._send(session, orjson.dumps(body))
        finally:
            limit.release()
        told(len(ids))
        for script, task_id in zip(scripts, ids, strict=True):
            self.accepted[task_id] = script
            self.by_port[task_id] = port
        for script, task_id in zip(scripts, ids, strict=True):
            if script == "cancel":
                await self._cancel(session, task_id)

    async def _send(self, session: aiohttp.ClientSession, data: bytes) -> tuple[int, list[str]]:
        """The port that accepted the batch, and the ids."""
        ports = self.ports()
        turn = self._number
        for turn in range(self._number, self._number + TURNS):
            port = ports[turn % len(ports)]
            try:
                async with session.post(
                    f"http://127.0.0.1:{port}/v1/tasks:batch", data=data, headers=_JSON
                ) as response:
                    answer = orjson.loads(await response.read())
                    if response.status == 200:
                        return port, [item["id"] for item in answer["results"]]
                    assert response.status == 503, answer
            except (aiohttp.ClientError, TimeoutError):
                pass
            self.refused += 1
            await asyncio.sleep(AGAIN_S)
        raise TimeoutError("a batch was never accepted")

    async def _cancel(self, session: aiohttp.ClientSession, task_id: str) -> None:
        """A few tries; one that is not answered may have come true all the same."""
        ports = self.ports()
        for turn in range(self._number, self._number + CANCELS):
            try:
                async with session.post(
                    f"http://127.0.0.1:{ports[turn % len(ports)]}/v1/tasks/{task_id}:cancel"
                ) as response:
                    await response.read()
                    if response.status == 200:
                        self.cancelled[task_id] = time() * 1e3
                    if response.status in (200, 409):
                        return
                    assert response.status == 503
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(AGAIN_S)


def batch_of(rate_hz: float) -> int:
    """Tasks in a batch at this rate."""
    return max(1, min(BATCH, round(rate_hz / BATCHES_HZ)))


def _session() -> aiohttp.ClientSession:
    """Waits for no answer longer than a client would."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3))
