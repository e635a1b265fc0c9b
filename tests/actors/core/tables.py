"""The tables as plain dictionaries: what the ledger, the loader and the probe would do, at one instant."""

from collections import Counter
from collections.abc import Iterable, Sequence

from actors.core.events import Found, Loaded, Op, Page, Record
from actors.core.task import State, Task
from tests.actors.core.stage import row

PROBE_LATE_MS = 3_000


class Tables:
    """One shard's rows. `owner` is the epoch under which alone it may be written, `boot` who writes."""

    def __init__(self, owner: int) -> None:
        self.owner = owner
        self.boot = "boot-1"
        self.live: dict[str, Task] = {}
        self.finished: dict[str, tuple[Task, State]] = {}

    def accept(self, task: Task) -> None:
        self.live[task.id] = row(task)

    def write(self, records: Sequence[Record]) -> set[str]:
        """Answers the ids of the refused ones."""
        assert len({record.task.id for record in records}) == len(records), "an id at most once in a statement"
        return {record.task.id for record in records if not self._apply(record)}

    def page(self, page: Page) -> Loaded:
        after = (page.after_due_ms, page.after_id)
        rows = (
            task
            for task in self.live.values()
            if page.queue_id in (None, task.queue.id)
            and (task.due_ms, task.id) > after
            and task.due_ms <= page.until_ms
        )
        tasks, full = _first(rows, page.limit, page.total)
        return Loaded(page, tasks, full)

    def probe(self, now_ms: int, ends: dict[int, int]) -> list[Task]:
        overdue_ms = now_ms - PROBE_LATE_MS
        return [
            _read(task)
            for task in self.live.values()
            if task.due_ms <= min(overdue_ms, ends.get(task.queue.id, overdue_ms))
        ]

    def find(self, task_id: str) -> Found:
        if task_id in self.live:
            found = self.live[task_id]
            return Found(task_id, _read(found), None, found.epoch)
        if task_id in self.finished:
            over, state = self.finished[task_id]
            return Found(task_id, _read(over), state, over.epoch)
        return Found(task_id, None, None)

    def _apply(self, record: Record) -> bool:
        task_id = record.task.id
        if record.op is Op.REDRIVE:
            before = self.finished[task_id][0] if task_id in self.finished else None
        else:
            before = self.live.get(task_id)
        if before is None or before.rev != record.rev or record.epoch != self.owner:
            return False
        self.live.pop(task_id, None)
        self.finished.pop(task_id, None)
        after = row(before, rev=record.rev + 1, due_ms=record.due_ms)
        after.schedule_ms, after.attempt, after.budget = record.schedule_ms, record.attempt, record.budget
        after.lateness_ms, after.claim_ms, after.epoch = record.lateness_ms, record.claim_ms, record.epoch
        after.claim_boot = None if record.claim_ms is None else self.boot
        if before.claim_ms is not None:
            after.epoch = before.epoch
        if record.op is Op.FINISH:
            self.finished[task_id] = after, record.state
        else:
            self.live[task_id] = after
        return True


def _read(task: Task) -> Task:
    return row(task, epoch=task.epoch)


def _first(rows: Iterable[Task], limit: int, total: int) -> tuple[list[Task], dict[int, tuple[int, str]]]:
    """The first `total` of each queue's first `limit` rows in (due, id) order, and the queues that may have more.

    The first row of a queue is never left out.
    """
    counts: Counter[int] = Counter()
    kept: list[Task] = []
    cut: set[int] = set()
    for task in sorted(rows, key=lambda task: (task.due_ms, task.id)):
        if counts[task.queue.id] >= limit:
            continue
        counts[task.queue.id] += 1
        if counts.total() <= total or counts[task.queue.id] == 1:
            kept.append(_read(task))
        else:
            cut.add(task.queue.id)
    full = cut | {queue_id for queue_id, count in counts.items() if count >= limit}
    return kept, {task.queue.id: (task.due_ms, task.id) for task in kept if task.queue.id in full}
