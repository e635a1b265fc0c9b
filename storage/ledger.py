"""The ledger's statement: results and commands in one fenced commit (sql/ledger.sql, docs/ownership.md).

Promises: one autocommit statement for everything but a redrive; text that Postgres can't hold (NUL, lone surrogates
in an error) is mended on the way, so that no record can stand in the way of its neighbours for ever.
Refuses: to send again by itself. Missing partitions are made on the spot and are no reason for a failure.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import asyncpg

from actors.core.events import Op, Outcome, Record, Verdict
from actors.core.queue import DAY_MS, MAX_RETENTION_MS, RETENTION_MS
from actors.core.task import State, fence
from storage.housekeeping import PgHousekeeping
from storage.pool import Database
from storage.rows import NUMBERS
from storage.sessions import Connection
from storage.statements import statements

SLOW_MS = 500
"""A success that took this long leaves a row in `attempts`, too."""
ERROR_CHARS = 2_000

_SQL = statements("ledger")
_FINISH_WIDTH, _MOVE_WIDTH, _ATTEMPT_WIDTH, _REDRIVE_WIDTH = 14, 14, 10, 9
_NO_ATTEMPT = (None, None, None, None)
_SUCCEEDED = NUMBERS[State.SUCCEEDED]


class PgLedgerStore:
    """Implements actors.ports.ledger.LedgerStore. `timeline` answers the server's timeline, for the fence's text."""

    def __init__(self, db: Database, timeline: Callable[[], int]) -> None:
        self._db = db
        self._timeline = timeline
        self._housekeeping = PgHousekeeping(db)

    async def write(self, boot: str, records: Sequence[Record]) -> set[str]:
        """See the port."""
        if not records:
            return set()
        batches = self._batches(boot, records)
        try:
            return await self._send(batches)
        except asyncpg.CheckViolationError:
            # No partition for one of the days: nothing was committed.
            days = _days(records)
            await self._housekeeping.make_partitions(min(days), max(days))
            return await self._send(batches)

    async def _send(self, batches: "list[tuple[str, list[Any]]]") -> set[str]:
        async with self._db.ledger.use() as connection:
            if len(batches) == 1:
                return await _refused(connection, batches)
            async with connection.transaction():
                return await _refused(connection, batches)

    def _batches(self, boot: str, records: Sequence[Record]) -> "list[tuple[str, list[Any]]]":
        """Statements and their arguments."""
        returning = [record for record in records if record.op is Op.REDRIVE]
        others = [record for record in records if record.op is not Op.REDRIVE] if returning else records
        batches = []
        if others:
            batches.append((_SQL["write"], [boot, *_held(others), *self._writes(others)]))
        if returning:
            rows = [_redrive_row(record) for record in returning]
            batches.append((_SQL["redrive"], [boot, *_held(returning), *_columns(rows, _REDRIVE_WIDTH)]))
        return batches

    def _writes(self, records: Sequence[Record]) -> list[Any]:
        ended = [_finish_row(record) for record in records if record.op is Op.FINISH]
        moved = [_move_row(record) for record in records if record.op is Op.MOVE]
        timeline = self._timeline()
        tried = [
            _attempt_row(record, record.outcome, timeline)
            for record in records
            if record.outcome is not None and _is_worth_a_row(record.outcome)
        ]
        return [
            *_columns(ended, _FINISH_WIDTH),
            *_columns(moved, _MOVE_WIDTH),
            *_columns(tried, _ATTEMPT_WIDTH),
        ]


async def _refused(connection: Connection, batches: "list[tuple[str, list[Any]]]") -> set[str]:
    return {row[0] for statement, arguments in batches for row in await connection.fetch(statement, *arguments)}


def _held(records: Iterable[Record]) -> tuple[list[int], list[int]]:
    """Shards of the batch and the epochs that its records were made under."""
    pairs = {(record.task.shard, record.epoch) for record in records}
    return [shard for shard, _ in pairs], [epoch for _, epoch in pairs]


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


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
        (at_ms + RETENTION_MS[record.state]) // DAY_MS,
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
    return outcome.verdict is not Verdict.SUCCEEDED or outcome.ended_ms - outcome.started_ms >= SLOW_MS


def _mended(error: str | None) -> str | None:
    """The error as text that Postgres takes: no NUL, no lone surrogates, not without end."""
    if error is None:
        return None
    return error[:ERROR_CHARS].replace("\0", "�").encode("utf-8", "replace").decode()


def _days(records: Iterable[Record]) -> set[int]:
    """Every partition's day that these records may need."""
    days = {(record.at_ms + MAX_RETENTION_MS) // DAY_MS for record in records}
    return days | {(r.at_ms + RETENTION_MS[r.state]) // DAY_MS for r in records if r.op is Op.FINISH}
