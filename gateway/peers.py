"""Links between nodes: one to each other node, over which this one asks and tells (`link.py`); theirs come in on `PATH`
(`guest.py`), once both ends have proved that they are of one cluster (`handshake.py`).

Frames are as safe on their way as what nodes listen on: where the network is not trusted, that is TLS (`tls.py`). Every
frame names both boots. What is watched here is told to all, and what they tell of it goes to the hub (`interest.py`,
`relay.py`, `strange.py`).
Refuses: to be relied on (see the port).
"""

import asyncio
import ssl
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

from aiohttp import WSCloseCode, web

from actors.core.errors import Invalid, Overloaded, Unavailable
from actors.core.events import Answer, Change, Command
from actors.core.lease import Extension, Lent, Report
from actors.core.live import Live
from actors.core.reach import Reach
from actors.core.task import Task
from actors.core.wire import (
    Answered,
    Changes,
    Extend,
    Extended,
    Given,
    Got,
    Look,
    Measure,
    Measured,
    Message,
    Missed,
    Moved,
    Reports,
    Revoked,
    Shown,
    Supply,
    Take,
    Taken,
    Told,
    Want,
    Watching,
    Wire,
)
from actors.ports.leases import Peer
from actors.ports.links import LinkedNode
from gateway.guest import Guest
from gateway.handshake import HANDSHAKE_BYTES, Refused, is_known
from gateway.hub import Hub
from gateway.learner import Learner
from gateway.link import FRAME_BYTES, Link
from gateway.link_socket import HEARTBEAT_S
from gateway.relay import wire_topic
from gateway.strange import Strange
from gateway.topics import Topic
from gateway.turn import Turn

HINTED = 500
"""Tasks in one message."""
REPORTED = 500
"""The same of what workers say: results, extensions, leases that they came with."""
REPORTED_BYTES = 4 * 1024 * 1024
_NOT_LINKED = "the owner of these tasks is not linked"


class Peers:
    """All links of a node, and the other nodes' links to it."""

    def __init__(self, wire: Wire, hub: Hub, trust: ssl.SSLContext, turn: Turn) -> None:
        """`trust`: what the certificates of nodes that speak TLS are held against; `turn`: around what one brings."""
        self._trust = trust
        self._turn = turn
        self.wire = wire
        self.hub = hub
        hub.interest.tell = self._watch
        hub.interest.forget = self._forget
        self.node: LinkedNode | None = None
        """Set before the first request can come."""
        self.boot = ""
        self.secret = b""
        self.lost = 0
        """Hints that no link took."""
        self._links: dict[str, Link] = {}
        self._replaced: set[str] = set()
        """Boots that were where I am now."""
        self._changed = asyncio.Event()
        self._wanted: list[int] = []
        """Queues that workers here take tasks of."""
        self.moved: Callable[[list[str]], None] = lambda _: None
        """Hears that the workers of these leases went to another node."""
        self.learner = Learner(self._learn)
        self._strange = Strange(wire, self.learner, publish=self._publish, miss=self._interrupt)
        self._greeted = asyncio.Event()
        """Set when a link came up."""

    # --- the port

    def see(self, boot: str, secret: bytes, peers: Sequence[Peer]) -> None:
        """See the port."""
        self.hub.interest.sweep()
        mine = {peer.address for peer in peers if peer.boot == boot}
        others = {peer.boot: peer.address for peer in peers if peer.boot != boot and peer.address not in mine}
        self._replaced = {peer.boot for peer in peers if peer.address in mine} - {boot}
        if boot == self.boot and others.keys() == self._links.keys():
            return
        if boot != self.boot:
            self._drop(list(self._links))
        self.boot, self.secret = boot, secret
        self._drop([other for other in self._links if other not in others])
        for other, address in others.items():
            if other not in self._links:
                self._links[other] = Link(
                    boot,
                    other,
                    address,
                    secret,
                    hear=self._hear,
                    greet=self._greet,
                    lose=self._lose,
                    trust=self._trust,
                    turn=self._turn,
                )
        self.hub.interest.alone = not self._links
        self._changed.set()

    def is_gone(self, boot: str) -> bool:
        """See the port."""
        link = self._links.get(boot)
        return boot in self._replaced or (link is not None and link.gone)

    def hint(self, boot: str, tasks: Sequence[Task], at_ms: int, epochs: dict[int, int]) -> None:
        """See the port."""
        link = self._links.get(boot)
        for start in range(0, len(tasks), HINTED):
            some = tasks[start : start + HINTED]
            if link is None or not link.tell(self.wire.hint(some, at_ms, epochs), early=True):
                self.lost += len(some)

    def given(self, boot: str) -> None:
        """See the port."""
        link = self._links.get(boot)
        if link is not None:
            link.tell(Given(), early=True)

    async def ask(self, boot: str, command: Command) -> Answer | None:
        """See the port."""
        link = self._links.get(boot)
        told = None if link is None else await link.question(lambda number: self.wire.ask(number, command))
        return self.wire.answer(told) if isinstance(told, Told) else None

    async def look(self, boot: str, ids: Sequence[str]) -> list[Live]:
        """See the port."""
        link = self._links.get(boot)
        if link is None:
            return []
        try:
            shown = await link.question(lambda number: Look(number, list(ids)))
        except (Unavailable, Overloaded):
            return []
        return shown.tasks if isinstance(shown, Shown) else []

    async def measure(self, boot: str, before_us: int) -> list[Reach] | None:
        """See the port."""
        link = self._links.get(boot)
        if link is None:
            return None
        try:
            measured = await link.question(lambda number: Measure(number, before_us))
        except (Unavailable, Overloaded):
            return None
        return measured.reaches if isinstance(measured, Measured) else None

    # --- the port of those who take for workers

    def want(self, queues: Collection[int]) -> None:
        """See ports.lending.Lines."""
        self._wanted = list(queues)
        for link in self._links.values():
            link.tell(Want(self._wanted))  # one that is not up is told when it is (`_greet`)

    async def take(
        self, boot: str, queue: int, limit: int, keep: int, part: Callable[[list[Lent]], int]
    ) -> tuple[list[Lent], bool]:
        """See ports.lending.Lines."""
        link = self._links.get(boot)
        if link is None:
            raise Unavailable(_NOT_LINKED)
        taken = await link.question(lambda number: Take(number, queue, limit, keep), partial(_confirm, link, part))
        if not isinstance(taken, Taken):
            raise Unavailable(_NOT_LINKED)
        link.tell(Got(taken.number))
        return taken.tasks, taken.more

    def report(self, boot: str, tenant: str, reports: Sequence[Report]) -> bool:
        """See ports.lending.Lines."""
        link = self._links.get(boot)
        return link is not None and all(link.tell(Reports(tenant, some)) for some in _parts(reports))

    def extend(self, boot: str, tenant: str, extensions: Sequence[Extension]) -> bool:
        """See ports.lending.Lines."""
        link = self._links.get(boot)
        return link is not None and all(
            link.tell(Extend(tenant, list(extensions[start : start + REPORTED])))
            for start in range(0, len(extensions), REPORTED)
        )

    def tell_moved(self, ids: list[str]) -> None:
        """The workers of these leases came here."""
        for link in self._links.values():
            for start in range(0, len(ids), REPORTED):
                link.tell(Moved(ids[start : start + REPORTED]))

    async def linked(self, count: int) -> None:
        """Return when links to so many other nodes are up."""
        while sum(link.up.is_set() for link in self._links.values()) < count:
            self._greeted.clear()
            await self._greeted.wait()

    def link(self, boot: str) -> Link | None:
        """The link to this boot, if it lives."""
        return self._links.get(boot)

    # --- what is watched

    async def _watch(self, topics: Sequence[Topic]) -> None:
        """Every linked node tells of these from now on, unless it is slow (see `_hear`)."""
        told = [wire_topic(topic) for topic in topics]
        async with asyncio.TaskGroup() as group:
            for link in self._links.values():
                group.create_task(link.watch(told))

    def _forget(self, topics: Sequence[Topic]) -> None:
        told = [wire_topic(topic) for topic in topics]
        for link in self._links.values():
            link.forget(told)

    async def _greet(self, link: Link) -> None:
        """A link came up: what happened there before is not known here."""
        self._greeted.set()
        link.tell(Want(self._wanted))
        await link.watch([wire_topic(topic) for topic in self.hub.interest.topics])
        self._interrupt()

    def _lose(self) -> None:
        assert self.node is not None
        self.node.beat_soon()

    def _hear(self, link: Link, message: Message) -> None:
        assert self.node is not None
        match message:
            case Supply(queues):
                self.node.pulling.supplied(link.boot, queues)
            case Answered(words):
                self.node.pulling.answer(words)
            case Extended(kept):
                self.node.pulling.keep(kept)
            case Revoked(leases):
                self.node.pulling.revoke(leases)
            case _:
                self._hear_of_watched(message)

    def _hear_of_watched(self, message: Message) -> None:
        match message:
            case Changes():
                self._strange.hear(message)
            case Missed() | Watching():  # there, or because it tells of a topic only now that snapshots were read
                self._interrupt()

    def _publish(self, changes: list[Change]) -> None:
        self.hub.publish(changes, foreign=True)

    def _interrupt(self) -> None:
        """Changes of other nodes were missed: snapshots will show them, and what is held here."""
        self._strange.forget()
        self.hub.interrupt(foreign=True)

    # --- life

    async def run(self) -> None:
        """Keep a link to every node that was seen, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.learner.run())
            group.create_task(self._strange.run())
            while True:
                for link in self._links.values():
                    link.start(group)
                self._changed.clear()
                await self._changed.wait()

    async def _learn(self, numbers: Collection[int]) -> None:
        assert self.node is not None
        await self.node.learn_queues(numbers)

    def _drop(self, boots: list[str]) -> None:
        for boot in boots:
            self._links.pop(boot).end()
        if boots:
            self._interrupt()  # what they said last may not have arrived


def _confirm(link: Link, part: Callable[[list[Lent]], int], taken: Taken) -> None:
    """A part came."""
    link.tell(Got(taken.number, len(taken.tasks), part(taken.tasks)))


def _parts(reports: Sequence[Report]) -> Iterator[list[Report]]:
    """As many as fit into one message."""
    part: list[Report] = []
    size = 0
    for report in reports:
        more = len(report.result or b"")
        if part and (len(part) >= REPORTED or size + more > REPORTED_BYTES):
            yield part
            part, size = [], 0
        part.append(report)
        size += more
    if part:
        yield part


PEERS: web.AppKey[Peers] = web.AppKey("peers", Peers)


async def peer(request: web.Request) -> web.StreamResponse:
    """`GET /peer/v1`: another node's link."""
    peers = request.app[PEERS]
    assert peers.node is not None
    longest = FRAME_BYTES if is_known(request.headers, peers.secret) else HANDSHAKE_BYTES
    ws = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=longest, compress=False)
    await ws.prepare(request)
    try:
        guest = Guest(request, ws, peers.node, peers.wire, peers.hub, lambda: peers.boot, peers.learner, peers.moved)
        await guest.serve(peers.secret)
    except* (Refused, Invalid, TimeoutError, ConnectionError):
        await ws.close(code=WSCloseCode.POLICY_VIOLATION)
    return ws
