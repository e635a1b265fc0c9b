"""The other end of another node's link: hears what it tells, answers what it asks, and tells what it watches.

Promises: bounded. For one node at most `UNDER_WAY` questions are worked on at once, at most `NEW` tasks wait for their
queue to be known, and what is relayed to it has a bound of its own (`relay.py`). Frames for another boot than this
process is now end it.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import cast

from aiohttp import WSMsgType, web

from actors.core.errors import Overloaded, RingwheelError
from actors.core.events import Answer
from actors.core.lease import Kept, Lent, Word
from actors.core.wire import (
    Answered,
    Ask,
    Extend,
    Extended,
    Frame,
    Given,
    Got,
    Hint,
    Look,
    Measure,
    Measured,
    Message,
    Moved,
    Reports,
    Revoked,
    Shown,
    Supply,
    Take,
    Taken,
    Want,
    Watch,
    Watching,
    Wire,
    decode,
    encode,
)
from actors.parked import Parked
from actors.ports.links import LinkedNode
from gateway.handshake import examine
from gateway.hub import Hub
from gateway.learner import Learner
from gateway.link import check
from gateway.relay import Relay
from gateway.server import Connection
from gateway.whole_frame import BINARY, whole_frame

UNDER_WAY = 1_024
MEASURES = 4
"""Walks through all of memory, for one node at once."""
NEW = 10_000
FRAME = 100
"""Answers in one frame: each of a `Look` may tell of a thousand tasks."""
STEP = 50
"""Tasks that are taken for its workers at once, as long as they bring less than STEP_BYTES; a payload is bounded."""
STEP_BYTES = 2 * 1024 * 1024
LARGE_BYTES = 64 * 1024
"""Payloads that have a frame of their own."""


class Guest:
    """Another node, as long as its link lives."""

    def __init__(
        self,
        request: web.Request,
        ws: web.WebSocketResponse,
        node: LinkedNode,
        wire: Wire,
        hub: Hub,
        boot: Callable[[], str],
        learner: Learner,
        moved: Callable[[list[str]], None],
    ) -> None:
        """`moved`: hears of workers that were here and went there."""
        self._moved = moved
        self._request = request
        self._connection = cast(Connection, request.protocol)
        self._ws = ws
        self._node = node
        self._wire = wire
        self._boot_now = boot
        self._learner = learner
        self._mine = boot()
        self._boot = ""
        self._outbox: deque[Message] = deque()
        self._news = asyncio.Event()
        self._under_way = 0
        self._measuring = 0
        self._new = 0
        """Tasks that wait for their queue to be known."""
        self._parked = Parked(self._give, self._say_none, self._say_over)
        self._unconfirmed: dict[int, list[Lent]] = defaultdict(list)
        """Tasks for its workers, of which it has not said that they came."""
        self._relay = Relay(hub, wire, self._news.set)

    async def serve(self, secret: bytes) -> None:
        """Until either side ends it. Raises Invalid, Refused or TimeoutError when it is no peer."""
        self._boot = await examine(self._ws, secret, self._mine)
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._write())
            try:
                with self._relay:
                    async for message in self._ws:
                        if message.type is not WSMsgType.BINARY:
                            break
                        self._hear(decode(message.data), group)
            finally:
                self._leave()
            writing.cancel()

    def _leave(self) -> None:
        """What may not have reached its workers is given to others."""
        self._node.lending.part(self)
        self._parked.clear()
        for tasks in self._unconfirmed.values():
            self._node.lending.lost(tasks)

    def _hear(self, frame: Frame, group: asyncio.TaskGroup) -> None:
        check(frame, self._boot_now(), self._boot)
        for message in frame.messages:
            match message:
                case Hint():
                    self._take(message, group)
                case Given():
                    self._node.beat_soon()
                case Look():
                    self._say(Shown(message.number, self._node.show(message.ids)))
                case Ask():
                    self._ask(message, group)
                case Measure():
                    self._measure(message, group)
                case Moved(ids):
                    self._moved(ids)
                case Want() | Take() | Got() | Reports() | Extend():
                    self._lend(message)
                case Watch():
                    self._relay.watch(message)
                    if message.number:
                        self._say(Watching(message.number))

    # --- for its workers (ports/lending.py)

    def _lend(self, message: Want | Take | Got | Reports | Extend) -> None:
        lending = self._node.lending
        match message:
            case Want(queues):
                self._parked.want(queues)
                lending.want(self, queues)
            case Take():
                self._parked.take(message)
            case Got():
                self._confirm(message)
            case Reports(tenant, reports):
                lending.report(self, tenant, reports)
            case Extend(tenant, extensions):
                lending.extend(self, tenant, extensions)

    def _give(self, asked: Take, room: int) -> tuple[int, bool]:
        """See Parked."""
        tasks: list[Lent] = []
        size, more = 0, True
        while more and len(tasks) < room and size < STEP_BYTES:
            some, more = self._node.lending.take(self, asked.queue, min(STEP, room - len(tasks)))
            tasks += some
            size += sum(len(task.payload or b"") for task in some)
        if tasks:
            self._unconfirmed[asked.number] += tasks
        if tasks or not asked.keep:
            self._say_now(Taken(asked.number, tasks, more, asked.keep > 0))
        return len(tasks), more

    def _confirm(self, got: Got) -> None:
        if got.count is None:
            self._unconfirmed.pop(got.number, None)
        else:
            del self._unconfirmed.get(got.number, [])[: got.count]
            self._parked.widen(got.number, got.room)

    def _say_none(self, asked: Take) -> None:
        self._say(Taken(asked.number, [], more=False, open=True))

    def _say_over(self, asked: Take, more: bool) -> None:
        self._say(Taken(asked.number, [], more))

    def supply(self, queues: Collection[int]) -> None:
        """See ports.lending.Taker. A take that waits for it has it at once."""
        if untold := [queue for queue in queues if not self._parked.serve(queue)]:
            self._say(Supply(untold))

    def answer(self, words: list[Word]) -> None:
        """See ports.lending.Taker."""
        self._say(Answered(words))

    def keep(self, kept: list[Kept]) -> None:
        """See ports.lending.Taker."""
        self._say(Extended(kept))

    def revoke(self, leases: list[tuple[str, int]]) -> None:
        """See ports.lending.Taker."""
        self._say(Revoked(leases))

    # --- what it asks

    def _ask(self, ask: Ask, group: asyncio.TaskGroup) -> None:
        if self._under_way >= UNDER_WAY:
            refusal = Answer(None, error=Overloaded("too many commands wait for this task's owner"))
            self._say(self._wire.told(ask.number, refusal))
        else:
            self._under_way += 1
            group.create_task(self._answer(ask))

    def _take(self, hint: Hint, group: asyncio.TaskGroup) -> None:
        strange = self._wire.strange(hint)
        if known := self._wire.tasks(hint):
            self._node.take_hint(known, hint.at_ms, hint.epochs)
        if not strange:
            return
        new = [task for task in hint.tasks if task.queue in strange]
        if self._new + len(new) <= NEW:  # else the probe finds them
            self._new += len(new)
            group.create_task(self._take_new(Hint(hint.at_ms, new, hint.epochs), strange))

    async def _take_new(self, hint: Hint, strange: set[int]) -> None:
        """Tasks of queues that another node has made."""
        try:
            await self._learner.learn(strange)
        finally:
            self._new -= len(hint.tasks)
        if known := self._wire.tasks(hint):
            self._node.take_hint(known, hint.at_ms, hint.epochs)

    async def _answer(self, ask: Ask) -> None:
        try:
            answer = await self._node.answer(self._wire.command(ask))
        except RingwheelError as error:
            answer = Answer(None, error=error)
        finally:
            self._under_way -= 1
        self._say(self._wire.told(ask.number, answer))

    def _measure(self, asked: Measure, group: asyncio.TaskGroup) -> None:
        """One too many is not answered: whoever asks does not wait for long, and leaves it unknown."""
        if self._measuring < MEASURES:
            self._measuring += 1
            group.create_task(self._say_measured(asked))

    async def _say_measured(self, asked: Measure) -> None:
        try:
            self._say(Measured(asked.number, await self._node.measure(asked.before_us)))
        finally:
            self._measuring -= 1

    def _say(self, message: Message) -> None:
        self._outbox.append(message)
        self._news.set()

    def _say_now(self, message: Message) -> None:
        """All that waits goes out in this turn of the loop, if the other node takes it; `_write` sees to the rest."""
        self._outbox.append(message)
        transport = self._request.transport
        if transport is None or transport.is_closing():
            self._news.set()
            return
        while self._outbox and not self._connection.writing_paused:
            transport.write(whole_frame(self._frame(self._next()), BINARY))
        if self._outbox:
            self._news.set()

    async def _write(self) -> None:
        with suppress(ConnectionError):
            while True:
                await self._news.wait()
                self._news.clear()
                while messages := self._next():
                    await self._ws.send_bytes(self._frame(messages))

    def _frame(self, messages: list[Message]) -> bytes:
        return encode(Frame(self._boot, self._mine, messages))

    def _next(self) -> list[Message]:
        said: list[Message] = []
        while self._outbox and len(said) < FRAME:
            alone = _is_large(self._outbox[0])
            if said and alone:
                break
            said.append(self._outbox.popleft())
            if alone:
                break
        return said or self._relay.take()


def _is_large(message: Message) -> bool:
    """It may be nearly as large as a frame can be."""
    return isinstance(message, Taken) and sum([len(task.payload or b"") for task in message.tasks]) > LARGE_BYTES
