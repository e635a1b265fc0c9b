"""A node as the courier sees it, with nothing behind it: due tasks go in, outcomes come out."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from actors.core.events import Outcome
from actors.core.queue import Queue
from actors.core.spec import HttpTarget, Spec
from actors.core.task import Phase, Task, fence
from gateway.deliver import CALLERS, Courier
from gateway.signing import Signer
from gateway.targets import TargetPolicy
from storage.memory import MemoryDatabase, MemoryStores

NOW_MS = 1_790_000_000_123
QUEUE = Queue(7, "default", "emails")


class StillClock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.at_ms = NOW_MS

    def now_ms(self) -> int:
        return self.at_ms


class FakeNode:
    """Implements the dispatch side of a node."""

    def __init__(self) -> None:
        self.due: deque[Task] = deque()
        self.outcomes: list[Outcome] = []
        self.batches: list[int] = []
        self.lease = True
        self._changed = asyncio.Event()
        self._pull: Callable[[], None] | None = None

    def offer(self, tasks: Sequence[Task]) -> None:
        self.due.extend(tasks)
        self._tell()

    async def until(self, count: int) -> list[Outcome]:
        """Wait for so many outcomes."""
        while len(self.outcomes) < count:
            self._changed.clear()
            await self._changed.wait()
        return self.outcomes

    def serve(self, pull: Callable[[], None] | None) -> None:
        self._pull = pull
        self._tell()

    def _tell(self) -> None:
        if self._pull is not None:
            self._pull()

    def take(self, limit: int) -> list[Task]:
        assert limit > 0
        taken = [self.due.popleft() for _ in range(min(limit, len(self.due)))]
        for task in taken:
            task.phase = Phase.RUNNING
        if len(taken) == limit:
            asyncio.get_running_loop().call_soon(self._tell)
        return taken

    def may_fire(self) -> bool:
        return self.lease

    def ended(self, outcomes: list[Outcome]) -> None:
        assert outcomes
        self.batches.append(len(outcomes))
        self.outcomes.extend(outcomes)
        self._changed.set()

    def fence_of(self, task: Task) -> str:
        return fence(1, task.epoch, task.attempt)


def webhook(
    url: str,
    payload: bytes | None = b'{"a":1}',
    *,
    n: int = 1,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    content_type: str | None = None,
    deadline_ms: int | None = None,
    queue: Queue = QUEUE,
    trace: str | None = None,
) -> Task:
    """A running webhook task, number `n`."""
    spec = Spec(
        http=HttpTarget(url, method, headers or {}), dispatch_deadline_ms=deadline_ms, content_type=content_type
    )
    size = len(payload or b"")
    task = Task(
        f"01a0b0c0-0000-7000-8000-{n:012x}",
        3,
        queue,
        NOW_MS,
        NOW_MS,
        0,
        spec,
        payload=payload,
        payload_bytes=size,
        attempt=2,
        trace=trace,
    )
    task.epoch = 5
    return task


def signer() -> Signer:
    """Over a table of its own, which is empty."""
    return Signer(MemoryStores(MemoryDatabase(lambda: float(NOW_MS)), "boot").signing)


@asynccontextmanager
async def courier(
    node: FakeNode,
    *,
    allow: Sequence[str] = ("loopback",),
    callers: int = CALLERS,
    clock: StillClock | None = None,
    signing: Signer | None = None,
    policy: TargetPolicy | None = None,
) -> AsyncIterator[Courier]:
    """A running courier for `node`; cancelled on the way out."""
    if signing is None:
        signing = signer()
        await signing.refresh()
    made = Courier(node, clock or StillClock(), policy or TargetPolicy(allow), signing, callers=callers)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made.run())
        yield made
        running.cancel()


async def deliver(task: Task, *, allow: Sequence[str] = ("loopback",)) -> Outcome:
    """The outcome of one delivery."""
    node = FakeNode()
    async with courier(node, allow=allow):
        node.offer([task])
        return (await node.until(1))[0]
