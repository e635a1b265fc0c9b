"""Links between nodes: one websocket to each other node, over which this one asks and tells; theirs come in on `PATH`.

Both ends prove that they know the cluster's secret (a challenge each, HMAC-SHA-256), before a frame is read. Frames are
not encrypted: where the network is not trusted, nodes listen behind TLS of their own.
Every frame names both boots; one for another boot ends the link: it was meant for who was here before.

Promises: bounded. At most `OUTBOX` tasks and questions wait for a link, `ASKED` questions for its answers, and
`UNDER_WAY` for ours; what is too many is lost (a hint) or refused (a question). A link that ends is opened anew, at
intervals that grow and differ; every question that was open on it is answered Unavailable.
Refuses: to be relied on (see the port).
"""

import asyncio
import hmac
import random
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

import aiohttp
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from actors.core.errors import Invalid, Overloaded, RingwheelError, Unavailable
from actors.core.events import Answer, Command
from actors.core.live import Live
from actors.core.task import Task
from actors.core.wire import Ask, Frame, Hint, Look, Message, Shown, Told, Wire, decode, encode
from actors.ports.leases import Peer
from actors.ports.links import LinkedNode

PATH = "/peer/v1"
OUTBOX = 10_000
FRAME = 1_000
"""Tasks and questions in one frame (one message more at most): some megabytes, where each task brings its payload."""
ASKED = 4_096
UNDER_WAY = 1_024
HINTED = 500
"""Tasks in one message."""
FRAME_BYTES = 16 * 1024 * 1024
HANDSHAKE_S = 3.0
HEARTBEAT_S = 5.0
PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Before a link is opened anew, about."""
NONCE_BYTES = 32
_CLIENT, _SERVER = b"ringwheel peer client", b"ringwheel peer server"
log = structlog.get_logger("peers")


class _Refused(Exception):
    """The other end is not who it should be."""


def _weight(message: Message) -> int:
    return len(message.tasks) if isinstance(message, Hint) else 1


def _proof(secret: bytes, role: bytes, nonce: bytes, mine: str, theirs: str) -> bytes:
    return hmac.digest(secret, b"\0".join((role, nonce, mine.encode(), theirs.encode())), "sha256")


class Peers:
    """All links of a node, and the other nodes' links to it."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.node: LinkedNode | None = None
        """Set before the first request can come."""
        self.boot = ""
        self.secret = b""
        self.lost = 0
        """Hints that no link took."""
        self._links: dict[str, Link] = {}
        self._changed = asyncio.Event()

    # --- the port

    def see(self, boot: str, secret: bytes, peers: Sequence[Peer]) -> None:
        """See the port."""
        others = {peer.boot: peer.address for peer in peers if peer.boot != boot}
        if boot == self.boot and others.keys() == self._links.keys():
            return
        if boot != self.boot:
            self._drop(list(self._links))
        self.boot, self.secret = boot, secret
        self._drop([other for other in self._links if other not in others])
        for other, address in others.items():
            if other not in self._links:
                self._links[other] = Link(self, other, address)
        self._changed.set()

    def hint(self, boot: str, tasks: Sequence[Task], at_ms: int) -> None:
        """See the port."""
        link = self._links.get(boot)
        for start in range(0, len(tasks), HINTED):
            some = tasks[start : start + HINTED]
            if link is None or not link.tell(self.wire.hint(some, at_ms)):
                self.lost += len(some)

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
        return self.wire.lives(shown) if isinstance(shown, Shown) else []

    def link(self, boot: str) -> "Link | None":
        """The link to this boot, if it lives."""
        return self._links.get(boot)

    # --- life

    async def run(self) -> None:
        """Keep a link to every node that was seen, until cancelled."""
        timeout = aiohttp.ClientTimeout(sock_connect=HANDSHAKE_S)
        async with aiohttp.ClientSession(trust_env=False, timeout=timeout) as session, asyncio.TaskGroup() as group:
            while True:
                for link in self._links.values():
                    link.start(group, session)
                self._changed.clear()
                await self._changed.wait()

    def _drop(self, boots: list[str]) -> None:
        for boot in boots:
            self._links.pop(boot).end()


class Link:
    """The way to one boot."""

    def __init__(self, peers: Peers, boot: str, address: str) -> None:
        self._peers = peers
        self._mine = peers.boot
        self._boot = boot
        self._address = address
        self._outbox: deque[Message] = deque()
        self._waiting = 0
        """Tasks and questions in it."""
        self._news = asyncio.Event()
        self._asked: dict[int, asyncio.Future[Told | Shown]] = {}
        self._number = 0
        self.up = asyncio.Event()
        """Set while both ends know each other."""
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, group: asyncio.TaskGroup, session: aiohttp.ClientSession) -> None:
        """Open it, once."""
        if self._task is None:
            self._task = group.create_task(self._run(session), name=f"link-{self._boot}")

    def end(self) -> None:
        """The boot is dead, or I am another one now."""
        if self._task is not None:
            self._task.cancel()
        self._fall()

    async def cut(self) -> None:
        """End the connection; a new one is opened."""
        if self._ws is not None:
            await self._ws.close()

    def tell(self, message: Message) -> bool:
        """Put a message on its way; False: it is lost."""
        weight = _weight(message)
        if not self.up.is_set() or self._waiting + weight > OUTBOX:
            return False
        self._outbox.append(message)
        self._waiting += weight
        self._news.set()
        return True

    async def question(self, message: Callable[[int], Message]) -> Told | Shown | None:
        """The answer to a message that bears this number; None: it was not sent. Raises Unavailable or Overloaded."""
        if len(self._asked) >= ASKED:
            raise Overloaded("too many questions wait for this task's owner")
        self._number += 1
        number = self._number
        if not self.tell(message(number)):
            return None
        told: asyncio.Future[Told | Shown] = asyncio.get_running_loop().create_future()
        self._asked[number] = told
        try:
            return await told
        finally:
            self._asked.pop(number, None)

    async def _run(self, session: aiohttp.ClientSession) -> NoReturn:
        tries = 0
        while True:
            try:
                await self._connect(session)
            except* (aiohttp.ClientError, aiohttp.WSMessageTypeError, OSError, TimeoutError, _Refused, Invalid):
                pass  # however it ended, it is tried again
            tries = 0 if self.up.is_set() else tries + 1
            self._fall()
            pause_s = PAUSES_S[min(tries, len(PAUSES_S) - 1)]
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - no secret

    async def _connect(self, session: aiohttp.ClientSession) -> None:
        """One connection, from its beginning to its end."""
        async with session.ws_connect(
            f"http://{self._address}{PATH}",
            heartbeat=HEARTBEAT_S,
            max_msg_size=FRAME_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=HANDSHAKE_S),
        ) as ws:
            async with asyncio.timeout(HANDSHAKE_S):
                await self._introduce(ws)
            await self._serve(ws)

    async def _introduce(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """Raises _Refused."""
        secret, nonce = self._peers.secret, secrets.token_bytes(NONCE_BYTES)
        challenge = await ws.receive_bytes()
        mine = _proof(secret, _CLIENT, challenge, self._mine, self._boot)
        await ws.send_bytes(nonce + mine + self._mine.encode())
        theirs = await ws.receive_bytes()
        if not hmac.compare_digest(theirs, _proof(secret, _SERVER, nonce, self._boot, self._mine)):
            log.warning("a peer could not prove that it is of this cluster", boot=self._boot)
            raise _Refused

    async def _serve(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """Write what is told, and hear answers, until either fails."""
        self._ws = ws
        self.up.set()
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._write(ws))
            async for message in ws:
                if message.type is not WSMsgType.BINARY:
                    break
                self._hear(decode(message.data))
            writing.cancel()

    async def _write(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        with suppress(ConnectionError):
            while True:
                await self._news.wait()
                await ws.send_bytes(encode(Frame(self._boot, self._mine, self._take())))
        await ws.close()

    def _take(self) -> list[Message]:
        """The next frame's messages."""
        messages: list[Message] = []
        taken = 0
        while self._outbox and taken < FRAME:
            messages.append(self._outbox.popleft())
            taken += _weight(messages[-1])
        self._waiting -= taken
        if not self._outbox:
            self._news.clear()
        return messages

    def _hear(self, frame: Frame) -> None:
        if (frame.to, frame.sender) != (self._mine, self._boot):
            raise Invalid("a frame of another boot")
        for message in frame.messages:
            if isinstance(message, Told | Shown):
                asked = self._asked.get(message.number)
                if asked is not None and not asked.done():
                    asked.set_result(message)

    def _fall(self) -> None:
        """Nothing comes any more: whoever waits is told."""
        self.up.clear()
        self._outbox.clear()
        self._waiting = 0
        self._news.clear()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(Unavailable("the link to this task's owner broke: the outcome is not known"))


class Guest:
    """The other end of another node's link: hears what it tells, and answers what it asks."""

    def __init__(self, peers: Peers, ws: web.WebSocketResponse) -> None:
        assert peers.node is not None
        self._peers = peers
        self._node = peers.node
        self._mine = peers.boot
        self._ws = ws
        self._boot = ""
        self._outbox: list[Message] = []
        self._news = asyncio.Event()
        self._under_way = 0

    async def serve(self) -> None:
        """Until either side ends it. Raises Invalid, _Refused or TimeoutError when it is no peer."""
        async with asyncio.timeout(HANDSHAKE_S):
            await self._examine()
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._write())
            async for message in self._ws:
                if message.type is not WSMsgType.BINARY:
                    break
                self._hear(decode(message.data), group)
            writing.cancel()

    async def _examine(self) -> None:
        secret, challenge = self._peers.secret, secrets.token_bytes(NONCE_BYTES)
        if not secret:
            raise _Refused
        await self._ws.send_bytes(challenge)
        message = await self._ws.receive()
        if message.type is not WSMsgType.BINARY or len(message.data) > 3 * NONCE_BYTES:
            raise _Refused
        nonce, proof = message.data[:NONCE_BYTES], message.data[NONCE_BYTES : 2 * NONCE_BYTES]
        self._boot = message.data[2 * NONCE_BYTES :].decode(errors="replace")
        if not hmac.compare_digest(proof, _proof(secret, _CLIENT, challenge, self._boot, self._mine)):
            log.warning("a peer could not prove that it is of this cluster")
            raise _Refused
        await self._ws.send_bytes(_proof(secret, _SERVER, nonce, self._mine, self._boot))

    def _hear(self, frame: Frame, group: asyncio.TaskGroup) -> None:
        if (frame.to, frame.sender) != (self._peers.boot, self._boot):
            raise Invalid("a frame of another boot")
        for message in frame.messages:
            if isinstance(message, Hint):
                self._take(message, group)
            elif isinstance(message, Look):
                self._say(self._peers.wire.shown(message.number, self._node.show(message.ids)))
            elif isinstance(message, Ask):
                if self._under_way >= UNDER_WAY:
                    refusal = Answer(None, error=Overloaded("too many commands wait for this task's owner"))
                    self._say(self._peers.wire.told(message.number, refusal))
                else:
                    self._under_way += 1
                    group.create_task(self._answer(message))

    def _take(self, hint: Hint, group: asyncio.TaskGroup) -> None:
        if self._peers.wire.knows(hint):
            self._node.take_hint(self._peers.wire.tasks(hint), hint.at_ms)
        elif self._under_way < UNDER_WAY:
            self._under_way += 1
            group.create_task(self._take_new(hint))

    async def _take_new(self, hint: Hint) -> None:
        """Of a queue that another node has made."""
        with suppress(Unavailable):  # then the probe finds them
            await self._node.learn_queues()
        self._under_way -= 1
        self._node.take_hint(self._peers.wire.tasks(hint), hint.at_ms)

    async def _answer(self, ask: Ask) -> None:
        wire = self._peers.wire
        try:
            answer = await self._node.answer(wire.command(ask))
        except RingwheelError as error:
            answer = Answer(None, error=error)
        finally:
            self._under_way -= 1
        self._say(wire.told(ask.number, answer))

    def _say(self, message: Message) -> None:
        self._outbox.append(message)
        self._news.set()

    async def _write(self) -> None:
        with suppress(ConnectionError):
            while True:
                await self._news.wait()
                self._news.clear()
                messages, self._outbox = self._outbox, []
                await self._ws.send_bytes(encode(Frame(self._boot, self._mine, messages)))


PEERS: web.AppKey[Peers] = web.AppKey("peers", Peers)


async def peer(request: web.Request) -> web.StreamResponse:
    """`GET /peer/v1`: another node's link."""
    ws = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=FRAME_BYTES, compress=False)
    await ws.prepare(request)
    try:
        await Guest(request.app[PEERS], ws).serve()
    except* (_Refused, Invalid, TimeoutError, ConnectionError):
        await ws.close(code=WSCloseCode.POLICY_VIOLATION)
    return ws
