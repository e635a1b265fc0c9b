"""Carries due webhooks out: takes them from the node, has their targets called, reports how it went.

One `Courier` a node. What is due is taken and written in the call in which the node tells of it, so that no turn of the
loop is between a shard and a socket; outcomes go back in batches, one a turn. `hosts.py` keeps one host from having
all calls that may be under way, `targets.py` says who may be called, `webhook.py` what is said and what the answer
means.

Promises: nothing is sent after the lease ended (it is asked for again once a connection is up); at most `callers`
calls are under way. What was not sent is reported UNSENT: with `retry_after_ms` when its host was too busy, without
when the lease ended.
On cancellation, what waits is reported UNSENT and calls under way are dropped: nobody knows how they ended.
"""

import asyncio
from asyncio import Handle

from actors.core.errors import Invalid
from actors.core.events import Outcome, Verdict
from actors.core.task import Task
from gateway.attempt import Attempts
from gateway.client import open_client
from gateway.context import ClockPort, DispatchPort
from gateway.hosts import WINDOW_MS, Hosts
from gateway.signing import Signer
from gateway.targets import TargetPolicy
from gateway.webhook import Plan, Plans

CALLERS = 512
"""Most calls under way at once; one host alone may have half of them (see hosts.py)."""

Call = tuple[Task, Plan]


class Courier:
    """Delivers the webhooks of one node. `turned_away` counts those that went back because their host was too busy."""

    def __init__(
        self, node: DispatchPort, clock: ClockPort, policy: TargetPolicy, signer: Signer, *, callers: int = CALLERS
    ) -> None:
        self._node = node
        self._clock = clock
        self._policy = policy
        self._signer = signer
        self._callers = callers
        self._attempts: Attempts | None = None
        self._plans = Plans()
        self._hosts: Hosts[Call] = Hosts(callers, callers // 2)
        self._held = False
        """The node may have work that there was no room for."""
        self._ended: list[Outcome] = []
        self._loop = asyncio.get_running_loop()
        self._next_review: Handle | None = None
        self.turned_away = 0

    @property
    def under_way(self) -> int:
        """Tasks taken from the node and not yet reported, apart from outcomes of this turn of the loop."""
        return self._callers - self._hosts.free + self._hosts.waiting

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            async with open_client(self._policy, self._node.may_fire, self._callers) as client:
                await self._signer.known.wait()
                try:
                    self._attempts = Attempts(client, self._node, self._clock, self._signer)
                    self._node.serve(self._pull)
                    await self._loop.create_future()
                finally:
                    self._attempts = None  # now: to close the client takes some turns of the loop
                    self._node.serve(None)
        finally:
            self._leave()

    def _pull(self) -> None:
        """The node may have work."""
        if self._attempts is None:
            return
        limit = self._hosts.limit
        self._held = limit <= 0
        if not self._held and (tasks := self._node.take(limit)):
            now_ms = self._clock.now_ms()
            for task in tasks:
                self._admit(task, now_ms, self._attempts)

    def _admit(self, task: Task, now_ms: int, attempts: Attempts) -> None:
        plan = self._plans.of(task.spec)
        if isinstance(plan, Invalid):
            self._unsent(task, Verdict.NEVER, f"bad target: {plan.detail}")
            return
        starts, away_ms = self._hosts.admit(plan.host, (task, plan))
        if starts:
            attempts.start(task, plan, now_ms, self._done)
        elif away_ms:
            self._turn_away(task, away_ms)
        if self._next_review is None:
            self._await_review()

    def _done(self, plan: Plan, outcome: Outcome) -> None:
        """A call ended: another one may take its place."""
        if self._attempts is None:
            return
        self._report(outcome)
        for task, other in self._hosts.done(plan.host):
            self._attempts.start(task, other, self._clock.now_ms(), self._done)
        self._go_on()

    def _go_on(self) -> None:
        """There may be room again for what the node was not asked for."""
        if self._held and self._hosts.limit > 0:
            self._held = False
            self._loop.call_soon(self._pull)

    # --- reports ---

    def _report(self, outcome: Outcome) -> None:
        if not self._ended:
            self._loop.call_soon(self._flush)
        self._ended.append(outcome)

    def _flush(self) -> None:
        ended, self._ended = self._ended, []
        if ended:
            self._node.ended(ended)

    def _unsent(self, task: Task, verdict: Verdict, error: str, retry_after_ms: int | None = None) -> None:
        now_ms = self._clock.now_ms()
        outcome = Outcome(task, task.epoch, task.attempt, verdict, now_ms, now_ms, error=error)
        outcome.retry_after_ms = retry_after_ms
        self._report(outcome)

    def _turn_away(self, task: Task, away_ms: int) -> None:
        self.turned_away += 1
        self._unsent(task, Verdict.UNSENT, "too many calls under way to this host", away_ms)

    # --- windows ---

    def _await_review(self) -> None:
        self._next_review = self._loop.call_later(WINDOW_MS / 1000, self._review)

    def _review(self) -> None:
        for (task, _), away_ms in self._hosts.review():
            self._turn_away(task, away_ms)
        self._next_review = None
        if len(self._hosts):
            self._await_review()
        self._go_on()

    def _leave(self) -> None:
        if self._next_review is not None:
            self._next_review.cancel()
        for task, _ in self._hosts.leave():
            self._unsent(task, Verdict.UNSENT, "node is going away")
        self._flush()
