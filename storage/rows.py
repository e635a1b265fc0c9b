"""Rows of asyncpg to the core's nouns and back.

Promises: queues are the book's objects, specs are interned; a queue that the book does not know yet is read once. A
row that this program can't read is left out, and its neighbours are not.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any

import msgspec

from actors.core.codec import SpecCodec
from actors.core.errors import Invalid
from actors.core.queue import Queue, QueueBook
from actors.core.task import State, Task
from storage.unreadable import Unreadable

Row = Sequence[Any]

STATES = (State.SCHEDULED, State.RUNNING, State.SUCCEEDED, State.DEAD, State.EXPIRED, State.CANCELLED)
"""By the number that stands for them in `finished.state`."""
NUMBERS = {state: number for number, state in enumerate(STATES)}

TASK_WIDTH = 20
"""Columns of a task, from `id` to `last_error`."""
_ID, _QUEUE = 0, 2
ASK_AGAIN_S = 10.0
"""A queue that the table does not have either is not looked for again for so long: its rows come with every probe."""


class Queues:
    """Queue numbers to queues, over the process's book."""

    def __init__(self, book: QueueBook, learn: Callable[[Collection[int]], Awaitable[None]]) -> None:
        self._book = book
        self._learn = learn
        self._missing: dict[int, float] = {}
        """What the table did not have -> when it may be looked for again."""

    async def seek(self, numbers: Iterable[int]) -> set[int]:
        """Read those of these that the book lacks; answers those that the table does not have either."""
        unknown = self._unknown(numbers)
        now_s = asyncio.get_running_loop().time()
        if any(self._missing.get(number, now_s) <= now_s for number in unknown):
            await self._learn(unknown)
            unknown = self._unknown(unknown)
            kept = {number: again_s for number, again_s in self._missing.items() if again_s > now_s}
            self._missing = kept | dict.fromkeys(unknown, now_s + ASK_AGAIN_S)
        return unknown

    def get(self, number: int) -> Queue:
        """The queue, once `seek` has looked for it. Raises Invalid when there is none."""
        queue = self._book.by_id(number)
        if queue is None:
            raise Invalid(f"queue {number} is not in the table")
        return queue

    def _unknown(self, numbers: Iterable[int]) -> set[int]:
        return {number for number in set(numbers) if self._book.by_id(number) is None}


def compact(labels: str | None) -> str | None:
    """Labels as jsonb shows them, without its blanks."""
    return None if labels is None else msgspec.json.format(labels, indent=-1)


def task_of(row: Row, queues: Queues, codec: SpecCodec) -> Task:
    """A task of the columns `id` to `last_error`; seek its queue before. Raises Invalid when it can't be read."""
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
        trace,
        claim_boot,
        *last,
    ) = row
    return Task(
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
        trace=trace,
        budget=budget,
        rev=rev,
        attempt=attempt,
        lateness_ms=lateness_ms,
        claim_ms=claim_ms,
        claim_boot=claim_boot,
        last=tuple(last),
        step=0 if claim_ms is None else 1,
        epoch=epoch,
    )


async def tasks_of(rows: Sequence[Row], queues: Queues, codec: SpecCodec, unreadable: Unreadable) -> list[Task | None]:
    """Tasks of rows that begin with the columns `id` to `last_error`, in their order; None for what can't be read."""
    await queues.seek(row[_QUEUE] for row in rows)
    tasks: list[Task | None] = []
    for row in rows:
        try:
            tasks.append(task_of(row[:TASK_WIDTH], queues, codec))
        except Invalid as error:
            unreadable.note(str(row[_ID]), error.detail)
            tasks.append(None)
    return tasks


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
    "trace",
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
            task.trace,
        )
        for task in tasks
    ]
