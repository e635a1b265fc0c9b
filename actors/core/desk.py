"""The desk of a node: due tasks of all its shards, a lane a queue, until somebody takes them: a dispatcher those that
are sent, from another desk workers those that are pulled, each from the queues that it works on.

Lanes take turns, so that a queue with a long backlog does not hold the others up; a paused queue's lane waits. What
comes back, because its worker went, goes before what has waited since: it does not wait a second time. A task whose
payload rests in the tables is set aside to be read when its turn comes, and goes first in its lane afterwards: what is
read ahead is bounded in number and bytes and shared among the lanes, however long a backlog is.

Promises: a task is handed out at most once an offer; one that is no longer `OFFERED` (cancelled, expired, its shard
lost), or was offered anew since, is dropped on the way out. Bounds: a shard offers at most twice its limit a queue
(`holding.py`).
"""

from collections import deque

from actors.core.queue import Queue
from actors.core.task import Phase, Task

READ_TASKS = 1_024
READ_BYTES = 32 * 1024 * 1024
"""Payloads that may be under way or wait to be taken after they were read."""
KEPT_BYTES = 64 * 1024 * 1024
"""Payloads that tasks at the desk may keep in memory; beyond it they are let go and read again in turn."""
COMPACT = 1_024
_OFFERED = Phase.OFFERED

Entry = tuple[Task, int, int]
"""A task, its revision when it was offered, and the bytes of its payload that count (as kept, or as read ahead)."""


class _Lane:
    """One queue's due tasks, oldest first; may hold some that are no longer offered."""

    __slots__ = ("again", "ahead", "compact_at", "queue", "ready", "tasks")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.tasks: deque[Entry] = deque()
        self.again: deque[Entry] = deque()
        """Those that have begun before, and were due no later than the first of `tasks`: they go before it."""
        self.ready: deque[Entry] = deque()
        """Those whose payload was read."""
        self.ahead = 0
        """Tasks whose payload is being read, or was read and not taken yet."""
        self.compact_at = COMPACT

    def __bool__(self) -> bool:
        return bool(self.tasks or self.again or self.ready)

    def line(self, task: Task) -> deque[Entry]:
        """Where a task that has begun before waits for its turn."""
        tasks = self.tasks
        return self.again if tasks and task.due_ms <= tasks[0][0].due_ms else tasks

    def compact(self) -> int:
        """Forget what is no longer offered; answers how many kept bytes went with it."""
        kept = sum(entry[2] for entry in self.tasks)
        self.tasks = deque(entry for entry in self.tasks if _is_offered(entry))
        self.compact_at = max(COMPACT, 2 * len(self.tasks))
        return kept - sum(entry[2] for entry in self.tasks)


class Desk:
    """Due tasks, to be taken."""

    def __init__(self, *, pulled: bool = False) -> None:
        self._pulled = pulled
        self._lanes: dict[int, _Lane] = {}
        self._turns: deque[_Lane] = deque()
        """Lanes that have tasks."""
        self._unread: list[Task] = []
        self._reading: dict[Task, int] = {}
        """Tasks whose payload is being read -> their revision then."""
        self._ahead = 0
        self._ahead_bytes = 0
        self._kept_bytes = 0

    def put(self, tasks: list[Task]) -> list[Task]:
        """Due tasks of any shards; answers those that are for the other desk."""
        others: list[Task] = []
        pulled = self._pulled
        for task in tasks:
            if (task.spec.http is None) is not pulled:
                others.append(task)
                continue
            lane = self._lanes.get(task.queue.id)
            if lane is None:
                lane = self._lanes[task.queue.id] = _Lane(task.queue)
            self._open(lane)
            line = lane.line(task) if task.attempt else lane.tasks
            line.append((task, task.rev, 0 if task.payload is None else self._keep(task)))
            if len(lane.tasks) > lane.compact_at:
                self._kept_bytes -= lane.compact()
        return others

    def take(self, limit: int) -> list[Task]:
        """At most `limit` tasks that are offered and have their payload; fewer only when there are no more."""
        taken: list[Task] = []
        before = -1
        while before < len(taken) < limit:
            before = len(taken)
            self._take_round(limit, taken)
        return taken

    def take_of(self, queue_id: int, limit: int) -> list[Task]:
        """The same, of one queue alone; nothing while it is paused."""
        lane, taken = self._lanes.get(queue_id), list[Task]()
        if lane is None or not lane:
            return taken
        before = -1
        if lane.queue.paused:
            self._unready(lane)
        else:
            while before < len(taken) < limit:
                before = len(taken)
                self._take_turn(lane, limit, READ_TASKS, taken)
        if not lane:
            self._turns.remove(lane)
        return taken

    def queues(self) -> set[int]:
        """The numbers of the queues that `take_of` may give something of."""
        return {lane.queue.id for lane in self._turns if not lane.queue.paused}

    def unread(self) -> list[Task]:
        """Tasks whose payload has to be read now; each is given back with `read`."""
        tasks, self._unread = self._unread, []
        return tasks

    def read(self, tasks: list[Task]) -> None:
        """These were read (or could not be: then their turn comes again)."""
        for task in tasks:
            rev = self._reading.pop(task, None)
            if rev is None:
                continue
            lane = self._lanes[task.queue.id]
            entry = (task, rev, task.payload_bytes)
            if task.payload is not None and _is_offered(entry):
                self._open(lane)
                lane.ready.append(entry)
                continue
            self._let_go(lane, entry)
            if _is_offered(entry):
                self.put([task])

    def __bool__(self) -> bool:
        """Whether `take` may give something (a paused queue's tasks do not count)."""
        return any(not lane.queue.paused for lane in self._turns)

    def _open(self, lane: _Lane) -> None:
        """The lane is about to have tasks."""
        if not lane:
            self._turns.append(lane)

    def _keep(self, task: Task) -> int:
        """Bytes that the task's payload adds to what is kept; 0 when it was let go."""
        size = task.payload_bytes
        if self._kept_bytes + size > KEPT_BYTES:
            task.payload = None
            return 0
        self._kept_bytes += size
        return size

    def _take_round(self, limit: int, taken: list[Task]) -> None:
        """Each lane that is not paused has one turn, for an equal share of what is left."""
        turns = self._turns
        waiting = sum(not lane.queue.paused for lane in turns)
        for _ in range(len(turns)):
            if len(taken) >= limit:
                return
            lane = turns.popleft()
            if lane.queue.paused:
                self._unready(lane)
            else:
                share = max((limit - len(taken)) // waiting, 1)
                ahead = max(READ_TASKS // waiting, 1)
                self._take_turn(lane, len(taken) + share, ahead, taken)
                waiting -= 1
            if lane:
                turns.append(lane)

    def _take_turn(self, lane: _Lane, until: int, ahead: int, taken: list[Task]) -> None:
        """Take from the lane until so many are taken, what was read before first; read ahead what has no payload."""
        ready = lane.ready
        while ready and len(taken) < until:
            entry = ready.popleft()
            self._let_go(lane, entry)
            if _is_offered(entry):
                taken.append(entry[0])
        while (line := lane.again or lane.tasks) and len(taken) < until:
            task, rev, kept = entry = line[0]
            unread = task.payload is None and task.payload_bytes
            offered = _is_offered(entry)
            if offered and unread and not (lane.ahead < ahead and self._may_read()):
                break
            line.popleft()
            self._kept_bytes -= kept
            if offered and unread:
                self._set_aside(lane, task, rev)
            elif offered:
                taken.append(task)

    def _may_read(self) -> bool:
        return self._ahead < READ_TASKS and self._ahead_bytes < READ_BYTES

    def _set_aside(self, lane: _Lane, task: Task, rev: int) -> None:
        if task not in self._reading:
            lane.ahead += 1
            self._ahead += 1
            self._ahead_bytes += task.payload_bytes
            self._unread.append(task)
        self._reading[task] = rev

    def _let_go(self, lane: _Lane, entry: Entry) -> None:
        """A task is no longer ahead of its turn."""
        lane.ahead -= 1
        self._ahead -= 1
        self._ahead_bytes -= entry[2]

    def _unready(self, lane: _Lane) -> None:
        """What a paused lane has read ahead is read again when its turn comes: others may need the room."""
        while lane.ready:
            task, rev, _ = entry = lane.ready.pop()
            self._let_go(lane, entry)
            if _is_offered(entry):
                task.payload = None
                lane.tasks.appendleft((task, rev, 0))


def _is_offered(entry: Entry) -> bool:
    return entry[0].phase is _OFFERED and entry[0].rev == entry[1]
