"""The rows that the memory twin keeps, and their way in and out. What is handed out is always a fresh object."""

from dataclasses import dataclass, replace

from actors.core.queue import DAY_MS, Queue, QueueBook
from actors.core.spec import Spec
from actors.core.task import State, Task
from actors.ports.reader import AttemptRow, TaskRow


@dataclass(slots=True)
class Row:
    """One row of `tasks` or `finished`."""

    id: str
    shard: int
    queue_id: int
    schedule_ms: int
    due_ms: int
    accept_us: int
    spec: Spec
    labels: str | None
    payload: bytes | None
    key_hash: bytes | None
    trace: str | None
    budget: int
    rev: int
    attempt: int
    lateness_ms: int | None
    claim_ms: int | None
    claim_boot: str | None = None
    state: State = State.SCHEDULED
    epoch: int = 0
    day: int = 0
    """The day on which a finished row may go."""
    finish_ms: int | None = None
    result: bytes | None = None
    last_started_ms: int | None = None
    last_duration_ms: int | None = None
    last_status: int | None = None
    last_error: str | None = None


@dataclass(slots=True)
class AttemptEntry:
    """One recorded attempt of a tenant's task, and the day on which it may go."""

    day: int
    tenant: str
    row: AttemptRow


def day_of(at_ms: int) -> int:
    """Days since 1970-01-01."""
    return at_ms // DAY_MS


def row_of(task: Task) -> Row:
    """The row that accepting `task` makes."""
    return Row(
        id=task.id,
        shard=task.shard,
        queue_id=task.queue.id,
        schedule_ms=task.schedule_ms,
        due_ms=task.due_ms,
        accept_us=task.accept_us,
        spec=task.spec,
        labels=task.labels,
        payload=task.payload,
        key_hash=task.key_hash,
        trace=task.trace,
        budget=task.budget,
        rev=task.rev,
        attempt=task.attempt,
        lateness_ms=task.lateness_ms,
        claim_ms=task.claim_ms,
    )


def task_of(row: Row, queue: Queue, *, payload: bool = False) -> Task:
    """A fresh task that mirrors the row."""
    return Task(
        row.id,
        row.shard,
        queue,
        row.schedule_ms,
        row.due_ms,
        row.accept_us,
        row.spec,
        payload=row.payload if payload else None,
        payload_bytes=len(row.payload or b""),
        labels=row.labels,
        key_hash=row.key_hash,
        trace=row.trace,
        budget=row.budget,
        rev=row.rev,
        attempt=row.attempt,
        lateness_ms=row.lateness_ms,
        claim_ms=row.claim_ms,
        claim_boot=row.claim_boot,
        last=(row.last_status, row.last_error),
        step=0 if row.claim_ms is None else 1,
        epoch=row.epoch,
    )


def task_row_of(row: Row, queue: Queue, *, payload: bool) -> TaskRow:
    """What readers see of the row."""
    return TaskRow(
        id=row.id,
        shard=row.shard,
        queue=queue,
        state=row.state,
        schedule_ms=row.schedule_ms,
        due_ms=row.due_ms,
        accept_us=row.accept_us,
        rev=row.rev,
        attempt=row.attempt,
        budget=row.budget,
        epoch=row.epoch,
        spec=row.spec,
        labels=row.labels,
        payload=row.payload if payload else None,
        claim_ms=row.claim_ms,
        lateness_ms=row.lateness_ms,
        finish_ms=row.finish_ms,
        result=row.result,
        last_started_ms=row.last_started_ms,
        last_duration_ms=row.last_duration_ms,
        last_status=row.last_status,
        last_error=row.last_error,
    )


def known_queue(book: QueueBook, queues: dict[int, Queue], queue_id: int) -> Queue:
    """The process's object for a queue; one that it has not met yet is read into its book."""
    return book.by_id(queue_id) or book.put(copy_of(queues[queue_id]))


def copy_of(queue: Queue) -> Queue:
    """A fresh queue with the same settings."""
    return Queue(
        queue.id,
        queue.tenant,
        queue.name,
        paused=queue.paused,
        retry=queue.retry,
        dispatch_deadline_ms=queue.dispatch_deadline_ms,
        retention_ms=queue.retention_ms,
        unknown=queue.unknown,
        version=queue.version,
        deleted=queue.deleted,
    )


def attempt_copy(entry: AttemptEntry) -> AttemptRow:
    """A fresh copy of the recorded attempt."""
    return replace(entry.row)
