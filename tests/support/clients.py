"""Clients of a simulated cluster: they submit, command and complete, and note what they were answered."""

import asyncio
from collections.abc import Sequence

from actors.core.draft import Draft, Receipt
from actors.core.errors import Conflict, Overloaded, Unavailable, Unknown
from actors.core.events import Command, Outcome, Verdict
from actors.core.retry import RetryPolicy
from actors.core.settle import HELD_MS
from actors.core.spec import Spec
from actors.core.task import Move, fence
from tests.support.builders import SPEC
from tests.support.cluster import Member, draft
from tests.support.history import DEADLINE_MS, Broken, time_ms
from tests.support.scripted import Run
from tests.support.world import ANSWER_S, World


class Clients:
    """All of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._history = world.history
        self._number = 0

    async def submit(self) -> None:
        """Some tasks; with a key until they are accepted."""
        world, rng = self._world, self._world.rng
        member = await world.open_member()
        made = [self._draft(member) for _ in range(rng.choice([1, 1, 3, 12]))]
        key = f"key-{rng.randint(0, 40)}" if rng.random() < 0.3 else None
        if key is not None:
            for one in made:
                one.key, one.key_hash = f"{key}/{len(made)}", bytes(16)
            made = made[:1]
        while not await self._sent(member, made) and key is not None:
            await asyncio.sleep(0.3)
            member = await world.open_member()

    async def submit_soon(self, count: int) -> set[str]:
        """The ids of tasks that are due at once and must all be accepted: nothing is wrong any more."""
        member = await self._world.open_member()
        made = [self._draft(member, plain=True) for _ in range(count)]
        answers = await member.node.intake.submit(made)
        self._note(made, answers)
        return {answer.id for answer in answers if isinstance(answer, Receipt)}

    async def command(self) -> None:
        """One command on some task."""
        history, rng = self._history, self._world.rng
        if not history.accepted:
            return
        task_id = rng.choice(list(history.accepted))
        move = rng.choice([Move.CANCEL, Move.RUN, Move.RESCHEDULE, Move.REDRIVE, Move.SUCCEED, Move.SUCCEED])
        if move is Move.SUCCEED:
            waiting = [ran.run for ran in history.runs if ran.verdict is Verdict.LATER]
            if waiting:
                await self._complete(rng.choice(waiting))
            return
        if move in (Move.RUN, Move.RESCHEDULE):
            history.hurried.add(task_id)
        if move is Move.REDRIVE:
            history.redriven.add(task_id)
            history.leases.redriven.add(task_id)
        due_ms = int(self._world.cluster.now_ms()) + rng.randint(0, 4_000) if move is Move.RESCHEDULE else None
        if await self._ask(Command(move, task_id, None, due_ms=due_ms)) and move is Move.CANCEL:
            history.cancelled_ms.setdefault(task_id, time_ms())

    async def decide(self) -> None:
        """Somebody says of a held task that its attempt failed, whether it did or not."""
        held = [row for row in self._world.cluster.database.live.all() if row.claim_ms == HELD_MS]
        if not held:
            return
        row, now_ms = self._world.rng.choice(held), int(self._world.cluster.now_ms())
        verdict = self._world.rng.choice([Verdict.FAILED, Verdict.FAILED, Verdict.NEVER])
        outcome = Outcome(None, row.epoch, row.attempt, verdict, now_ms, now_ms)  # type: ignore[arg-type]
        self._history.decided.add((row.id, fence(1, row.epoch, row.attempt)))
        await self._ask(Command(Move.DIE if verdict is Verdict.NEVER else Move.RETRY, row.id, None, outcome=outcome))

    def _draft(self, member: Member, *, plain: bool = False) -> Draft:
        rng = self._world.rng
        self._number += 1
        payload = b"%d" % self._number + b" " * rng.choice([0, 0, 0, 20_000])
        self._history.submitted.add(payload)
        queues = self._world.queues
        name = "emails" if plain or len(queues) == 1 else rng.choice([*queues, "emails"])
        queue = member.book.by_name("default", name)
        assert queue is not None
        spec = Spec(
            http=None if self._world.pulled and not plain and rng.random() < 0.5 else SPEC.http,
            retry=RetryPolicy(max_attempts=rng.choice([3, 20]), min_backoff_ms=100, max_backoff_ms=1_000),
            dispatch_deadline_ms=DEADLINE_MS,
            ttl_ms=None if plain else rng.choice([None, None, None, 4_000]),
        )
        delay_ms = None if plain else rng.choice([None, None, rng.randint(0, 3_000), rng.randint(0, 15_000)])
        return draft(queue, spec=spec, payload=payload, delay_ms=delay_ms)

    async def _sent(self, member: Member, made: Sequence[Draft]) -> bool:
        """Whether an answer came."""
        try:
            async with asyncio.timeout(ANSWER_S):
                answers = await member.node.intake.submit(made)
        except (Unavailable, Overloaded, TimeoutError):
            return False
        self._note(made, answers)
        return True

    def _note(self, made: Sequence[Draft], answers: Sequence[Receipt | Exception]) -> None:
        for one, answer in zip(made, answers, strict=True):
            payload = one.payload
            assert payload is not None
            if not isinstance(answer, Receipt):
                raise Broken(f"C1: {payload!r} was refused: {answer!r}")
            self._world.note(f"accepted: {answer.id} in shard {answer.shard}, new: {answer.new}")
            self._history.accepted[answer.id] = payload
            if one.key is not None:
                self._history.keys[one.key].add(answer.id)

    async def _complete(self, run: Run) -> None:
        now_ms = int(self._world.cluster.now_ms())
        outcome = Outcome(None, run.epoch, run.attempt, Verdict.SUCCEEDED, now_ms, now_ms)  # type: ignore[arg-type]
        outcome.result = run.fence.encode()
        await self._ask(Command(Move.SUCCEED, run.id, None, outcome=outcome))

    async def _ask(self, command: Command) -> bool:
        """Whether it was carried out, as far as its client can know."""
        answer: object = None
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._world.some_member().node.ask(command)
        except (Unavailable, Conflict, TimeoutError) as error:
            answer = error
        except Unknown as error:
            if command.id in self._history.accepted:
                raise Broken(f"C1: {command.id} was accepted, and is unknown now") from error
        self._world.note(f"{command.move.value} {command.id}: {answer!r}")
        return answer is None
