"""Rows of asyncpg to the core's nouns and back.

Promises: queues are the book's objects, specs are interned; a queue that the book does not know yet is read once.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec

from actors.core.codec import SpecCodec
from actors.core.errors import Unavailable
from actors.core.queue import Queue, QueueBook
from actors.core.task import State, Task

Row = Sequence[Any]

STATES = (State.SCHEDULED, State.RUNNING, State.SUCCEEDED, State.DEAD, State.EXPIRED, State.CANCELLED)
"""By the number that stands for them in `finished.state`."""
NUMBERS = {state: number for number, state in enumerate(STATES)}

TASK_WIDTH = 16
"""Columns of a task, from `id` to `epoch`."""


class Queues:
    """Queue numbers to queues, over the process's book."""

    def __init__(self, book: QueueBook, refresh: Callable[[], Awaitable[None]]) -> None:
        self._book = book
        self._refresh = refresh

    async def learn(self, numbers: Iterable[int]) -> None:
        """See that the book knows all of these. Raises Unavailable when the tables do not know one either."""
        unknown = [number for number in set(numbers) if self._book.by_id(number) is None]
        if not unknown:
            return
        await self._refresh()
        missing = [number for number in unknown if self._book.by_id(number) is None]
        if missing:
            raise Unavailable(f"queues {sorted(missing)} are not in the table")

    def get(self, number: int) -> Queue:
        """The queue; `learn` has seen to it."""
        queue = self._book.by_id(number)
        assert queue is not None
        return queue


def compact(labels: str | None) -> str | None:
    """Labels as jsonb shows them, without its blanks."""
    return None if labels is None else msgspec.json.format(labels, indent=-1)


def task_of(row: Row, queues: Queues, codec: SpecCodec) -> Task:
    """A task of the columns `id` to `epoch`; learn its queue before."""
    (
        task_id,
        shard,
        queue_id,
        schedule_ms,
        due_ms,
        accept_us,
        spec,
        payload_bytes,
        labels,
        key_hash,
        budget,
        rev,
        attempt,
        lateness_ms,
        claim_ms,
        epoch,
    ) = row
    task = Task(
        str(task_id),
        shard,
        queues.get(queue_id),
        schedule_ms,
        due_ms,
        accept_us,
        codec.decode(spec),
        payload_bytes=payload_bytes,
        labels=compact(labels),
        key_hash=key_hash,
        budget=budget,
        rev=rev,
        attempt=attempt,
        lateness_ms=lateness_ms,
        claim_ms=claim_ms,
    )
    task.epoch = epoch
    return task


COLUMNS = (
    "schedule_ms",
    "due_ms",
    "accept_us",
    "queue_id",
    "budget",
    "shard",
    "id",
    "tenant",
    "spec",
    "labels",
    "key_hash",
    "payload",
)
"""What accepting writes; the rest of a new row are defaults."""


def rows_of(tasks: Sequence[Task], codec: SpecCodec) -> list[tuple[Any, ...]]:
    """Rows to insert, in the order of COLUMNS. A spec that many tasks share is encoded once."""
    specs = {id(task.spec): task.spec for task in tasks}
    stored = {key: codec.encode(spec) for key, spec in specs.items()}
    return [
        (
            task.schedule_ms,
            task.due_ms,
            task.accept_us,
            task.queue.id,
            task.budget,
            task.shard,
            task.id,
            task.queue.tenant,
            stored[id(task.spec)],
            task.labels,
            task.key_hash,
            task.payload,
        )
        for task in tasks
    ]
