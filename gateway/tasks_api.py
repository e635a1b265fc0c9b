"""Routes that take tasks in and show them.

`POST /v1/tasks` and `POST /v1/tasks:batch` are the hot path: one decode a task, one wait a request, answers put
together from prepared bytes. A batch gives the loop back after each slice, which is bounded by time: a small item may
hold a lot to check.
"""

import asyncio
import zlib
from collections.abc import Sequence
from http import HTTPStatus
from time import perf_counter as clock_s
from typing import cast

import orjson
from aiohttp import web

from actors.core.draft import Draft, Receipt
from actors.core.errors import Invalid, Unavailable, Unknown
from actors.core.ids import canonical, valid
from gateway.admission import WORDS
from gateway.bodies import JSON, NDJSON, Item, cut_array, cut_lines, media_type, read_body
from gateway.context import GATEWAY, Gateway, tenant_of
from gateway.decode import DECODER, QueueMissing, check_key
from gateway.encodings import takes_gzip
from gateway.express import KEY_HEADER
from gateway.filters import cursor_of, one, read_filters
from gateway.problems import GOING_AWAY, Problem, escape, problem_of
from gateway.ready import answer
from gateway.server import Connection
from gateway.task_view import attempt_object, location, new_task, state_of, task_object
from gateway.trace import trace_of

SLICE_S = 0.005
"""For so long items of a batch are decoded in one turn of the loop: it ends with the item that passes it."""
SLICE = 500
"""Items of a batch that are answered in one turn of the loop."""
COMPRESSED_BYTES = 2048
"""Answers from this size on are compressed for clients that ask."""
READS = 3
"""How often a task is read that changes while it is being read."""

_ONE = (JSON,)
_MANY = (JSON, NDJSON)


async def create(request: web.Request) -> web.StreamResponse:
    """`POST /v1/tasks`."""
    gateway = _open(request)
    media_type(request, _ONE)
    key = _key_of(request)
    if key is not None:
        check_key(key, "")
    body = await read_body(request, gateway.settings.body_bytes)
    cast(Connection, request.protocol).submit_came()
    draft = await request.app[DECODER].draft(body, tenant_of(request), gateway.clock.now_ms(), key)
    if draft.key != key is not None:
        raise Invalid("is another than the header says", "/idempotency_key")
    headers = gateway.quota.take(tenant_of(request), 1)
    draft.trace = trace_of(request.headers)
    receipt = await gateway.intake.submit_one(draft)
    if not receipt.new:
        return await _replay(request, receipt, headers)
    return answer(request, HTTPStatus.CREATED, new_task(draft, receipt), headers | location(receipt))


async def create_batch(request: web.Request) -> web.StreamResponse:
    """`POST /v1/tasks:batch`."""
    gateway = _open(request)
    media = media_type(request, _MANY)
    body = await read_body(request, gateway.settings.batch_bytes)
    limit = gateway.settings.batch_items
    items = await cut_lines(body, limit) if media == NDJSON else await cut_array(body, limit)
    headers = gateway.quota.take(tenant_of(request), len(items))
    answers: list[Draft | Receipt | Exception] = await _drafts(request, items)
    drafts = [answer for answer in answers if isinstance(answer, Draft)]
    if drafts:
        trace = trace_of(request.headers)
        if trace is not None:
            for draft in drafts:
                draft.trace = trace
        receipts = iter(await gateway.intake.submit(drafts))
        answers = [next(receipts) if isinstance(answer, Draft) else answer for answer in answers]
    response = await answer_json(request, await _results(answers))
    response.headers.update(headers)
    return response


async def get(request: web.Request) -> web.StreamResponse:
    """`GET /v1/tasks/{id}`."""
    check_parameters(request, ("view",))
    view = one(request, "view")
    if view not in (None, "basic", "full"):
        raise Invalid('expected "basic" or "full"', "/view")
    body = await read_task(request, task_id_of(request), payload=view == "full")
    return web.Response(body=body, content_type=JSON)


async def attempts(request: web.Request) -> web.StreamResponse:
    """`GET /v1/tasks/{id}/attempts`."""
    check_parameters(request, ())
    gateway = request.app[GATEWAY]
    tenant, task_id = tenant_of(request), task_id_of(request)
    rows = await gateway.reader.attempts(tenant, task_id)
    if not rows and await gateway.reader.get(tenant, task_id) is None:
        raise Unknown(task_id)
    return await answer_json(request, orjson.dumps({"attempts": [attempt_object(row) for row in rows]}))


async def page(request: web.Request) -> web.StreamResponse:
    """`GET /v1/tasks`, by their next due time; one that moves meanwhile may be shown twice, or where it was.

    Running is known to the owner alone, so a page of one state may hold fewer than `limit`.
    """
    gateway = request.app[GATEWAY]
    asked = read_filters(request, gateway.settings.page_items)
    limit, tenant = asked.limit, tenant_of(request)
    rows = await gateway.reader.page(
        tenant, asked.queue, asked.stored, asked.after, limit + 1, asked.narrow, backwards=asked.backwards
    )
    cursor = cursor_of(rows[limit - 1]) if len(rows) > limit else None
    node, shown = gateway.node, rows[:limit]
    live = await node.look([row.id for row in shown if row.finish_ms is None])
    tasks = [
        task_object(row, live.get(row.id), node.fence_of)
        for row in shown
        if state_of(row, live.get(row.id)) in asked.states
    ]
    return await answer_json(request, orjson.dumps({"tasks": tasks, "next_cursor": cursor}))


async def read_task(request: web.Request, task_id: str, *, payload: bool = False) -> bytes:
    """The task as a JSON object. Raises Unknown."""
    gateway = request.app[GATEWAY]
    turn = 0
    while True:
        turn += 1
        row = await gateway.reader.get(tenant_of(request), task_id, payload=payload)
        if row is None:
            raise Unknown(task_id)
        live = (await gateway.node.look((task_id,))).get(task_id)
        # Else the state would go back behind what was seen a moment ago.
        if live is None or live.rev <= row.rev or turn == READS:
            return orjson.dumps(task_object(row, live, gateway.node.fence_of, payload=payload))


def task_id_of(request: web.Request) -> str:
    """The id in the path. Raises Unknown: what is no id names no task."""
    text = request.match_info["id"]
    if not valid(text):
        raise Unknown(text)
    return canonical(text)


async def answer_json(request: web.Request, body: bytes) -> web.Response:
    """A 200 that may be large: compressed, away from the loop, when the client asks for it."""
    headers = {"Content-Type": JSON}
    if len(body) >= COMPRESSED_BYTES:
        headers["Vary"] = "Accept-Encoding"
        if takes_gzip(request.headers.getall("Accept-Encoding", ())):
            body = await asyncio.to_thread(zlib.compress, body, 1, 31)
            headers["Content-Encoding"] = "gzip"
    return web.Response(body=body, headers=headers)


def _key_of(request: web.Request) -> str | None:
    """The idempotency key in the header. Raises Invalid when there are two."""
    keys = request.headers.getall(KEY_HEADER, None)
    if keys is None:
        return None
    if len(set(keys)) > 1:
        raise Invalid(f"the header {KEY_HEADER} is given twice", "")
    return keys[0]


def _open(request: web.Request) -> Gateway:
    gateway = request.app[GATEWAY]
    if gateway.draining:
        raise Unavailable(GOING_AWAY)
    if cast(Connection, request.protocol).over:
        raise Unavailable(WORDS)
    return gateway


async def _replay(request: web.Request, receipt: Receipt, headers: dict[str, str]) -> web.Response:
    async with request.app[GATEWAY].patience.wait():
        body = await read_task(request, receipt.id)
    headers |= {"Content-Type": JSON, "Idempotent-Replayed": "true"} | location(receipt)
    return web.Response(body=body, headers=headers)


async def _drafts(request: web.Request, items: Sequence[Item]) -> list[Draft | Receipt | Exception]:
    decoder, tenant, now_ms = request.app[DECODER], tenant_of(request), request.app[GATEWAY].clock.now_ms()
    header = _key_of(request)
    if header is not None:
        check_key(header, "")
        check_key(f"{header}/{len(items) - 1}", "")
    answers: list[Draft | Receipt | Exception] = []
    most = request.app[GATEWAY].settings.body_bytes
    end_s = clock_s() + SLICE_S
    for place, item in enumerate(items):
        if clock_s() > end_s:
            await asyncio.sleep(0)
            end_s = clock_s() + SLICE_S
        try:
            if len(item) > most:
                raise Problem("too-large", f"the task is larger than {most} bytes", "")
            key = header and f"{header}/{place}"
            try:
                answers.append(decoder.read(item, tenant, now_ms, key))
            except QueueMissing:
                answers.append(await decoder.draft(item, tenant, now_ms, key))
        except Exception as error:  # noqa: BLE001 - it becomes the item's problem; unexpected ones are logged there
            answers.append(error)
    return answers


async def _results(answers: Sequence[Draft | Receipt | Exception]) -> bytes:
    parts = []
    for start in range(0, len(answers), SLICE):
        if start:
            await asyncio.sleep(0)
        parts.append(",".join(map(_item, answers[start : start + SLICE])))
    return b'{"results":[%b]}' % ",".join(parts).encode()


def _item(answer: Draft | Receipt | Exception) -> str:
    if isinstance(answer, Receipt):
        return '{"id":"' + answer.id + '","state":"' + answer.state + '"}'  # to format an enum's member costs more
    assert isinstance(answer, Exception)
    return orjson.dumps({"problem": problem_of(answer).body()}).decode()


def check_parameters(request: web.Request, known: Sequence[str]) -> None:
    """Raises Invalid when the query has others than these."""
    for name in request.query:
        if name not in known:
            raise Invalid("unknown parameter", f"/{escape(name)}")
