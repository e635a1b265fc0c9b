"""The way to one other node: a websocket that is opened anew, at intervals that grow, for as long as that node lives.

Promises: bounded. At most `OUTBOX` tasks and questions wait for it, and `ASKED` questions for their answers; what is
too many is lost (a hint) or refused (a question). What is watched is not refused: it is bounded where it comes from
(`interest.py`). When the link breaks, every question that was open on it is answered Unavailable. Frames for another
boot end it: they were meant for who was here before. A living node that can't be reached is a warning in the log.
"""

import asyncio
import os
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NoReturn

import structlog
from websockets.exceptions import WebSocketException
from websockets.typing import BytesLike

from actors.core.errors import Invalid, Overloaded, Unavailable
from actors.core.wire import (
    Extend,
    Frame,
    Hint,
    Message,
    Moved,
    Reply,
    Reports,
    Taken,
    Watch,
    Watching,
    WireTopic,
    decode,
    encode,
)
from gateway.handshake import Refused, introduce, knock
from gateway.link_socket import LinkSocket, open_socket
from gateway.turn import Turn

PATH = "/peer/v1"
OUTBOX = 10_000
FRAME = 1_000
"""Tasks and questions in one frame (one message more at most): some megabytes, where each task brings its payload."""
ASKED = 4_096
WEIGHED_BYTES = 4_096
"""So many of the results of workers weigh as much as a task."""
WEIGHED_LEASES = 50
"""The same of leases, which have no payload."""
FRAME_BYTES = 16 * 1024 * 1024
WATCHED = 500
"""Topics in one message, which has a frame of its own."""
WATCH_S = 1.0
"""How long a node may take to say that it tells of a topic. One that is slower is not waited for."""
PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Before a link is opened anew, about."""
PATIENCE_S = 10.0
"""So long a link may fail to come up before it is said: a node that died is known to be dead by then."""
SILENCE_S = 60.0
"""It is said at most so often."""
log = structlog.get_logger("links")


class Link:
    """The way to one boot."""

    def __init__(
        self,
        mine: str,
        boot: str,
        address: str,
        secret: bytes,
        *,
        hear: Callable[["Link", Message], None],
        greet: Callable[["Link"], Awaitable[None]],
        lose: Callable[[], None],
        trust: ssl.SSLContext,
        turn: Turn,
    ) -> None:
        """`hear` is given what comes and answers no question, and each `Watching` that was not waited for any more;
        `greet` is called whenever both ends know each other, `lose` when the boot is found to be gone.
        """
        self.boot = boot
        self._mine = mine
        self._url = f"{address if '://' in address else f'http://{address}'}{PATH}"
        self._secret = secret
        self._hear_more = hear
        self._greet = greet
        self._lose = lose
        self._trust = trust
        self._turn = turn
        self.gone = False
        """At the last try nobody listened there, or somebody who is not this boot."""
        self._outbox: deque[Message] = deque()
        self._waiting = 0
        """Tasks and questions in it."""
        self._watches: deque[Watch] = deque()
        self._late: set[int] = set()
        """Numbers of those that were not answered in time."""
        self._news = asyncio.Event()
        self._asked: dict[int, asyncio.Future[Reply]] = {}
        self._parts: dict[int, Callable[[Taken], None]] = {}
        """Who hears the parts of an answer."""
        self._number = 0
        self.up = asyncio.Event()
        """Set while both ends know each other."""
        self._opening = True
        """It was not up yet, and nothing says that it will not be."""
        self._complain_s: float | None = None
        """When it is said that it does not come up; None: it came up last time."""
        self._complained_s = float("-inf")
        self._socket: LinkSocket | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, group: asyncio.TaskGroup) -> None:
        """Open it, once."""
        if self._task is None:
            self._task = group.create_task(self._run(), name=f"link-{self.boot}")

    def end(self) -> None:
        """The boot is dead, or I am another one now."""
        if self._task is not None:
            self._task.cancel()
        self._fall()

    async def cut(self) -> None:
        """End the connection; a new one is opened."""
        if self._socket is not None:
            await self._socket.close()

    def tell(self, message: Message, *, early: bool = False) -> bool:
        """Put a message on its way; False: it is lost. An `early` one waits for the link to be up for once."""
        weight = _weight(message)
        if not (self.up.is_set() or (early and self._opening)) or self._waiting + weight > OUTBOX:
            return False
        self._outbox.append(message)
        self._waiting += weight
        self._news.set()
        return True

    async def question(
        self, message: Callable[[int], Message], part: Callable[[Taken], None] | None = None
    ) -> Reply | None:
        """The reply to a message that bears this number, of one in parts the last of them; None: it was not sent.
        Raises Unavailable or Overloaded.
        """
        if len(self._asked) >= ASKED:
            raise Overloaded("too many questions wait for this task's owner")
        self._number += 1
        number = self._number
        if not self.tell(message(number)):
            return None
        if part is not None:
            self._parts[number] = part
        return await self._reply(number)

    async def watch(self, topics: Sequence[WireTopic]) -> None:
        """Return when the other end tells of these, too. One that is not linked is told of all when it is (`greet`)."""
        if not self.up.is_set() or not topics:
            return
        self._number += 1
        number = self._number
        for start in range(0, len(topics), WATCHED):
            last = start + WATCHED >= len(topics)
            self._watches.append(Watch(number if last else 0, list(topics[start : start + WATCHED])))
        self._news.set()
        try:
            async with asyncio.timeout(WATCH_S):
                await self._reply(number)
        except TimeoutError:
            self._late.add(number)
        except Unavailable:
            pass

    def forget(self, topics: Sequence[WireTopic]) -> None:
        """The other end need not tell of these any more."""
        if self.up.is_set():
            for start in range(0, len(topics), WATCHED):
                self._watches.append(Watch(0, [], list(topics[start : start + WATCHED])))
            self._news.set()

    async def _reply(self, number: int) -> Reply:
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asked[number] = reply
        try:
            return await reply
        finally:
            self._asked.pop(number, None)
            self._parts.pop(number, None)

    async def _run(self) -> NoReturn:
        tries = 0
        while True:
            why = "ended at once"
            try:
                await self._connect()
            except* _ENDS as ends:  # however it ended, it is tried again
                self._see_gone(ends)
                why = _why(ends)
            if self.up.is_set():
                self._complain_s = None
            else:
                self._complain(why)
            tries = 0 if self.up.is_set() else tries + 1
            self._fall()
            pause_s = PAUSES_S[min(tries, len(PAUSES_S) - 1)]
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - no secret

    def _see_gone(self, ends: BaseExceptionGroup[Exception]) -> None:
        was_gone, self.gone = self.gone, ends.subgroup(_says_gone) is not None
        if self.gone and not was_gone:
            self._lose()

    def _complain(self, why: str) -> None:
        """It did not come up."""
        now_s = asyncio.get_running_loop().time()
        if self._complain_s is None:
            self._complain_s = max(now_s + PATIENCE_S, self._complained_s + SILENCE_S)
        if now_s >= self._complain_s:
            self._complained_s = now_s
            self._complain_s = now_s + SILENCE_S
            log.warning("a living node can't be reached where it says it is", boot=self.boot, url=self._url, reason=why)

    async def _connect(self) -> None:
        """One connection, from its beginning to its end."""
        url, headers = f"ws{self._url.removeprefix('http')}", knock(self._secret, self._mine)
        async with open_socket(url, self._trust, headers, FRAME_BYTES, self._turn) as socket:
            await introduce(socket, self._secret, self._mine, self.boot)
            await self._serve(socket)

    async def _serve(self, socket: LinkSocket) -> None:
        """Write what is told, and hear answers, until either fails."""
        self._socket = socket
        self.gone = False
        self.up.set()
        async with asyncio.TaskGroup() as group:
            children = [socket.beat(), self._write(socket), self._say_hello()]
            running = [group.create_task(child) for child in children]
            await socket.listen(self._hear)
            for child in running:
                child.cancel()

    async def _say_hello(self) -> None:
        await self._greet(self)

    async def _write(self, socket: LinkSocket) -> None:
        with suppress(ConnectionError):
            while True:
                await self._news.wait()
                await socket.send(encode(Frame(self.boot, self._mine, self._take())))

    def _take(self) -> list[Message]:
        """The next frame's messages."""
        if self._watches:
            return [self._watches.popleft()]
        messages: list[Message] = []
        taken = 0
        while self._outbox and taken < FRAME:
            messages.append(self._outbox.popleft())
            taken += _weight(messages[-1])
        self._waiting -= taken
        if not self._outbox:
            self._news.clear()
        return messages

    def _hear(self, data: BytesLike) -> None:
        frame = decode(data)
        check(frame, self._mine, self.boot)
        for message in frame.messages:
            if isinstance(message, Watching) and message.number in self._late:
                self._late.remove(message.number)
                self._hear_more(self, message)
            elif isinstance(message, Taken) and message.open:
                if (part := self._parts.get(message.number)) is not None:
                    part(message)
            elif isinstance(message, Reply):
                asked = self._asked.get(message.number)
                if asked is not None and not asked.done():
                    asked.set_result(message)
            else:
                self._hear_more(self, message)

    def _fall(self) -> None:
        """Nothing comes any more: whoever waits is told."""
        self.up.clear()
        self._opening = False
        self._outbox.clear()
        self._waiting = 0
        self._watches.clear()
        self._late.clear()
        self._news.clear()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(Unavailable("the link to this task's owner broke: the outcome is not known"))


_ENDS = (WebSocketException, OSError, TimeoutError, Refused, Invalid)


def _says_gone(error: BaseException) -> bool:
    """Nobody listens there, or who does is not the boot that I asked for. One that only hangs says nothing."""
    return isinstance(error, ConnectionRefusedError | Refused)


def check(frame: Frame, mine: str, theirs: str) -> None:
    """Raises Invalid for a frame that is not from there to here."""
    if (frame.to, frame.sender) != (mine, theirs):
        raise Invalid("a frame of another boot")


def _why(error: BaseException) -> str:
    """Its kind, and what the system says to it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    words: str | None = ""
    match error:
        case ssl.SSLCertVerificationError():
            words = error.verify_message
        case ssl.SSLError():
            words = error.reason
        case OSError(errno=int(number)):
            words = os.strerror(number) if number > 0 else error.strerror
        case WebSocketException():
            words = str(error)
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _weight(message: Message) -> int:
    match message:
        case Hint(_, tasks):
            return len(tasks)
        case Reports(_, reports):
            return len(reports) + sum(len(report.result or b"") for report in reports) // WEIGHED_BYTES
        case Extend(_, extensions):
            return 1 + len(extensions) // WEIGHED_LEASES
        case Moved(ids):
            return 1 + len(ids) // WEIGHED_LEASES
    return 1
