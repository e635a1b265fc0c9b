"""Records that the tables do not take: they spoil nothing but themselves."""

import asyncpg
import pytest

from actors.core.errors import Invalid, Unavailable
from actors.core.events import Op, Record, Verdict
from actors.core.task import State, Task
from storage.ledger import NOT_STORED
from tests.storage.home import Home
from tests.support.builders import finish, make_outcome, make_record, make_task, redrive

HUGE = 2**40
"""Fits no int4 column; asyncpg itself refuses to encode it."""


async def some(home: Home, count: int = 5) -> list[Task]:
    tasks = [make_task(n, await home.queue()) for n in range(count)]
    await home.tasks.accept(tasks)
    return tasks


def succeeded(task: Task, status: int = 200, error: str | None = None) -> Record:
    record = finish(task)
    record.attempt = 1
    record.outcome = make_outcome(task, status=status, error=error, result=b'"done"')
    return record


async def test_a_value_that_can_not_be_encoded_is_left_out_alone(home: Home) -> None:
    tasks = await some(home)
    records = [succeeded(task, HUGE if n in (1, 4) else 200) for n, task in enumerate(tasks)]
    assert await home.write(*records) == set()
    rows = [await home.reader.get("default", task.id) for task in tasks]
    assert [row and (row.state, row.last_status, row.last_error, row.result) for row in rows] == [
        (State.SUCCEEDED, None, NOT_STORED, None) if n in (1, 4) else (State.SUCCEEDED, 200, None, b'"done"')
        for n in range(5)
    ]


async def test_an_attempt_that_failed_keeps_its_retry(home: Home) -> None:
    first, second = await some(home, 2)
    outcome = make_outcome(first, Verdict.FAILED, status=HUGE, error="HTTP 503")
    retry = make_record(Op.MOVE, first, 1, attempt=1, due_ms=first.due_ms + 7, outcome=outcome)
    assert await home.write(retry, succeeded(second)) == set()
    row = await home.reader.get("default", first.id)
    assert row is not None
    assert (row.state, row.attempt, row.due_ms, row.last_error) == (
        State.SCHEDULED,
        1,
        first.due_ms + 7,
        NOT_STORED,
    )
    [attempt] = await home.reader.attempts("default", first.id)
    assert (attempt.verdict, attempt.status, attempt.error) == ("failed", None, NOT_STORED)


async def test_a_check_that_no_partition_mends_is_left_out_alone(home: Home, session: asyncpg.Connection) -> None:
    tasks = await some(home)
    await session.execute("ALTER TABLE finished ADD CONSTRAINT no_poison CHECK (last_error <> 'poison')")
    assert await home.write(*[succeeded(task, error="poison" if task is tasks[3] else None) for task in tasks]) == set()
    row = await home.reader.get("default", tasks[3].id)
    assert row is not None
    assert (row.state, row.last_error) == (State.SUCCEEDED, NOT_STORED)


async def test_refusals_are_told_from_all_parts(home: Home) -> None:
    tasks = await some(home)
    records = [succeeded(task, HUGE if n == 2 else 200) for n, task in enumerate(tasks)]
    records[0].rev = records[2].rev = records[4].rev = 9
    assert await home.write(*records) == {tasks[0].id, tasks[2].id, tasks[4].id}


async def test_what_can_not_be_written_in_any_form_is_said_when_all_else_is_committed(
    home: Home, session: asyncpg.Connection
) -> None:
    tasks = await some(home)
    await session.execute("ALTER TABLE finished ADD CONSTRAINT no_poison CHECK (attempt <> 7)")
    records = [succeeded(task) for task in tasks]
    records[1].attempt = 7
    with pytest.raises(Invalid, match=tasks[1].id):
        await home.write(*records)
    assert [await home.live(task) for task in tasks] == [False, True, False, False, False]


async def test_a_redrive_among_them_is_carried_out(home: Home) -> None:
    back, poison = await some(home, 2)
    assert await home.write(finish(back, state=State.DEAD)) == set()
    assert await home.write(redrive(back, rev=1), succeeded(poison, HUGE)) == set()
    assert await home.live(back)
    assert not await home.live(poison)


async def test_an_outage_among_the_parts_is_unavailable(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = await some(home)
    send, sent = home.ledger._send, 0

    async def ends(boot: str, records: list[Record]) -> set[str]:
        nonlocal sent
        sent += 1
        if sent == 3:
            raise Unavailable("away")
        return await send(boot, records)

    monkeypatch.setattr(home.ledger, "_send", ends)
    records = [succeeded(task, HUGE if n == 4 else 200) for n, task in enumerate(tasks)]
    with pytest.raises(Unavailable):
        await home.write(*records)
    assert await home.write(*records) <= {task.id for task in tasks}
    assert not any([await home.live(task) for task in tasks])
