"""The stage with tasks that workers pull: what they say goes in, and what they hear is sorted out."""

from actors.core.commands import MOVES_OF
from actors.core.events import Acknowledge, Answer, Asked, Command, Ended, Extended, Found, Keep, Reply, Revoke, Verdict
from actors.core.lease import Extension, Kept
from actors.core.spec import Spec
from actors.core.task import Move, Task
from tests.actors.core.stage import Stage, row

TAKER = "taker"
PERIOD_MS = 30_000


class LeaseStage(Stage):
    """All of its tasks are pulled, unless they are told otherwise."""

    def task(self, *, spec: Spec = Spec(), **how: object) -> Task:  # noqa: B008
        return super().task(spec=spec, **how)  # type: ignore[arg-type]

    def taken_over(self, *, boot: str = "boot-b", in_ms: int = 0, queue_ms: int = PERIOD_MS) -> Task:
        """A claim of an earlier owner, as the tables show it; it started a second ago."""
        task = self.task(in_ms=in_ms - 1_000)
        fresh = row(task, rev=1, attempt=1, claim_ms=task.due_ms + queue_ms, claim_boot=boot, epoch=6)
        self.read(fresh)
        return fresh

    # --- what workers say

    def report(self, task: Task, verdict: Verdict = Verdict.SUCCEEDED, **outcome: object) -> None:
        """Of the attempt that the task has now, unless told otherwise."""
        self.apply(Ended([self.outcome(task, verdict, reply=TAKER, **outcome)]))

    def ask_report(self, task: Task, verdict: Verdict = Verdict.SUCCEEDED, **outcome: object) -> Command:
        """The same, of a task that the node does not find in memory."""
        what = self.outcome(task, verdict, **outcome)
        what.task = None  # type: ignore[assignment]  # nobody knows it
        token = Reply(TAKER, task.id, what.epoch, what.attempt)
        command = Command(MOVES_OF.get(verdict, Move.RETRY), task.id, token, outcome=what, reported=True)
        self.apply(Asked([command]))
        return command

    def find(self, found: Found) -> None:
        """Answer the last report's search."""
        self.look((self.finds[0], found))

    def extend(
        self, task: Task, by_ms: int | None = None, *, epoch: int | None = None, attempt: int | None = None
    ) -> Kept:
        said = Extension(
            task.id,
            task.epoch if epoch is None else epoch,
            task.attempt if attempt is None else attempt,
            by_ms,
        )
        self.apply(Extended([said], TAKER))
        (keep,) = [effect for effect in self.effects if isinstance(effect, Keep)]
        assert keep.reply == TAKER
        (kept,) = keep.kept
        return kept

    # --- what they hear

    @property
    def acknowledged(self) -> list[tuple[str, int, str]]:
        """(id, attempt, state) of what the last event told to be recorded."""
        return [
            (record.task.id, record.outcome.attempt, record.state.value)
            for effect in self.effects
            if isinstance(effect, Acknowledge)
            for record in effect.records
            if record.outcome is not None
        ]

    @property
    def told(self) -> Answer:
        """The one answer to a report that the last event led to."""
        (answer,) = [effect for effect in self.effects if isinstance(effect, Answer)]
        return answer

    @property
    def revoked(self) -> list[Task]:
        return [task for effect in self.effects if isinstance(effect, Revoke) for task in effect.tasks]
