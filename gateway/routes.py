"""The table of all routes: what the service answers, and what its document says, from one entry each.

To add a route, add one `Route` here: its handler, the types of what it takes (`schema.py`) and answers (`answers.py`),
the scope that a key needs, its parameters, and those problems that do not follow from its shape (409, mostly). A new
name in a path is declared in `openapi.PATH_PARAMETERS`. Nothing else has to be told: the router (`app.py`), the
document, the page and the tests read this table. A more special path stands before one that would match it too.
"""

from typing import Annotated, Any

from msgspec import Meta

from actors.core.task import Move, State
from gateway import (
    bounds,
    clock_api,
    commands_api,
    contract_api,
    filters,
    leases_api,
    page,
    probes,
    queues_api,
    tasks_api,
)
from gateway.answers import (
    Attempts,
    BatchResults,
    ClockTime,
    Cluster,
    LeasedTasks,
    LeaseOutcomes,
    Marked,
    Purged,
    Queue,
    QueuePage,
    ResultOutcomes,
    Status,
    Task,
    TaskId,
    TaskPage,
)
from gateway.auth import ADMIN, METRICS, OPERATE, PULL, READ, SUBMIT, WATCH, WORK
from gateway.bodies import JSON, NDJSON
from gateway.bounds import published
from gateway.cluster_api import cluster, marking
from gateway.context import Settings
from gateway.events import events
from gateway.metrics import metrics
from gateway.route import Answer, Body, Parameter, Route, json, patient
from gateway.schema import (
    Advance,
    Complete,
    Empty,
    LabelQuery,
    LeaseRequest,
    Leases,
    NamedNode,
    QueueRequest,
    Reschedule,
    Results,
    TaskRequest,
)
from gateway.stream import stream
from gateway.times import TIME
from gateway.worker_link import worker

LIMITS = Settings()

_KEY = Parameter(
    "Idempotency-Key",
    "The same key and body again answer the task that is there; with another body, 422. In a batch, item n has the key "
    "`<key>/<n>`.",
    Annotated[str, Meta(extra_json_schema={"pattern": published(bounds.KEY_HEADER)})],
    "header",
)
_TIME = {"pattern": published(TIME.pattern), "format": "date-time"}
_QUEUE = Parameter(
    "queue", "Only of this queue.", Annotated[str, Meta(extra_json_schema={"pattern": published(bounds.QUEUE)})]
)
_STATE = Parameter("state", "Only in one of these states; also as one value with commas.", State, many=True)
_TIMES = tuple(
    Parameter(f"schedule_time.{bound}", f"Only {words} this time.", Annotated[str, Meta(extra_json_schema=_TIME)])
    for bound, words in (("gte", "from"), ("gt", "after"), ("lt", "before"), ("lte", "up to"))
)
_LABELS = Parameter(
    "labels",
    "Only with these labels, all of them: `label.<name>=<value>` for each, so that `labels` itself is no part of the "
    "query.",
    LabelQuery,
)
_ORDER = Parameter(
    "order",
    "By the next due time, or for what is over by the last one: `asc`, the default, or `desc`, the latest first.",
    Annotated[str, Meta(extra_json_schema={"enum": list(filters.ORDERS)})],
)
_LIMIT = Parameter(
    "limit",
    f"Most of a page; {filters.DEFAULT_PAGE} when not given.",
    Annotated[int, Meta(ge=1, le=LIMITS.page_items)],
)
_CURSOR = Parameter(
    "cursor",
    "`next_cursor` of the page before.",
    Annotated[str, Meta(extra_json_schema={"pattern": published(bounds.CURSOR)})],
)
_VIEW = Parameter(
    "view", "`full` shows what the task carries.", Annotated[str, Meta(extra_json_schema={"enum": ["basic", "full"]})]
)

_AFTER = Parameter(
    "cursor",
    "`next_cursor` of the page before.",
    Annotated[str, Meta(extra_json_schema={"pattern": published(bounds.QUEUE)})],
)
_SETTINGS = Body({JSON: QueueRequest}, example={"paused": False, "retry": {"max_attempts": 3}})
_TASK = {200: json(Task, "The task as it is now.")}
_NOTHING = Body({JSON: Empty}, required=False, example={})
_MANY = Annotated[
    list[Any],
    Meta(
        min_length=1,
        max_length=LIMITS.batch_items,
        extra_json_schema={"items": {"$ref": "#/components/schemas/TaskRequest"}},
    ),
]
_ID, _LEASE = "019b76da-a87b-7001-8203-040506070809", "00000001.0000000001.000001"
_EXAMPLE = {
    "queue": "emails",
    "http": {"url": "https://example.com/hook"},
    "payload": {"hello": "world"},
    "delay": "10s",
    "labels": {"customer": "7"},
}

ROUTES: tuple[Route, ...] = (
    Route(
        "createTask",
        "POST",
        "/v1/tasks",
        tasks_api.create,
        "Submit a task",
        {
            201: json(Task, "Accepted: it is committed.", Location="Where the task is."),
            200: json(
                Task,
                "The task that stands under this idempotency key.",
                Location="Where the task is.",
                Idempotent_Replayed="`true`.",
            ),
        },
        SUBMIT,
        Body({JSON: TaskRequest}, example=_EXAMPLE),
        (_KEY,),
    ),
    Route(
        "createTasks",
        "POST",
        "/v1/tasks:batch",
        tasks_api.create_batch,
        "Submit many tasks",
        {200: json(BatchResults, "What became of each.")},
        SUBMIT,
        Body({JSON: _MANY, NDJSON: str}, example=[_EXAMPLE, {"queue": "reports", "payload": 7}]),
        (_KEY,),
        words="As a JSON array, or as lines of JSON. An item that is refused never hurts its neighbours: it has a "
        "problem in its place, and the answer is 200 all the same. So a body that breaks the schema in an item is not "
        "refused as a whole, whatever a tool may expect that checks by this document; no item at all is (422), and so "
        f"are more than {LIMITS.batch_items:,} (413).",
    ),
    Route(
        "listTasks",
        "GET",
        "/v1/tasks",
        patient(tasks_api.page),
        "List tasks",
        {200: json(TaskPage, "A page, in the order that was asked for.")},
        READ,
        parameters=(_QUEUE, _STATE, _LABELS, *_TIMES, _ORDER, _CURSOR, _LIMIT),
        words="A list that takes longer than 5 s is given up: narrow it. Running is known to a task's owner alone, so "
        "that a page of one state may hold fewer than `limit`.",
    ),
    Route("getTask", "GET", "/v1/tasks/{id}", patient(tasks_api.get), "Read a task", _TASK, READ, parameters=(_VIEW,)),
    Route(
        "listAttempts",
        "GET",
        "/v1/tasks/{id}/attempts",
        patient(tasks_api.attempts),
        "List a task's attempts",
        {200: json(Attempts, "Every attempt that failed or was slow, oldest first, at most 1,000.")},
        READ,
        problems=(422,),
    ),
    Route(
        "cancelTask",
        "POST",
        "/v1/tasks/{id}:cancel",
        patient(commands_api.plain(Move.CANCEL)),
        "Cancel a task",
        _TASK,
        SUBMIT,
        _NOTHING,
        problems=(409,),
    ),
    Route(
        "runTask",
        "POST",
        "/v1/tasks/{id}:run",
        patient(commands_api.plain(Move.RUN)),
        "Run a task now",
        _TASK,
        SUBMIT,
        _NOTHING,
        problems=(409,),
    ),
    Route(
        "redriveTask",
        "POST",
        "/v1/tasks/{id}:redrive",
        patient(commands_api.plain(Move.REDRIVE)),
        "Schedule a dead, expired or cancelled task again",
        _TASK,
        SUBMIT,
        _NOTHING,
        problems=(409,),
    ),
    Route(
        "rescheduleTask",
        "POST",
        "/v1/tasks/{id}:reschedule",
        patient(commands_api.reschedule),
        "Give a task another time",
        _TASK,
        SUBMIT,
        Body({JSON: Reschedule}, example={"delay": "1h"}),
        problems=(409,),
    ),
    Route(
        "completeTask",
        "POST",
        "/v1/tasks/{id}:complete",
        patient(commands_api.complete),
        "Complete an attempt whose target took the work",
        _TASK,
        WORK,
        Body({JSON: Complete}, example={"fence": "00000001.0000000001.000001", "result": {"sent": 7}}),
        problems=(409,),
        words="For targets that answered 202 with `ringwheel-complete: later`. There is time until the attempt's "
        "`dispatch_deadline`, which counts from its start; then it has failed, and the target may be called again. A "
        "result under an old fence is refused.",
    ),
    Route(
        "leaseTasks",
        "POST",
        "/v1/queues/{queue}:lease",
        patient(leases_api.lease),
        "Take tasks of a queue",
        {200: json(LeasedTasks, "As soon as there is one; none when there was none in time.")},
        WORK,
        Body({JSON: LeaseRequest}, required=False, example={"max": 10, "wait": 20}),
        words="Each is yours under its lease, until `lease_expire_time`. Of tasks that were submitted without `http`.",
    ),
    Route(
        "completeTasks",
        "POST",
        "/v1/tasks:complete",
        patient(leases_api.complete),
        "Say how tasks ended that you took",
        {200: json(ResultOutcomes, "Once all are committed, or refused.")},
        WORK,
        Body({JSON: Results}, example={"results": [{"id": _ID, "lease": _LEASE, "ok": True, "result": {"sent": 7}}]}),
        words="A result may be said again: one that was recorded under this lease is recorded. A problem of 409: the "
        "lease is over, the task is another worker's, or ended otherwise. 503: it is not known; say it again.",
    ),
    Route(
        "extendLeases",
        "POST",
        "/v1/tasks:extend",
        patient(leases_api.extend),
        "Go on with tasks that you took",
        {200: json(LeaseOutcomes, "Until when, or why not.")},
        WORK,
        Body({JSON: Leases}, example={"leases": [{"id": _ID, "lease": _LEASE, "by": 30}]}),
    ),
    Route(
        "worker",
        "GET",
        "/v1/worker",
        worker,
        "Take tasks, live",
        {101: Answer("A websocket of the subprotocol `ringwheel.v1.json`.")},
        PULL,
        endless=True,
        words='Send `{"type": "ready", "queue": ..., "credits": 100}`: `tasks` come as they are due, never above the '
        'credits. Answer `{"type": "done", "results": [{"id", "lease", "ok": true}]}`; `recorded` follows the commit.',
    ),
    Route(
        "advanceClock",
        "POST",
        "/v1/clock:advance",
        clock_api.advance,
        "Set the clock forward",
        {200: json(ClockTime, "It is this time now.")},
        OPERATE,
        Body({JSON: Advance}, example={"by": "1h"}),
        problems=(409,),
        words="In `ringwheel dev` with one node alone: virtual time for your tests. What is due by then fires now.",
    ),
    Route(
        "listQueues",
        "GET",
        "/v1/queues",
        patient(queues_api.page),
        "List queues",
        {200: json(QueuePage, "A page, by name.")},
        READ,
        parameters=(_AFTER, _LIMIT),
    ),
    Route(
        "getQueue",
        "GET",
        "/v1/queues/{queue}",
        patient(queues_api.get),
        "Read a queue",
        {200: json(Queue, "Its settings, and what waits in it.")},
        READ,
        problems=(422,),
    ),
    Route(
        "putQueue",
        "PUT",
        "/v1/queues/{queue}",
        patient(queues_api.put),
        "Make a queue, or set all of its settings",
        {200: json(Queue, "It has these settings."), 201: json(Queue, "Made.")},
        ADMIN,
        _SETTINGS,
        words="Settings hold on every node within a second or so.",
    ),
    Route(
        "patchQueue",
        "PATCH",
        "/v1/queues/{queue}",
        patient(queues_api.patch),
        "Change some of a queue's settings",
        {200: json(Queue, "The queue as it is now.")},
        ADMIN,
        _SETTINGS,
    ),
    Route(
        "deleteQueue",
        "DELETE",
        "/v1/queues/{queue}",
        patient(queues_api.delete),
        "Delete a queue that has no live tasks",
        {204: Answer("Gone; the next task of that name makes it anew.")},
        ADMIN,
        problems=(409, 422),
    ),
    Route(
        "pauseQueue",
        "POST",
        "/v1/queues/{queue}:pause",
        patient(queues_api.pausing(paused=True)),
        "Start nothing of a queue",
        {200: json(Queue, "The queue as it is now.")},
        ADMIN,
        _NOTHING,
    ),
    Route(
        "resumeQueue",
        "POST",
        "/v1/queues/{queue}:resume",
        patient(queues_api.pausing(paused=False)),
        "Start what is due in a queue again",
        {200: json(Queue, "The queue as it is now.")},
        ADMIN,
        _NOTHING,
    ),
    Route(
        "purgeQueue",
        "POST",
        "/v1/queues/{queue}:purge",
        patient(queues_api.purge),
        "Cancel all that waits in a queue",
        {200: json(Purged, "What was cancelled.")},
        ADMIN,
        _NOTHING,
    ),
    Route(
        "stream",
        "GET",
        "/v1/stream",
        stream,
        "Watch tasks live",
        {101: Answer("A websocket of the subprotocol `ringwheel.v1.json`.")},
        WATCH,
        endless=True,
        words='Send `{"type": "subscribe", "sub": "s1", "filter": {"id": ...}}` (or `{"queue": ...}`, `{"labels": '
        '{...}}`, or both; and `"from": cursor` to go on): a `snapshot`, then an `event` for each change, and a `gap` '
        "when some could not be kept. A snapshot of a queue or of labels shows at most 1,000 live tasks, those due "
        "next; when there are more, it is `truncated`, and `listTasks` has the others.",
    ),
    Route(
        "events",
        "GET",
        "/v1/events",
        events,
        "Watch tasks live, as server-sent events",
        {200: Answer("Events that do not end.", {"text/event-stream": str})},
        READ,
        parameters=(
            Parameter("id", "This task.", TaskId),
            _QUEUE,
            _LABELS,
            Parameter("Last-Event-ID", "Goes on after this event.", place="header"),
        ),
        endless=True,
        words="Either `id`, or `queue` or `labels` or both say what to watch.",
    ),
    Route(
        "getCluster",
        "GET",
        "/v1/cluster",
        patient(cluster),
        "See nodes and shards, and whether every near task is armed",
        {200: json(Cluster, "The cluster as the tables have it, and as the asked node sees it.")},
        OPERATE,
        problems=(422,),
        words="Of all tenants. A node that can't be reached within half a second is shown with `armed: null`, and rows "
        "that can't be counted in time are null.",
    ),
    Route(
        "drainNode",
        "POST",
        "/v1/cluster:drain",
        patient(marking("leaving")),
        "Have a node give its shards to the others",
        {200: json(Marked, "It does, from its next heartbeat on (half a second).")},
        OPERATE,
        Body({JSON: NamedNode}, example={"node": "node-a"}),
        problems=(404,),
        words="The node lives on: it takes requests, and ends what runs. `GET /v1/cluster` shows how far it is.",
    ),
    Route(
        "undrainNode",
        "POST",
        "/v1/cluster:undrain",
        patient(marking("up")),
        "Have a drained node take its part again",
        {200: json(Marked, "It does, from its next heartbeat on (half a second).")},
        OPERATE,
        Body({JSON: NamedNode}, example={"node": "node-a"}),
        problems=(404,),
    ),
    Route("livez", "GET", "/livez", probes.livez, "Alive", {200: json(Status, "The loop turns.")}),
    Route(
        "readyz",
        "GET",
        "/readyz",
        probes.readyz,
        "Ready for work",
        {200: json(Status, "New work may be sent here.")},
        problems=(503,),
    ),
    Route(
        "startupz",
        "GET",
        "/startupz",
        probes.startupz,
        "Started",
        {200: json(Status, "It was ready once.")},
        problems=(503,),
    ),
    Route(
        "metrics",
        "GET",
        "/metrics",
        metrics,
        "Prometheus metrics",
        {200: Answer("Metrics.", {"text/plain": str})},
        METRICS,
    ),
    Route(
        "openapi",
        "GET",
        "/openapi.json",
        contract_api.openapi,
        "This document",
        {
            200: json(dict[str, Any], "OpenAPI 3.1.", ETag="Of these bytes."),
            304: Answer("As `If-None-Match` has it."),
        },
    ),
    Route(
        "docs",
        "GET",
        "/docs",
        page.docs,
        "This document as a page",
        {200: Answer("A page.", {"text/html": str})},
    ),
    Route(
        "docsFile",
        "GET",
        "/docs/{file}",
        page.docs_file,
        "What the page is made of",
        {200: Answer("A file.", dict.fromkeys(page.MEDIA_TYPES.values(), str))},
    ),
)
