"""A dispatcher that sends nothing: a script says how each attempt ends; what was run is told to the test."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from actors.core.events import Outcome, Verdict
from actors.core.task import Phase, Task
from actors.node import Node

TAKE = 512


@dataclass(slots=True, frozen=True)
class Step:
    """How an attempt goes: `connect_ms` until the request is written, `takes_ms` from then to its end."""

    verdict: Verdict = Verdict.SUCCEEDED
    takes_ms: float = 0
    connect_ms: float = 0
    result: bytes | None = None
    error: str | None = None
    retry_after_ms: int | None = None
    jitter: float = 0.5


@dataclass(slots=True, frozen=True)
class Run:
    """An attempt whose request was written, `at_ms` on the primary's clock; `started_ms` is its owner's word."""

    id: str
    node: str
    epoch: int
    attempt: int
    at_ms: float
    payload: bytes | None
    schedule_ms: int
    fence: str
    started_ms: int


Script = Callable[[Task], Step]


def always(step: Step) -> Script:
    """Every attempt goes like this."""
    return lambda task: step


def succeed(task: Task) -> Step:
    """Every attempt succeeds at once."""
    return Step()


def in_turn(*steps: Step) -> Script:
    """A task's n-th attempt goes like the n-th step; all further ones like the last."""
    return lambda task: steps[min(task.attempt, len(steps)) - 1]


class ScriptedDispatcher:
    """Takes due tasks from a node, and ends their attempts as `script` says."""

    def __init__(self, node: Node, wrote: Callable[[Task], None], script: Script) -> None:
        self._node = node
        self._wrote = wrote
        self.script = script
        self.limit = TAKE
        """Tasks a take."""
        self.working = asyncio.Event()
        """Cleared: nobody takes anything."""
        self.working.set()
        self.takes: list[int] = []

    async def run(self) -> None:
        """Dispatch until cancelled."""
        work = asyncio.Event()
        self._node.serve(work.set)
        while True:
            await work.wait()
            await self.working.wait()
            work.clear()
            tasks = self._node.take(self.limit)
            self.takes.append(len(tasks))
            self._begin(tasks)

    def _begin(self, tasks: Iterable[Task]) -> None:
        loop = asyncio.get_running_loop()
        at_once: list[Outcome] = []
        for task in tasks:
            step = self.script(task)
            now_ms = self._node.clock.now_ms()
            outcome = Outcome(task, task.epoch, task.attempt, step.verdict, now_ms, now_ms, jitter=step.jitter)
            outcome.error, outcome.result, outcome.retry_after_ms = step.error, step.result, step.retry_after_ms
            if step.connect_ms:
                loop.call_later(step.connect_ms / 1_000, self._write_later, outcome, step)
            else:
                self._write(outcome, step, at_once)
        if at_once:
            self._node.ended(at_once)

    def _write_later(self, outcome: Outcome, step: Step) -> None:
        at_once: list[Outcome] = []
        self._write(outcome, step, at_once)
        if at_once:
            self._node.ended(at_once)

    def _write(self, outcome: Outcome, step: Step, at_once: list[Outcome]) -> None:
        if not self.may_write(outcome.task):
            outcome.verdict, outcome.retry_after_ms = Verdict.UNSENT, None
            at_once.append(outcome)
            return
        if step.verdict is not Verdict.UNSENT:
            self._wrote(outcome.task)
        if step.takes_ms:
            asyncio.get_running_loop().call_later(step.takes_ms / 1_000, self._end, outcome)
        else:
            at_once.append(outcome)

    def may_write(self, task: Task) -> bool:
        """Whether the request of this attempt may still go out."""
        return self._node.may_fire() and task.phase is Phase.RUNNING

    def _end(self, outcome: Outcome) -> None:
        outcome.ended_ms = self._node.clock.now_ms()
        self._node.ended([outcome])
