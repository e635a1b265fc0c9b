"""Commands of clients on one task: decided by its owner, answered after COMMIT with the task as it is then."""

import random
from typing import Literal

import msgspec
import orjson
from aiohttp import web

from actors.core.commands import MOVES_OF
from actors.core.errors import Conflict, Invalid, Unknown
from actors.core.events import Command, Outcome, Verdict
from actors.core.task import Move, Task, fence_parts
from actors.ports.reader import TaskRow
from gateway.bodies import JSON, read_json
from gateway.context import GATEWAY, tenant_of
from gateway.decode import when
from gateway.faults import decoded
from gateway.problems import Handler
from gateway.schema import Complete, Empty, Reschedule, given
from gateway.tasks_api import read_task, task_id_of
from gateway.times import MAX_DURATION_MS, duration_ms

MAX_RESULT_BYTES = 64 * 1024
MAX_ERROR_CHARS = 1_000

_empty = msgspec.json.Decoder(Empty)
_reschedule = msgspec.json.Decoder(Reschedule)
_complete = msgspec.json.Decoder(Complete)


def plain(move: Move) -> Handler:
    """`:cancel`, `:run`, `:redrive`: commands whose body is empty."""

    async def command(request: web.Request) -> web.StreamResponse:
        decoded(_empty, await _body(request) or b"{}")
        return await _ask(request, Command(move, task_id_of(request), None, tenant=tenant_of(request)))

    return command


async def reschedule(request: web.Request) -> web.StreamResponse:
    """`:reschedule`."""
    body = decoded(_reschedule, await _body(request))
    now_ms = request.app[GATEWAY].clock.now_ms()
    at_ms, delay_ms = when(body.schedule_time, body.delay, now_ms)
    if delay_ms is not None:
        at_ms = now_ms + delay_ms
    if at_ms is None:
        raise Invalid("schedule_time or delay is required", "")
    command = Command(Move.RESCHEDULE, task_id_of(request), None, at_ms, tenant=tenant_of(request))
    return await _ask(request, command)


async def complete(request: web.Request) -> web.StreamResponse:
    """`:complete`: the result of an attempt whose target took the work and answered later."""
    gateway = request.app[GATEWAY]
    body = decoded(_complete, await _body(request))
    _check_complete(body)
    timeline, epoch, attempt = _fence(body.fence)
    task_id = task_id_of(request)
    row = await gateway.reader.get(tenant_of(request), task_id)
    if row is None:
        raise Unknown(task_id)
    task = _attempt_of(row, epoch, attempt)
    # A failover of the database starts a new timeline, not a new attempt: the target was told the older one.
    if timeline > _fence(gateway.node.fence_of(task))[0]:
        raise Conflict("the fence is not that of the current attempt", row.state.value)
    outcome = _outcome(body, task, gateway.clock.now_ms())
    move = MOVES_OF.get(outcome.verdict, Move.RETRY)
    return await _ask(request, Command(move, task_id, None, outcome=outcome, tenant=tenant_of(request)))


async def _body(request: web.Request) -> bytes:
    return await read_json(request, request.app[GATEWAY].settings.body_bytes)


async def _ask(request: web.Request, command: Command) -> web.Response:
    await request.app[GATEWAY].node.ask(command)
    return web.Response(body=await read_task(request, command.id), content_type=JSON)


def _fence(text: str) -> tuple[int, int, int]:
    """Timeline, epoch, attempt."""
    parts = fence_parts(text)
    if parts is None:
        raise Invalid("not a fence", "/fence")
    return parts


def _check_complete(body: Complete) -> None:
    if body.ok:
        if body.error is not None or body.retry is not None:
            raise Invalid("error and retry go with ok: false", "/error" if body.error is not None else "/retry")
    elif given(body.result):
        raise Invalid("goes with ok: true", "/result")
    if body.result:
        check_result(bytes(body.result))


def check_result(data: bytes) -> None:
    """Raises Invalid for a result that can't be kept."""
    if len(data) > MAX_RESULT_BYTES:
        raise Invalid(f"is larger than {MAX_RESULT_BYTES} bytes", "/result")
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Invalid("is not JSON that can be kept", "/result") from error


def _attempt_of(row: TaskRow, epoch: int, attempt: int) -> Task:
    return Task(
        row.id,
        row.shard,
        row.queue,
        row.schedule_ms,
        row.due_ms,
        row.accept_us,
        row.spec,
        rev=row.rev,
        attempt=attempt,
        epoch=epoch,
    )


def _outcome(body: Complete, task: Task, now_ms: int) -> Outcome:
    verdict, retry_after_ms = (Verdict.SUCCEEDED, None) if body.ok else failure_of(body.retry)
    return Outcome(
        task,
        task.epoch,
        task.attempt,
        verdict,
        started_ms=now_ms,
        ended_ms=now_ms,
        error=None if body.error is None else line(body.error),
        result=bytes(body.result) or None,
        retry_after_ms=retry_after_ms,
        jitter=random.random(),  # noqa: S311 - spreads retries, guards nothing
    )


def failure_of(retry: Literal["never"] | float | None) -> tuple[Verdict, int | None]:
    """What a failure is whose teller wants this: tried again, after so long if it says when, or not. Raises Invalid."""
    if retry == "never":
        return Verdict.NEVER, None
    wish_ms = None if retry is None else duration_ms(retry, "/retry", 0, MAX_DURATION_MS)
    return Verdict.FAILED, wish_ms


def line(text: str) -> str:
    """One short line: control characters (NUL among them) become spaces."""
    return "".join(char if char.isprintable() else " " for char in text[:MAX_ERROR_CHARS])
