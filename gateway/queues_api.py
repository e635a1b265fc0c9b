"""Queues as a resource: their settings, what waits in them, and the end of all that waits.

A setting is committed when it is answered, and holds on every node once that node's next heartbeat has seen it, within
a second. `PUT` sets everything, with defaults for what it does not name; `PATCH` sets what it names, each field as a
whole, null standing for the default.

`:purge` goes through the owners of the tasks, as a command to cancel each of them: the owner knows at once, so nothing
that is purged can start, and one that runs already refuses. It works for PURGE_S at most, and says whether it is done.

Promises: what was done to a queue is a line of the audit log.
"""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import orjson
from aiohttp import web
from msgspec import UNSET

from actors.core.errors import Conflict, NotSupported, Unavailable, Unknown
from actors.core.events import Command
from actors.core.queue import (
    DISPATCH_DEADLINE_MS,
    MAX_RETENTION_MS,
    MIN_RETENTION_MS,
    RETENTION_MS,
    Queue,
    QueueSettings,
    Unheard,
)
from actors.core.retry import DEFAULT, RetryPolicy
from actors.core.task import Move, State
from actors.ports.reader import TaskRow
from gateway import audit
from gateway.bodies import JSON, read_json
from gateway.context import CALLER, GATEWAY, Gateway, tenant_of
from gateway.decode import check_queue, read_retry
from gateway.faults import decoded
from gateway.filters import limit_of, one
from gateway.problems import Handler, Problem
from gateway.schema import MAX_DEADLINE_MS, Empty, QueueRequest, Retention, given
from gateway.tasks_api import answer_json, check_parameters
from gateway.times import duration_ms

TRIES = 8
"""How often a change is made anew that somebody else's came before."""
PURGE_ROWS = 500
PURGE_S = 10.0

_empty = msgspec.json.Decoder(Empty)
_request = msgspec.json.Decoder(QueueRequest)
_LATER = ("max_dispatches_per_second", "max_burst_size", "max_concurrent_dispatches", "durability")


async def put(request: web.Request) -> web.StreamResponse:
    """`PUT /v1/queues/{q}`: made, or given these settings."""
    gateway, tenant, name = request.app[GATEWAY], tenant_of(request), _new_name(request)
    body = _read(await _body(request))
    settings = _changed(QueueSettings(), body)
    made = await gateway.queue_store.get(tenant, name) is None
    queue = await gateway.queue_store.ensure(tenant, name)
    queue = await _change(gateway, queue, QueueSettings(), body) if queue.settings != settings else queue
    audit.queue_changed("put", request[CALLER], name)
    status = HTTPStatus.CREATED if made else HTTPStatus.OK
    return web.Response(body=orjson.dumps(queue_object(queue)), status=status, content_type=JSON)


async def patch(request: web.Request) -> web.StreamResponse:
    """`PATCH /v1/queues/{q}`."""
    body = _read(await _body(request))
    queue = await _change(request.app[GATEWAY], await _queue(request), None, body)
    audit.queue_changed("patched", request[CALLER], queue.name)
    return web.Response(body=orjson.dumps(queue_object(queue)), content_type=JSON)


async def get(request: web.Request) -> web.StreamResponse:
    """`GET /v1/queues/{q}`, with what waits in it; null where that could not be counted in time."""
    check_parameters(request, ())
    gateway, queue = request.app[GATEWAY], await _queue(request)
    figures: dict[str, int | None]
    try:
        backlog = await gateway.reader.backlog(queue, gateway.clock.now_ms())
        figures = {"live": backlog.live, "due": backlog.due, "held": backlog.held, "counted_to": backlog.most}
    except Unavailable:
        figures = {"live": None, "due": None, "held": None, "counted_to": None}
    return web.Response(body=orjson.dumps(queue_object(queue) | {"backlog": figures}), content_type=JSON)


async def page(request: web.Request) -> web.StreamResponse:
    """`GET /v1/queues`, by name. The cursor is the last name."""
    check_parameters(request, ("cursor", "limit"))
    gateway = request.app[GATEWAY]
    limit, after = limit_of(request, gateway.settings.page_items), one(request, "cursor")
    if after is not None:
        check_queue(after, "/cursor")
    queues = await gateway.queue_store.page(tenant_of(request), after or "", limit + 1)
    cursor = queues[limit - 1].name if len(queues) > limit else None
    shown = [queue_object(queue) for queue in queues[:limit]]
    return await answer_json(request, orjson.dumps({"queues": shown, "next_cursor": cursor}))


async def delete(request: web.Request) -> web.StreamResponse:
    """`DELETE /v1/queues/{q}`."""
    check_parameters(request, ())
    queue = await _queue(request)
    if not await request.app[GATEWAY].queue_store.delete(queue):
        raise Conflict("the queue has live tasks: purge it, and let what runs end")
    audit.queue_changed("deleted", request[CALLER], queue.name)
    return web.Response(status=HTTPStatus.NO_CONTENT)


def pausing(*, paused: bool) -> Handler:
    """`:pause` and `:resume`."""

    async def command(request: web.Request) -> web.StreamResponse:
        decoded(_empty, await _body(request) or b"{}")
        queue = await _change(request.app[GATEWAY], await _queue(request), None, QueueRequest(paused=paused))
        audit.queue_changed("paused" if paused else "resumed", request[CALLER], queue.name)
        return web.Response(body=orjson.dumps(queue_object(queue)), content_type=JSON)

    return command


async def purge(request: web.Request) -> web.StreamResponse:
    """`POST /v1/queues/{q}:purge`: cancels what waits in the queue and was accepted before."""
    decoded(_empty, await _body(request) or b"{}")
    gateway, queue = request.app[GATEWAY], await _queue(request)
    loop, before_us = asyncio.get_running_loop(), gateway.clock.now_ms() * 1000 + 999
    end_s = loop.time() + PURGE_S
    purged, after, done = 0, None, False
    try:
        while not done and loop.time() < end_s:
            rows = await gateway.reader.page(queue.tenant, queue.name, (State.SCHEDULED,), after, PURGE_ROWS)
            gone, error = await _cancel(gateway, queue.tenant, [row for row in rows if row.accept_us <= before_us])
            purged += gone
            if error is not None:
                raise error
            done = len(rows) < PURGE_ROWS
            if rows:
                after = (rows[-1].due_ms, rows[-1].id)
    finally:
        audit.queue_purged(request[CALLER], queue.name, purged, done=done)
    return web.Response(body=orjson.dumps({"purged": purged, "done": done}), content_type=JSON)


async def _cancel(gateway: Gateway, tenant: str, rows: Sequence[TaskRow]) -> tuple[int, Unavailable | None]:
    """How many of them their owners have cancelled, and what kept one from it that could not be reached."""
    errors: list[Unavailable] = []

    async def cancel(task_id: str) -> bool:
        try:
            return await gateway.node.ask(Command(Move.CANCEL, task_id, None, tenant=tenant)) is not None
        except (Conflict, Unknown):
            return False  # it runs, or is over
        except Unavailable as error:
            errors.append(error)
            return False

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(cancel(row.id)) for row in rows]
    return sum(one.result() for one in asked), errors[0] if errors else None


async def _change(gateway: Gateway, queue: Queue, base: QueueSettings | None, body: QueueRequest) -> Queue:
    """The queue with the body's settings over `base` (None: over those that it has)."""
    for _ in range(TRIES):
        version, settings = queue.version, _changed(base or queue.settings, body)
        if settings == queue.settings:
            return queue
        if await gateway.queue_store.change(queue, version, settings) is not None:
            return queue
        if await gateway.queue_store.get(queue.tenant, queue.name) is None:
            raise _no_such_queue()
    raise Unavailable("too many change this queue at once")


async def _queue(request: web.Request) -> Queue:
    """The queue in the path, as the table has it."""
    name = request.match_info["queue"]
    # The database has no text with a NUL.
    queue = None if "\0" in name else await request.app[GATEWAY].queue_store.get(tenant_of(request), name)
    if queue is None:
        raise _no_such_queue()
    return queue


def _no_such_queue() -> Problem:
    return Problem("not-found", "no such queue")


def _new_name(request: web.Request) -> str:
    name = request.match_info["queue"]
    check_queue(name, "/queue")
    return name


async def _body(request: web.Request) -> bytes:
    check_parameters(request, ())
    return await read_json(request, request.app[GATEWAY].settings.body_bytes)


def _read(data: bytes) -> QueueRequest:
    body = decoded(_request, data)
    for name in _LATER:
        if given(getattr(body, name)):
            raise NotSupported(f"{name} is not supported yet", f"/{name}")
    return body


def _changed(base: QueueSettings, body: QueueRequest) -> QueueSettings:
    paused, retry, deadline_ms, retention_ms = base.paused, base.retry, base.dispatch_deadline_ms, base.retention_ms
    if body.paused is not UNSET:
        paused = bool(body.paused)
    if bytes(body.retry):
        retry = read_retry(given(body.retry)) if given(body.retry) else DEFAULT
    unknown = base.unknown if body.unknown is UNSET else body.unknown or Unheard.RETRY
    if body.dispatch_deadline is None:
        deadline_ms = DISPATCH_DEADLINE_MS
    elif body.dispatch_deadline is not UNSET:
        deadline_ms = duration_ms(body.dispatch_deadline, "/dispatch_deadline", 1, MAX_DEADLINE_MS)
    if body.retention is None:
        retention_ms = RETENTION_MS
    elif body.retention is not UNSET:
        retention_ms = _retention_ms(body.retention)
    return QueueSettings(paused, retry, deadline_ms, retention_ms, unknown)


def _retention_ms(retention: Retention) -> dict[State, int]:
    periods = dict(RETENTION_MS)
    for state in periods:
        period = getattr(retention, state.value)
        if period is not None:
            periods[state] = duration_ms(period, f"/retention/{state.value}", MIN_RETENTION_MS, MAX_RETENTION_MS)
    return periods


def queue_object(queue: Queue) -> dict[str, Any]:
    """A queue as the API shows it; durations are numbers of seconds."""
    return {
        "name": queue.name,
        "paused": queue.paused,
        "retry": _retry_object(queue.retry),
        "dispatch_deadline": queue.dispatch_deadline_ms / 1000,
        "retention": {state.value: period_ms / 1000 for state, period_ms in queue.retention_ms.items()},
        "unknown": queue.unknown.value,
    }


def _retry_object(retry: RetryPolicy) -> dict[str, Any]:
    limit_ms = retry.max_retry_duration_ms
    return {
        "max_attempts": retry.max_attempts,
        "min_backoff": retry.min_backoff_ms / 1000,
        "max_backoff": retry.max_backoff_ms / 1000,
        "max_doublings": retry.max_doublings,
        "max_retry_duration": None if limit_ms is None else limit_ms / 1000,
    }
