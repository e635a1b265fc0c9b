"""Claims: which running attempts are made durable, and what waits for a claim that is being written.

An attempt is claimed when it outlives half a second; most do not, and cost one write less. While its claim is under
way, a task has a record under way like any other: an outcome that comes meanwhile is kept until the claim is settled.

Promises: at most one claim of a task under way; an outcome that was kept is given out once.
"""

from collections import deque
from collections.abc import Iterable

from actors.core.events import Outcome
from actors.core.task import Phase, Task

CLAIM_AFTER_MS = 500
_RUNNING = Phase.RUNNING
NEVER_MS = 1 << 62


class Claims:
    """The attempts of one shard that may have to be claimed."""

    __slots__ = ("_under_way", "_young", "next_ms")

    def __init__(self) -> None:
        self.next_ms = NEVER_MS
        """When `outlived` next has something to say."""
        self._young: deque[tuple[int, Task]] = deque()
        """(started_ms, task) in the order of their starts."""
        self._under_way: dict[str, Outcome | None] = {}

    def __contains__(self, task_id: str) -> bool:
        """Whether a claim of this task is being written."""
        return task_id in self._under_way

    def watch(self, task: Task) -> None:
        """An attempt of the task has just started."""
        if not self._young:
            self.next_ms = task.started_ms + CLAIM_AFTER_MS
        self._young.append((task.started_ms, task))

    def outlived(self, now_ms: int) -> list[Task]:
        """Tasks whose attempt has to be claimed now; from here on a claim of each is under way."""
        tasks: list[Task] = []
        young = self._young
        while young and young[0][0] + CLAIM_AFTER_MS <= now_ms:
            started_ms, task = young.popleft()
            if task.phase is not _RUNNING or task.started_ms != started_ms:
                continue
            tasks.append(task)
        self.next_ms = young[0][0] + CLAIM_AFTER_MS if young else NEVER_MS
        return self.claim_all(tasks)

    def claim_all(self, tasks: Iterable[Task]) -> list[Task]:
        """Those of these running tasks that have no claim yet; from here on a claim of each is under way."""
        claimed: list[Task] = []
        for task in tasks:
            if task.claim_ms is None and task.id not in self._under_way:
                self._under_way[task.id] = None
                claimed.append(task)
        return claimed

    def ended(self) -> None:
        """Attempts ended: the next visit is for the oldest one that has not, so that short ones cost none."""
        young = self._young
        while young and (young[0][1].phase is not _RUNNING or young[0][1].started_ms != young[0][0]):
            young.popleft()
        self.next_ms = young[0][0] + CLAIM_AFTER_MS if young else NEVER_MS

    def keep(self, outcome: Outcome) -> None:
        """The attempt ended before its claim was settled."""
        self._under_way[outcome.task.id] = outcome

    def settled(self, task_id: str) -> Outcome | None:
        """The claim is no longer under way; answers the outcome that came meanwhile."""
        return self._under_way.pop(task_id, None)
