"""What the service answers, as types: the document of the API is built from them, and tests hold every answer to them.

Answers are put together from prepared bytes (`task_view.py`, `tasks_api.py`, `problems.py`), never from these types:
building objects first would cost the hot path. Clients must let unknown fields pass, the tests don't.
"""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from actors.core.queue import Unheard
from actors.core.spec import HttpTarget
from actors.core.task import State
from gateway import bounds
from gateway.bounds import published
from gateway.problems import TYPES

TaskId = Annotated[str, Meta(extra_json_schema={"format": "uuid", "pattern": published(bounds.TASK_ID)})]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time", "pattern": published(bounds.TIME)})]
Fence = Annotated[
    str,
    Meta(
        description="Of the current attempt; only grows. Shown while one runs.",
        extra_json_schema={"pattern": published(bounds.FENCE)},
    ),
]
Count = Annotated[int, Meta(ge=0)]


class LastAttempt(msgspec.Struct, forbid_unknown_fields=True):
    """The attempt that ended last."""

    start_time: Time
    duration_ms: Count | None
    status: Annotated[int | None, Meta(description="HTTP status of the target; null when there was none.")]
    error: str | None


class Task(msgspec.Struct, forbid_unknown_fields=True):
    """A task as it is now."""

    id: TaskId
    queue: str
    state: Annotated[State, Meta(description="`scheduled` also between two attempts: then `attempt` is above 0.")]
    schedule_time: Annotated[Time, Meta(description="When it was to run, as asked for.")]
    next_attempt_time: Annotated[
        Time | None,
        Meta(
            description="No attempt before: the schedule time, or after a failed attempt when it is tried again (at "
            "most a day later because of a Retry-After). In the past: it waits for its turn. Null unless `scheduled`."
        ),
    ]
    deadline_time: Annotated[
        Time | None,
        Meta(description="When the running attempt has failed if it neither answered nor was completed until then."),
    ]
    held: Annotated[
        bool, Meta(description="Nobody knows how its attempt ended: it runs until somebody says so (`:complete`).")
    ]
    create_time: Time
    attempt: Annotated[int, Meta(ge=0, description="The number of the last attempt that started.")]
    max_attempts: Annotated[int, Meta(ge=1, description="The number of the last attempt that it may have.")]
    priority: Annotated[int, Meta(ge=1, le=5)]
    labels: dict[str, str]
    http: HttpTarget | None
    fence: Fence | None
    lateness_ms: Annotated[int | None, Meta(description="How late its first attempt started.")]
    last_attempt: LastAttempt | None
    finish_time: Time | None
    result: Annotated[Any, Meta(description="What the target answered, or the completion carried; null without one.")]
    shard: Count
    payload: Annotated[Any, Meta(description="With `view=full`; null when it is no longer kept.")] = UNSET
    payload_base64: Annotated[str | UnsetType, Meta(description="With `view=full`: a payload of bytes.")] = UNSET
    content_type: Annotated[str | UnsetType, Meta(description="With `payload_base64`.")] = UNSET


class TaskPage(msgspec.Struct, forbid_unknown_fields=True):
    """Some tasks, by their next due time."""

    tasks: list[Task]
    next_cursor: Annotated[str | None, Meta(description="Asks for the page after this one; null: there is none.")]


class Retry(msgspec.Struct, forbid_unknown_fields=True):
    """When tasks are tried again; durations in seconds."""

    max_attempts: Annotated[int, Meta(ge=1)]
    min_backoff: Annotated[float, Meta(ge=0)]
    max_backoff: Annotated[float, Meta(ge=0)]
    max_doublings: Count
    max_retry_duration: float | None


class Retention(msgspec.Struct, forbid_unknown_fields=True):
    """How long what is over can be read, in seconds."""

    succeeded: float
    dead: float
    expired: float
    cancelled: float


class Backlog(msgspec.Struct, forbid_unknown_fields=True):
    """What waits in a queue; null where that could not be counted in time."""

    live: Count | None
    due: Count | None
    held: Annotated[Count | None, Meta(description="Tasks that are held until somebody says how their attempt ended.")]
    counted_to: Annotated[Count | None, Meta(description="Nothing is counted beyond it.")]


class Queue(msgspec.Struct, forbid_unknown_fields=True):
    """A queue and its settings."""

    name: str
    paused: bool
    retry: Retry
    dispatch_deadline: Annotated[float, Meta(gt=0, description="In seconds.")]
    retention: Retention
    unknown: Annotated[Unheard, Meta(description="What becomes of an attempt whose node was lost.")]
    backlog: Backlog | UnsetType = UNSET


class QueuePage(msgspec.Struct, forbid_unknown_fields=True):
    """Some queues, by name."""

    queues: list[Queue]
    next_cursor: Annotated[str | None, Meta(description="Asks for the page after this one; null: there is none.")]


class Purged(msgspec.Struct, forbid_unknown_fields=True):
    """What a purge has done."""

    purged: Annotated[int, Meta(ge=0, description="Tasks that were cancelled.")]
    done: Annotated[bool, Meta(description="False: there is more, and time was up. Ask again.")]


class Attempt(msgspec.Struct, forbid_unknown_fields=True):
    """One attempt that failed or was slow."""

    attempt: Count
    fence: Fence
    start_time: Time
    duration_ms: Count
    outcome: str
    status: int | None
    error: str | None


class Attempts(msgspec.Struct, forbid_unknown_fields=True):
    """A task's recorded attempts, oldest first."""

    attempts: list[Attempt]


class FieldError(msgspec.Struct, forbid_unknown_fields=True):
    """What is wrong with one field."""

    pointer: Annotated[str, Meta(description="JSON pointer (RFC 6901); empty: the whole body.")]
    detail: str


class Problem(msgspec.Struct, forbid_unknown_fields=True):
    """Why a request was refused (RFC 9457)."""

    type: Annotated[str, Meta(extra_json_schema={"enum": sorted(TYPES)})]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    errors: list[FieldError]
    instance: Annotated[str | UnsetType, Meta(description="What was asked for.")] = UNSET
    state: Annotated[State | UnsetType, Meta(description="Of the task that refused a command.")] = UNSET


class LeasedTask(msgspec.Struct, forbid_unknown_fields=True):
    """A task for a worker."""

    id: TaskId
    queue: str
    attempt: Annotated[int, Meta(ge=1)]
    max_attempts: Annotated[int, Meta(ge=1)]
    fence: Fence
    lease: Annotated[str, Meta(description="Says that the attempt is yours: goes with its result.")]
    lease_expire_time: Annotated[Time, Meta(description="Then it is another worker's, unless it was extended.")]
    lease_seconds: Annotated[float, Meta(description="The full period of the lease.")]
    schedule_time: Time
    labels: dict[str, str] | UnsetType = UNSET
    traceparent: str | UnsetType = UNSET
    payload: Annotated[Any, Meta(description="Absent when the task has none.")] = UNSET
    payload_base64: Annotated[str | UnsetType, Meta(description="A payload of bytes.")] = UNSET
    content_type: Annotated[str | UnsetType, Meta(description="With `payload_base64`.")] = UNSET


class LeasedTasks(msgspec.Struct, forbid_unknown_fields=True):
    """Tasks that are yours now; none came in time when it is empty."""

    tasks: list[LeasedTask]


class ResultOutcome(msgspec.Struct, forbid_unknown_fields=True):
    """What came of one result: the task's state after it, or a problem."""

    id: str
    state: Annotated[State | UnsetType | None, Meta(description="Null: it was recorded before.")] = UNSET
    problem: Problem | UnsetType = UNSET


class ResultOutcomes(msgspec.Struct, forbid_unknown_fields=True):
    """One entry a result, in their order."""

    results: list[ResultOutcome]


class LeaseOutcome(msgspec.Struct, forbid_unknown_fields=True):
    """What came of one extension: when the lease ends, or a problem."""

    id: str
    lease: str
    lease_expire_time: Time | UnsetType = UNSET
    problem: Problem | UnsetType = UNSET


class LeaseOutcomes(msgspec.Struct, forbid_unknown_fields=True):
    """One entry a lease, in their order."""

    results: list[LeaseOutcome]


class ClockTime(msgspec.Struct, forbid_unknown_fields=True):
    """What time it is."""

    time: Time


class BatchItem(msgspec.Struct, forbid_unknown_fields=True):
    """What became of one item of a batch: `id` and `state`, or `problem`."""

    id: TaskId | UnsetType = UNSET
    state: State | UnsetType = UNSET
    problem: Problem | UnsetType = UNSET


class BatchResults(msgspec.Struct, forbid_unknown_fields=True):
    """One entry an item, in order."""

    results: list[
        Annotated[
            BatchItem, Meta(extra_json_schema={"oneOf": [{"required": ["id", "state"]}, {"required": ["problem"]}]})
        ]
    ]


class Armed(msgspec.Struct, forbid_unknown_fields=True):
    """Near tasks of a node: in its memory, and in the tables, within what its memory claims to hold."""

    entries: Annotated[int, Meta(ge=0, description="In memory.")]
    rows: Annotated[int | None, Meta(description="In the tables, a moment later; null: not counted in time.")]
    missing: Annotated[
        int | None, Meta(description="Rows that nothing has armed; 0 in a healthy cluster, null: not known.")
    ]


class ClusterNode(msgspec.Struct, forbid_unknown_fields=True):
    """A node that is not dead."""

    name: str
    boot: Annotated[str, Meta(description="Names one start of its process.")]
    address: Annotated[str, Meta(description="Where other nodes reach it.")]
    state: Annotated[str, Meta(description="`up`: it owns shards, or may; `leaving`: it hands them over.")]
    shards: Annotated[int, Meta(ge=0, description="How many it owns.")]
    still_ms: Annotated[
        int | None,
        Meta(
            description="How long its heartbeat counter has stood still, as seen by the asked node; null: not seen yet."
        ),
    ]
    asked: Annotated[bool, Meta(description="Whether it is the node that answers.")]
    armed: Annotated[Armed | None, Meta(description="null: it could not be asked in time.")]


class ClusterShard(msgspec.Struct, forbid_unknown_fields=True):
    """A shard and its owner."""

    shard: Count
    owner: Annotated[str | None, Meta(description="The node's name; null: nobody who lives.")]
    epoch: Annotated[int, Meta(ge=0, description="Grows with each change of owner.")]


class Marked(msgspec.Struct, forbid_unknown_fields=True):
    """What was asked of a node."""

    node: str
    state: Annotated[str, Meta(description="`leaving`: it gives its shards away; `up`: it gets its part again.")]


class Cluster(msgspec.Struct, forbid_unknown_fields=True):
    """Nodes and shards, as the tables have them."""

    nodes: list[ClusterNode]
    shards: list[ClusterShard]
    misplaced: Annotated[int, Meta(ge=0, description="Shards that are not where the ring wants them.")]
    lease_margin_ms: Annotated[int, Meta(ge=0, description="How long the asked node may go on firing by itself.")]
    counted_to: Annotated[int, Meta(ge=0, description="No more rows of a node are counted.")]


class Status(msgspec.Struct, forbid_unknown_fields=True):
    """What a probe says."""

    status: str
