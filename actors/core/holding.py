"""What a shard holds in memory: its near future, bounded.

The tables are the truth; a holding is a cache of their next part. For each shard it remembers `loaded_until_ms` and,
for each queue whose backlog did not fit, a key-set position `after`:

    every live row with due <= loaded_until and, in a queue that overflowed, key (due, id) <= after, is in memory
    (rows beyond may be, too; an id is held once)

So one move, "page forward from a position", serves as the wheel's horizon and as the refill of a backlog. Memory is
bounded by `limit` tasks a queue and shard (up to three times that for a moment); a task that does not fit is dropped:
it is a row, and a later page brings it.

Promises: an id that finished is not armed again by a read that was older than that (two generations of 5 s; reads older
than 5 s are refused). Refuses: nothing; it never loses a task, because it owns none.
"""

from collections.abc import Iterable

from actors.core.events import LAST_ID, NO_ID, Loaded, Page
from actors.core.task import Phase, Task
from actors.core.wheel import Wheel

GENERATION_MS = 5_000
"""Finished ids are remembered for one to two of these; a read may be at most one old."""
LEAD_MS = 1_000
"""A position in the near future is paged forward this long before it is due."""
KEEP_MS = 2_000
KEEP_BYTES = 16_384
"""A payload stays in memory when its task is due within KEEP_MS and it is not larger than this."""


class Share:
    """One queue's part of a shard's memory."""

    __slots__ = ("after", "held", "loading", "missed_ms", "offered")

    def __init__(self) -> None:
        self.held = 0
        """Tasks waiting or offered."""
        self.offered = 0
        self.after: tuple[int, str] | None = None
        """Backlog beyond this key (due, id) rests in the tables; None: all of it is here."""
        self.loading = False
        self.missed_ms: int | None = None
        """Smallest due time among tasks dropped while a page is under way (the page may not show them)."""


class Holding:
    """The tasks of one shard that are in memory, their wheel and their key-set positions."""

    __slots__ = (
        "_generation_ms",
        "_loading",
        "_old",
        "_recent",
        "epoch",
        "horizon_ms",
        "known",
        "limit",
        "loaded_until_ms",
        "shard",
        "shares",
        "spilled",
        "wheel",
    )

    def __init__(self, shard: int, epoch: int, now_ms: int, *, limit: int, horizon_ms: int) -> None:
        self.shard = shard
        self.epoch = epoch
        self.limit = limit
        self.horizon_ms = horizon_ms
        self.known: dict[str, Task] = {}
        self.shares: dict[int, Share] = {}
        self.spilled: dict[int, Share] = {}
        """The shares whose `after` is set."""
        self.wheel: Wheel[Task] = Wheel(now_ms)
        self.loaded_until_ms = -1
        self._loading: Page | None = None
        self._recent: set[str] = set()
        self._old: set[str] = set()
        self._generation_ms = now_ms

    # --- coming in

    def admit(self, tasks: Iterable[Task], now_ms: int) -> list[Task]:
        """Hold these live tasks; answers those that are due already. What does not fit is dropped (phase GONE)."""
        due: list[Task] = []
        later: list[Task] = []
        for task in tasks:
            if not self._fits(task):
                task.phase = Phase.GONE
            elif task.due_ms <= now_ms:
                self._hold(task)
                due.append(task)
            else:
                self._hold(task)
                task.wake_ms = task.due_ms
                if task.payload_bytes and (task.due_ms - now_ms > KEEP_MS or task.payload_bytes > KEEP_BYTES):
                    task.payload = None
                later.append(task)
        if later:
            self.wheel.insert_many(later)
        return due

    def knows(self, task_id: str) -> bool:
        """Whether this id is in memory or finished moments ago: a read may be older than that."""
        return task_id in self.known or task_id in self._recent or task_id in self._old

    def share_of(self, task: Task) -> Share:
        """The part of the memory that the task's queue has."""
        share = self.shares.get(task.queue.id)
        if share is None:
            share = self.shares[task.queue.id] = Share()
        return share

    def _fits(self, task: Task) -> bool:
        if task.due_ms > self.loaded_until_ms or self.knows(task.id):
            return False
        share = self.share_of(task)
        beyond = share.after is not None and (task.due_ms, task.id) > share.after
        if not beyond and share.held < (self.limit if share.after is None else 2 * self.limit):
            return True
        if not beyond:
            share.after = (task.due_ms - 1, LAST_ID)
            self.spilled[task.queue.id] = share
        if share.loading and (share.missed_ms is None or task.due_ms < share.missed_ms):
            share.missed_ms = task.due_ms
        return False

    def _hold(self, task: Task) -> None:
        task.phase = Phase.WAITING
        self.known[task.id] = task
        self.shares[task.queue.id].held += 1

    # --- changing place

    def offer(self, tasks: list[Task]) -> None:
        """These waiting tasks go to the desk."""
        for task in tasks:
            task.phase = Phase.OFFERED
            self.shares[task.queue.id].offered += 1

    def withdraw(self, task: Task, phase: Phase) -> None:
        """A waiting or offered task starts, or a record of it is written: it no longer counts as backlog."""
        if task.phase <= Phase.OFFERED:
            share = self.shares[task.queue.id]
            share.held -= 1
            if task.phase is Phase.OFFERED:
                share.offered -= 1
        if task.slot is not None:
            self.wheel.cancel(task)
        task.phase = phase

    def give_back(self, task: Task) -> None:
        """A started task returns as waiting, its attempt unused."""
        self._hold(task)

    def adopt(self, task: Task) -> None:
        """Hold a task that is being written (it need not fit: it leaves, or is admitted, when that is done)."""
        self.known[task.id] = task

    def drop(self, task: Task) -> None:
        """Forget a task without a trace: its row may bring it back."""
        if self.known.get(task.id) is task:
            del self.known[task.id]
            self.share_of(task)
            self.withdraw(task, Phase.GONE)

    def finish(self, task: Task) -> None:
        """Forget a task that is over, but remember its id so that an older read can't bring it back."""
        self.drop(task)
        task.phase = Phase.GONE
        self._recent.add(task.id)

    def revive(self, task: Task) -> None:
        """A finished id is live again (redrive)."""
        self._recent.discard(task.id)
        self._old.discard(task.id)

    def turn_generation(self, now_ms: int) -> None:
        """Let the older generation of finished ids go, every GENERATION_MS."""
        if now_ms - self._generation_ms >= GENERATION_MS:
            self._old, self._recent = self._recent, set()
            self._generation_ms = now_ms

    # --- pages

    def pages(self, now_ms: int) -> list[Page]:
        """The pages to ask for now: the next stretch of the horizon, and backlogs that have room again."""
        asked: list[Page] = []
        if self._loading is None and self.loaded_until_ms - now_ms <= self.horizon_ms // 2:
            asked.append(self._next_stretch(now_ms))
        for queue_id, share in self.spilled.items():
            if not share.loading and self._wants_refill(share, now_ms):
                asked.append(self._refill(queue_id, share, now_ms))
        return asked

    def next_page_ms(self) -> int:
        """When `pages` has something to say by the passing of time alone."""
        return self.loaded_until_ms - self.horizon_ms // 2 if self._loading is None else self.loaded_until_ms

    def next_refill_ms(self, now_ms: int) -> int | None:
        """When the nearest position in the future has to be paged forward (one in the past waits for room)."""
        starts = (s.after[0] - LEAD_MS for s in self.spilled.values() if s.after is not None and not s.loading)
        return min((ms for ms in starts if ms > now_ms), default=None)

    def loaded(self, answer: Loaded, now_ms: int) -> list[Task]:
        """Take a page's rows in; answers those that are due. A page that is too old to be trusted is asked again."""
        page = answer.page
        if now_ms - page.asked_ms > GENERATION_MS or page.epoch != self.epoch:
            self.failed(page)
            return []
        if page.queue_id is None:
            self._loading = None
            self._spill(answer)
        elif (share := self.shares.get(page.queue_id)) is not None:
            self._advance(page, share, answer)
        return self.admit(answer.tasks, now_ms)

    def failed(self, page: Page) -> None:
        """The page brought nothing: the same position is asked again."""
        if page.queue_id is None:
            self.loaded_until_ms = page.after_due_ms
            self._loading = None
        elif (share := self.shares.get(page.queue_id)) is not None:
            share.loading = False

    def _next_stretch(self, now_ms: int) -> Page:
        start_ms = self.loaded_until_ms
        # Raised before the load is sent: what is accepted from now on below it is armed by its own hint.
        self.loaded_until_ms = now_ms + self.horizon_ms
        last = LAST_ID if start_ms >= 0 else NO_ID
        self._loading = Page(self.shard, self.epoch, None, start_ms, last, self.loaded_until_ms, self.limit, now_ms)
        return self._loading

    def _wants_refill(self, share: Share, now_ms: int) -> bool:
        half = self.limit // 2
        if share.held <= half:
            return True
        near = share.after is not None and share.after[0] <= now_ms + LEAD_MS
        return near and share.offered <= half and share.held < 2 * self.limit

    def _refill(self, queue_id: int, share: Share, now_ms: int) -> Page:
        assert share.after is not None
        share.loading = True
        share.missed_ms = None
        due_ms, last = share.after
        room = max(self.limit - share.offered, self.limit // 2)
        return Page(self.shard, self.epoch, queue_id, due_ms, last, self.loaded_until_ms, room, now_ms)

    def _spill(self, answer: Loaded) -> None:
        """The queues that hit the page's limit go on from their last row."""
        last: dict[int, tuple[int, str]] = {}
        for task in answer.tasks:
            if task.queue.id in answer.full:
                last[task.queue.id] = max(last.get(task.queue.id, (-1, "")), (task.due_ms, task.id))
        for queue_id, key in last.items():
            share = self.shares.setdefault(queue_id, Share())
            if share.after is None or key < share.after:
                share.after = key
                self.spilled[queue_id] = share

    def _advance(self, page: Page, share: Share, answer: Loaded) -> None:
        """A refill moves its queue's position to its last row, or to the end of what it asked for."""
        share.loading = False
        if page.queue_id in answer.full and answer.tasks:
            share.after = (answer.tasks[-1].due_ms, answer.tasks[-1].id)
        elif share.missed_ms is not None:
            share.after = (min(share.missed_ms - 1, page.until_ms), LAST_ID)
        elif page.until_ms < self.loaded_until_ms:
            share.after = (page.until_ms, LAST_ID)
        else:
            share.after = None
            del self.spilled[answer.page.queue_id]  # type: ignore[arg-type]
