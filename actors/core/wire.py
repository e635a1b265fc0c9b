"""What nodes say to each other, as bytes: msgpack, each message an array with its tag first.

Additive changes only: a field goes to the end and has a default, a new message is passed over by an older node, so
that nodes of two versions work side by side. Queues travel by number. A payload travels with its task up to
`PAYLOAD_BYTES`; the owner reads a larger one when it is due.

Refuses, as Invalid: bytes that are no such message, and a queue that this process does not know.
"""

from collections.abc import Iterable

import msgspec

from actors.core.codec import SpecCodec
from actors.core.errors import Conflict, Invalid, Overloaded, RingwheelError, Unavailable, Unknown
from actors.core.events import Answer, Change, Command, Outcome, Verdict
from actors.core.lease import Extension, Kept, Lent, Report, Word
from actors.core.live import Live
from actors.core.queue import Queue, QueueBook
from actors.core.reach import Reach
from actors.core.task import Move, State, Task

PAYLOAD_BYTES = 4_096
_ERRORS: dict[str, type[RingwheelError]] = {
    "unknown": Unknown,
    "conflict": Conflict,
    "overloaded": Overloaded,
    "unavailable": Unavailable,
}
_KINDS: dict[type[Exception], str] = {kind: name for name, kind in _ERRORS.items()}


class WireTask(msgspec.Struct, frozen=True, array_like=True):
    """A task that was committed just now."""

    id: str
    shard: int
    queue: int
    schedule_ms: int
    due_ms: int
    accept_us: int
    spec: bytes
    budget: int
    payload: bytes | None = None
    payload_bytes: int = 0
    labels: str | None = None
    trace: str | None = None
    key_hash: bytes | None = None


class WireOutcome(msgspec.Struct, frozen=True, array_like=True):
    """A completion from outside."""

    epoch: int
    attempt: int
    verdict: int
    started_ms: int
    ended_ms: int
    status: int | None
    error: str | None
    result: bytes | None
    retry_after_ms: int | None
    jitter: float


class WireChange(msgspec.Struct, frozen=True, array_like=True):
    """What watchers are told."""

    id: str
    queue: int
    state: str
    attempt: int
    version: int
    at_ms: int
    schedule_ms: int
    due_ms: int
    labels: str | None
    status: int | None
    error: str | None
    lateness_ms: int | None


class Hint(msgspec.Struct, frozen=True, array_like=True, tag="hint"):
    """Tasks of yours were committed, at `at_ms` on the primary's clock."""

    at_ms: int
    tasks: list[WireTask]
    epochs: dict[int, int] = {}
    """Of their shards, as `Submitted` has them; of those that are not in it, 0."""


class Given(msgspec.Struct, frozen=True, array_like=True, tag="given"):
    """I gave you shards: your next beat will show them."""


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """Carry this command out; the answer bears its number."""

    number: int
    move: str
    id: str
    tenant: str
    due_ms: int | None = None
    outcome: WireOutcome | None = None


class Told(msgspec.Struct, frozen=True, array_like=True, tag="told"):
    """The answer to a question; `mine` False: ask the owner."""

    number: int
    mine: bool
    change: WireChange | None = None
    error: str | None = None
    detail: str = ""
    state: str = ""
    retry_after_ms: int = 1_000


class Look(msgspec.Struct, frozen=True, array_like=True, tag="look"):
    """Tell what you know of these tasks."""

    number: int
    ids: list[str]


class Shown(msgspec.Struct, frozen=True, array_like=True, tag="shown"):
    """The answer to a `Look`."""

    number: int
    tasks: list[Live]


class Measure(msgspec.Struct, frozen=True, array_like=True, tag="measure"):
    """Tell how far your memory reaches, and what it has of the tasks that were accepted up to `before_us`."""

    number: int
    before_us: int


class Measured(msgspec.Struct, frozen=True, array_like=True, tag="measured"):
    """The answer to a `Measure`: one entry a shard."""

    number: int
    reaches: list[Reach]


class WireTopic(msgspec.Struct, frozen=True, array_like=True):
    """Something that can be watched: a task, a queue, or what has some labels (in a queue, or in any)."""

    task: str | None = None
    tenant: str = ""
    queue: str | None = None
    labels: tuple[tuple[str, str], ...] = ()


class Watch(msgspec.Struct, frozen=True, array_like=True, tag="watch"):
    """From now on tell of your changes of these topics, too, and no longer of those that were left.

    `number` 0: no answer is wanted.
    """

    number: int
    topics: list[WireTopic]
    left: list[WireTopic] = []


class Watching(msgspec.Struct, frozen=True, array_like=True, tag="watching"):
    """The answer to a `Watch`: no change from now on is left out."""

    number: int


class Changes(msgspec.Struct, frozen=True, array_like=True, tag="changes"):
    """Changes of my tasks, in their order."""

    changes: list[WireChange]


class Missed(msgspec.Struct, frozen=True, array_like=True, tag="missed"):
    """Changes may be missing here that can't be told."""


class Want(msgspec.Struct, frozen=True, array_like=True, tag="want"):
    """Workers at my end take tasks of these queues, and of no others."""

    queues: list[int]


class Supply(msgspec.Struct, frozen=True, array_like=True, tag="supply"):
    """I have tasks of these queues, which you want."""

    queues: list[int]


class Take(msgspec.Struct, frozen=True, array_like=True, tag="take"):
    """Give me tasks of this queue, so many at most; and then, in parts, those that come due from now on, as long as
    some do and there is room for them: for `keep` at first, for more as each `Got` says.
    """

    number: int
    queue: int
    limit: int
    keep: int = 0


class Taken(msgspec.Struct, frozen=True, array_like=True, tag="taken"):
    """The answer to a `Take`, to be confirmed by a `Got`; `more`: there may be more; `open`: a part, others follow."""

    number: int
    tasks: list[Lent]
    more: bool
    open: bool = False


class Got(msgspec.Struct, frozen=True, array_like=True, tag="got"):
    """I have what you gave me under this number: a part, with its size, and there is `room` for so many more; None: all
    of it.
    """

    number: int
    count: int | None = None
    room: int = 0


class Reports(msgspec.Struct, frozen=True, array_like=True, tag="reports"):
    """Workers of this tenant say how attempts ended."""

    tenant: str
    reports: list[Report]


class Answered(msgspec.Struct, frozen=True, array_like=True, tag="answered"):
    """What came of reports."""

    words: list[Word]


class Extend(msgspec.Struct, frozen=True, array_like=True, tag="extend"):
    """Workers of this tenant go on."""

    tenant: str
    extensions: list[Extension]


class Extended(msgspec.Struct, frozen=True, array_like=True, tag="extended"):
    """What came of extensions."""

    kept: list[Kept]


class Revoked(msgspec.Struct, frozen=True, array_like=True, tag="revoked"):
    """These (id, attempt) were cancelled: whoever works on them should stop."""

    leases: list[tuple[str, int]]


class Moved(msgspec.Struct, frozen=True, array_like=True, tag="moved"):
    """The workers of these leases (ids) came back to me: they are not to be given back."""

    ids: list[str]


Message = (
    Hint
    | Given
    | Ask
    | Told
    | Look
    | Shown
    | Measure
    | Measured
    | Watch
    | Watching
    | Changes
    | Missed
    | Want
    | Supply
    | Take
    | Taken
    | Got
    | Reports
    | Answered
    | Extend
    | Extended
    | Revoked
    | Moved
)
Reply = Told | Shown | Measured | Watching | Taken
"""What bears the number of a question."""


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """Messages from one boot to another."""

    to: str
    sender: str
    messages: list[Message]


class _Heard(msgspec.Struct, frozen=True, array_like=True):
    to: str
    sender: str
    messages: list[msgspec.Raw]


_encoder = msgspec.msgpack.Encoder()
_heard = msgspec.msgpack.Decoder(_Heard)
_message: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(frame: Frame) -> bytes:
    """The bytes of a frame."""
    return _encoder.encode(frame)


def decode(data: bytes | bytearray | memoryview) -> Frame:
    """The frame, without messages that this program does not know. Raises Invalid."""
    try:
        heard = _heard.decode(data)
    except msgspec.MsgspecError as error:
        raise Invalid(f"no frame of this protocol: {error}") from error
    return Frame(heard.to, heard.sender, [message for raw in heard.messages if (message := _read(raw)) is not None])


def _read(raw: msgspec.Raw) -> Message | None:
    try:
        return _message.decode(raw)
    except msgspec.MsgspecError:
        return None


class Wire:
    """Turns what the runtime knows into messages and back."""

    def __init__(self, book: QueueBook, codec: SpecCodec) -> None:
        self._book = book
        self._codec = codec

    def hint(self, tasks: Iterable[Task], at_ms: int, epochs: dict[int, int]) -> Hint:
        """Tasks that were committed."""
        return Hint(at_ms, [self._of_task(task) for task in tasks], epochs)

    def strange(self, told: Hint | Changes) -> set[int]:
        """The numbers of those of its queues that are not known here."""
        of = told.tasks if isinstance(told, Hint) else told.changes
        return {number for number in {each.queue for each in of} if self._book.by_id(number) is None}

    def tasks(self, hint: Hint) -> list[Task]:
        """Those of them that this program can read, and whose queue is known here; the probe finds the others."""
        tasks: list[Task] = []
        for told in hint.tasks:
            try:
                tasks.append(self._task(told))
            except Invalid:
                continue
        return tasks

    def ask(self, number: int, command: Command) -> Ask:
        """A command."""
        outcome = None if command.outcome is None else _of_outcome(command.outcome)
        return Ask(number, command.move.value, command.id, command.tenant, command.due_ms, outcome)

    def command(self, ask: Ask) -> Command:
        """Raises Invalid for a move or a verdict that this program does not know."""
        try:
            outcome = None if ask.outcome is None else _outcome(ask.outcome)
            return Command(Move(ask.move), ask.id, None, ask.due_ms, outcome, ask.tenant)
        except ValueError as error:
            raise Invalid(str(error)) from error

    def told(self, number: int, answer: Answer | None) -> Told:
        """An answer; None: not mine."""
        if answer is None:
            return Told(number, mine=False)
        if answer.error is None:
            return Told(number, mine=True, change=None if answer.change is None else _of_change(answer.change))
        error = answer.error
        kind = _KINDS.get(type(error), "unavailable")
        detail, state = getattr(error, "detail", ""), getattr(error, "state", "")
        retry_after_ms = getattr(error, "retry_after_ms", 1_000)
        return Told(number, mine=True, error=kind, detail=detail, state=state, retry_after_ms=retry_after_ms)

    def answer(self, told: Told) -> Answer | None:
        """The answer that was told, without its change when that is of a queue or state that is not known here."""
        if not told.mine:
            return None
        if told.error is None:
            change = None if told.change is None else self._change(told.change)
            return Answer(None, change, changed=told.change is not None)
        return Answer(None, error=_error(told))

    @staticmethod
    def changes(changes: Iterable[Change]) -> Changes:
        """What watchers are to be told."""
        return Changes([_of_change(change) for change in changes])

    def told_changes(self, told: Changes) -> list[Change | None]:
        """What was told; None for a queue or state that is not known here."""
        return [self._change(change) for change in told.changes]

    def _of_task(self, task: Task) -> WireTask:
        small = task.payload is not None and len(task.payload) <= PAYLOAD_BYTES
        return WireTask(
            task.id,
            task.shard,
            task.queue.id,
            task.schedule_ms,
            task.due_ms,
            task.accept_us,
            self._codec.encode(task.spec),
            task.budget,
            task.payload if small else None,
            task.payload_bytes,
            task.labels,
            task.trace,
            task.key_hash,
        )

    def _task(self, told: WireTask) -> Task:
        return Task(
            told.id,
            told.shard,
            self._queue(told.queue),
            told.schedule_ms,
            told.due_ms,
            told.accept_us,
            self._codec.decode(told.spec),
            payload=told.payload,
            payload_bytes=told.payload_bytes,
            labels=told.labels,
            key_hash=told.key_hash,
            trace=told.trace,
            budget=told.budget,
        )

    def _change(self, told: WireChange) -> Change | None:
        try:
            return Change(told.id, self._queue(told.queue), State(told.state), *msgspec.structs.astuple(told)[3:])
        except (Invalid, ValueError):
            return None

    def _queue(self, number: int) -> Queue:
        queue = self._book.by_id(number)
        if queue is None:
            raise Invalid(f"queue {number} is not known here")
        return queue


def _of_change(change: Change) -> WireChange:
    return WireChange(change.id, change.queue.id, change.state.value, *change[3:])


def _of_outcome(outcome: Outcome) -> WireOutcome:
    return WireOutcome(
        outcome.epoch,
        outcome.attempt,
        outcome.verdict.value,
        outcome.started_ms,
        outcome.ended_ms,
        outcome.status,
        outcome.error,
        outcome.result,
        outcome.retry_after_ms,
        outcome.jitter,
    )


def _outcome(told: WireOutcome) -> Outcome:
    epoch, attempt, verdict, *rest = msgspec.structs.astuple(told)
    return Outcome(None, epoch, attempt, Verdict(verdict), *rest)  # type: ignore[arg-type]  # its owner knows the task


def _error(told: Told) -> RingwheelError:
    kind = _ERRORS.get(told.error or "", Unavailable)
    if kind is Conflict:
        return Conflict(told.detail, told.state)
    if kind is Unknown:
        return Unknown(told.detail)
    return kind(told.detail, told.retry_after_ms)
