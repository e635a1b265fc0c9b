"""What an owner knows of a task, where the tables tell less: an attempt that runs is in memory alone."""

import msgspec

from actors.core.task import Phase, Task


class Live(msgspec.Struct, frozen=True, array_like=True):
    """A task in its owner's memory; `phase` GONE: it was let go moments ago, after revision `rev`."""

    id: str
    rev: int
    step: int
    phase: int
    attempt: int
    epoch: int
    started_ms: int
    lateness_ms: int | None

    @property
    def runs(self) -> bool:
        """An attempt is under way, or its end is being written."""
        return self.phase == Phase.RUNNING or (self.phase == Phase.WRITING and self.started_ms > 0)


def live(task: Task) -> Live:
    """The task as it is now."""
    return Live(
        task.id, task.rev, task.step, task.phase.value, task.attempt, task.epoch, task.started_ms, task.lateness_ms
    )


def gone(task_id: str, rev: int) -> Live:
    """A task of which memory knows no more than the revision that it came to."""
    return Live(task_id, rev, 0, Phase.GONE.value, 0, 0, 0, None)
