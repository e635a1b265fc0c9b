"""Many tasks in few requests.

Promises: drafts are read as they are sent, never all at once; each has an idempotency key, so that a request whose
outcome is unknown can be repeated; an item that is refused hurts no other, one that could not be taken right now is
sent again.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from time import monotonic as clock_s
from typing import Any
from uuid import uuid4

import msgspec

from ringwheel.arguments import of_type
from ringwheel.backoff import Backoff
from ringwheel.draft import Draft
from ringwheel.errors import Problem, Unavailable, problem_of
from ringwheel.transport import Transport, passing

CHUNK_BYTES = 1_000_000
"""A chunk ends before the item that would pass it: more at once would keep the loop from other things."""
MOST_ITEMS = 10_000
UNWRITTEN = "Can't be sent"


@dataclass(frozen=True, slots=True)
class Refused:
    """A draft that was not taken."""

    place: int
    """Which one, from 0."""
    draft: Draft
    problem: Problem


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of many drafts."""

    ids: list[str | None]
    """Of their tasks, in order; None: refused."""
    refused: list[Refused]


class _Result(msgspec.Struct):
    id: str | None = None
    problem: dict[str, Any] | None = None


class _Results(msgspec.Struct):
    results: list[_Result]


@dataclass(slots=True)
class _Item:
    place: int
    draft: Draft
    body: bytes


_results = msgspec.json.Decoder(_Results)


class Bulk:
    """One stream of drafts on its way."""

    def __init__(
        self, transport: Transport, chunk: int, at_once: int, progress: Callable[[int], object] | None = None
    ) -> None:
        if not 1 <= chunk <= MOST_ITEMS:
            raise ValueError(f"a chunk has 1 to {MOST_ITEMS} tasks")
        if at_once < 1:
            raise ValueError("at_once is at least 1, or nothing would ever be sent")
        self._transport = transport
        self._chunk = chunk
        self._room = asyncio.Semaphore(at_once)
        self._progress = progress
        self._closes = transport.closes
        self._prefix = uuid4().hex
        self._done = self._told = 0
        self._ids: list[str | None] = []
        self._refused: list[Refused] = []

    async def submit(self, drafts: Iterable[Draft] | AsyncIterable[Draft]) -> Submitted:
        """Send all of them. Raises Unavailable or Problem: a whole request had no answer, or was refused."""
        try:
            async with asyncio.TaskGroup() as group:
                async for chunk in self._chunks(drafts):
                    await self._room.acquire()
                    group.create_task(self._send(chunk))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        self._tell()
        self._refused.sort(key=lambda refused: refused.place)
        return Submitted(self._ids, self._refused)

    async def _chunks(self, drafts: Iterable[Draft] | AsyncIterable[Draft]) -> AsyncIterator[list[_Item]]:
        chunk: list[_Item] = []
        size = 0
        async for draft in _each(drafts):
            place = len(self._ids)
            of_type(draft, Draft, f"draft {place}", "a Draft")
            self._ids.append(None)
            try:
                body = draft.encoded(f"{self._prefix}-{place}")
            except (TypeError, ValueError, RecursionError) as error:
                self._refused.append(Refused(place, draft, problem_of(422, {"title": UNWRITTEN, "detail": str(error)})))
                self._done += 1
                continue
            if chunk and size + len(body) > CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
            chunk.append(_Item(place, draft, body))
            size += len(body) + 1
            if len(chunk) == self._chunk:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk

    async def _send(self, chunk: list[_Item]) -> None:
        """Until each item has its answer."""
        backoff, end_s = Backoff(), clock_s() + self._transport.patience_s
        left = chunk
        while left := await self._ask(left):
            pause_s = backoff.pause_s()
            if clock_s() + pause_s > end_s:
                raise Unavailable(f"{len(left)} tasks of a batch could not be taken in time")
            await asyncio.sleep(pause_s)
        self._room.release()
        self._done += len(chunk)
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None and self._told < self._done:
            self._told = self._done
            self._progress(self._done)

    async def _ask(self, items: list[_Item]) -> list[_Item]:
        """One request; answers the items that are to be sent again."""
        self._transport.expect_open(self._closes)
        body = b"[" + b",".join([item.body for item in items]) + b"]"
        answer = await self._transport.ask(_results, "POST", "/v1/tasks:batch", body)
        return [item for item, result in zip(items, answer.results, strict=True) if not self._note(item, result)]

    def _note(self, item: _Item, result: _Result) -> bool:
        """Whether this is the end of it."""
        if result.problem is None:
            self._ids[item.place] = result.id
            return True
        problem = problem_of(int(result.problem.get("status", 500)), result.problem)
        if passing(problem):
            return False
        self._refused.append(Refused(item.place, item.draft, problem))
        return True


async def _each(drafts: Iterable[Draft] | AsyncIterable[Draft]) -> AsyncIterator[Draft]:
    if isinstance(drafts, AsyncIterable):
        async for draft in drafts:
            yield draft
    else:
        for draft in drafts:
            yield draft
