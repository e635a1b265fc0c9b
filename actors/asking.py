"""Commands and questions about tasks, carried to the owner of each, here or on another node.

Promises: a command is answered or refused within ASK_LIMIT_S, and once; while its shard has no owner that can be
reached, or is on its way to another, OWNER_WAIT_S at most. An owner that does not show its tasks within LOOK_LIMIT_S is
not waited for.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence

import structlog

from actors.core.errors import Elsewhere, RingwheelError, Unavailable
from actors.core.events import Answer, Asked, Change, Command
from actors.core.ids import shard_of
from actors.core.live import Live, gone, live
from actors.hand import Hand
from actors.ports.links import Links

ASK_LIMIT_S = 10.0
OWNER_WAIT_S = 2.0
LOOK_LIMIT_S = 0.5
log = structlog.get_logger("asking")


class Asking:
    """Whoever asks on this node, and what other nodes ask it."""

    def __init__(
        self,
        hand: Hand,
        links: Links,
        *,
        shards: Callable[[], int],
        serves: Callable[[int], bool],
        holder: Callable[[int], str | None],
    ) -> None:
        """`serves`: whether a shard is here, and stays; `holder`: the other node that has it."""
        self._hand = hand
        self._links = links
        self._shards = shards
        self._serves = serves
        self._holder = holder
        self._waiting: dict[int, tuple[int, asyncio.Future[Answer]]] = {}
        """Token -> (shard, whoever waits)."""
        self._token = 0
        self._owning = asyncio.Event()

    # --- commands

    async def ask(self, command: Command) -> Change | None:
        """Carry a command out; None: it was so already. Raises Unknown, Conflict, Overloaded or Unavailable."""
        try:
            async with asyncio.timeout(ASK_LIMIT_S):
                answer = await self._ask_owner(command)
        except TimeoutError:
            raise Unavailable("the command's outcome is not known in time") from None
        if answer.error is not None:
            raise answer.error
        return answer.change

    async def answer(self, command: Command) -> Answer | None:
        """Carry out a command that another node was asked; None: its task is not mine."""
        shard = shard_of(command.id, self._shards())
        return await self._ask(shard, command) if self._serves(shard) else None

    async def _ask_owner(self, command: Command) -> Answer:
        """The owner's answer, wherever it is: who is not there within OWNER_WAIT_S is not waited for."""
        shard = shard_of(command.id, self._shards())
        try:
            async with asyncio.timeout(OWNER_WAIT_S) as limit:
                while True:
                    if self._serves(shard):
                        limit.reschedule(None)
                        answer = await self._ask(shard, command)
                        limit.reschedule(asyncio.get_running_loop().time() + OWNER_WAIT_S)
                    else:
                        boot = self._holder(shard)
                        answer = None if boot is None else await self._links.ask(boot, command)
                    if answer is not None:
                        return answer
                    self._owning.clear()
                    await self._owning.wait()
        except TimeoutError:
            raise Unavailable("the owner of this task can't be reached from here", 2_000) from None

    async def _ask(self, shard: int, command: Command) -> Answer | None:
        self._token += 1
        command.token = token = self._token
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[token] = (shard, future)
        try:
            self._hand.post(shard, Asked([command]))
            answer = await future
        finally:
            del self._waiting[token]
        return None if isinstance(answer.error, Elsewhere) else answer

    def told(self, answer: Answer) -> None:
        """A shard, or who reads for it, answers."""
        assert isinstance(answer.token, int)
        waiting = self._waiting.get(answer.token)
        if waiting is not None and not waiting[1].done():
            waiting[1].set_result(answer)

    def left(self, shard: int, error: RingwheelError) -> None:
        """The shard went: whoever waits for its answer gets this one."""
        for token, (owner, _) in self._waiting.items():
            if owner == shard:
                self.told(Answer(token, error=error))

    def moved(self) -> None:
        """Who looks for an owner may find one now, here or elsewhere."""
        self._owning.set()

    # --- questions

    async def look(self, ids: Sequence[str]) -> dict[str, Live]:
        """What owners know of these tasks; of one that can't be reached within LOOK_LIMIT_S, nothing."""
        found: dict[str, Live] = {}
        theirs: dict[str, list[str]] = defaultdict(list)
        for task_id in ids:
            shard = shard_of(task_id, self._shards())
            if shard in self._hand.actors:
                self._look(shard, task_id, found)
            elif (boot := self._holder(shard)) is not None:
                theirs[boot].append(task_id)
        if theirs:
            async with asyncio.TaskGroup() as group:
                for boot, some in theirs.items():
                    group.create_task(self._look_there(boot, some, found))
        return found

    def show(self, ids: Sequence[str]) -> list[Live]:
        """What I know of these tasks, for another node; of those that are not mine, nothing."""
        found: dict[str, Live] = {}
        for task_id in ids:
            self._look(shard_of(task_id, self._shards()), task_id, found)
        return list(found.values())

    def _look(self, shard: int, task_id: str, found: dict[str, Live]) -> None:
        actor = self._hand.actors.get(shard)
        if actor is None:
            return
        holding = actor.state.holding
        task = holding.known.get(task_id)
        if task is not None:
            found[task_id] = live(task)
        elif rev := holding.last_rev(task_id):
            found[task_id] = gone(task_id, rev)

    async def _look_there(self, boot: str, ids: list[str], found: dict[str, Live]) -> None:
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                found |= {told.id: told for told in await self._links.look(boot, ids)}
        except TimeoutError:
            log.debug("an owner did not tell of its tasks in time", boot=boot)
