"""Memory twin of the TaskStore port."""

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from actors.core.errors import Invalid
from actors.core.events import Found, Loaded, Page
from actors.core.queue import QueueBook
from actors.core.task import State, Task
from actors.ports.tasks import Accepted
from storage.memory.link import MemoryLink
from storage.memory.rows import Row, known_queue, row_of, task_of

_labels = msgspec.json.Decoder(dict[str, str])


class MemoryTaskStore:
    """Accepting and loading over the twin's tables."""

    def __init__(self, link: MemoryLink, book: QueueBook) -> None:
        self._link = link
        self._db = link.database
        self._book = book

    async def accept(self, tasks: Sequence[Task]) -> dict[int, Exception]:
        """See the port."""
        return await self._link.call("accept", lambda: self._accept(tasks))

    async def accept_keyed(self, tasks: Sequence[Task]) -> list[Accepted | Exception]:
        """See the port."""
        return await self._link.call("accept_keyed", lambda: [self._accept_key(task) for task in tasks])

    async def load(self, pages: Sequence[Page]) -> list[Loaded]:
        """See the port."""
        return await self._link.call("load", lambda: [self._page(page) for page in pages])

    async def payloads(self, tasks: Sequence[Task]) -> None:
        """See the port."""
        found = await self._link.call("payloads", lambda: [self._payload(task) for task in tasks])
        for task, payload in zip(tasks, found, strict=True):
            if payload is not None:
                task.payload = payload

    async def find(self, tenant: str | None, ids: Sequence[str]) -> list[Found]:
        """See the port."""
        return await self._link.call("find", lambda: [self._found(tenant, task_id) for task_id in ids])

    # --- each of these happens at one instant --------------------------------------------------------------------

    def _accept(self, tasks: Sequence[Task]) -> dict[int, Exception]:
        errors: dict[int, Exception] = {}
        for index, task in enumerate(tasks):
            error = _fault_of(task)
            if error is None and self._db.live.get(task.id) is not None:
                error = Invalid(f"there is a task {task.id} already")
            if error is None:
                self._db.live.put(row_of(task))
            else:
                errors[index] = error
        return errors

    def _accept_key(self, task: Task) -> Accepted | Exception:
        error = _fault_of(task)
        if error is not None:
            return error
        known = self._db.row(task.id)
        if known is None:
            self._db.live.put(row_of(task))
            return Accepted(new=True, same_request=True, state=State.SCHEDULED)
        return Accepted(new=False, same_request=known.key_hash == task.key_hash, state=known.state)

    def _page(self, page: Page) -> Loaded:
        after = (page.after_due_ms, page.after_id)
        rows = (
            row
            for row in self._db.live.of(page.shard)
            if page.queue_id in (None, row.queue_id)
            and (row.due_ms, row.id) > after
            and row.due_ms <= min(page.until_ms, page.caps.get(row.queue_id, page.until_ms))
        )
        kept, full = _first_of_each_queue(rows, page.limit, page.total)
        return Loaded(page, [self._task(row) for row in kept], full)

    def _payload(self, task: Task) -> bytes | None:
        row = self._db.live.get(task.id)
        return row.payload if row is not None else None

    def _found(self, tenant: str | None, task_id: str) -> Found:
        row = self._db.row(task_id)
        if row is None or tenant not in (None, self._db.queues[row.queue_id].tenant):
            return Found(task_id, None, None)
        terminal = row.state is not State.SCHEDULED
        task = self._task(row, payload=terminal)
        return Found(task_id, task, row.state if terminal else None, row.epoch)

    def _task(self, row: Row, *, payload: bool = False) -> Task:
        return task_of(row, known_queue(self._book, self._db.queues, row.queue_id), payload=payload)


def _first_of_each_queue(rows: Iterable[Row], limit: int, total: int) -> tuple[list[Row], dict[int, tuple[int, str]]]:
    """The first `total` of the first `limit` rows of each queue in (due, id) order, and those with more.

    The first row of a queue counts, but is never left out.
    """
    taken: Counter[int] = Counter()
    kept: list[Row] = []
    cut: set[int] = set()
    place = 0
    for row in sorted(rows, key=lambda row: (row.due_ms, row.id)):
        if taken[row.queue_id] == limit:
            continue
        taken[row.queue_id] += 1
        place += 1
        if place <= total or taken[row.queue_id] == 1:
            kept.append(row)
        else:
            cut.add(row.queue_id)
    full = cut | {queue_id for queue_id, count in taken.items() if count == limit}
    return kept, {row.queue_id: (row.due_ms, row.id) for row in kept if row.queue_id in full}


def _fault_of(task: Task) -> Exception | None:
    """Why a database would refuse this row by itself."""
    if not max(task.schedule_ms, task.due_ms, task.accept_us) < 1 << 63:
        return Invalid("a time is out of range")
    if task.labels is None:
        return None
    try:
        labels = _labels.decode(task.labels)
    except (msgspec.DecodeError, UnicodeError) as error:
        return Invalid(f"labels can't be stored: {error}", "/labels")
    if any("\0" in key + value for key, value in labels.items()):
        return Invalid("labels can't be stored: they hold a NUL", "/labels")
    return None
