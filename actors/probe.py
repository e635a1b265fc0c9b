"""The probe: overdue rows that memory does not know, found without the help of timers and hints.

Every PROBE_S it looks at each shard of this node, in PROBE_STEPS statements: at what came due since it last looked and
a while before that, one round in FULL_ROUND from the beginning of time. It reads only the range that memory claims to
hold (a backlog that rests in the tables is left to its own pages), and goes on where a queue had more than a page
shows, so that rows that memory knows, however many wait, can't hide one that it does not.

Promises: every overdue row is looked at within a round or, behind rows that wait, within as many steps as they fill.
Bound: one continued page a queue and shard, MORE of them a step.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable

import structlog

from actors.clock import Clock
from actors.core.errors import Unavailable
from actors.core.events import LAST_ID, NO_ID, Loaded, Page, Probed
from actors.ports.tasks import TaskStore

PROBE_S = 2.0
"""One round over all shards takes this long, in PROBE_STEPS statements."""
PROBE_STEPS = 16
PROBE_LATE_MS = 3_000
PROBE_BACK_MS = 10_000
"""Each round looks this far back behind the one before; one in FULL_ROUND looks from the beginning of time."""
PROBE_ROWS = 64
PROBE_TOTAL = 256
FULL_ROUND = 30
MORE = 4
"""Continued pages a step."""
log = structlog.get_logger("probe")

Owned = Callable[[], Iterable[tuple[int, dict[int, int]]]]
"""Shards of this node, each with how far memory claims to hold those queues whose backlog rests in the tables."""


class Probe:
    """Looks for what everybody else forgot."""

    def __init__(self, store: TaskStore, clock: Clock, owned: Owned, post: Callable[[int, Probed], object]) -> None:
        self._store = store
        self._clock = clock
        self._owned = owned
        self._post = post
        self._seen_ms = [0] * PROBE_STEPS
        """Per step: when its last round that went well was asked for. Outages leave no stretch unseen."""
        self._more: dict[tuple[int, int], Page] = {}
        """(shard, queue) -> where to go on, those that wait longest first."""

    async def run(self) -> None:
        """Look, round after round, until cancelled."""
        for turn in itertools.count():
            for step in range(PROBE_STEPS):
                await asyncio.sleep(PROBE_S / PROBE_STEPS)
                await self._step(step, from_the_beginning=turn % FULL_ROUND == 0)

    async def _step(self, step: int, *, from_the_beginning: bool) -> None:
        owned = dict(self._owned())
        asked_ms = self._clock.now_ms() if owned else 0
        after_ms = -1 if from_the_beginning else self._seen_ms[step] - PROBE_LATE_MS - PROBE_BACK_MS
        windows = [
            _page(shard, None, (after_ms, LAST_ID if after_ms >= 0 else NO_ID), asked_ms - PROBE_LATE_MS, caps)
            for shard, caps in owned.items()
            if shard % PROBE_STEPS == step
        ]
        rest = self._continued(owned)
        if not windows and not rest:
            return
        try:
            answers = await self._store.load(windows + rest)
        except Unavailable as error:
            log.warning("probe failed", detail=error.detail)
            for page in rest:
                self._go_on(page)
            return
        self._seen_ms[step] = asked_ms
        for answer in answers:
            self._follow(answer)
            if answer.tasks:
                self._post(answer.page.shard, Probed(answer.tasks, asked_ms))

    def _continued(self, owned: dict[int, dict[int, int]]) -> list[Page]:
        """The pages whose turn it is; those of shards that went are forgotten."""
        pages: list[Page] = []
        while self._more and len(pages) < MORE:
            (shard, queue_id), page = next(iter(self._more.items()))
            del self._more[shard, queue_id]
            if shard in owned:
                pages.append(page)
        return pages

    def _follow(self, answer: Loaded) -> None:
        """Queues that have more than this page shows are gone on with, up to where memory claims to hold them."""
        page = answer.page
        for queue_id, after in answer.full.items():
            until_ms = min(page.until_ms, page.caps.get(queue_id, page.until_ms))
            self._go_on(_page(page.shard, queue_id, after, until_ms, {}))

    def _go_on(self, page: Page) -> None:
        """One continued page a queue: the one that begins earlier goes on, to the later end."""
        assert page.queue_id is not None
        waiting = self._more.get((page.shard, page.queue_id))
        if waiting is None:
            self._more[page.shard, page.queue_id] = page
            return
        waiting.until_ms = max(waiting.until_ms, page.until_ms)
        after = (page.after_due_ms, page.after_id)
        if after < (waiting.after_due_ms, waiting.after_id):
            waiting.after_due_ms, waiting.after_id = after


def _page(shard: int, queue_id: int | None, after: tuple[int, str], until_ms: int, caps: dict[int, int]) -> Page:
    return Page(shard, 0, queue_id, after[0], after[1], until_ms, PROBE_ROWS, PROBE_TOTAL, caps)
