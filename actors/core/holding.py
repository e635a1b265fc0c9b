"""What a shard holds in memory: its near future, bounded.

The tables are the truth; a holding is a cache of their next part. For each shard it remembers `loaded_until_ms` and,
for each queue whose backlog did not fit, a key-set position `after`:

    every live row with due <= loaded_until and, in a queue that overflowed, key (due, id) <= after, is in memory
    (rows beyond may be, too; an id is held once)

So one move, "page forward from a position", serves as the wheel's horizon and as the refill of a backlog. Memory is
bounded by twice `limit` tasks a queue and shard; when that is full, half of it, the tasks due last, is let go: they are
rows, and a later page brings them. A page never asks for more than fits, so what it brings is not let go again.

Promises: what a read shows is not armed when memory knew a later revision of it moments ago (two generations of 5 s;
reads older than 5 s are refused). Refuses: answers to pages that are not under way. It never loses a task, because it
owns none.
"""

from bisect import bisect_right
from collections.abc import Iterable

from actors.core.events import LAST_ID, NO_ID, Loaded, Page
from actors.core.share import Key, Share
from actors.core.task import Phase, Task
from actors.core.timers import Timers

# On 3.11 a member of an enum costs ten times a global.
_WAITING, _OFFERED, _, _WRITING, _GONE = Phase
GENERATION_MS = 5_000
"""What memory let go is remembered for one to two of these; a read may be at most one old."""
LEAD_MS = 1_000
"""A position in the near future is paged forward this long before it is due."""
KEEP_MS = 5_000
KEEP_BYTES = 4_096
"""A payload stays in memory when its task is due within KEEP_MS and it is not larger than this."""
NEVER_MS = 1 << 62


class Holding:
    """The tasks of one shard that are in memory, their timers and their key-set positions."""

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
        "next_page_ms",
        "shard",
        "shares",
        "spilled",
        "timers",
        "total",
    )

    def __init__(self, shard: int, epoch: int, now_ms: int, *, limit: int, total: int, horizon_ms: int) -> None:
        self.shard = shard
        self.epoch = epoch
        self.limit = limit
        """Tasks of a queue that a page brings; twice as many may be held. May be changed at any time: a queue that
        holds more keeps it until it drains."""
        self.total = total
        """Tasks that a stretch of the horizon brings, of all queues together."""
        self.horizon_ms = horizon_ms
        self.known: dict[str, Task] = {}
        self.shares: dict[int, Share] = {}
        self.spilled: dict[int, Share] = {}
        """The shares whose `after` is set."""
        self.timers: Timers[Task] = Timers(now_ms)
        self.loaded_until_ms = -1
        self.next_page_ms = now_ms
        """When the next stretch of the horizon has to be asked for."""
        self._loading: Page | None = None
        self._recent: dict[str, int] = {}
        """Id -> lowest revision that is not old, of tasks that memory let go."""
        self._old: dict[str, int] = {}
        self._generation_ms = now_ms

    # --- coming in

    def admit(self, tasks: Iterable[Task], now_ms: int) -> list[Task]:
        """Hold these live tasks; answers those that are due already. What does not fit is let go (phase GONE)."""
        due: list[Task] = []
        later: list[Task] = []
        known, shares, until_ms, most = self.known, self.shares, self.loaded_until_ms, 2 * self.limit
        recent, old = self._recent, self._old
        for task in tasks:
            task_id = task.id
            # The rest is `knows`, without its calls.
            beyond = task.due_ms > until_ms
            if beyond or task_id in known or task.rev < recent.get(task_id, 0) or task.rev < old.get(task_id, 0):
                if known.get(task_id) is not task:
                    task.phase = _GONE
                continue
            share = shares.get(task.queue.id) or self._share(task.queue.id)
            if (share.after is not None or share.held >= most) and not self._make_room(share, task, now_ms):
                task.phase = _GONE
                continue
            task.phase = _WAITING
            known[task_id] = task
            share.held += 1
            if task.due_ms <= now_ms:
                due.append(task)
            else:
                self._sleep(task, task.due_ms, now_ms)
                later.append(task)
        if later:
            # One that came in first may have been let go for another that came in after it.
            self.timers.insert_many([task for task in later if task.phase is _WAITING])
        return due

    def overlook(self, tasks: Iterable[Task]) -> None:
        """News of these live tasks is too old to be acted on: a page brings them, unless they are over by now."""
        for task in tasks:
            if task.due_ms <= self.loaded_until_ms and not self.knows(task):
                share = self._share(task.queue.id)
                self._spill(task.queue.id, share, _before(task))

    def knows(self, task: Task) -> bool:
        """Whether memory has this task, or had a later revision of it moments ago: a read may be older than that."""
        return task.id in self.known or self.outgrew(task)

    def expects(self, task: Task) -> bool:
        """Whether memory knows this row, or a page brings it in its turn.

        That is so of a row in the stretch that is being read, or beyond its queue's position.
        """
        if self.knows(task):
            return True
        if self._loading is not None and task.due_ms > self._loading.after_due_ms:
            return True
        share = self.spilled.get(task.queue.id)
        return share is not None and share.after is not None and _key(task) > share.after

    def outgrew(self, task: Task) -> bool:
        """Whether memory let a later revision of this task go, moments ago."""
        return task.rev < self._recent.get(task.id, 0) or task.rev < self._old.get(task.id, 0)

    def last_rev(self, task_id: str) -> int:
        """The revision in which memory let this task go, moments ago; 0: it did not."""
        return max(self._recent.get(task_id, 0), self._old.get(task_id, 0))

    def _share(self, queue_id: int) -> Share:
        share = self.shares.get(queue_id)
        if share is None:
            share = self.shares[queue_id] = Share()
        return share

    def _make_room(self, share: Share, task: Task, now_ms: int) -> bool:
        """Whether a share that is full, or has backlog in the tables, can hold one more task, this one."""
        key, after = _key(task), share.after
        if share.held >= 2 * self.limit and (after is None or key <= after):
            after = self._overflow(task.queue.id, share, now_ms)
        beyond = after is not None and key > after
        if not beyond and share.held < 2 * self.limit:
            return True
        if not beyond or share.page is not None:
            share.lower(_before(task))
        return False

    def _overflow(self, queue_id: int, share: Share, now_ms: int) -> Key:
        """Keep the first `limit` tasks and what is due, let the rest go, and put the position between them."""
        held = [task for task in self.known.values() if task.queue.id == queue_id and task.phase <= _OFFERED]
        held.sort(key=_key)
        kept = max(self.limit, bisect_right(held, now_ms, key=_due_ms))
        self._spill(queue_id, share, _key(held[kept - 1]))
        for task in held[kept:]:
            del self.known[task.id]
            self.withdraw(task, _GONE)
        assert share.after is not None
        return share.after

    def _spill(self, queue_id: int, share: Share, key: Key) -> None:
        share.lower(key)
        self.spilled[queue_id] = share

    # --- changing place

    def offer(self, tasks: list[Task]) -> None:
        """These waiting tasks go to the desk."""
        for task in tasks:
            task.phase = _OFFERED
            self.shares[task.queue.id].offered += 1

    def withdraw(self, task: Task, phase: Phase) -> None:
        """The task starts, or a record of it is written, or it goes: it waits no longer."""
        if task.phase <= _OFFERED:
            share = self.shares[task.queue.id]
            share.held -= 1
            if task.phase is _OFFERED:
                share.offered -= 1
        if task.slot is not None:
            self.timers.cancel(task)
        task.phase = phase

    def give_back(self, task: Task, wake_ms: int, now_ms: int) -> None:
        """A started task waits again until `wake_ms`, its attempt unused. It need not fit: it is bounded by what runs.

        One that is due at once is the caller's to offer.
        """
        task.phase = _WAITING
        self._share(task.queue.id).held += 1
        if wake_ms > now_ms:
            self._sleep(task, wake_ms, now_ms)
            self.timers.insert(task)

    @staticmethod
    def _sleep(task: Task, wake_ms: int, now_ms: int) -> None:
        """The task is about to go into the wheel. Payloads that are large or not wanted soon are read again later."""
        task.wake_ms = wake_ms
        if task.payload_bytes and (wake_ms - now_ms > KEEP_MS or task.payload_bytes > KEEP_BYTES):
            task.payload = None

    def adopt(self, task: Task) -> None:
        """Hold a task that is being written (it need not fit: it leaves, or is admitted, when that is done)."""
        task.phase = _WRITING
        self.known[task.id] = task

    def let_go(self, task: Task, rev: int) -> None:
        """Forget a task, but not that its row has come to `rev`, live or finished."""
        if task.phase is not _WRITING:
            self.withdraw(task, _GONE)
        task.phase = _GONE
        del self.known[task.id]
        self._recent[task.id] = rev

    def release(self) -> None:
        """Let everything go that waits, and take nothing in any more: somebody else holds it from now on."""
        for task in [task for task in self.known.values() if task.phase <= _OFFERED]:
            del self.known[task.id]
            self.withdraw(task, _GONE)
        self.loaded_until_ms, self.next_page_ms = -1, NEVER_MS
        self._loading = None
        self.shares, self.spilled = {}, {}

    def turn_generation(self, now_ms: int) -> None:
        """Every GENERATION_MS, forget the older generation of what was let go, and queues that have nothing here."""
        if now_ms - self._generation_ms >= GENERATION_MS:
            self._old, self._recent = self._recent, {}
            self._generation_ms = now_ms
            self.shares = {queue_id: share for queue_id, share in self.shares.items() if share.held or share.after}

    # --- pages

    @property
    def sure_ms(self) -> int:
        """Up to when (due_ms) memory holds what no queue's position leaves out: a stretch under way is not here yet."""
        return self.loaded_until_ms if self._loading is None else self._loading.after_due_ms

    def ends(self) -> dict[int, int]:
        """How far (due_ms) memory claims to hold the queues whose backlog rests in the tables."""
        return {queue_id: share.after[0] for queue_id, share in self.spilled.items() if share.after is not None}

    def pages(self, now_ms: int) -> list[Page]:
        """The pages to ask for now: the next stretch of the horizon, and backlogs that have room again."""
        asked: list[Page] = []
        if self.next_page_ms <= now_ms:
            asked.append(self._next_stretch(now_ms))
        for queue_id, share in self.spilled.items():
            if share.page is None and (room := self._room(queue_id, share, now_ms)) > 0:
                asked.append(self._refill(queue_id, share, room, now_ms))
        return asked

    def next_refill_ms(self, now_ms: int) -> int | None:
        """When the nearest position in the future has to be paged forward (one in the past waits for room).

        One that found no room ahead of its time gets it when it is due: what is due goes first.
        """
        next_ms: int | None = None
        for share in self.spilled.values():
            if share.after is None or share.page is not None or share.after[0] <= now_ms:
                continue
            start_ms = share.after[0] - LEAD_MS
            if start_ms <= now_ms:
                start_ms = share.after[0]
            if next_ms is None or start_ms < next_ms:
                next_ms = start_ms
        return next_ms

    def loaded(self, answer: Loaded, now_ms: int) -> list[Task]:
        """Take a page's rows in; answers those that are due. A page that is too old to be trusted is asked again."""
        page = answer.page
        if now_ms - page.asked_ms > GENERATION_MS:
            self.failed(page)
            return []
        if page == self._loading:
            self._loading = None
            self.next_page_ms = self.loaded_until_ms - self.horizon_ms // 2
            self._spill_full(answer)
        elif (share := self._share_of(page)) is not None:
            self._advance(page, share, answer)
        else:
            return []
        return self.admit(answer.tasks, now_ms)

    def failed(self, page: Page) -> None:
        """The page brought nothing: the same position is asked again."""
        if page == self._loading:
            self._loading = None
            self.loaded_until_ms = self.next_page_ms = page.after_due_ms
        elif (share := self._share_of(page)) is not None:
            share.page = None

    def _share_of(self, page: Page) -> Share | None:
        """The share that has this page under way."""
        share = None if page.queue_id is None else self.spilled.get(page.queue_id)
        return share if share is not None and share.page == page else None

    def _next_stretch(self, now_ms: int) -> Page:
        start_ms = self.loaded_until_ms
        # Raised before the load is sent: what is accepted from now on below it is armed by its own hint.
        self.loaded_until_ms = now_ms + self.horizon_ms
        self.next_page_ms = NEVER_MS
        last = LAST_ID if start_ms >= 0 else NO_ID
        until_ms = self.loaded_until_ms
        self._loading = Page(self.shard, self.epoch, None, start_ms, last, until_ms, self.limit, self.total)
        self._loading.asked_ms = now_ms
        return self._loading

    def _room(self, queue_id: int, share: Share, now_ms: int) -> int:
        """How many rows a refill may bring now."""
        assert share.after is not None
        half = self.limit // 2
        if share.after[0] > now_ms:
            near = share.after[0] <= now_ms + LEAD_MS
            return self.limit - share.held if near or share.held <= half else 0
        if share.offered > half:
            return 0
        if share.held >= 2 * self.limit:
            # What is due goes first: tasks that wait for a later time make room for it.
            self._overflow(queue_id, share, now_ms)
        return min(self.limit - share.offered, 2 * self.limit - share.held)

    def _refill(self, queue_id: int, share: Share, room: int, now_ms: int) -> Page:
        assert share.after is not None
        due_ms, last = share.after
        share.page = Page(self.shard, self.epoch, queue_id, due_ms, last, self.loaded_until_ms, room, room)
        share.page.asked_ms = now_ms
        share.ceiling = None
        return share.page

    def _spill_full(self, answer: Loaded) -> None:
        """The queues that have more than the page shows go on from their last row."""
        for queue_id, last in answer.full.items():
            self._spill(queue_id, self._share(queue_id), last)

    def _advance(self, page: Page, share: Share, answer: Loaded) -> None:
        """A refill moves its queue's position to its last row, or to the end of what it asked for."""
        assert page.queue_id is not None
        if (last := answer.full.get(page.queue_id)) is not None:
            share.advance(last)
        else:
            share.advance((page.until_ms, LAST_ID) if page.until_ms < self.loaded_until_ms else None)
        if share.after is None:
            del self.spilled[page.queue_id]


def _key(task: Task) -> Key:
    return task.due_ms, task.id


def _due_ms(task: Task) -> int:
    return task.due_ms


def _before(task: Task) -> Key:
    """A position that has this task, and its equals, beyond it."""
    return task.due_ms - 1, LAST_ID
