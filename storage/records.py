"""Records to the arguments of the ledger's statements: one array a column (sql/ledger.sql).

Arrays of numbers and ids go as text, which the server takes apart: asyncpg looks at each element of an array twice,
which costs a node more than all else in its statement. A column of nothing but NULL goes as no elements at all: where
arrays are unnested together, the server fills up the shorter ones.

Promises: text that Postgres can't hold (NUL, lone surrogates in an error) is mended on the way, so that no record can
stand in the way of its neighbours for ever.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from actors.core.events import Op, Outcome, Record, Verdict
from actors.core.queue import DAY_MS, MAX_RETENTION_MS
from actors.core.task import State, fence
from storage.rows import NUMBERS
from storage.statements import statements

SLOW_MS = 500
"""A success that took this long leaves a row in `attempts`, too."""
ERROR_CHARS = 2_000

Batch = tuple[str, list[Any]]
"""A statement and its arguments."""

_SQL = statements("ledger")
_FINISH, _MOVE, _ATTEMPT, _REDRIVE = "nnnnnnnnnnnnoo", "nnnnnnnnnnnnno", "nononnonon", "nnnnnnnnn"
"""The columns of each kind: n, numbers (or ids, or NULL) that go as text; o, others."""
_NO_ATTEMPT = (None, None, None, None)
_SUCCEEDED = NUMBERS[State.SUCCEEDED]
# On 3.11 a member of an enum costs ten times a global.
_ENDS, _MOVES, _RETURNS, _WELL = Op.FINISH, Op.MOVE, Op.REDRIVE, Verdict.SUCCEEDED


def batches_of(boot: str, records: Sequence[Record], timeline: int) -> list[Batch]:
    """What to send: at most one statement for results and moves, and one for redrives, which are rare."""
    returning = [record for record in records if record.op is _RETURNS]
    others = [record for record in records if record.op is not _RETURNS] if returning else records
    batches: list[Batch] = []
    if others:
        batches.append((_SQL["write"], [boot, *_held(others), *_writes(others, timeline)]))
    if returning:
        rows = [_redrive_row(record) for record in returning]
        batches.append((_SQL["redrive"], [boot, *_held(returning), *_columns(rows, _REDRIVE)]))
    return batches


def days_of(records: Iterable[Record]) -> set[int]:
    """Every day whose partition these records may need."""
    days = {(record.at_ms + MAX_RETENTION_MS) // DAY_MS for record in records}
    return days | {(r.at_ms + r.task.queue.retention_ms[r.state]) // DAY_MS for r in records if r.op is _ENDS}


def _writes(records: Sequence[Record], timeline: int) -> list[Any]:
    ended = [_finish_row(record) for record in records if record.op is _ENDS]
    moved = [_move_row(record) for record in records if record.op is _MOVES]
    tried = [
        _attempt_row(record, record.outcome, timeline)
        for record in records
        if record.outcome is not None and _is_worth_a_row(record.outcome)
    ]
    return [*_columns(ended, _FINISH), *_columns(moved, _MOVE), *_columns(tried, _ATTEMPT)]


def _held(records: Iterable[Record]) -> list[Any]:
    """Shards of the batch and the epochs that its records were made under."""
    return _columns(list({(record.task.shard, record.epoch) for record in records}), "nn")


def _columns(rows: Sequence[tuple[Any, ...]], kinds: str) -> list[Any]:
    columns = zip(*rows, strict=True) if rows else [()] * len(kinds)
    return [_array(column) if kind == "n" else _others(column) for column, kind in zip(columns, kinds, strict=True)]


def _array(column: Sequence[Any]) -> str:
    """An array of numbers or ids as Postgres writes it."""
    if column and column.count(column[0]) == len(column):  # as most columns of a batch are
        return "{}" if column[0] is None else f"{{{column[0]}{f',{column[0]}' * (len(column) - 1)}}}"
    text = ",".join(map(str, column))
    return f"{{{text.replace('None', 'NULL')}}}"


def _others(column: Sequence[Any]) -> Sequence[Any]:
    return () if column.count(None) == len(column) else column


def _finish_row(record: Record) -> tuple[Any, ...]:
    task, state, at_ms = record.task, NUMBERS[record.state], record.at_ms
    outcome = record.outcome
    return (
        task.shard,
        task.id,
        record.rev,
        record.epoch,
        state,
        at_ms,
        (at_ms + task.queue.retention_ms[record.state]) // DAY_MS,
        record.attempt,
        record.lateness_ms,
        *(_NO_ATTEMPT if outcome is None else _last_attempt(outcome)),
        outcome.result if outcome is not None and state == _SUCCEEDED else None,
    )


def _move_row(record: Record) -> tuple[Any, ...]:
    task, outcome = record.task, record.outcome
    return (
        task.shard,
        task.id,
        record.rev,
        record.epoch,
        record.schedule_ms,
        record.due_ms,
        record.attempt,
        record.budget,
        record.lateness_ms,
        record.claim_ms,
        *(_NO_ATTEMPT if outcome is None else _last_attempt(outcome)),
    )


def _redrive_row(record: Record) -> tuple[Any, ...]:
    return (
        record.task.shard,
        record.task.id,
        record.rev,
        record.epoch,
        record.schedule_ms,
        record.due_ms,
        record.attempt,
        record.budget,
        record.lateness_ms,
    )


def _last_attempt(outcome: Outcome) -> tuple[Any, ...]:
    duration_ms = outcome.ended_ms - outcome.started_ms
    return outcome.started_ms, duration_ms, outcome.status, _mended(outcome.error)


def _attempt_row(record: Record, outcome: Outcome, timeline: int) -> tuple[Any, ...]:
    started_ms, duration_ms, status, error = _last_attempt(outcome)
    return (
        record.task.id,
        record.task.queue.tenant,
        outcome.attempt,
        fence(timeline, outcome.epoch, outcome.attempt),
        started_ms,
        duration_ms,
        outcome.verdict.name.lower(),
        status,
        error,
        (record.at_ms + MAX_RETENTION_MS) // DAY_MS,
    )


def _is_worth_a_row(outcome: Outcome) -> bool:
    return outcome.verdict is not _WELL or outcome.ended_ms - outcome.started_ms >= SLOW_MS


def _mended(error: str | None) -> str | None:
    """The error as text that Postgres takes: no NUL, no lone surrogates, not without end."""
    if error is None:
        return None
    return error[:ERROR_CHARS].replace("\0", "�").encode("utf-8", "replace").decode()
