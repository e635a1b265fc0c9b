"""Tasks, drafts, outcomes and records for tests, in as few words as the case needs.

Task number n has the n-th id, whose ring position fits its shard (of 256).
"""

from actors.core.draft import Draft
from actors.core.events import NO_ID, Op, Outcome, Page, Record, Verdict
from actors.core.queue import DAY_MS, Queue
from actors.core.spec import HttpTarget, Spec
from actors.core.task import State, Task

T0_DAY = 20_800
T0_MS = T0_DAY * DAY_MS + 36_000_000
"""The tests' present: ten in the morning of an ordinary day."""
SPEC = Spec(http=HttpTarget("http://sink.test/hook"))
LABELS = '{"team":"zoë"}'
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HASH = bytes(range(16))
OTHER_HASH = bytes(16)


def task_id(number: int, shard: int = 0) -> str:
    """The n-th id; its ring position is in `shard` of 256."""
    return f"{number:08x}-0000-7000-8000-00000000{shard:02x}80"


def make_task(
    number: int,
    queue: Queue,
    *,
    shard: int = 0,
    due_ms: int = T0_MS,
    schedule_ms: int | None = None,
    spec: Spec = SPEC,
    payload: bytes | None = None,
    labels: str | None = None,
    key_hash: bytes | None = None,
    trace: str | None = None,
) -> Task:
    """Task number `number`, as the Intake makes it."""
    return Task(
        task_id(number, shard),
        shard,
        queue,
        due_ms if schedule_ms is None else schedule_ms,
        due_ms,
        T0_MS * 1000 + number,
        spec,
        payload=payload,
        payload_bytes=len(payload or b""),
        labels=labels,
        key_hash=key_hash,
        trace=trace,
    )


def keyed(number: int, queue: Queue, *, key_hash: bytes = HASH, shard: int = 0) -> Task:
    """Task number `number`, as the Intake makes it when it came with an idempotency key."""
    return make_task(number, queue, shard=shard, key_hash=key_hash)


def make_draft(queue: Queue, *, spec: Spec = SPEC, key: str | None = None, delay_ms: int | None = None) -> Draft:
    """A draft, keyed or not."""
    return Draft(queue, spec, key=key, key_hash=HASH if key is not None else None, delay_ms=delay_ms)


def make_outcome(
    task: Task,
    verdict: Verdict = Verdict.SUCCEEDED,
    *,
    epoch: int = 1,
    attempt: int = 1,
    duration_ms: int = 20,
    status: int | None = 200,
    error: str | None = None,
    result: bytes | None = None,
) -> Outcome:
    """The end of an attempt that started at the task's due time."""
    return Outcome(
        task, epoch, attempt, verdict, task.due_ms, task.due_ms + duration_ms, status=status, error=error, result=result
    )


def make_record(
    op: Op,
    task: Task,
    epoch: int,
    *,
    state: State = State.SCHEDULED,
    rev: int | None = None,
    at_ms: int = T0_MS,
    due_ms: int | None = None,
    attempt: int | None = None,
    budget: int | None = None,
    lateness_ms: int | None = None,
    claim_ms: int | None = None,
    outcome: Outcome | None = None,
) -> Record:
    """A record; what is not said stays as the task has it."""
    return Record(
        op=op,
        task=task,
        epoch=epoch,
        rev=task.rev if rev is None else rev,
        state=state,
        at_ms=at_ms,
        schedule_ms=task.schedule_ms,
        due_ms=task.due_ms if due_ms is None else due_ms,
        attempt=task.attempt if attempt is None else attempt,
        budget=task.budget if budget is None else budget,
        lateness_ms=lateness_ms,
        claim_ms=claim_ms,
        outcome=outcome,
    )


def finish(
    task: Task, epoch: int = 1, state: State = State.SUCCEEDED, *, rev: int | None = None, at_ms: int = T0_MS
) -> Record:
    """The record that ends the task, without an attempt."""
    return make_record(Op.FINISH, task, epoch, state=state, rev=rev, at_ms=at_ms)


def move(task: Task, epoch: int = 1, *, rev: int | None = None, due_ms: int | None = None) -> Record:
    """The record that moves the task's due time."""
    return make_record(Op.MOVE, task, epoch, rev=rev, due_ms=due_ms)


def redrive(task: Task, epoch: int = 1, *, rev: int | None = None, due_ms: int | None = None) -> Record:
    """The record that brings a finished task back, with five more attempts."""
    return make_record(Op.REDRIVE, task, epoch, rev=rev, due_ms=due_ms, budget=task.attempt + 5)


def make_page(
    *,
    shard: int = 0,
    queue: Queue | None = None,
    after: tuple[int, str] = (0, NO_ID),
    until_ms: int = T0_MS + DAY_MS,
    limit: int = 100,
    total: int = 1_000,
    caps: dict[int, int] | None = None,
) -> Page:
    """A page of everything due within the day, unless told otherwise."""
    queue_id = queue.id if queue is not None else None
    return Page(shard, 1, queue_id, after[0], after[1], until_ms, limit, total, caps or {})
