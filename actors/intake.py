"""Accepting tasks: group commit of all requests that wait.

`submit` answers once the tasks are committed, fsync included. Unkeyed tasks go by COPY, keyed ones by an insert that
answers replays; each kind has one flush under way while its next batch gathers. After the commit the owner of each
task's shard is told (a hint: its loss costs lateness, never the task).

Promises: accepted = committed; nothing is sent twice by itself. Refuses: more than WAITING tasks or WAITING_BYTES at
once (Overloaded, before anything is sent). Unavailable means: outcome unknown, try again with the same key.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence

from actors.clock import Clock
from actors.core.draft import Draft, Receipt
from actors.core.errors import KeyReused, Overloaded
from actors.core.ids import ENTROPY_BYTES, keyed_id, new_ids, position_of_key, shard_of, with_position
from actors.core.settle import retry_of
from actors.core.task import State, Task
from actors.gather import Gather
from actors.ports.tasks import Accepted, TaskStore
from actors.stats import Stats

WAITING = 50_000
WAITING_BYTES = 256 * 1024 * 1024
FLUSH_TASKS = 2_000
"""A commit takes this many: enough for the full rate, few enough not to hold the loop up while they are encoded."""


class _Submission:
    """Tasks of one request of one kind, and whoever waits for them."""

    __slots__ = ("done", "tasks")

    def __init__(self, tasks: list[Task]) -> None:
        self.tasks = tasks
        self.done: asyncio.Future[list[Receipt | Exception]] = asyncio.get_running_loop().create_future()

    def __len__(self) -> int:
        return len(self.tasks)


class Intake:
    """One a node and database."""

    def __init__(
        self,
        store: TaskStore,
        clock: Clock,
        shards: Callable[[], int],
        hint: Callable[[list[Task]], None],
        stats: Stats,
    ) -> None:
        self._store = store
        self._clock = clock
        self._shards = shards
        self._hint = hint
        self._stats = stats
        self._waiting = 0
        self._waiting_bytes = 0
        self._last_us = 0
        self._unkeyed: Gather[_Submission] = Gather(self._flush_unkeyed, FLUSH_TASKS, len)
        self._keyed: Gather[_Submission] = Gather(self._flush_keyed, FLUSH_TASKS, len)

    async def run(self) -> None:
        """Flush until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._unkeyed.run())
            group.create_task(self._keyed.run())

    async def idle(self) -> None:
        """Return when every submission so far is answered."""
        await self._unkeyed.idle()
        await self._keyed.idle()

    async def submit(self, drafts: Sequence[Draft]) -> list[Receipt | Exception]:
        """Make the drafts durable; one answer a draft, in order.

        An item may be refused alone (Invalid, KeyReused). Raises Overloaded or Unavailable for all of them.
        """
        size = sum(len(draft.payload) for draft in drafts if draft.payload is not None)
        if self._waiting + len(drafts) > WAITING or self._waiting_bytes + size > WAITING_BYTES:
            raise Overloaded("too many tasks wait to be written")
        tasks = self._tasks(drafts)
        self._waiting += len(drafts)
        self._waiting_bytes += size
        try:
            return await self._commit(drafts, tasks)
        finally:
            self._waiting -= len(drafts)
            self._waiting_bytes -= size

    async def _commit(self, drafts: Sequence[Draft], tasks: list[Task]) -> list[Receipt | Exception]:
        keyed = [task for draft, task in zip(drafts, tasks, strict=True) if draft.key is not None]
        if not keyed:
            return await self._put(self._unkeyed, tasks)()
        if len(keyed) == len(tasks):
            return await self._put(self._keyed, tasks)()
        unkeyed = [task for draft, task in zip(drafts, tasks, strict=True) if draft.key is None]
        with_key, without = self._put(self._keyed, keyed), self._put(self._unkeyed, unkeyed)
        first, second = iter(await with_key()), iter(await without())
        return [next(second) if draft.key is None else next(first) for draft in drafts]

    @staticmethod
    def _put(gather: Gather[_Submission], tasks: list[Task]) -> Callable[[], Awaitable[list[Receipt | Exception]]]:
        """Send tasks on their way, in parts that fit a flush; call the answer to wait for all of them."""
        parts = [_Submission(tasks[at : at + FLUSH_TASKS]) for at in range(0, len(tasks), FLUSH_TASKS)]
        for part in parts:
            # An answer that nobody waits for any more (its client went away) is no unretrieved exception.
            part.done.add_done_callback(_retrieve)
        gather.put(parts)

        async def wait() -> list[Receipt | Exception]:
            if len(parts) == 1:
                return await parts[0].done
            return [answer for part in parts for answer in await part.done]

        return wait

    def _tasks(self, drafts: Sequence[Draft]) -> list[Task]:
        now_ms = self._clock.now_ms()
        accept_us = max(now_ms * 1_000, self._last_us + 1)
        self._last_us = accept_us + len(drafts)
        shards = self._shards()
        ids = new_ids(now_ms, os.urandom(ENTROPY_BYTES * len(drafts)), len(drafts))
        return [
            self._task(draft, task_id, shards, now_ms, accept_us + place)
            for place, (draft, task_id) in enumerate(zip(drafts, ids, strict=True))
        ]

    @staticmethod
    def _task(draft: Draft, task_id: str, shards: int, now_ms: int, accept_us: int) -> Task:
        queue, payload = draft.queue, draft.payload
        if draft.key is not None:
            task_id = keyed_id(queue.tenant, draft.key, queue.name, draft.ring_key)
        elif draft.ring_key is not None:
            task_id = with_position(task_id, position_of_key(queue.tenant, queue.name, draft.ring_key))
        schedule_ms = draft.schedule_ms if draft.schedule_ms is not None else now_ms + (draft.delay_ms or 0)
        return Task(
            task_id,
            shard_of(task_id, shards),
            queue,
            schedule_ms,
            max(schedule_ms, now_ms),
            accept_us,
            draft.spec,
            payload=payload,
            payload_bytes=0 if payload is None else len(payload),
            labels=draft.labels,
            key_hash=draft.key_hash,
            budget=retry_of(draft.spec, queue).max_attempts,
        )

    async def _flush_unkeyed(self, batch: list[_Submission]) -> None:
        tasks = [task for submission in batch for task in submission.tasks]
        try:
            errors = await self._store.accept(tasks)
        except Exception as error:  # noqa: BLE001 - every waiter is told, whatever it was
            _fail(batch, error)
            return
        answers: list[Receipt | Exception]
        answers = [_receipt(task, State.SCHEDULED, new=True) for task in tasks]
        for place, refusal in errors.items():
            answers[place] = refusal
        fresh = [task for place, task in enumerate(tasks) if place not in errors] if errors else tasks
        self._settle(batch, answers, fresh)

    async def _flush_keyed(self, batch: list[_Submission]) -> None:
        tasks = [task for submission in batch for task in submission.tasks]
        try:
            accepted = await self._store.accept_keyed(tasks)
        except Exception as error:  # noqa: BLE001 - every waiter is told, whatever it was
            _fail(batch, error)
            return
        answers = [_keyed_answer(task, answer) for task, answer in zip(tasks, accepted, strict=True)]
        fresh = [
            task for task, answer in zip(tasks, answers, strict=True) if isinstance(answer, Receipt) and answer.new
        ]
        self._settle(batch, answers, fresh)
        self._stats.replayed += sum(isinstance(answer, Receipt) and not answer.new for answer in answers)

    def _settle(self, batch: list[_Submission], answers: list[Receipt | Exception], fresh: list[Task]) -> None:
        start = 0
        for submission in batch:
            end = start + len(submission.tasks)
            if not submission.done.done():
                submission.done.set_result(answers[start:end])
            start = end
        self._stats.accepted += len(fresh)
        self._hint(fresh)


def _keyed_answer(task: Task, answer: Accepted | Exception) -> Receipt | Exception:
    if isinstance(answer, Exception):
        return answer
    if not answer.same_request:
        return KeyReused("the idempotency key was used before with another request")
    return _receipt(task, answer.state, new=answer.new)


def _receipt(task: Task, state: State, *, new: bool) -> Receipt:
    return Receipt(task.id, task.shard, state, new, task.schedule_ms, task.accept_us)


def _fail(batch: list[_Submission], error: Exception) -> None:
    for submission in batch:
        if not submission.done.done():
            submission.done.set_exception(error)


def _retrieve(done: asyncio.Future[list[Receipt | Exception]]) -> None:
    if not done.cancelled():
        done.exception()
