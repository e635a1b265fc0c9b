"""`Client`: submit tasks, see what becomes of them, command them.

Promises: what a method returned for is committed. A submit whose answer was lost is sent again under its idempotency
key (one is made when none is given), so that no retry makes a second task. Commands are sent again, too: one whose
first answer was lost may meet Conflict because it was carried out; `problem.state` tells.
"""

import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, Unpack
from urllib.parse import quote
from uuid import uuid4

import msgspec

from ringwheel import finite
from ringwheel.arguments import of_type
from ringwheel.bulk import Bulk, Submitted
from ringwheel.draft import Draft, Duration, Options, plain
from ringwheel.seconds import seconds
from ringwheel.stream import follow
from ringwheel.task import Attempt, Change, Gap, Task
from ringwheel.transport import Transport


class _Page(msgspec.Struct):
    tasks: list[Task]
    next_cursor: str | None = None


class _Attempts(msgspec.Struct):
    attempts: list[Attempt]


_task = msgspec.json.Decoder(Task)
_page = msgspec.json.Decoder(_Page)
_attempts = msgspec.json.Decoder(_Attempts)


class Client:
    """A service, at one URL or at those of several of its nodes. One client serves a whole program."""

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        key: str | None = None,
        *,
        patience: float = 30.0,
        timeout: float = 10.0,
        ssl: ssl.SSLContext | None = None,
    ) -> None:
        """Without `url` and `key`, RINGWHEEL_URL and RINGWHEEL_KEY, else the local service.

        `patience`: seconds for which a request is tried again, and at each node once at least; `timeout`: seconds that
        one try may take.
        Raises TypeError or ValueError, which name the argument that can't work.
        """
        patience_s, timeout_s = seconds(patience, "patience"), seconds(timeout, "timeout")
        self.transport = Transport(url, key, patience_s=patience_s, timeout_s=timeout_s, security=ssl)
        self._users = 0

    async def __aenter__(self) -> Self:
        self._users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._users -= 1
        if self._users == 0:
            await self.close()

    async def close(self) -> None:
        """Close the connections. What is under way raises Unavailable; whoever uses the client again opens new ones."""
        await self.transport.close()

    # --- submit --------------------------------------------------------------------------------------------------

    async def submit(self, queue: str | Draft = "default", payload: Any = None, **options: Unpack[Options]) -> Task:
        """A new task (`Draft` says what may be said of it), or the one that is there under its key.

        `queue`: its name, or a draft, of which `options` change something. Raises Problem or Unavailable.
        """
        if isinstance(queue, Draft):
            if payload is not None:
                raise TypeError("a draft brings its payload")
            draft = msgspec.structs.replace(queue, **options)
        else:
            draft = Draft(queue, payload, **options)
        key = draft.key or uuid4().hex
        headers = {"Idempotency-Key": key}
        return await self.transport.ask(_task, "POST", "/v1/tasks", draft.encoded(key), headers=headers)

    async def submit_many(
        self,
        drafts: Iterable[Draft] | AsyncIterable[Draft],
        *,
        chunk: int = 1000,
        at_once: int = 4,
        progress: Callable[[int], object] | None = None,
    ) -> Submitted:
        """Any number of tasks, read and sent `chunk` at a time with `at_once` requests under way.

        `progress` is told how many are done, with each chunk. One that is refused, or is no JSON, hurts no other: see
        `refused`.
        Raises Unavailable when a chunk gets no answer; other chunks may be committed: submit again with the same keys.
        """
        return await Bulk(self.transport, chunk, at_once, progress).submit(drafts)

    # --- see -----------------------------------------------------------------------------------------------------

    async def get(self, task_id: str) -> Task:
        """The task as it is now, with its payload. Raises NotFound."""
        return await self.transport.ask(_task, "GET", _path(task_id), params={"view": "full"})

    async def attempts(self, task_id: str) -> Sequence[Attempt]:
        """Every attempt that failed or was slow. Raises NotFound."""
        return (await self.transport.ask(_attempts, "GET", _path(task_id, "/attempts"))).attempts

    async def list(
        self,
        *,
        queue: str | None = None,
        state: str | Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        latest_first: bool = False,
        page: int = 100,
    ) -> AsyncIterator[Task]:
        """Tasks by their next due time, a page at a time."""
        params = {f"label.{name}": value for name, value in (labels or {}).items()} | {"limit": str(page)}
        if queue is not None:
            params["queue"] = queue
        if state is not None:
            params["state"] = state if isinstance(state, str) else ",".join(state)
        if latest_first:
            params["order"] = "desc"
        while True:
            answer = await self.transport.ask(_page, "GET", "/v1/tasks", params=params)
            for task in answer.tasks:
                yield task
            if answer.next_cursor is None:
                return
            params["cursor"] = answer.next_cursor

    def watch(
        self,
        task_id: str | None = None,
        *,
        queue: str | None = None,
        labels: Mapping[str, str] | None = None,
        cursor: str | None = None,
    ) -> AsyncIterator[Change | Gap]:
        """Tasks as they are (`snapshot`), then each change, for ever; goes on by itself after a broken connection.

        `cursor`: of a Change that was seen before; what came after it is told, or a Gap where it is too long ago.
        A task that is not there is waited for: `get` tells. Raises Problem, or Unavailable when no connection came
        about for as long as the client is patient, or the client was closed.
        """
        wanted = {"id": task_id, "queue": queue, "labels": None if labels is None else dict(labels)}
        return follow(self.transport, {name: value for name, value in wanted.items() if value is not None}, cursor)

    async def wait(self, task_id: str) -> Task:
        """The task when it is finished. Raises NotFound; bound it with `asyncio.timeout`."""
        task = await self.get(task_id)
        if not task.finished:
            async for change in self.watch(task_id):
                if isinstance(change, Change) and change.finished:
                    break
            task = await self.get(task_id)
        return task

    # --- command -------------------------------------------------------------------------------------------------

    async def cancel(self, task_id: str) -> Task:
        """It will not run (any more). Raises NotFound or Conflict."""
        return await self._command(task_id, "cancel")

    async def run(self, task_id: str) -> Task:
        """It is due now. Raises NotFound or Conflict."""
        return await self._command(task_id, "run")

    async def reschedule(self, task_id: str, *, delay: Duration | None = None, at: datetime | None = None) -> Task:
        """Its time is another. Raises NotFound or Conflict."""
        return await self._command(task_id, "reschedule", Draft(delay=delay, at=at))

    async def redrive(self, task_id: str) -> Task:
        """It is tried again although it is dead, expired or cancelled. Raises NotFound or Conflict."""
        return await self._command(task_id, "redrive")

    async def complete(
        self,
        task_id: str,
        fence: str,
        *,
        result: Any = None,
        error: str | None = None,
        retry: float | str | None = None,
    ) -> Task:
        """How the attempt under `fence` of a webhook that answered 202 ended: with a result, or with an `error`.

        `retry`: seconds until the next attempt, or "never". Raises NotFound or Conflict.
        """
        if finite.lost(result, msgspec.json.encode(result)):
            raise ValueError(f"result: {finite.WORDS}")
        again = plain(retry, "retry")
        said = {"fence": fence, "ok": error is None, "result": result, "error": error, "retry": again}
        return await self._command(task_id, "complete", {name: one for name, one in said.items() if one is not None})

    async def _command(self, task_id: str, name: str, body: object = None) -> Task:
        data = b"{}" if body is None else msgspec.json.encode(body)
        return await self.transport.ask(_task, "POST", _path(task_id, f":{name}"), data)


def _path(task_id: str, rest: str = "") -> str:
    return f"/v1/tasks/{quote(of_type(task_id, str, 'task_id', 'the id of a task'), safe='')}{rest}"
