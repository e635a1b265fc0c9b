"""Memory twin of the LedgerStore port."""

from collections.abc import Sequence

from actors.core.events import Op, Outcome, Record, Verdict
from actors.core.queue import MAX_RETENTION_MS
from actors.core.task import State, fence
from actors.ports.reader import AttemptRow
from storage.memory.link import MemoryLink
from storage.memory.rows import AttemptEntry, Row, day_of

SLOW_MS = 500
"""A success that took this long leaves a row in `attempts`, too."""


class MemoryLedgerStore:
    """Fenced writes to the twin's tables."""

    def __init__(self, link: MemoryLink) -> None:
        self._link = link
        self._db = link.database

    async def write(self, boot: str, records: Sequence[Record]) -> set[str]:
        """See the port."""
        return await self._link.call("write", lambda: self._write(boot, records))

    def _write(self, boot: str, records: Sequence[Record]) -> set[str]:
        return {record.task.id for record in records if not self._apply(boot, record)}

    def _apply(self, boot: str, record: Record) -> bool:
        task_id = record.task.id
        row = self._db.finished.get(task_id) if record.op is Op.REDRIVE else self._db.live.get(task_id)
        if row is None or row.rev != record.rev or not self._db.owns(boot, row.shard, record.epoch):
            return False
        _change(row, record)
        row.claim_boot = None if row.claim_ms is None else boot
        if record.op is Op.FINISH:
            self._finish(row, record)
        elif record.op is Op.REDRIVE:
            self._redrive(row)
        self._note_attempt(record)
        return True

    def _finish(self, row: Row, record: Record) -> None:
        row.finish_ms = record.at_ms
        row.day = day_of(record.at_ms + record.task.queue.retention_ms[record.state])
        self._db.partitions.add(row.day)
        if record.state is State.SUCCEEDED:
            row.payload = None
            row.result = record.outcome.result if record.outcome else None
        self._db.finished[row.id] = self._db.live.pop(row.id)

    def _redrive(self, row: Row) -> None:
        row.finish_ms = row.result = None
        self._db.live.put(self._db.finished.pop(row.id))

    def _note_attempt(self, record: Record) -> None:
        outcome = record.outcome
        if outcome is None or not _is_worth_a_row(outcome):
            return
        day = day_of(record.at_ms + MAX_RETENTION_MS)
        self._db.partitions.add(day)
        entry = AttemptEntry(
            day,
            record.task.queue.tenant,
            AttemptRow(
                attempt=outcome.attempt,
                fence=fence(self._db.timeline, outcome.epoch, outcome.attempt),
                started_ms=outcome.started_ms,
                duration_ms=outcome.ended_ms - outcome.started_ms,
                verdict=outcome.verdict.name.lower(),
                status=outcome.status,
                error=outcome.error,
            ),
        )
        self._db.attempts.setdefault(record.task.id, []).append(entry)


def _change(row: Row, record: Record) -> None:
    claim_ms = record.claim_ms if record.op is Op.MOVE else None
    if record.op is Op.FINISH and row.claim_ms is not None:
        row.due_ms = min(row.due_ms, record.at_ms)
    row.rev += 1
    if row.claim_ms is None:  # an attempt that was claimed keeps its fence
        row.epoch = record.epoch
    row.state = record.state if record.op is Op.FINISH else State.SCHEDULED
    row.attempt = record.attempt
    row.lateness_ms = record.lateness_ms
    row.claim_ms = claim_ms
    if record.op is not Op.FINISH:
        row.schedule_ms = record.schedule_ms
        row.due_ms = record.due_ms
        row.budget = record.budget
    if record.outcome is not None:
        row.last_started_ms = record.outcome.started_ms
        row.last_duration_ms = record.outcome.ended_ms - record.outcome.started_ms
        row.last_status = record.outcome.status
        row.last_error = record.outcome.error


def _is_worth_a_row(outcome: Outcome) -> bool:
    return outcome.verdict is not Verdict.SUCCEEDED or outcome.ended_ms - outcome.started_ms >= SLOW_MS
