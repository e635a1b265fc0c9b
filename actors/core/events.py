"""What can happen to a shard, and what a shard may ask for. Both come in batches.

A shard is one pure function, `ShardState.apply(event, now_ms) -> list[Effect]` (`shard.py`). I/O that an effect asked
for comes back as an event, never as a continuation that touches state. All of them are structs, which cost a quarter of
what a dataclass costs to make.
"""

import enum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from actors.core.queue import Queue
from actors.core.task import Move, State, Task

if TYPE_CHECKING:
    from actors.core.lease import Extension, Kept

# --- nouns that travel in events and effects ---------------------------------------------------------------------


class Verdict(enum.IntEnum):
    """How an attempt ended."""

    SUCCEEDED = 0
    FAILED = 1
    """Try again as the retry policy says."""
    NEVER = 2
    """Failed, and the target says that trying again is of no use."""
    LATER = 3
    """The target took the work and completes it by itself (202 + `ringwheel-complete: later`)."""
    UNSENT = 4
    """Nothing was sent (the lease ended first): back to the desk, no attempt used."""
    LOST = 5
    """Its owner died during the attempt, or its worker went away: nobody knows how it ended. Its queue says what
    follows (`Unheard`)."""
    SNOOZED = 6
    """The worker wants it again later; no attempt is used up."""

    __hash__ = int.__hash__  # see `State`


class Outcome(msgspec.Struct):
    """The end of one attempt, as its dispatcher saw it. (epoch, attempt) is the fence it ran under."""

    task: Task
    epoch: int
    attempt: int
    verdict: Verdict
    started_ms: int
    ended_ms: int
    status: int | None = None
    """HTTP status, when there was an answer."""
    error: str | None = None
    """One short line: what went wrong."""
    result: bytes | None = None
    """The answer's body of a success, capped; JSON or raw bytes."""
    retry_after_ms: int | None = None
    """The target's own wish (Retry-After), from `ended_ms` on."""
    jitter: float = 0.5
    """Random number in [0, 1) for the back-off: the edge rolls the dice, not the core."""
    reply: object = None
    """Who wants to hear that it was recorded (`Acknowledge`), or why not (`Answer` to a `Reply`)."""


class Reply(NamedTuple):
    """The token by which a worker's report is answered that was not recorded at once."""

    to: object
    id: str
    epoch: int
    attempt: int


class Op(enum.IntEnum):
    """What a record does to the tables."""

    FINISH = 0
    """Row goes from `tasks` to `finished`."""
    MOVE = 1
    """Row stays live: retry, run, reschedule, claim."""
    REDRIVE = 2
    """Row comes back from `finished` to `tasks`."""


class Record(msgspec.Struct):
    """One durable change of one task, guarded by (shard, epoch) and by the task's `rev`; it makes `rev` one more.

    `schedule_ms`, `due_ms`, `attempt`, `budget`, `claim_ms`, `lateness_ms` are the values after the change.
    """

    op: Op
    task: Task
    epoch: int
    rev: int
    """The revision that it expects to find."""
    state: State
    """The public state after it."""
    at_ms: int
    schedule_ms: int
    due_ms: int
    attempt: int
    budget: int
    lateness_ms: int | None = None
    claim_ms: int | None = None
    outcome: Outcome | None = None
    """The attempt that it closes; failures and slow attempts leave a row in `attempts`."""
    token: object = None
    """Whoever waits for it (see Command.token)."""


class Change(NamedTuple):
    """A task's new public state, for those who watch. Published after the commit (running: after the start).

    `version` grows with every change of a task (`changes.py`).
    """

    id: str
    queue: Queue
    state: State
    attempt: int
    version: int
    at_ms: int
    schedule_ms: int
    due_ms: int
    labels: str | None
    status: int | None
    error: str | None
    lateness_ms: int | None


class Page(msgspec.Struct):
    """A key-set page of live rows to load: keys (due_ms, id) greater than `after`, due up to `until_ms`.

    `queue_id` None asks for every queue of the shard: at most `limit` rows of each and, of all together, the first
    `total`; but never less than the first row of a queue, which shows that it has some.
    """

    shard: int
    epoch: int
    queue_id: int | None
    after_due_ms: int
    after_id: str
    until_ms: int
    limit: int
    total: int
    caps: dict[int, int] = {}
    """Queues of which rows are wanted up to an earlier time than `until_ms`."""
    asked_ms: int = 0
    """When the statement that reads it was sent: an answer that is too old may show what memory has finished since."""


NO_ID = "00000000-0000-0000-0000-000000000000"
LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"


class Command(msgspec.Struct):
    """A client's command on one task; answered exactly once, after the commit, with `Answer(token, ...)`."""

    move: Move
    id: str
    token: object
    due_ms: int | None = None
    """New time, for RESCHEDULE."""
    outcome: Outcome | None = None
    """For SUCCEED, RETRY, DIE (a completion from outside): the result, its (epoch, attempt) being the fence shown."""
    tenant: str = "default"
    reported: bool = False
    """The outcome is a worker's report: it may have been recorded before, and is no conflict then."""


class Found(msgspec.Struct):
    """What the tables say of one id: a live task, or a finished one with its state, or neither.

    For a finished one `task` carries its data (payload included where kept) and `state` is terminal.
    """

    id: str
    task: Task | None
    state: State | None
    epoch: int = 0
    """Of a claim, and of the end of what was claimed, the epoch under which its attempt started; of all else, that of
    the last write."""


# --- events ------------------------------------------------------------------------------------------------------


class Submitted(msgspec.Struct):
    """Tasks of this shard were committed, `at_ms` at the earliest (a hint: losing it costs lateness, never a task)."""

    tasks: list[Task]
    at_ms: int
    epoch: int
    """The shard had come to it before they were sent to the database, as their sender knew. 0: it can't tell."""


class Ticked(msgspec.Struct):
    """The clock hand is here: `now_ms` may have passed the next expiry."""


class Loaded(msgspec.Struct):
    """The answer to a `Load`'s page, in (due, id) order.

    Rows that this program can't read are left out of `tasks`, but not of what `full` says.
    """

    page: Page
    tasks: list[Task]
    full: dict[int, tuple[int, str]]
    """Queues that may have more than was read, with the key (due_ms, id) of the last row that was."""


class LoadFailed(msgspec.Struct):
    """The page could not be read; the shard asks again at its next tick."""

    page: Page


class Started(msgspec.Struct):
    """These offered tasks were taken from the desk by a dispatcher that holds a valid lease.

    Of those that are claimed ahead, nothing may be sent before `Ready`.
    """

    tasks: list[Task]


class HandedOut(msgspec.Struct):
    """A dispatcher that holds a valid lease is about to get these attempts, which were `Ready`."""

    tasks: list[Task]


class Ended(msgspec.Struct):
    """Attempts ended."""

    outcomes: list[Outcome]


class Recorded(msgspec.Struct):
    """The ledger committed these records."""

    records: list[Record]


class Refused(msgspec.Struct):
    """The ledger refused these records (other rev, or row gone); `found[i]` is what the tables say of records[i]."""

    records: list[Record]
    found: list[Found]


class Asked(msgspec.Struct):
    """Commands of clients."""

    commands: list[Command]


class Looked(msgspec.Struct):
    """The answer to a `Find`."""

    commands: list[Command]
    found: list[Found]


class Probed(msgspec.Struct):
    """Rows that are overdue in the tables. Those that memory does not know are armed, and counted."""

    tasks: list[Task]
    asked_ms: int


class Vanished(msgspec.Struct):
    """The rows of these tasks were not there when their payloads were asked for."""

    tasks: list[Task]


class Close(msgspec.Struct):
    """The shard is to be given to another node: nothing of it may start any more. Answered with `Parted`."""


class Extended(msgspec.Struct):
    """Workers go on with their tasks. Answered with `Keep`."""

    extensions: "list[Extension]"
    reply: object


class Living(msgspec.Struct):
    """These boots live; a claim of any other one is of an attempt whose end nobody will tell."""

    boots: frozenset[str]


Event = (
    Submitted
    | Ticked
    | Loaded
    | LoadFailed
    | Started
    | HandedOut
    | Ended
    | Recorded
    | Refused
    | Asked
    | Looked
    | Probed
    | Vanished
    | Close
    | Extended
    | Living
)

# --- effects -----------------------------------------------------------------------------------------------------


class Offer(msgspec.Struct):
    """These tasks are due: put them on the desk of their queue."""

    tasks: list[Task]


class Ready(msgspec.Struct):
    """These attempts are claimed: give them to a dispatcher, by way of `HandedOut`."""

    tasks: list[Task]


class Write(msgspec.Struct):
    """Hand these records to the ledger."""

    records: list[Record]


class Load(msgspec.Struct):
    """Read this page; answer with Loaded or LoadFailed."""

    page: Page


class Find(msgspec.Struct):
    """Look these commands' tasks up in the tables; answer with Looked."""

    commands: list[Command]


class Publish(msgspec.Struct):
    """Tell those who watch."""

    changes: list[Change]


class Answer(msgspec.Struct):
    """The result of a command: the Change it made (`changed` False: it was so already), or an error to raise."""

    token: object
    change: Change | None = None
    error: Exception | None = None
    changed: bool = True


class Parted(msgspec.Struct):
    """The shard was closed, and nothing of it is under way any more but attempts whose claims are written."""

    shard: int


class Forward(msgspec.Struct):
    """These attempts of a shard that has parted ended: its owner, whoever that is by now, has to hear of them."""

    outcomes: list[Outcome]


class Acknowledge(msgspec.Struct):
    """These records were committed; their outcomes say who wants to hear of it."""

    records: list[Record]


class Keep(msgspec.Struct):
    """What came of these extensions."""

    reply: object
    kept: "list[Kept]"


class Revoke(msgspec.Struct):
    """These tasks were cancelled while a worker ran them: it should stop."""

    tasks: list[Task]


Effect = Offer | Ready | Write | Load | Find | Publish | Answer | Parted | Forward | Acknowledge | Keep | Revoke
