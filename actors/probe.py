"""The probe: overdue rows that memory does not know, found without the help of timers and hints.

Every PROBE_S it looks at each shard of this node, in PROBE_STEPS statements: at what came due since it last looked and
a while before that, one round in FULL_ROUND from the beginning of time. It reads only the range that memory claims to
hold (a backlog that rests in the tables is left to its own pages), and goes on where a queue had more than a page
shows, so that rows that memory knows, however many wait, can't hide one that it does not. Where a page had news it goes
on at once and in large steps; where all was known it takes its time: rows that wait for a worker are read in vain.

Promises: every overdue row is looked at within a round or, behind rows that wait, within as many steps as they fill.
Bound: one continued page a queue and shard; URGENT and CALM of them a step.
"""

import asyncio
import itertools
from collections.abc import Callable, Container, Iterable

import structlog

from actors.clock import Clock
from actors.core.errors import Unavailable
from actors.core.events import LAST_ID, NO_ID, Loaded, Page, Probed
from actors.ports.tasks import TaskStore

PROBE_S = 1.5
"""One round over all shards takes this long, in PROBE_STEPS statements."""
PROBE_STEPS = 16
PROBE_LATE_MS = 3_000
PROBE_BACK_MS = 10_000
"""Each round looks this far back behind the one before; one in FULL_ROUND looks from the beginning of time."""
PROBE_ROWS = 16
PROBE_TOTAL = 64
NEWS_ROWS = 256
"""Rows of a page that goes on where there was news."""
FULL_ROUND = 40
URGENT = 16
"""Continued pages a step, where there was news."""
CALM = 1
"""The same, where all was known. Such a queue has a backlog anyway; with four pages a step all others were 0.7 ms later
(p99, `bench pending`)."""
log = structlog.get_logger("probe")

Owned = Callable[[], Iterable[tuple[int, Callable[[], dict[int, int]]]]]
"""Shards of this node, each with what says how far memory claims to hold those queues whose backlog rests in the
tables."""


class Walk(Page):
    """A page of the probe, and the time from which all up to it was looked at."""

    since_ms: int = 0


_Waiting = dict[tuple[int, int], Walk]
"""(shard, queue) -> where to go on, those that wait longest first."""


class Probe:
    """Looks for what everybody else forgot."""

    def __init__(self, store: TaskStore, clock: Clock, owned: Owned, post: Callable[[int, Probed], bool]) -> None:
        """`post` answers whether there was news in it."""
        self._store = store
        self._clock = clock
        self._owned = owned
        self._post = post
        self._seen_ms = [0] * PROBE_STEPS
        """Per step: when its last round that went well was asked for. Outages leave no stretch unseen."""
        self._urgent: _Waiting = {}
        self._calm: _Waiting = {}

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
        after_id, until_ms = LAST_ID if after_ms >= 0 else NO_ID, asked_ms - PROBE_LATE_MS
        windows = [
            Walk(shard, 0, None, after_ms, after_id, until_ms, PROBE_ROWS, PROBE_TOTAL, ends(), since_ms=after_ms)
            for shard, ends in owned.items()
            if shard % PROBE_STEPS == step
        ]
        rest = self._continued(owned)
        if not windows and not rest:
            return
        try:
            answers = await self._store.load(windows + rest)
        except Unavailable as error:
            log.debug("probe failed", detail=error.detail)
            for page in rest:
                _go_on(self._urgent, page)
            return
        self._seen_ms[step] = asked_ms
        for answer in answers:
            news = bool(answer.tasks) and self._post(answer.page.shard, Probed(answer.tasks, asked_ms))
            self._follow(answer, news=news)

    def _continued(self, owned: Container[int]) -> list[Walk]:
        """The pages whose turn it is; those of shards that went are forgotten."""
        return _taken(self._urgent, URGENT, owned) + _taken(self._calm, CALM, owned)

    def _follow(self, answer: Loaded, *, news: bool) -> None:
        """Queues that have more than this page shows are gone on with, up to where memory claims to hold them."""
        page, rows = answer.page, NEWS_ROWS if news else PROBE_ROWS
        assert isinstance(page, Walk)
        for queue_id, after in answer.full.items():
            until_ms = min(page.until_ms, page.caps.get(queue_id, page.until_ms))
            more = Walk(page.shard, 0, queue_id, *after, until_ms, rows, rows, since_ms=page.since_ms)
            _go_on(self._urgent if news else self._calm, more)


def _taken(waiting: _Waiting, most: int, owned: Container[int]) -> list[Walk]:
    pages: list[Walk] = []
    while waiting and len(pages) < most:
        page = waiting.pop(next(iter(waiting)))
        if page.shard in owned:
            pages.append(page)
    return pages


def _go_on(pages: _Waiting, page: Walk) -> None:
    """One page a queue waits: the one that has looked since an earlier time goes on, to the later end."""
    assert page.queue_id is not None
    waiting = pages.get((page.shard, page.queue_id))
    if waiting is None:
        pages[page.shard, page.queue_id] = page
        return
    until_ms = max(waiting.until_ms, page.until_ms)
    if page.since_ms < waiting.since_ms:
        pages[page.shard, page.queue_id] = waiting = page
    waiting.until_ms = until_ms
