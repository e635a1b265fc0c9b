"""Accepting tasks: group commit of all requests that wait.

`submit` answers once the tasks are committed, fsync included. Unkeyed tasks go by COPY, keyed ones by an insert that
answers replays; each kind has one flush under way while its next batch gathers. After the commit the owner of each
task's shard is told (a hint: its loss costs lateness, never the task).

Promises: accepted = committed; nothing is sent twice by itself; whoever waits is answered, at the end of the node too,
and within PATIENCE_S when the database does not answer. A commit that hangs goes on: nobody knows how it ends.
Refuses, before anything is sent: more than WAITING tasks or WAITING_BYTES at once, and any task while others have
waited for PATIENCE_S (Overloaded); any task while a commit hangs, and while the last one failed and the node has no
lease, so that the heartbeats are who looks whether the database is back (Unavailable). Otherwise Unavailable means:
outcome unknown, try again with the same key. No lease is needed for accepting.
"""

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from actors.clock import Clock
from actors.core.draft import Draft, Receipt
from actors.core.errors import KeyReused, Overloaded, Unavailable
from actors.core.ids import ENTROPY_BYTES, head_of, keyed_id, new_tails, position_of_key, with_position
from actors.core.settle import retry_of
from actors.core.task import State, Task
from actors.ports.tasks import Accepted, TaskStore
from actors.stats import Stats

WAITING = 50_000
WAITING_BYTES = 256 * 1024 * 1024
PATIENCE_S = 2.0
"""Tasks that wait longer for their commit to begin are a sign that more come than can be written."""
FLUSH_TASKS = 2_000
"""A commit takes this many: enough for the full rate, few enough not to hold the loop up while they are encoded."""
TAILS = 1_000
"""Random parts of ids that are made at a time."""
_RETRY_MS = 2_000
_SCHEDULED = State.SCHEDULED  # on 3.11 a member of an enum costs ten times a global
_NO_ANSWER = "the database does not answer; whether the tasks were committed is not known"
_AWAY = "the database does not answer"
_GOING_AWAY = "this node is going away; whether the tasks were committed is not known"


class _Batch:
    """Tasks of one commit, of all requests that came in time for it."""

    __slots__ = ("_loop", "answers", "error", "payload_bytes", "settled", "since_s", "singles", "tasks", "waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.tasks: list[Task] = []
        self.payload_bytes = 0
        self.answers: list[Receipt | Exception] = []
        """One a task, once `settled`, unless there is an `error` for all."""
        self.error: Exception | None = None
        self.settled = False
        self.waiters: list[asyncio.Future[None]] = []
        self.singles: list[tuple[int, asyncio.Future[Receipt]]] = []
        """Who waits for the answer at one place."""
        self.since_s = loop.time()

    async def wait(self) -> None:
        """Return when it is settled. One future a waiter: whoever is cancelled takes nobody with it."""
        if not self.settled:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self.waiters.append(waiter)
            await waiter

    def single(self, place: int) -> asyncio.Future[Receipt]:
        """The answer at this place. Not yet settled, as nothing was when it was put here."""
        future: asyncio.Future[Receipt] = self._loop.create_future()
        self.singles.append((place, future))
        return future

    def settle(self, error: Exception | None) -> None:
        """Wake all who wait."""
        self.error = error
        self.settled = True
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        for place, future in self.singles:
            if not future.done():
                answer = error or self.answers[place]
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)


_Place = tuple[_Batch, int, int]
"""Tasks of one submit in one batch: from, to."""


class _Lane:
    """The commits of one kind of task: one under way, one that gathers, more when it overflows."""

    def __init__(self, flush: Callable[[_Batch], Awaitable[None]]) -> None:
        self._flush = flush
        self._batches: deque[_Batch] = deque()
        self.waiting = 0
        """Tasks that are not settled, whether anybody still waits for them or not."""
        self.waiting_bytes = 0
        self._some = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ended = False
        self._hangs = False
        """The commit that is under way has taken PATIENCE_S."""
        self._failed = False
        """The last commit did, for want of a database."""
        self._loop = asyncio.get_running_loop()

    @property
    def late(self) -> bool:
        """Some have waited for PATIENCE_S."""
        return bool(self._batches) and self._loop.time() - self._batches[0].since_s > PATIENCE_S

    @property
    def fails(self) -> bool:
        """As far as the last commit says, the database is away."""
        return self._hangs or self._failed

    def put(self, tasks: list[Task]) -> list[_Place]:
        """Send these tasks on their way; where their answers will be (see `_answers`).

        Raises Unavailable when nobody flushes any more, or a commit hangs.
        """
        if self._ended:
            raise Unavailable(_GOING_AWAY)
        if self._hangs:
            raise Unavailable(_AWAY, _RETRY_MS)
        if len(tasks) <= FLUSH_TASKS:
            return [self._gather(tasks)] if tasks else []
        return [self._gather(tasks[at : at + FLUSH_TASKS]) for at in range(0, len(tasks), FLUSH_TASKS)]

    async def idle(self) -> None:
        """Return when nothing waits and nothing is under way."""
        await self._idle.wait()

    async def run(self) -> None:
        """Flush batch after batch until cancelled; who waits then is told that the outcome is unknown."""
        try:
            while True:
                await self._some.wait()
                batch = self._batches.popleft()
                if not self._batches:
                    self._some.clear()
                await self._flush_one(batch)
        finally:
            self._ended = True
            while self._batches:
                self._settle(self._batches.popleft(), Unavailable(_GOING_AWAY))

    async def _flush_one(self, batch: _Batch) -> None:
        error: Exception | None = Unavailable(_GOING_AWAY)  # unless the flush comes to an end
        limit = self._loop.call_later(PATIENCE_S, self._give_up, batch)
        try:
            await self._flush(batch)
            error = None
        except Exception as raised:  # noqa: BLE001 - every waiter is told, whatever it was
            error = raised
        finally:
            limit.cancel()
            self._hangs = False
            self._failed = isinstance(error, Unavailable)
            if not batch.settled:
                self._settle(batch, error)

    def _give_up(self, batch: _Batch) -> None:
        """Nobody waits any more, neither for this commit nor for its end."""
        self._hangs = True
        self._settle(batch, Unavailable(_NO_ANSWER, _RETRY_MS))
        self._some.clear()
        while self._batches:
            self._settle(self._batches.popleft(), Unavailable(_AWAY, _RETRY_MS))

    def _settle(self, batch: _Batch, error: Exception | None) -> None:
        self.waiting -= len(batch.tasks)
        self.waiting_bytes -= batch.payload_bytes
        batch.settle(error)
        if not self._batches:
            self._idle.set()

    def _gather(self, tasks: list[Task]) -> _Place:
        if not self._batches or len(self._batches[-1].tasks) + len(tasks) > FLUSH_TASKS:
            self._batches.append(_Batch(self._loop))
            self._some.set()
            self._idle.clear()
        batch = self._batches[-1]
        start = len(batch.tasks)
        batch.tasks += tasks
        size = sum(task.payload_bytes for task in tasks)
        batch.payload_bytes += size
        self.waiting += len(tasks)
        self.waiting_bytes += size
        return batch, start, start + len(tasks)


class Intake:
    """One a node and database."""

    def __init__(
        self,
        store: TaskStore,
        clock: Clock,
        shards: Callable[[], int],
        hint: Callable[[list[Task], int], None],
        stats: Stats,
        leased: Callable[[], bool] = lambda: True,
    ) -> None:
        """`leased`: whether a heartbeat has come through lately."""
        self._leased = leased
        self._store = store
        self._clock = clock
        self._shards = shards
        self._hint = hint
        self._stats = stats
        self._last_us = 0
        self._tails: list[str] = []
        self._unkeyed = _Lane(self._flush_unkeyed)
        self._keyed = _Lane(self._flush_keyed)

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
        self._check_room(len(drafts), sum(len(draft.payload) for draft in drafts if draft.payload is not None))
        tasks = self._tasks(drafts)
        keyed = [task for draft, task in zip(drafts, tasks, strict=True) if draft.key is not None]
        if not keyed:
            return await _answers(self._unkeyed.put(tasks))
        if len(keyed) == len(tasks):
            return await _answers(self._keyed.put(tasks))
        unkeyed = [task for draft, task in zip(drafts, tasks, strict=True) if draft.key is None]
        with_key, without = self._keyed.put(keyed), self._unkeyed.put(unkeyed)
        first, second = iter(await _answers(with_key)), iter(await _answers(without))
        return [next(second) if draft.key is None else next(first) for draft in drafts]

    def submit_one(self, draft: Draft) -> asyncio.Future[Receipt]:
        """Make one draft durable; its answer after the commit: a receipt, or Invalid, KeyReused or Unavailable.

        No coroutine: who has many at once (`express.py`) needs no task for each. Raises Overloaded or Unavailable.
        """
        self._check_room(1, 0 if draft.payload is None else len(draft.payload))
        lane = self._unkeyed if draft.key is None else self._keyed
        ((batch, place, _),) = lane.put(self._tasks((draft,)))
        return batch.single(place)

    def _check_room(self, count: int, size: int) -> None:
        unkeyed, keyed = self._unkeyed, self._keyed
        full = unkeyed.waiting + keyed.waiting + count > WAITING
        if full or unkeyed.waiting_bytes + keyed.waiting_bytes + size > WAITING_BYTES:
            raise Overloaded("too many tasks wait to be written")
        if unkeyed.late or keyed.late:
            raise Overloaded("tasks wait too long to be written", _RETRY_MS)
        if (unkeyed.fails or keyed.fails) and not self._leased():
            raise Unavailable(_AWAY, _RETRY_MS)

    def _tasks(self, drafts: Sequence[Draft]) -> list[Task]:
        now_ms = self._clock.now_ms()
        accept_us = max(now_ms * 1_000, self._last_us + 1)
        self._last_us = accept_us + len(drafts)
        shards = self._shards()
        head = head_of(now_ms)
        return [
            self._task(draft, f"{head}-{tail}", shards, now_ms, accept_us + place)
            for place, (draft, tail) in enumerate(zip(drafts, self._take_tails(len(drafts)), strict=True))
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
            int(task_id[32:], 16) * shards >> 16,  # shard_of, without its call
            queue,
            schedule_ms,
            schedule_ms if schedule_ms > now_ms else now_ms,
            accept_us,
            draft.spec,
            payload,
            0 if payload is None else len(payload),
            draft.labels,
            draft.key_hash,
            draft.trace,
            retry_of(draft.spec, queue).max_attempts,
        )

    def _take_tails(self, count: int) -> list[str]:
        """The random parts of so many ids."""
        if len(self._tails) < count:
            self._tails = new_tails(os.urandom(ENTROPY_BYTES * max(count, TAILS)))
        taken = self._tails[-count:] if count else []
        del self._tails[len(self._tails) - count :]
        return taken

    async def _flush_unkeyed(self, batch: _Batch) -> None:
        tasks, sent_ms = batch.tasks, self._clock.now_ms()
        errors = await self._store.accept(tasks)
        batch.answers = [_receipt(task, _SCHEDULED, new=True) for task in tasks]
        for place, refusal in errors.items():
            batch.answers[place] = refusal
        self._tell([task for place, task in enumerate(tasks) if place not in errors] if errors else tasks, sent_ms)

    async def _flush_keyed(self, batch: _Batch) -> None:
        sent_ms = self._clock.now_ms()
        accepted = await self._store.accept_keyed(batch.tasks)
        batch.answers = [_keyed_answer(task, answer) for task, answer in zip(batch.tasks, accepted, strict=True)]
        receipts = [(t, r) for t, r in zip(batch.tasks, batch.answers, strict=True) if isinstance(r, Receipt)]
        self._stats.replayed += sum(not receipt.new for _, receipt in receipts)
        self._tell([task for task, receipt in receipts if receipt.new], sent_ms)

    def _tell(self, fresh: list[Task], sent_ms: int) -> None:
        """As of when they were sent: they may have been committed then, and have run and been forgotten since."""
        self._stats.accepted += len(fresh)
        self._hint(fresh, sent_ms)


async def _answers(places: list[_Place]) -> list[Receipt | Exception]:
    """The answers at these places, once they are there."""
    answers: list[Receipt | Exception] = []
    for batch, start, end in places:
        await batch.wait()
        if batch.error is not None:
            raise batch.error
        answers += batch.answers[start:end]
    return answers


def _keyed_answer(task: Task, answer: Accepted | Exception) -> Receipt | Exception:
    if isinstance(answer, Exception):
        return answer
    if not answer.same_request:
        return KeyReused("the idempotency key was used before with another request")
    return _receipt(task, answer.state, new=answer.new)


def _receipt(task: Task, state: State, *, new: bool) -> Receipt:
    return Receipt(task.id, task.shard, state, new, task.schedule_ms, task.accept_us, task.due_ms)
