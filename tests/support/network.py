"""The way between nodes of one process, in virtual time: what is said travels as bytes, and may be lost."""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from actors.core.codec import SpecCodec
from actors.core.errors import RingwheelError, Unavailable
from actors.core.events import Answer, Command
from actors.core.live import Live
from actors.core.queue import QueueBook
from actors.core.reach import Reach
from actors.core.task import Task
from actors.core.wire import (
    Ask,
    Frame,
    Given,
    Hint,
    Look,
    Measure,
    Measured,
    Message,
    Shown,
    Told,
    Wire,
    decode,
    encode,
)
from actors.ports.leases import Peer
from actors.ports.links import LinkedNode
from tests.support.lines import BREAKING, Lending, MemoryLines

_numbers = count(1)
_Answer = Told | Shown | Measured


BREAK_S = 0.2
"""So long after a link broke, its ends know it."""


@dataclass(slots=True, frozen=True)
class Broke:
    """The link to this boot is new: something was lost."""

    boot: str


class Linked(Protocol):
    """A process with a node."""

    book: QueueBook

    @property
    def node(self) -> LinkedNode: ...


class Network:
    """All links of a cluster. What is said to an address reaches whoever listens there when it arrives."""

    def __init__(self) -> None:
        self.listeners: dict[str, MemoryLinks] = {}
        """Address -> whoever listens there."""
        self.homes: dict[str, str] = {}
        """Boot -> address, of all that there ever were."""
        self.way_ms: Callable[[], float] = lambda: 0.2
        self.loses: Callable[[str, str], bool] = lambda sender, to: False
        """Whether what `sender` says to `to` (boots) is lost."""
        self.doubles: Callable[[], bool] = lambda: False
        """Whether a message arrives twice, which no port promises to bear but that of hints."""
        self.parted: set[str] = set()
        """Addresses that reach each other, but nobody else, and nobody else them."""
        self.lost = 0
        self._age = 0
        self._last_s: dict[tuple[str, str], float] = {}
        """Sender and receiver -> when what was said last on their connection arrives."""

    def carry(self, sender: "MemoryLinks", to: str, message: Message) -> bool:
        """Send a message on its way, which no stop of its sender holds up; False: it is lost, as there is no link.

        Of nodes that were parted just now, nobody knows so yet: what they say is lost without a word.
        """
        address = sender.addresses.get(to, "")
        if address not in self.listeners or self.loses(sender.boot, to):
            self._lose(sender.boot, to, message)
            return False
        data = encode(Frame(to, sender.boot, [message]))
        if isinstance(message, Lending):
            self._carry_in_order(sender, to, address, data)
            return True
        for _ in range(2 if self.doubles() else 1):
            asyncio.get_running_loop().call_later(
                self.way_ms() / 1_000, self._arrive, sender.address, address, data, self._age, context=Context()
            )
        return True

    def _carry_in_order(self, sender: "MemoryLinks", to: str, address: str, data: bytes) -> None:
        """Once, and behind what was said before: as on one connection."""
        loop, way = asyncio.get_running_loop(), (sender.boot, to)
        self._last_s[way] = max(loop.time() + self.way_ms() / 1_000, self._last_s.get(way, 0.0))
        loop.call_at(self._last_s[way], self._arrive, sender.address, address, data, self._age, context=Context())

    def lose_all(self) -> None:
        """What is under way arrives no more."""
        self._age += 1
        self._last_s.clear()

    def leave(self, links: "MemoryLinks") -> None:
        """Its process has ended."""
        if self.listeners.get(links.address) is links:
            del self.listeners[links.address]

    def _joins(self, one: str, other: str) -> bool:
        return (one in self.parted) == (other in self.parted)

    def _arrive(self, sender: str, address: str, data: bytes, age: int) -> None:
        listener = self.listeners.get(address)
        frame = decode(data)
        if listener is None or age != self._age or not self._joins(sender, address):
            self._lose(frame.sender, frame.to, *frame.messages)
        else:
            listener.addresses.setdefault(frame.sender, sender)  # an answer goes back where the question came from
            listener.inbox.put_nowait(frame)

    def refuse(self, frame: Frame) -> None:
        """Somebody else listens there: there is no such link."""
        self._lose(frame.sender, frame.to, *frame.messages)

    def _lose(self, sender: str, to: str, *messages: Message) -> None:
        self.lost += 1
        if isinstance(messages[0], BREAKING):
            for boot, other in ((sender, to), (to, sender)):
                asyncio.get_running_loop().call_later(BREAK_S, self._tell_broke, boot, other, context=Context())

    def _tell_broke(self, boot: str, other: str) -> None:
        listener = self.listeners.get(self.homes.get(boot, ""))
        if listener is not None and listener.boot == boot:
            listener.inbox.put_nowait(Broke(other))


class MemoryLinks:
    """One node's end. Implements actors.ports.links.Links."""

    def __init__(self, network: Network, member: Linked, address: str) -> None:
        self.inbox: asyncio.Queue[Frame | Broke] = asyncio.Queue()
        self.address = address
        self.boot = ""
        self.addresses: dict[str, str] = {}
        """Boot -> where it listens, as of the last heartbeat."""
        self._member = member
        self._wire = Wire(member.book, SpecCodec())
        self._network = network
        self._asked: dict[int, tuple[str, asyncio.Future[_Answer]]] = {}
        self.lines = MemoryLines(self._say, lambda: member.node)

    async def run(self) -> None:
        """Hear what arrives, as the process that this is part of."""
        async with asyncio.TaskGroup() as group:
            while True:
                frame = await self.inbox.get()
                if isinstance(frame, Broke):
                    self.lines.broke(frame.boot)
                elif self.is_mine(frame):
                    for message in frame.messages:
                        self._hear(frame.sender, message, group)
                else:
                    self._network.refuse(frame)

    def is_mine(self, frame: Frame) -> bool:
        """Whether it was meant for this boot, not for another that listened here, or does not know yet that it will."""
        return frame.to == self.boot

    def fall(self) -> None:
        """The process looks gone to the others."""
        self._network.leave(self)

    def see(self, boot: str, secret: bytes, peers: Sequence[Peer]) -> None:
        """See the port."""
        if boot != self.boot:
            self.lines.begin_anew()
        self.boot = boot
        self._network.listeners[self.address] = self
        self._network.homes[boot] = self.address
        self.addresses = {peer.boot: peer.address for peer in peers}
        for asked, told in self._asked.values():
            if asked not in self.addresses and not told.done():
                told.set_exception(Unavailable("the link broke"))
        self.lines.see(peer.boot for peer in peers if peer.boot != boot)

    def is_gone(self, boot: str) -> bool:
        """See the port."""
        home = self._network.homes.get(boot)
        listener = None if home is None else self._network.listeners.get(home)
        return home is not None and (listener is None or listener.boot != boot)

    def hint(self, boot: str, tasks: Sequence[Task], at_ms: int, epochs: dict[int, int]) -> None:
        """See the port."""
        self._network.carry(self, boot, self._wire.hint(tasks, at_ms, epochs))

    def given(self, boot: str) -> None:
        """See the port."""
        self._network.carry(self, boot, Given())

    async def ask(self, boot: str, command: Command) -> Answer | None:
        """See the port."""
        number = next(_numbers)
        told = await self._question(boot, number, self._wire.ask(number, command))
        return self._wire.answer(told) if isinstance(told, Told) else None

    async def look(self, boot: str, ids: Sequence[str]) -> list[Live]:
        """See the port."""
        number = next(_numbers)
        try:
            shown = await self._question(boot, number, Look(number, list(ids)))
        except Unavailable:
            return []
        return shown.tasks if isinstance(shown, Shown) else []

    async def measure(self, boot: str, before_us: int) -> list[Reach] | None:
        """See the port."""
        number = next(_numbers)
        try:
            measured = await self._question(boot, number, Measure(number, before_us))
        except Unavailable:
            return None
        return measured.reaches if isinstance(measured, Measured) else None

    def _say(self, boot: str, message: Message) -> bool:
        return self._network.carry(self, boot, message)

    async def _question(self, boot: str, number: int, message: Message) -> _Answer | None:
        """The answer; None: it could not be sent. Raises Unavailable."""
        told: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = boot, told
        try:
            return await told if self._network.carry(self, boot, message) else None
        finally:
            del self._asked[number]

    def _hear(self, sender: str, message: Message, group: asyncio.TaskGroup) -> None:
        match message:
            case Hint():
                group.create_task(self._take(message))
            case Given():
                self._member.node.beat_soon()
            case Ask():
                group.create_task(self._answer(sender, message))
            case Look():
                shown = Shown(message.number, self._member.node.show(message.ids))
                self._network.carry(self, sender, shown)
            case Measure():
                group.create_task(self._measure(sender, message))
            case Told() | Shown() | Measured():
                _, told = self._asked.get(message.number, (None, None))
                if told is not None and not told.done():
                    told.set_result(message)
            case _ if isinstance(message, Lending):
                self.lines.hear(sender, message)

    async def _take(self, hint: Hint) -> None:
        if strange := self._wire.strange(hint):
            try:
                await self._member.node.learn_queues(strange)
            except Unavailable:
                return
        self._member.node.take_hint(self._wire.tasks(hint), hint.at_ms, hint.epochs)

    async def _measure(self, sender: str, asked: Measure) -> None:
        measured = Measured(asked.number, await self._member.node.measure(asked.before_us))
        self._network.carry(self, sender, measured)

    async def _answer(self, sender: str, ask: Ask) -> None:
        try:
            answer = await self._member.node.answer(self._wire.command(ask))
        except RingwheelError as error:
            answer = Answer(None, error=error)
        self._network.carry(self, sender, self._wire.told(ask.number, answer))
