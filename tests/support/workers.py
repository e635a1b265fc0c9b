"""Workers of a simulated cluster, in crews that are attached to a node each.

They hold some tasks for several periods of their leases, let others lapse, and are killed now and then. A crew whose
node ends goes on at another one.
"""

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING

from actors.core.events import Verdict
from actors.core.lease import Extension, Kept, Key, Lent, Report, Said, Word
from actors.lending import NOBODY
from tests.support.cluster import Member
from tests.support.history import Broken, time_ms
from tests.support.lease_history import Held, Wrong

if TYPE_CHECKING:
    from tests.support.world import World

CREWS = 3
EXTEND_S = 1.2
AGAIN_S = 2.0
"""After an answer that leaves its worker unsure."""
GRACE_S = 2.0
WENT = "its worker went away"
UNSENT = "no worker had room for it"


class SimulatedCrew:
    """The workers at one node. Implements actors.pulling.Room and Speaker."""

    def __init__(self, world: "World", member: Member) -> None:
        self._world = world
        self._credits = {queue: world.rng.randint(1, 8) for queue in world.cluster.database.queues}
        self.dead = False
        self._jobs: dict[Key, Held] = {}
        self._reports: dict[Key, Report] = {}
        """That have no answer yet."""
        self._asked_before: dict[int, int] = {}
        """Queue -> how many were asked for at this node when nobody knew of these workers, and may come."""
        self.attach(member)

    def attach(self, member: Member) -> None:
        """Work at this node from now on; what was said to the last one may be lost."""
        self.member = member
        self._world.note(f"workers come to {member.name}")
        asked = member.node.pulling._asked
        self._asked_before = {queue: sum(take.count for take in asked[queue].values()) for queue in self._credits}
        member.node.pulling.workers = self
        member.process.call(self._want)
        for report in self._reports.values():
            self._say(report)

    def _want(self) -> None:
        pulling = self.member.node.pulling
        pulling.want(self._credits)
        for queue in self._credits:
            pulling.look(queue)

    def kill(self) -> None:
        """All of its workers are gone; their node may have seen their sockets closed."""
        rng, pulling = self._world.rng, self.member.node.pulling
        self.dead = True
        self._world.note(f"workers at {self.member.name} are killed")
        for held in self._jobs.values():
            self._world.leases.leave(held)
        if rng.random() < 0.5:
            lost = [Report(*key, Verdict.LOST.value, WENT) for key in self._jobs]
            self._later(GRACE_S, self.member.process.call, pulling.report, self, "default", lost)
        self.member.process.call(pulling.want, [])

    # --- what its node tells

    def room(self, queue: int) -> int:
        """See actors.pulling.Room."""
        return 0 if self.dead else self._credits[queue]

    def deliver(self, queue: int, tasks: list[Lent]) -> None:
        """See actors.pulling.Room."""
        if self.dead:
            return
        if (excess := len(tasks) - self._credits[queue]) > 0:
            tasks = self._give_back(queue, tasks, excess)
        self._credits[queue] -= len(tasks)
        for task in tasks:
            held = Held(task, self.member.name, time_ms())
            self._world.note(f"workers at {held.node} have {task.id} {held.fence}")
            try:
                self._world.leases.deliver(held)
            except Wrong as wrong:
                raise Broken(str(wrong)) from None
            self._jobs[task.id, task.epoch, task.attempt] = held
            self._later(0, self._begin, held)

    def _give_back(self, queue: int, tasks: list[Lent], excess: int) -> list[Lent]:
        """Keep what there are credits for: the workers that these were asked for may have been others, who are gone."""
        if excess > self._asked_before[queue]:
            raise Broken(f"C14: {self.member.name} was given more than its credits: {tasks}")
        self._asked_before[queue] -= excess
        unsent = tasks[len(tasks) - excess :]
        self._world.leases.give_back(unsent)
        reports = [Report(task.id, task.epoch, task.attempt, Verdict.SNOOZED.value, UNSENT) for task in unsent]
        self.member.process.call(self.member.node.pulling.report, NOBODY, "default", reports)
        return tasks[: len(tasks) - excess]

    def revoke(self, leases: list[tuple[str, int]]) -> None:
        """See actors.pulling.Room."""
        for held in [held for held in self._jobs.values() if (held.task.id, held.task.attempt) in leases]:
            self._end(held)

    def answer(self, words: list[Word]) -> None:
        """See actors.pulling.Speaker."""
        for word in words:
            key = word.id, word.epoch, word.attempt
            if (report := self._reports.get(key)) is not None:
                self._hear(key, report, word)

    def _hear(self, key: Key, report: Report, word: Word) -> None:
        if word.said == Said.UNSURE:
            self._later(AGAIN_S, self._say, report)
            return
        del self._reports[key]
        if report.verdict == Verdict.SUCCEEDED:
            held = self._held(key)
            held.recorded, held.refused = word.said == Said.RECORDED, word.said == Said.OVER

    def _held(self, key: Key) -> Held:
        task_id, epoch, attempt = key
        some = self._world.leases.held[task_id]
        return next(held for held in some if (held.task.epoch, held.task.attempt) == (epoch, attempt))

    def keep(self, kept: list[Kept]) -> None:
        """See actors.pulling.Speaker."""
        for each in kept:
            held = self._jobs.get((each.id, each.epoch, each.attempt))
            if held is None:
                continue
            if each.said == Said.RECORDED:
                held.extended(each.until_ms, self._world.cluster.step_ms)
                self._world.leases.extended += 1
            elif each.said != Said.UNSURE:
                self._end(held)

    # --- what its workers do

    def _begin(self, held: Held) -> None:
        rng, calm = self._world.rng, self._world.calm
        hold_s = 0.0 if calm else rng.choice([0, rng.uniform(0, 0.4), rng.uniform(0, 3), rng.uniform(0, 24)])
        verdict = rng.choices(
            [Verdict.SUCCEEDED, Verdict.FAILED, Verdict.NEVER, Verdict.SNOOZED],
            [1, 0, 0, 0] if calm else [75, 13, 3, 9],
        )[0]
        if calm or rng.random() < 0.85:
            self._later(EXTEND_S, self._extend, held)
        self._later(hold_s, self._finish, held, verdict)

    def _extend(self, held: Held) -> None:
        if held.left:
            return
        task = held.task
        said = Extension(task.id, task.epoch, task.attempt)
        self.member.process.call(self.member.node.pulling.extend, self, "default", [said])
        self._later(EXTEND_S, self._extend, held)

    def _finish(self, held: Held, verdict: Verdict) -> None:
        if held.left:
            return
        task = held.task
        report = Report(task.id, task.epoch, task.attempt, verdict.value)
        report.error = None if verdict is Verdict.SUCCEEDED else f"{verdict.name} {held.fence}"
        report.result = held.fence.encode() if verdict is Verdict.SUCCEEDED else None
        report.retry_after_ms = 500 if verdict is Verdict.SNOOZED else None
        self._end(held)
        self._reports[task.id, task.epoch, task.attempt] = report
        self._say(report)

    def _end(self, held: Held) -> None:
        """There is room for another one."""
        task = held.task
        del self._jobs[task.id, task.epoch, task.attempt]
        self._world.leases.leave(held)
        self._credits[task.queue] += 1
        self.member.process.call(self.member.node.pulling.look, task.queue)

    def _say(self, report: Report) -> None:
        if not self.dead and (report.id, report.epoch, report.attempt) in self._reports:
            self.member.process.call(self.member.node.pulling.report, self, "default", [report])

    @staticmethod
    def _later(after_s: float, call: object, *args: object) -> None:
        """Workers are processes of their own."""
        asyncio.get_running_loop().call_later(after_s, call, *args, context=Context())  # type: ignore[arg-type]


class Workers:
    """All crews."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._crews: list[SimulatedCrew] = []

    async def tend(self) -> None:
        """Crews come, go on elsewhere, and are killed."""
        world = self._world
        for crew in self._crews:
            if crew.member.ended.is_set() and not crew.dead and (free := self._free()):
                crew.attach(world.rng.choice(free))
        self._crews = [crew for crew in self._crews if not crew.dead]
        if self._crews and not world.calm and world.rng.random() < 0.06:
            world.rng.choice(self._crews).kill()
        elif len(self._crews) < CREWS and (free := self._free()):
            self._crews.append(SimulatedCrew(world, world.rng.choice(free)))

    def _free(self) -> list[Member]:
        """Processes that have no workers."""
        taken = [crew.member for crew in self._crews if not crew.dead]
        return [member for member in self._world.members.values() if not member.ended.is_set() and member not in taken]
