"""A task as answered: what the tables say of it, overlaid with what its owner knows.

`max_attempts` is the number of the last attempt that the task may have: a redrive raises it by what the retry policy
allows. `fence` and `deadline_time` are shown while an attempt runs, or has a claim; `next_attempt_time` while the task
is scheduled: lists are in this order. A held task (`Unheard.HOLD`) has no deadline: it runs until somebody says how its
attempt ended.
"""

import base64
from collections.abc import Callable
from typing import Any

import orjson

from actors.core.draft import Draft, Receipt
from actors.core.live import Live
from actors.core.settle import HELD_MS, deadline_ms_of
from actors.core.spec import HttpTarget, Spec
from actors.core.task import Phase, State
from actors.ports.reader import AttemptRow, TaskRow
from gateway.times import time_text

PRIORITY = 3

FenceOf = Callable[[Live | TaskRow], str]


def new_task(draft: Draft, receipt: Receipt) -> bytes:
    """A task that was accepted a moment ago, as a JSON object."""
    retry = draft.spec.retry or draft.queue.retry
    labels = draft.labels or "{}"
    http = b"null" if draft.spec.http is None else orjson.dumps(_http(draft.spec.http))
    return (
        f'{{"id":"{receipt.id}","queue":"{draft.queue.name}","state":"{receipt.state.value}",'
        f'"schedule_time":"{time_text(receipt.schedule_ms)}","next_attempt_time":"{time_text(receipt.due_ms)}",'
        f'"deadline_time":null,"held":false,"create_time":"{time_text(receipt.accept_us // 1000)}","attempt":0,'
        f'"max_attempts":{retry.max_attempts},"priority":{PRIORITY},"labels":{labels},"http":'
    ).encode() + (
        b'%b,"fence":null,"lateness_ms":null,"last_attempt":null,"finish_time":null,"result":null,"shard":%d}'
        % (http, receipt.shard)
    )


def location(receipt: Receipt) -> dict[str, str]:
    """Where a submitted task is, as a header."""
    return {"Location": f"/v1/tasks/{receipt.id}"}


def task_object(row: TaskRow, live: Live | None, fence_of: FenceOf, *, payload: bool = False) -> dict[str, Any]:
    """Any task, ready to be encoded; with `payload`, what it carries (null when that is no longer kept)."""
    state, attempt, running, lateness_ms = _now(row, live)
    body = {
        "id": row.id,
        "queue": row.queue.name,
        "state": state.value,
        "schedule_time": time_text(row.schedule_ms),
        "next_attempt_time": time_text(row.due_ms) if state is State.SCHEDULED else None,
        "deadline_time": None if running is None else _deadline(row, running),
        "held": running is not None and _is_held(row, running),
        "create_time": time_text(row.accept_us // 1000),
        "attempt": attempt,
        "max_attempts": row.budget,
        "priority": PRIORITY,
        "labels": orjson.Fragment(row.labels or "{}"),
        "http": None if row.spec.http is None else _http(row.spec.http),
        "fence": None if running is None else fence_of(running),
        "lateness_ms": lateness_ms,
        "last_attempt": _last_attempt(row),
        "finish_time": None if row.finish_ms is None else time_text(row.finish_ms),
        "result": None if row.result is None else _result(row.result),
        "shard": row.shard,
    }
    return body | _payload(row.payload, row.spec) if payload else body


def attempt_object(row: AttemptRow) -> dict[str, Any]:
    """One attempt of a task's history."""
    return {
        "attempt": row.attempt,
        "fence": row.fence,
        "start_time": time_text(row.started_ms),
        "duration_ms": row.duration_ms,
        "outcome": row.verdict,
        "status": row.status,
        "error": row.error,
    }


def state_of(row: TaskRow, live: Live | None) -> State:
    """The state that clients see."""
    return _now(row, live)[0]


def _now(row: TaskRow, live: Live | None) -> tuple[State, int, Live | TaskRow | None, int | None]:
    """State, attempt, what has its fence, lateness: of the owner when it runs the task, else of the tables (a claim =
    running).
    """
    if row.finish_ms is not None:
        return row.state, row.attempt, None, row.lateness_ms
    if live is not None and _under_way(live, row):
        return State.RUNNING, live.attempt, live, live.lateness_ms
    if row.claim_ms is not None:
        return State.RUNNING, row.attempt, row, row.lateness_ms
    return row.state, row.attempt, None, row.lateness_ms


def _under_way(live: Live, row: TaskRow) -> bool:
    """An attempt runs, or its end is being written and not yet in the row: one unknown to it, or with a claim."""
    recorded = live.attempt == row.attempt and row.claim_ms is None
    return live.phase == Phase.RUNNING or (live.phase == Phase.WRITING and not recorded)


def _deadline(row: TaskRow, running: Live | TaskRow) -> str | None:
    """When the attempt has failed if nothing was heard of it; None: not known here, or never."""
    if _is_held(row, running):
        return None
    if row.claim_ms is not None and running.attempt == row.attempt:
        return time_text(row.claim_ms)
    if isinstance(running, TaskRow) or not running.started_ms:
        return None
    return time_text(running.started_ms + deadline_ms_of(row.spec, row.queue))


def _is_held(row: TaskRow, running: Live | TaskRow) -> bool:
    return row.claim_ms == HELD_MS and running.attempt == row.attempt


def _http(target: HttpTarget) -> dict[str, Any]:
    return {"url": target.url, "method": target.method, "headers": target.headers}


def _last_attempt(row: TaskRow) -> dict[str, Any] | None:
    if row.last_started_ms is None:
        return None
    return {
        "start_time": time_text(row.last_started_ms),
        "duration_ms": row.last_duration_ms,
        "status": row.last_status,
        "error": row.last_error,
    }


def _result(result: bytes) -> orjson.Fragment | str:
    """A target's answer: as it came when it is JSON, else as text."""
    try:
        orjson.loads(result)
    except orjson.JSONDecodeError:
        return result.decode(errors="replace")
    return orjson.Fragment(result)


def _payload(payload: bytes | None, spec: Spec) -> dict[str, Any]:
    if payload is None:
        return {"payload": None}
    if spec.content_type is None:
        return {"payload": orjson.Fragment(payload)}
    return {"payload_base64": base64.b64encode(payload).decode(), "content_type": spec.content_type}
