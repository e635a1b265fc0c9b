"""What shards ask to read: pages, payloads, single ids.

Each kind gathers while its last batch is under way. A page that could not be read comes back as LoadFailed after a
pause, so that a database that is away is not asked in a loop; single look-ups are answered with Unavailable.

Promises: every page and every look-up is answered. Bound: a page a queue and shard, the desk's read-ahead, and the
commands that wait.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from actors.clock import Clock
from actors.core.desk import Desk
from actors.core.errors import Unavailable
from actors.core.events import Answer, Command, Event, Loaded, LoadFailed, Looked, Page, Vanished
from actors.core.ids import shard_of
from actors.core.task import Phase, Task, by_shard
from actors.gather import Gather
from actors.ports.tasks import TaskStore

LOAD_PAGES = 256
LOAD_ROWS = 16_384
"""Rows that the pages of one statement may bring, as far as they say."""
READ_TASKS = 500
LOOK_UPS = 500
PAUSE_S = 0.5
log = structlog.get_logger("reading")


class Reading:
    """The read side of a node's shards."""

    def __init__(
        self,
        store: TaskStore,
        clock: Clock,
        desks: Sequence[Desk],
        *,
        shards: Callable[[], int],
        post: Callable[[int, Event], object],
        answer: Callable[[Answer], None],
        ready: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._desks = desks
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

    async def _load(self, pages: list[Page]) -> None:
        while pages:
            count = _fit(pages)
            await self._load_some(pages[:count])
            pages = pages[count:]

    async def _load_some(self, pages: list[Page]) -> None:
        answers: list[Loaded] | list[LoadFailed]
        now_ms = self._clock.now_ms()
        for page in pages:
            page.asked_ms = now_ms
        try:
            answers = await self._store.load(pages)
        except Unavailable as error:
            log.debug("load failed", detail=error.detail)
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
            log.debug("reading payloads failed", detail=error.detail)
            await asyncio.sleep(PAUSE_S)
        else:
            missing = [task for task in wanted if task.payload is None]
            for shard, gone in by_shard(missing).items():
                self._post(shard, Vanished(gone))
        for desk in self._desks:
            desk.read(tasks)
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


def _fit(pages: list[Page]) -> int:
    """How many of these go into one statement, at least one."""
    rows = 0
    for count, page in enumerate(pages):
        rows += page.total
        if rows > LOAD_ROWS:
            return max(count, 1)
    return len(pages)
