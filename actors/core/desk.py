"""The desk of a node: due webhook tasks of all its shards, a lane a queue, until a dispatcher takes them.

Lanes take turns, so that a queue with a long backlog does not hold the others up; a paused queue's lane waits. A
task whose payload rests in the tables is set aside to be read when its turn comes, and goes first afterwards: what is
read ahead is bounded in number and bytes, not by the length of the backlog.

Promises: a task is handed out at most once an offer; one that is no longer `OFFERED` (cancelled, expired, its shard
lost) is dropped on the way out. Bounds: a shard offers at most its limit a queue (`holding.py`).
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


class _Lane:
    """One queue's due tasks, oldest first; may hold some that are no longer offered."""

    __slots__ = ("compact_at", "queue", "tasks")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.tasks: deque[Task] = deque()
        self.compact_at = COMPACT

    def put(self, task: Task) -> None:
        self.tasks.append(task)
        if len(self.tasks) > self.compact_at:
            self.tasks = deque(t for t in self.tasks if t.phase is Phase.OFFERED)
            self.compact_at = max(COMPACT, 2 * len(self.tasks))


class Desk:
    """Due webhook tasks, to be taken."""

    def __init__(self) -> None:
        self._lanes: dict[int, _Lane] = {}
        self._turns: deque[_Lane] = deque()
        """Lanes that have tasks."""
        self._unread: list[Task] = []
        self._front: deque[Task] = deque()
        self._reading = 0
        self._reading_bytes = 0
        self._kept_bytes = 0

    def put(self, tasks: list[Task]) -> None:
        """Due tasks of one shard. Pulled tasks stay with their shard: nobody sends them anywhere."""
        for task in tasks:
            if task.spec.http is None:
                task.payload = None
                continue
            lane = self._lanes.get(task.queue.id)
            if lane is None:
                lane = self._lanes[task.queue.id] = _Lane(task.queue)
            if not lane.tasks:
                self._turns.append(lane)
            lane.put(task)
            if task.payload is not None:
                self._keep(task)

    def take(self, limit: int) -> list[Task]:
        """At most `limit` tasks that are offered and have their payload."""
        taken: list[Task] = []
        front = self._front
        if not front and not self._turns:
            self._kept_bytes = 0
        while front and len(taken) < limit:
            self._take(front.popleft(), taken)
        for _ in range(len(self._turns)):
            lane = self._turns.popleft()
            if not lane.queue.paused:
                self._take_turn(lane, limit, taken)
            if lane.tasks:
                self._turns.append(lane)
            if len(taken) >= limit:
                break
        return taken

    def unread(self) -> list[Task]:
        """Tasks whose payload has to be read now; each is given back with `read`."""
        tasks, self._unread = self._unread, []
        return tasks

    def read(self, tasks: list[Task]) -> None:
        """These were read (or could not be: then their turn comes again)."""
        for task in tasks:
            self._reading -= 1
            self._reading_bytes -= task.payload_bytes
            if task.phase is not Phase.OFFERED:
                continue
            if task.payload is None:
                self.put([task])
            else:
                self._keep(task)
                self._front.append(task)

    def __bool__(self) -> bool:
        """Whether `take` may give something (a paused queue's tasks do not count)."""
        return bool(self._front) or any(not lane.queue.paused for lane in self._turns)

    def _keep(self, task: Task) -> None:
        self._kept_bytes += task.payload_bytes
        if self._kept_bytes > KEPT_BYTES and task.payload_bytes:
            self._kept_bytes -= task.payload_bytes
            task.payload = None

    def _take_turn(self, lane: _Lane, limit: int, taken: list[Task]) -> None:
        share = max((limit - len(taken)) // (len(self._turns) + 1), 1)
        until = min(len(taken) + share, limit)
        tasks = lane.tasks
        while tasks and len(taken) < until:
            if tasks[0].payload is None and tasks[0].payload_bytes and not self._may_read():
                break
            self._take(tasks.popleft(), taken)

    def _may_read(self) -> bool:
        return self._reading < READ_TASKS and self._reading_bytes < READ_BYTES

    def _take(self, task: Task, taken: list[Task]) -> None:
        if task.payload is not None:
            self._kept_bytes -= task.payload_bytes
        if task.phase is not Phase.OFFERED:
            return
        if task.payload is None and task.payload_bytes:
            self._reading += 1
            self._reading_bytes += task.payload_bytes
            self._unread.append(task)
        else:
            taken.append(task)
