"""The world of one simulated history: a cluster, its processes by name, and what everybody draws their luck from."""

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from actors.core.errors import Misconfigured, Unavailable
from actors.core.events import Verdict
from actors.core.queue import Queue, Unheard
from actors.core.task import Task
from storage.memory.database import NodeRow
from tests.support.cluster import Cluster, Member
from tests.support.history import DEADLINE_MS, Broken, History
from tests.support.lease_history import LeaseHistory
from tests.support.scripted import Run, Step
from tests.support.verdicts import Verdicts

USUAL = {"emails": Unheard.RETRY}
UNHEARD = USUAL | {"patient": Unheard.WAIT_DEADLINE, "once": Unheard.HOLD}
"""Queues, and what they want to come of attempts whose end nobody knows."""
ANSWER_S = 3.0
"""A client gives a request up after this time."""


@dataclass(slots=True)
class Figures:
    """How much happened in a history."""

    nodes: int = 0
    faults: int = 0
    tasks: int = 0
    runs: int = 0
    seconds: float = 0.0

    @property
    def tell(self) -> bool:
        """Whether it was enough to prove anything."""
        return 3 <= self.nodes <= 5 and self.faults >= 3 and self.tasks >= 50 and self.seconds >= 20


class World:
    """Everything that clients, faults and checks share."""

    def __init__(
        self,
        cluster: Cluster,
        rng: random.Random,
        note: Callable[[str], None],
        *,
        unheard: bool = False,
        pulled: bool = False,
    ) -> None:
        """`unheard`: there are queues that hold, or wait, as well; `pulled`: half of the tasks are for workers."""
        self.cluster = cluster
        self.pulled = pulled
        self.queues = UNHEARD if unheard else USUAL
        if unheard or pulled:
            for number, (name, unknown) in enumerate(self.queues.items(), 1):
                cluster.database.queues[number] = Queue(number, "default", name, unknown=unknown)
        self.rng = rng
        self.note = note
        self.leases = LeaseHistory(cluster.database)
        self.history = History(cluster.database, self.leases)
        self.verdicts = Verdicts(cluster.database, self.note)
        self.figures = Figures()
        self.members: dict[str, Member] = {}
        """The process that bears the name now."""
        self.busy: set[str] = set()
        """Names that some fault has in hand."""
        self.going: set[str] = set()
        """Nodes that have begun to leave."""
        self.calm = False
        """The faults are over: requests are carried out well, and soon."""
        self.errors: list[dict[str, Any]] = []
        self._verdict_of: dict[tuple[str, int, int], Verdict] = {}
        usual_ms, slowest_ms = rng.choice([0.5, 3.0, 60.0]), rng.choice([50, 400, 4_000])
        longest_ms = rng.choice([slowest_ms, 12_000])
        self._ways = [(0.98, usual_ms), (0.998, slowest_ms), (1.0, longest_ms)]
        cluster.way_ms = self._way_ms
        cluster.observe = self._observe
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.errors.append(context))

    def start(self, name: str, address: str | None = None) -> Member:
        """A new process of this name."""
        member = self.cluster.join(name, self.script, address)
        rng = self.rng
        member.drift = rng.uniform(-3e-4, 3e-4)
        member.wire.forgets = lambda: rng.random() < 0.5
        member.wire.carried = self._carried
        member.links.lines.gave_back = self.leases.give_back
        self.members[name] = member
        self.going.discard(name)
        self.figures.nodes = max(self.figures.nodes, len(self.members))
        self.note(f"{name} starts as {member.boot}")
        return member

    def _carried(self, statement: str) -> None:
        self.verdicts.carried(statement)
        self.leases.carried(statement)

    def revive(self) -> None:
        """Start again what has ended by itself: a process that found its name taken."""
        for name, member in list(self.members.items()):
            if member.ended.is_set() and name not in self.busy:
                self.bury(member)
                self.start(name)

    def bury(self, member: Member) -> None:
        """A process has ended: for the only reason for which one may."""
        errors = list(_leaves(member.failure))
        for error in errors:
            if isinstance(error, Broken):
                raise error
        if errors and all(isinstance(error, Misconfigured) for error in errors) and self.is_second(member):
            member.failure = None
        if member.failure is not None:
            raise Broken(f"C10: node {member.name} failed: {errors}") from member.failure

    def is_second(self, member: Member) -> bool:
        """Whether an older process of its name may still be heard of."""
        return any(other.name == member.name for other in self.cluster.members if other is not member)

    def some_member(self) -> Member:
        """Any process, well or not."""
        return self.rng.choice(list(self.members.values()))

    async def open_member(self) -> Member:
        """One that can read the queues."""
        while True:
            member = self.some_member()
            try:
                async with asyncio.timeout(ANSWER_S):
                    for name in self.queues:
                        await member.queues.ensure("default", name)
            except (Unavailable, TimeoutError):
                await asyncio.sleep(0.3)
            else:
                return member

    # --- what attempts come to

    def script(self, task: Task) -> Step:
        """How an attempt of the task goes."""
        step = self._step(task)
        self._verdict_of[task.id, task.epoch, task.attempt] = step.verdict
        return step

    def _step(self, task: Task) -> Step:
        rng = self.rng
        fence = f"{1:08x}.{task.epoch:010d}.{task.attempt:06d}".encode()
        if self.calm:
            return Step(Verdict.SUCCEEDED, 0, 0, fence)
        takes_ms = rng.choice([0, rng.uniform(0, 50), rng.uniform(0, 2_000), rng.uniform(0, DEADLINE_MS)])
        connect_ms = rng.choice([0, 0, rng.uniform(0, 900)])
        verdict = rng.choices(
            [Verdict.SUCCEEDED, Verdict.FAILED, Verdict.NEVER, Verdict.LATER, Verdict.UNSENT], [70, 14, 3, 8, 5]
        )[0]
        retry_after_ms = rng.choice([None, 300]) if verdict in (Verdict.FAILED, Verdict.UNSENT) else None
        return Step(verdict, takes_ms, connect_ms, fence, retry_after_ms=retry_after_ms, jitter=rng.random())

    def _observe(self, member: Member, run: Run, task: Task) -> None:
        verdict = self._verdict_of[run.id, run.epoch, run.attempt]
        self.note(f"{member.name} runs {run.id} {run.fence}: {verdict.name}")
        self.history.ran(run, verdict, member.node.membership.boot, task.shard)

    def _way_ms(self) -> float:
        if self.calm:
            return 1.0
        luck = self.rng.random()
        most_ms = next(most_ms for part, most_ms in self._ways if luck <= part)
        return self.rng.uniform(0.1, most_ms)

    def living(self) -> list[NodeRow]:
        """Nodes as the database has them."""
        return [row for row in self.cluster.database.nodes.values() if row.up]


def _leaves(error: BaseException | None) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    elif error is not None:
        yield error
