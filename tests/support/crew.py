"""Workers that are attached to one node of a simulated cluster: they take what they have credits for, and say how it
ended when they are told to.

They are processes of their own: they live on when their node is stopped or killed, and may go to another one.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from actors.core.draft import Draft
from actors.core.events import Verdict
from actors.core.lease import Extension, Kept, Key, Lent, Report, Said, Word
from actors.core.spec import Spec
from actors.core.task import fence
from tests.support.cluster import Cluster, Member, submit


@dataclass(eq=False)
class Delivery:
    """A task that came to a worker, and what it heard of it since."""

    task: Lent
    node: str
    at_s: float
    words: list[Word] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    revoked: bool = False

    @property
    def fence(self) -> str:
        """Of its attempt."""
        return fence(1, self.task.epoch, self.task.attempt)

    @property
    def said(self) -> list[int]:
        """What came of its reports."""
        return [word.said for word in self.words]


class Crew:
    """The workers of one tenant at one node. Implements actors.pulling.Room and Speaker."""

    def __init__(self, cluster: Cluster, member: Member) -> None:
        self.cluster = cluster
        self.credits: Counter[int] = Counter()
        self.deliveries: list[Delivery] = []
        self.took: Callable[[Delivery], None] = lambda delivery: None
        """Called for each."""
        self.last: dict[Key, Delivery] = {}
        self.member = member
        self.attach(member)

    def attach(self, member: Member) -> None:
        """Go on at this node, with the same credits."""
        self.member = member
        member.node.pulling.workers = self
        member.process.call(self._want)

    def _want(self) -> None:
        self.member.node.pulling.want(self.credits)
        for queue in self.credits:
            self.member.node.pulling.look(queue)

    async def take(self, credits: int, queue: str = "emails") -> None:  # noqa: A002 - the field's name in the contract
        """So many more tasks of a queue may be given to it."""
        home = await self.member.queues.ensure("default", queue)
        self.grant(home.id, credits)

    def grant(self, queue: int, count: int) -> None:
        """The same, of a queue that is known."""
        self.credits[queue] += count
        self.member.process.call(self._want)

    # --- what its node tells

    def room(self, queue: int) -> int:
        """See actors.pulling.Room."""
        return self.credits[queue]

    def deliver(self, queue: int, tasks: list[Lent]) -> None:
        """See actors.pulling.Room."""
        self.credits[queue] -= len(tasks)
        assert self.credits[queue] >= 0, "more was given than there are credits for"
        for task in tasks:
            delivery = Delivery(task, self.member.name, asyncio.get_running_loop().time())
            self.deliveries.append(delivery)
            self.last[task.id, task.epoch, task.attempt] = delivery
            self.took(delivery)
        self.cluster.changed.set()

    def revoke(self, leases: list[tuple[str, int]]) -> None:
        """See actors.pulling.Room."""
        for delivery in self.deliveries:
            delivery.revoked |= (delivery.task.id, delivery.task.attempt) in leases
        self.cluster.changed.set()

    def answer(self, words: list[Word]) -> None:
        """See actors.pulling.Speaker."""
        for word in words:
            self.last[word.id, word.epoch, word.attempt].words.append(word)
        self.cluster.changed.set()

    def keep(self, kept: list[Kept]) -> None:
        """See actors.pulling.Speaker."""
        for each in kept:
            self.last[each.id, each.epoch, each.attempt].kept.append(each)
        self.cluster.changed.set()

    # --- what its workers say

    def report(
        self, *deliveries: Delivery, verdict: Verdict = Verdict.SUCCEEDED, tenant: str = "default", **more: object
    ) -> None:
        """These ended so; a success has its fence for a result."""
        reports = []
        for delivery in deliveries:
            task = delivery.task
            report = Report(task.id, task.epoch, task.attempt, verdict.value)
            report.result = delivery.fence.encode() if verdict is Verdict.SUCCEEDED else None
            for name, value in more.items():
                setattr(report, name, value)
            reports.append(report)
        self.member.process.call(self.member.node.pulling.report, self, tenant, reports)

    def extend(self, *deliveries: Delivery, by_ms: int | None = None, tenant: str = "default") -> None:
        """These go on."""
        said = [Extension(each.task.id, each.task.epoch, each.task.attempt, by_ms) for each in deliveries]
        self.member.process.call(self.member.node.pulling.extend, self, tenant, said)

    # --- for tests

    async def delivered(self, count: int) -> list[Delivery]:
        """Wait until so many have come in all."""
        await self.cluster.until(lambda: len(self.deliveries) >= count)
        return self.deliveries

    async def finish(self, *deliveries: Delivery, **how: object) -> None:
        """Report, and wait until all of it is recorded."""
        self.report(*deliveries, **how)  # type: ignore[arg-type]
        await self.cluster.until(lambda: all(Said.RECORDED in each.said for each in deliveries))

    async def hold(self, *deliveries: Delivery, for_s: float, every_s: float) -> None:
        """Work for so long, and extend at intervals."""
        until_s = asyncio.get_running_loop().time() + for_s
        while asyncio.get_running_loop().time() < until_s:
            self.extend(*deliveries)
            await asyncio.sleep(every_s)


async def submit_pulled(
    member: Member, count: int, queue: str = "emails", *, period_ms: int | None = None, delay_ms: int | None = None
) -> list[str]:
    """Submit `count` tasks for workers; their ids."""
    home = await member.queues.ensure("default", queue)
    spec = Spec(dispatch_deadline_ms=period_ms)
    drafts: Sequence[Draft] = [Draft(home, spec, delay_ms=delay_ms, payload=b"%d" % n) for n in range(count)]
    return [receipt.id for receipt in await submit(member, drafts)]
