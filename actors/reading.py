"""What shards ask to read: pages, payloads, single ids; and the probe that asks for itself.

Each kind gathers while its last batch is under way. A page that could not be read comes back as LoadFailed after a
pause, so that a database that is away is not asked in a loop; single look-ups are answered with Unavailable.

Promises: every page and every look-up is answered. Bound: a page a queue and shard, the desk's read-ahead, and the
commands that wait.
"""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from actors.clock import Clock
from actors.core.desk import Desk
from actors.core.errors import Unavailable
from actors.core.events import Answer, Command, Event, Loaded, LoadFailed, Looked, Page, Probed, Vanished
from actors.core.ids import shard_of
from actors.core.task import Phase, Task, by_shard
from actors.gather import Gather
from actors.ports.tasks import Span, TaskStore

LOAD_PAGES = 32
READ_TASKS = 500
LOOK_UPS = 500
PAUSE_S = 0.5

PROBE_S = 2.0
"""One round over all shards takes this long, in PROBE_STEPS statements."""
PROBE_STEPS = 16
PROBE_LATE_MS = 3_000
PROBE_BACK_MS = 10_000
"""Each round looks this far back behind the one before; one in FULL_ROUND looks from the beginning of time."""
PROBE_ROWS = 64
FULL_ROUND = 30
log = structlog.get_logger("reading")


class Reading:
    """The read side of a node's shards."""

    def __init__(
        self,
        store: TaskStore,
        clock: Clock,
        desk: Desk,
        *,
        shards: Callable[[], int],
        post: Callable[[int, Event], object],
        answer: Callable[[Answer], None],
        ready: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._desk = desk
        self._shards = shards
        self._post = post
        self._answer = answer
        self._ready = ready
        self._pages: Gather[Page] = Gather(self._load, LOAD_PAGES)
        self._payloads: Gather[Task] = Gather(self._read, READ_TASKS)
        self._look_ups: Gather[Command] = Gather(self._look, LOOK_UPS)

    async def run(self) -> None:
        """Read until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pages.run())
            group.create_task(self._payloads.run())
            group.create_task(self._look_ups.run())

    def load(self, page: Page) -> None:
        """Answer with Loaded or LoadFailed."""
        self._pages.put((page,))

    def find(self, commands: list[Command]) -> None:
        """Answer with Looked."""
        self._look_ups.put(commands)

    def payloads(self, tasks: list[Task]) -> None:
        """Bring these to the front of the desk, payload and all."""
        self._payloads.put(tasks)

    async def probe(self, owned: Callable[[], Iterable[tuple[int, list[int]]]]) -> None:
        """Look for overdue rows that memory does not know, round after round; `owned` gives (shard, spilled queues)."""
        seen_ms = [0] * PROBE_STEPS
        """Per step: when its last round that went well was asked for. Outages leave no stretch unseen."""
        for turn in _forever():
            full = turn % FULL_ROUND == 0
            for step in range(PROBE_STEPS):
                await asyncio.sleep(PROBE_S / PROBE_STEPS)
                some = [(shard, skip) for shard, skip in owned() if shard % PROBE_STEPS == step]
                if some:
                    after_ms = -1 if full else seen_ms[step] - PROBE_LATE_MS - PROBE_BACK_MS
                    seen_ms[step] = await self._probe(some, after_ms) or seen_ms[step]

    async def _probe(self, some: list[tuple[int, list[int]]], after_ms: int) -> int | None:
        """When it was asked for; None: in vain."""
        asked_ms = self._clock.now_ms()
        spans = [Span(shard, after_ms, asked_ms - PROBE_LATE_MS, PROBE_ROWS, skip) for shard, skip in some]
        try:
            tasks = await self._store.probe(spans)
        except Unavailable as error:
            log.warning("probe failed", detail=error.detail)
            return None
        for shard, found in by_shard(tasks).items():
            self._post(shard, Probed(found, asked_ms))
        return asked_ms

    async def _load(self, pages: list[Page]) -> None:
        answers: list[Loaded] | list[LoadFailed]
        now_ms = self._clock.now_ms()
        for page in pages:
            page.asked_ms = now_ms
        try:
            answers = await self._store.load(pages)
        except Unavailable as error:
            log.warning("load failed", detail=error.detail)
            await asyncio.sleep(PAUSE_S)
            answers = [LoadFailed(page) for page in pages]
        for answer in answers:
            self._post(answer.page.shard, answer)

    async def _read(self, tasks: list[Task]) -> None:
        wanted = [task for task in tasks if task.phase is Phase.OFFERED]
        try:
            if wanted:
                await self._store.payloads(wanted)
        except Unavailable as error:
            log.warning("reading payloads failed", detail=error.detail)
            await asyncio.sleep(PAUSE_S)
        else:
            missing = [task for task in wanted if task.payload is None]
            for shard, gone in by_shard(missing).items():
                self._post(shard, Vanished(gone))
        self._desk.read(tasks)
        self._ready()

    async def _look(self, commands: list[Command]) -> None:
        try:
            found = await self._store.find(None, [command.id for command in commands])
        except Unavailable as error:
            for command in commands:
                self._answer(Answer(command.token, error=error))
            return
        for command, truth in zip(commands, found, strict=True):
            self._post(shard_of(command.id, self._shards()), Looked([command], [truth]))


def _forever() -> Iterable[int]:
    turn = 0
    while True:
        yield turn
        turn += 1
