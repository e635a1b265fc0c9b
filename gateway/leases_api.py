"""What workers do over plain HTTP, for languages without websockets: the same leases, results and extensions as over
the worker link (`worker_link.py`), in calls.

`:lease` waits for tasks as long as it was asked to, and its client is there; `tasks:complete` answers when the results
are committed. A call whose client has gone gives back unused what came to it.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, cast

import msgspec
import orjson
from aiohttp import web

from actors.core.errors import RingwheelError, Unavailable
from actors.core.lease import Kept, Key, Lent, Said, Word
from actors.core.queue import Queue
from actors.pulling import SAY_FOR_S
from gateway.bodies import JSON, read_json
from gateway.context import GATEWAY, Gateway, tenant_of
from gateway.decode import check_queue
from gateway.faults import decoded
from gateway.problems import problem_of
from gateway.schema import LeaseRequest, Leases, Results
from gateway.server import Connection
from gateway.times import time_text
from gateway.worker_frames import Refused, extension_of, report_of, taken_apart, task_bytes, why_refused

LOOK_S = 0.5
"""How long a call that does not want to wait waits all the same: for what lies at other nodes."""
CALL_BYTES = 4 * 1024 * 1024
"""What a call may bring, but for its last task."""
KEPT_S = 2.0
"""How long owners are waited for that say nothing to an extension."""
WORDS_S = SAY_FOR_S + 1.0
"""The same of results: by then there is a word of each, unless another call said the same meanwhile and has it."""
_SAID_AGAIN = Unavailable("another call says the same; say it again")

_request = msgspec.json.Decoder(LeaseRequest)
_results = msgspec.json.Decoder(Results)
_leases = msgspec.json.Decoder(Leases)


async def queue_of(gateway: Gateway, tenant: str, name: str) -> Queue:
    """The queue of this name; made on first use, as by a task. Raises Invalid or Unavailable."""
    return gateway.queues.by_name(tenant, name) or await gateway.queue_store.ensure(tenant, name)


async def lease(request: web.Request) -> web.StreamResponse:
    """`POST /v1/queues/{queue}:lease`."""
    gateway, tenant = request.app[GATEWAY], tenant_of(request)
    name = request.match_info["queue"]
    check_queue(name, "/queue")
    wanted = decoded(_request, await read_json(request, gateway.settings.body_bytes) or b"{}")
    queue = await queue_of(gateway, tenant, name)
    call = _Call(tenant)
    gateway.crew.credit(call, queue.id, wanted.max, wanted.max)
    answered = False
    try:
        lost = cast(Connection, request.protocol).lost()
        await _first(call.came.wait(), gateway.leaving.wait(), lost, within_s=max(wanted.wait, LOOK_S))
        answered = request.transport is not None and not request.transport.is_closing()
    finally:
        gateway.crew.stop(call)
        gateway.crew.ended(tenant, call.tasks)  # no link stands for these
        if call.tasks and not answered:
            gateway.crew.give_back(call.tasks, tenant)
    timeline = gateway.node.membership.timeline
    body = b",".join([task_bytes(task, name, timeline) for task in call.tasks])
    return web.Response(body=b'{"tasks":[' + body + b"]}", content_type=JSON)


async def _first(*ends: Coroutine[object, object, object], within_s: float) -> None:
    """Return when one of them has ended, or the time is over."""
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(end) for end in ends]
        await asyncio.wait(waiting, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()


class _Call:
    """A call that waits for tasks. Implements gateway.member.Member."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.room_bytes = CALL_BYTES
        self.tasks: list[Lent] = []
        self.came = asyncio.Event()

    def give(self, queue: str, tasks: list[Lent]) -> None:
        """See Member."""
        self.tasks += tasks
        self.room_bytes = 0
        self.came.set()

    def let_lapse(self, period_ms: int) -> bool:
        """See Member; it is new, and had nothing before."""
        return False

    def cancel(self, ids: list[str]) -> None:
        """See Member; a late result will be told."""


async def complete(request: web.Request) -> web.StreamResponse:
    """`POST /v1/tasks:complete`."""
    gateway, tenant = request.app[GATEWAY], tenant_of(request)
    results = decoded(_results, await read_json(request, gateway.settings.batch_bytes)).results
    if gateway.node.pulling.full:
        raise Unavailable("too many results wait to be recorded")
    refused: list[dict[str, Any]] = []
    reports, names, keys = taken_apart(results, report_of, refused)
    waiting = _Waiting(names)
    gateway.crew.ended(tenant, reports)
    gateway.node.pulling.report(waiting, tenant, reports)
    await waiting.all(WORDS_S)
    bad = iter(refused)
    return _answer(
        [_bad(next(bad)) if key is None else _outcome(names[key][0], waiting.words.get(key)) for key in keys]
    )


def _bad(refused: Refused) -> dict[str, Any]:
    return {"id": refused["id"], "problem": refused["problem"]}


def _outcome(task_id: str, word: Word | None) -> dict[str, Any]:
    if word is not None and word.said == Said.RECORDED:
        return {"id": task_id, "state": word.state or None}
    return {"id": task_id, "problem": problem_of(_SAID_AGAIN if word is None else why_refused(word)).body()}


async def extend(request: web.Request) -> web.StreamResponse:
    """`POST /v1/tasks:extend`."""
    gateway, tenant = request.app[GATEWAY], tenant_of(request)
    leases = decoded(_leases, await read_json(request, gateway.settings.batch_bytes)).leases
    refused: list[dict[str, Any]] = []
    extensions, names, keys = taken_apart(leases, extension_of, refused)
    waiting = _Waiting(names)
    gateway.node.pulling.extend(waiting, tenant, extensions)
    if not await waiting.all(KEPT_S):
        gateway.node.pulling.forget(waiting)
    bad = iter(refused)
    return _answer([next(bad) if key is None else _kept(names[key], waiting.kept.get(key)) for key in keys])


def _kept(name: tuple[str, str], kept: Kept | None) -> dict[str, Any]:
    body: dict[str, Any] = {"id": name[0], "lease": name[1]}
    if kept is not None and kept.said == Said.RECORDED:
        return body | {"lease_expire_time": time_text(kept.until_ms)}
    error: RingwheelError = Unavailable("its owner did not answer in time") if kept is None else why_refused(kept)
    return body | {"problem": problem_of(error).body()}


def _answer(results: list[dict[str, Any]]) -> web.Response:
    return web.Response(body=orjson.dumps({"results": results}), content_type=JSON)


class _Waiting:
    """A call that waits for words. Implements actors.pulling.Speaker."""

    def __init__(self, keys: dict[Key, tuple[str, str]]) -> None:
        self._left = set(keys)
        self._over = asyncio.Event()
        self.words: dict[Key, Word] = {}
        self.kept: dict[Key, Kept] = {}
        self._look()

    async def all(self, within_s: float) -> bool:
        """Return once all are there; False: some did not come in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._over.wait()
        return self._over.is_set()

    def answer(self, words: list[Word]) -> None:
        """See Speaker."""
        for word in words:
            self.words[word.id, word.epoch, word.attempt] = word
            self._left.discard((word.id, word.epoch, word.attempt))
        self._look()

    def keep(self, kept: list[Kept]) -> None:
        """See Speaker."""
        for each in kept:
            self.kept[each.id, each.epoch, each.attempt] = each
            self._left.discard((each.id, each.epoch, each.attempt))
        self._look()

    def _look(self) -> None:
        if not self._left:
            self._over.set()
