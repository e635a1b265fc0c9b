"""Rows to tasks: what can't be read is left out alone."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

import pytest

from actors.core.codec import EMPTY, SpecCodec
from actors.core.errors import Invalid
from actors.core.queue import Queue, QueueBook
from storage import rows as module
from storage.rows import TASK_WIDTH, Queues, task_of, tasks_of
from storage.unreadable import Unreadable

NEWER = b'{"v":2,"http":{"url":"http://x"}}'
STRANGE = b'{"v":1,"http":{"url":"http://x","colour":"red"}}'


class Table:
    """The table of queues, as the process reads it."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)
        self.book = QueueBook()
        self.queues = Queues(self.book, self.learn)
        self.reads = 0

    async def learn(self, numbers: Collection[int]) -> None:
        self.reads += 1
        for number in set(self.numbers).intersection(numbers):
            self.book.put(Queue(number, "default", f"q{number}"))


def row(number: int, queue: int = 1, spec: bytes = EMPTY, *more: Any) -> tuple[Any, ...]:
    made = (UUID(int=number), 0, queue, 1, 1, 1, spec, 0, None, None, 5, 0, 0, None, None, 0, None, None, 503, "busy")
    assert len(made) == TASK_WIDTH
    return made + more


async def test_rows_that_can_not_be_read_are_left_out_one_by_one() -> None:
    table, unreadable = Table(1), Unreadable()
    some = [row(1), row(2, 1, NEWER), row(3), row(4, 1, STRANGE), row(5, 77), row(6, 1, EMPTY, "more columns")]
    tasks = await tasks_of(some, table.queues, SpecCodec(), unreadable)
    assert [task and int(task.id[-2:]) for task in tasks] == [1, None, 3, None, None, 6]
    assert unreadable.count == 3


async def test_a_task_knows_what_its_row_has_of_the_last_attempt() -> None:
    table = Table(1)
    await table.queues.seek([1])
    assert task_of(row(1), table.queues, SpecCodec()).last == (503, "busy")


async def test_a_queue_that_is_not_there_is_not_looked_for_at_every_read() -> None:
    table = Table(1)
    assert await table.queues.seek([1, 77]) == {77}
    assert await table.queues.seek([77]) == {77}
    assert table.reads == 1
    table.numbers += [2]
    assert await table.queues.seek([77, 2]) == {77}
    assert table.reads == 2
    assert await table.queues.seek([78]) == {78}
    assert await table.queues.seek([77, 78]) == {77, 78}
    assert table.reads == 3


async def test_a_queue_that_comes_back_is_found_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN_S", 0.0)
    table = Table()
    assert await table.queues.seek([7]) == {7}
    table.numbers += [7]
    assert await table.queues.seek([7]) == set()
    assert table.queues.get(7).name == "q7"


def test_who_reads_one_row_is_told_why_it_can_not_be() -> None:
    table = Table()
    with pytest.raises(Invalid, match="queue 7"):
        task_of(row(1, 7), table.queues, SpecCodec())
