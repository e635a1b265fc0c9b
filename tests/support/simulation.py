"""A whole cluster under random faults, in virtual time: everything follows from one seed.

One to three nodes live through some seconds of submits, commands and faults (stopped, killed, cut off, replies lost,
shards that fail, nodes that leave); then everything heals, and the history is checked.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from unittest import mock

from structlog.testing import capture_logs

from actors.core.draft import Draft, Receipt
from actors.core.errors import Conflict, Overloaded, RingwheelError, Unavailable, Unknown
from actors.core.events import Command, Outcome, Verdict
from actors.core.retry import RetryPolicy
from actors.core.spec import Spec
from actors.core.task import Move, Task
from storage.memory import Fault
from tests.support.builders import SPEC
from tests.support.cluster import Cluster, Member, draft
from tests.support.history import DEADLINE_MS, Broken, History
from tests.support.scripted import Run, Step
from tests.support.virtual_time import VirtualTimeLoop

STATEMENTS = (
    "accept", "accept_keyed", "beat", "condemn", "end_sessions", "ensure", "find", "join", "leave", "load",
    "make_partitions", "payloads", "refresh", "sweep", "write",
)  # fmt: skip
CHAOS_S = 20.0
HEALED_S = 10.0
"""All shards are owned again within this time after the last fault (C9)."""
ENDED_S = 90.0
ANSWER_S = 3.0
"""A client gives a request up after this time."""


class Simulation:
    """One history."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self.history = History(cluster.database)
        self.names = ["a", "b", "c"][: rng.choice([1, 2, 2, 2, 3, 3])]
        self.members: dict[str, Member] = {}
        self.busy: set[str] = set()
        """Nodes that some fault has in hand."""
        self.going: set[str] = set()
        """Nodes that have begun to leave."""
        self.errors: list[dict[str, Any]] = []
        self._number = 0
        self._verdicts: dict[tuple[str, int, int], Verdict] = {}
        usual_ms, slowest_ms = rng.choice([0.5, 3.0, 60.0]), rng.choice([50, 400, 4_000])
        cluster.way_ms = lambda: rng.uniform(0.1, usual_ms if rng.random() < 0.98 else slowest_ms)
        cluster.observe = self._observe
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.errors.append(context))

    async def run(self) -> None:
        """Live, heal, and check."""
        for name in self.names:
            self._start(name)
        try:
            async with asyncio.timeout(CHAOS_S), asyncio.TaskGroup() as group:
                group.create_task(self._often(self._submit, 0.4))
                group.create_task(self._often(self._command, 0.7))
                group.create_task(self._often(self._fault, 1.5))
        except TimeoutError:
            pass
        await self._heal()
        await self._end()
        if self.errors:
            raise Broken(f"C10: {self.errors}")
        self.history.changes = [change for member in self.cluster.members for change in member.changes]
        self.history.check()

    # --- nodes

    def _start(self, name: str) -> None:
        member = self.cluster.join(name, self._script)
        member.drift = self.rng.uniform(-3e-4, 3e-4)
        self.members[name] = member

    def _observe(self, member: Member, run: Run, task: Task) -> None:
        verdict = self._verdicts[run.id, run.epoch, run.attempt]
        self.history.ran(run, verdict, member.node.membership.boot, task.shard)

    def _script(self, task: Task) -> Step:
        step = self._step(task)
        self._verdicts[task.id, task.epoch, task.attempt] = step.verdict
        return step

    def _step(self, task: Task) -> Step:
        rng = self.rng
        takes_ms = rng.choice([0, rng.uniform(0, 50), rng.uniform(0, 2_000), rng.uniform(0, DEADLINE_MS)])
        connect_ms = rng.choice([0, 0, rng.uniform(0, 900)])
        fence = f"{1:08x}.{task.epoch:010d}.{task.attempt:06d}".encode()
        verdict = rng.choices(
            [Verdict.SUCCEEDED, Verdict.FAILED, Verdict.NEVER, Verdict.LATER, Verdict.UNSENT], [70, 14, 3, 8, 5]
        )[0]
        retry_after_ms = rng.choice([None, 300]) if verdict in (Verdict.FAILED, Verdict.UNSENT) else None
        return Step(verdict, takes_ms, connect_ms, fence, retry_after_ms=retry_after_ms, jitter=rng.random())

    def _some_member(self) -> Member:
        return self.members[self.rng.choice(self.names)]

    async def _open_member(self) -> Member:
        """One that can read the queues."""
        while True:
            member = self._some_member()
            try:
                async with asyncio.timeout(ANSWER_S):
                    await member.queues.ensure("default", "emails")
            except (Unavailable, TimeoutError):
                await asyncio.sleep(0.3)
            else:
                return member

    async def _often(self, act: Callable[[], Awaitable[None]], mean_s: float) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(self.rng.expovariate(1 / mean_s))
                group.create_task(_run(act))

    # --- clients

    def _draft(self, member: Member) -> tuple[Draft, bytes]:
        rng = self.rng
        self._number += 1
        payload = b"%d" % self._number + b" " * rng.choice([0, 0, 0, 20_000])
        queue = member.book.by_name("default", "emails")
        assert queue is not None
        spec = Spec(
            http=SPEC.http,
            retry=RetryPolicy(max_attempts=rng.choice([3, 20]), min_backoff_ms=100, max_backoff_ms=1_000),
            dispatch_deadline_ms=DEADLINE_MS,
            ttl_ms=rng.choice([None, None, None, 4_000]),
        )
        delay_ms = rng.choice([None, None, rng.randint(0, 3_000), rng.randint(0, 15_000)])
        self.history.submitted.add(payload)
        return draft(queue, spec=spec, payload=payload, delay_ms=delay_ms), payload

    async def _submit(self) -> None:
        member = await self._open_member()
        made = [self._draft(member) for _ in range(self.rng.choice([1, 1, 3, 12]))]
        key = f"key-{self.rng.randint(0, 40)}" if self.rng.random() < 0.3 else None
        if key is not None:
            for one, _ in made:
                one.key, one.key_hash = f"{key}/{len(made)}", bytes(16)
            made = made[:1]
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    answers = await member.node.intake.submit([one for one, _ in made])
            except (Unavailable, Overloaded, TimeoutError):
                if key is None:
                    return
                await asyncio.sleep(0.3)
                member = await self._open_member()
            else:
                self._note(made, answers)
                return

    def _note(self, made: list[tuple[Draft, bytes]], answers: list[Receipt | Exception]) -> None:
        for (one, payload), answer in zip(made, answers, strict=True):
            if not isinstance(answer, Receipt):
                raise Broken(f"C1: {payload!r} was refused: {answer!r}")
            self.history.accepted[answer.id] = payload
            if one.key is not None:
                self.history.keys[one.key].add(answer.id)

    async def _command(self) -> None:
        history, rng = self.history, self.rng
        if not history.accepted:
            return
        task_id = rng.choice(list(history.accepted))
        move = rng.choice([Move.CANCEL, Move.RUN, Move.RESCHEDULE, Move.REDRIVE, Move.SUCCEED, Move.SUCCEED])
        if move is Move.SUCCEED:
            waiting = [run for run, verdict in history.runs if verdict is Verdict.LATER]
            if waiting:
                await self._complete(rng.choice(waiting))
            return
        if move in (Move.RUN, Move.RESCHEDULE):
            history.hurried.add(task_id)
        if move is Move.REDRIVE:
            history.redriven.add(task_id)
        due_ms = int(self.cluster.now_ms()) + rng.randint(0, 4_000) if move is Move.RESCHEDULE else None
        if await self._ask(Command(move, task_id, None, due_ms=due_ms)) and move is Move.CANCEL:
            history.cancelled_ms.setdefault(task_id, self.cluster.now_ms())

    async def _complete(self, run: Run) -> None:
        now_ms = int(self.cluster.now_ms())
        outcome = Outcome(None, run.epoch, run.attempt, Verdict.SUCCEEDED, now_ms, now_ms)  # type: ignore[arg-type]
        outcome.result = run.fence.encode()
        await self._ask(Command(Move.SUCCEED, run.id, None, outcome=outcome))

    async def _ask(self, command: Command) -> bool:
        """Whether it was carried out, as far as its client can know."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._some_member().node.ask(command)
        except (Unavailable, Conflict, TimeoutError):
            return False
        except Unknown as error:
            if command.id in self.history.accepted:
                raise Broken(f"C1: {command.id} was accepted, and is unknown now") from error
        return True

    # --- faults

    async def _fault(self) -> None:
        rng = self.rng
        name = rng.choice(self.names)
        if name in self.busy:
            return
        faults = [self._pause, self._hang, self._kill, self._lose, self._cut, self._outage, self._leave, self._fail]
        (fault,) = rng.choices(faults, [6, 2, 2, 2, 1, 1, 1, 1])
        self.busy.add(name)
        try:
            await fault(name)
        finally:
            self.busy.discard(name)

    async def _pause(self, name: str) -> None:
        member = self.members[name]
        member.process.stop()
        await asyncio.sleep(self.rng.choice([self.rng.uniform(0.1, 4), self.rng.uniform(6, 12)]))
        member.process.resume()

    async def _kill(self, name: str) -> None:
        await self.members[name].kill()
        await asyncio.sleep(self.rng.choice([0, self.rng.uniform(0, 8)]))
        self.going.discard(name)
        self._start(name)

    async def _cut(self, name: str) -> None:
        member = self.members[name]
        member.wire.away = True
        await asyncio.sleep(self.rng.uniform(0.2, 9))
        member.wire.away = False

    async def _hang(self, name: str) -> None:
        member = self.members[name]
        member.wire.hang()
        await asyncio.sleep(self.rng.uniform(0.2, 9))
        member.wire.flow()

    async def _outage(self, name: str) -> None:
        self.cluster.cut(away=True)
        await asyncio.sleep(self.rng.uniform(0.2, 8))
        self.cluster.cut(away=False)

    async def _lose(self, name: str) -> None:
        for _ in range(self.rng.randint(1, 6)):
            self.members[name].wire.fail_next(self.rng.choice(STATEMENTS), self.rng.choice(list(Fault)))

    async def _leave(self, name: str) -> None:
        member = self.members[name]
        self.going.add(name)
        await member.node.drain(1)
        try:
            await member.node.membership.leave()
        except RingwheelError:
            pass
        await self._kill(name)

    async def _fail(self, name: str) -> None:
        member = self.members[name]
        if member.owned:
            member.node._crashed(next(iter(member.owned)), ZeroDivisionError())

    # --- the end

    async def _heal(self) -> None:
        self.cluster.cut(away=False)
        for name, member in list(self.members.items()):
            member.wire.flow()
            if member.process.stopped:
                member.process.resume()
            if name in self.going:
                await member.kill()
            if member.ended.is_set():
                if member.failure is not None:
                    raise Broken(f"C10: node {name} failed") from member.failure
                self._start(name)
        try:
            await self.cluster.until(self._is_owned, HEALED_S)
        except TimeoutError:
            raise Broken(f"C9: {self.cluster.database.shards} {self.cluster.database.nodes}") from None

    def _is_owned(self) -> bool:
        believed = {
            shard: (member.node.membership.boot, epoch)
            for member in self.members.values()
            for shard, epoch in member.owned.items()
        }
        return believed == {shard: (row.owner, row.epoch) for shard, row in self.cluster.database.shards.items()}

    async def _end(self) -> None:
        try:
            await self.cluster.until(lambda: not any(True for _ in self.cluster.database.live.all()), ENDED_S)
        except TimeoutError:
            self.history.nothing_is_lost()
            raise
        await asyncio.sleep(3)


async def _run(act: Callable[[], Awaitable[None]]) -> None:
    await act()


@contextmanager
def _seeded(rng: random.Random) -> Iterator[None]:
    """Ids and boots come from the seed, too."""
    with (
        mock.patch("os.urandom", rng.randbytes),
        mock.patch("secrets.token_hex", lambda count: rng.randbytes(count).hex()),
        capture_logs(),
    ):
        yield


@asynccontextmanager
async def _cluster(rng: random.Random) -> AsyncIterator[Cluster]:
    async with Cluster(shards=rng.choice([2, 8, 16])) as cluster:
        yield cluster


async def _simulate(rng: random.Random) -> None:
    async with _cluster(rng) as cluster:
        await Simulation(cluster, rng).run()


def simulate(seed: int) -> None:
    """Raises Broken, naming the seed."""
    rng = random.Random(seed)
    try:
        with _seeded(rng), asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(_simulate(rng))
    except Exception as error:
        raise Broken(f"seed {seed}: {error!r}") from error
