"""The socket under a link, against peers that say, byte by byte, what a test wants."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from socket import SO_LINGER, SO_RCVBUF, SOL_SOCKET, create_server

import pytest
import trustme
import uvloop
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus, WebSocketException
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.typing import BytesLike
from websockets.utils import accept_key, apply_mask

from gateway import link_socket
from gateway.link_socket import LinkSocket, open_socket
from gateway.settings import ServeSettings
from gateway.tls import certificate_of, trusting
from gateway.turn import Turn
from tests.support.certificates import issue

LONGEST = 1_000
MUCH = bytes(6 * 1024 * 1024)
"""More than the kernel takes for a peer that reads nothing, and has little room."""
NOBODY = trusting(None)
"""Whom tests trust, but for those of TLS: the authorities of the system."""
CLOSING = Close(CloseCode.NORMAL_CLOSURE, "").serialize()
LIMIT_S = 10.0

Run = Callable[[Coroutine[None, None, None]], None]
RUN = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
"""For what depends on how a transport holds back and is cut: tests have asyncio's loop, the service uvloop's."""


# --- the other end


def frame(data: bytes, opcode: Opcode = Opcode.BINARY, *, fin: bool = True) -> bytes:
    """As a server writes it."""
    return Frame(opcode, data, fin).serialize(mask=False)


def agreement(key: str) -> bytes:
    """The answer to who asks for a websocket."""
    lines = (
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(key)}",
    )
    return "\r\n".join((*lines, "", "")).encode()


def answer(status: str, body: bytes = b"") -> bytes:
    """The answer of who has none."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Peer:
    """A server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.request = b""
        self._asked = asyncio.Event()
        """Set when it was read, or nothing more comes."""

    async def answer(self, answers: Callable[[str], bytes]) -> None:
        """Read what is asked for, and say what there is to say to that. Raises EOFError."""
        try:
            self.request = await self.reader.readuntil(b"\r\n\r\n")
            self.say(answers(self.key))
        finally:
            self._asked.set()

    @property
    def key(self) -> str:
        (key,) = (line[18:].strip() for line in self.request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key:"))
        return key.decode()

    def say(self, *frames: bytes) -> None:
        """In one write."""
        self.writer.write(b"".join(frames))

    async def hear(self) -> tuple[int, bytes]:
        """The next frame: opcode, data."""
        first, size = await self.reader.readexactly(2)
        assert size >= 128, "a client masks what it says (RFC 6455, 5.3)"
        size -= 128
        if size > 125:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        mask = await self.reader.readexactly(4)
        return first & 15, apply_mask(await self.reader.readexactly(size), mask)

    async def hear_out(self) -> list[bytes]:
        """All that is said until a close frame, which is answered."""
        said: list[bytes] = []
        while True:
            opcode, data = await self.hear()
            if opcode == Opcode.CLOSE:
                self.say(frame(data, Opcode.CLOSE))
                self.writer.close()
                return said
            said.append(data)

    async def left(self) -> None:
        """Return when the connection has ended."""
        async with asyncio.timeout(LIMIT_S):
            await self._asked.wait()
            with suppress(ConnectionError):
                while await self.reader.read(1024 * 1024):
                    pass

    def vanish(self) -> None:
        self.writer.transport.abort()

    def break_off(self) -> None:
        """The other end's system says that the connection was reset."""
        self.writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.vanish()


class Listener:
    """A server: it reads what is asked for, gives its answer, and leaves the rest to the test."""

    def __init__(self, answers: Callable[[str], bytes]) -> None:
        self._answers = answers
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.all: list[Peer] = []
        self.came = asyncio.Event()
        """Set when somebody connects."""
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.all.append(peer)
        self.came.set()
        with suppress(EOFError, ConnectionError):
            await peer.answer(self._answers)
            self._peers.put_nowait(peer)

    async def peer(self) -> Peer:
        async with asyncio.timeout(LIMIT_S):
            return await self._peers.get()


@asynccontextmanager
async def listening(
    answers: Callable[[str], bytes] = agreement, certificate: ssl.SSLContext | None = None
) -> AsyncIterator[Listener]:
    """A server. Nothing goes wrong inside the loop while it is there."""
    wrong: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: wrong.append(context))
    listener = Listener(answers)
    bound = create_server(("127.0.0.1", 0))
    bound.setsockopt(SOL_SOCKET, SO_RCVBUF, 128 * 1024)  # those that are accepted have it of this one
    async with await asyncio.start_server(listener.serve, sock=bound, ssl=certificate):
        port = bound.getsockname()[1]
        listener.url = f"{'ws' if certificate is None else 'wss'}://127.0.0.1:{port}/peer"
        try:
            yield listener
        finally:
            for peer in listener.all:
                peer.vanish()
                with suppress(OSError):
                    await peer.writer.wait_closed()
    assert wrong == []


@asynccontextmanager
async def linked(
    first: bytes = b"", *, longest: int = LONGEST, turn: Turn | None = None
) -> AsyncIterator[tuple[LinkSocket, Peer]]:
    """Both ends; `first` comes in the same write as the agreement. At the end the peer is gone."""
    async with listening(lambda key: agreement(key) + first) as server, asyncio.timeout(LIMIT_S):
        async with open_socket(server.url, NOBODY, {}, longest, turn or Turn()) as socket:
            peer = await server.peer()
            try:
                yield socket, peer
            finally:
                peer.vanish()
        assert socket._transport is None


class Ear:
    """Who listens."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._news = asyncio.Event()

    def hear(self, message: BytesLike) -> None:
        self.heard.append(bytes(message))
        self._news.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(LIMIT_S):
            while len(self.heard) < count:
                self._news.clear()
                await self._news.wait()


def seen(socket: LinkSocket, monkeypatch: pytest.MonkeyPatch, name: str) -> asyncio.Event:
    """Set when the loop has called this."""
    event, call = asyncio.Event(), getattr(socket, name)

    def called(*args: object) -> object:
        event.set()
        return call(*args)

    monkeypatch.setattr(socket, name, called)
    return event


async def suppressed(call: Coroutine[None, None, None]) -> None:
    with suppress(ConnectionResetError):
        await call


async def refuse(call: Coroutine[None, None, object]) -> None:
    with pytest.raises(ConnectionResetError):
        await call


async def deaf_and_full(socket: LinkSocket, group: asyncio.TaskGroup, data: bytes = MUCH) -> asyncio.Task[None]:
    """A message that is on its way, to a peer that does not take it. Whoever sends may be told that it is over."""
    sending = group.create_task(suppressed(socket.send(data)))
    begun = asyncio.Event()
    asyncio.get_running_loop().call_soon(begun.set)
    await begun.wait()
    assert not socket._writable.is_set()
    return sending


# --- what is heard, and when


async def test_a_server_is_asked_for_a_websocket_with_the_headers_that_were_given() -> None:
    async with listening() as server, asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        async with open_socket(f"{server.url}?a=b", NOBODY, {"knock": "who"}, LONGEST, Turn()):
            peer = await server.peer()
            group.create_task(peer.hear_out())
        lines = peer.request.decode().split("\r\n")
    assert lines[0] == "GET /peer?a=b HTTP/1.1"
    assert {"knock: who", "Upgrade: websocket", f"Host: {server.url[5:-5]}"} <= set(lines)


async def test_what_came_before_somebody_listens_is_kept_and_heard_in_order() -> None:
    ear = Ear()
    async with linked(b"".join(map(frame, (b"1", b"2", b"3")))) as (socket, peer), asyncio.TaskGroup() as group:
        assert await socket.receive() == b"1"
        group.create_task(socket.listen(ear.hear))
        await ear.until(2)
        peer.say(frame(b"4"))
        await ear.until(3)
        peer.vanish()
    assert ear.heard == [b"2", b"3", b"4"]


async def test_who_asks_for_a_message_before_it_came_gets_it() -> None:
    async with linked() as (socket, peer), asyncio.TaskGroup() as group:
        asking = group.create_task(socket.receive())
        peer.say(frame(b"", Opcode.PING))
        await peer.hear()
        assert not asking.done()
        peer.say(frame(b"1"), frame(b"2"))
        assert await asking == b"1"
        assert await socket.receive() == b"2"


@pytest.mark.parametrize("kept", [True, False])
async def test_all_that_one_read_brings_is_heard_in_one_turn(*, kept: bool) -> None:
    """What was put off because of it is done once, after all of it; so it is with what was kept."""
    turn, ear, done = Turn(), Ear(), list[int]()
    messages = [str(number).encode() for number in range(100)]

    def write() -> None:
        done.append(len(ear.heard))

    def hear(message: BytesLike) -> None:
        assert turn.put_off(write)
        ear.hear(message)

    frames = b"".join(map(frame, messages))
    async with linked(frames if kept else b"", turn=turn) as (socket, peer), asyncio.TaskGroup() as group:
        group.create_task(socket.listen(hear))
        if not kept:
            peer.say(frames)
        await ear.until(100)
        assert (ear.heard, done) == (messages, [100])
        assert not turn.put_off(write), "nor is anything put off between two of them"
        peer.say(frame(b"more"))
        await ear.until(101)
        assert done == [100, 101]
        peer.vanish()


async def test_a_message_is_heard_in_the_call_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ear, during, read = Ear(), list[int](), LinkSocket.data_received

    def data_received(socket: LinkSocket, data: bytes) -> None:
        read(socket, data)
        during.append(len(ear.heard))

    monkeypatch.setattr(LinkSocket, "data_received", data_received)
    async with linked() as (socket, peer), asyncio.TaskGroup() as group:
        group.create_task(socket.listen(ear.hear))
        peer.say(frame(b"1"), frame(b"2"))
        await ear.until(2)
        assert during == [0, 2]
        peer.vanish()


@RUN
def test_while_nobody_listens_no_more_is_read_than_came_with_the_first_message(run: Run) -> None:
    async def work() -> None:
        count, size = 32, 256 * 1024
        async with linked(frame(b"first"), longest=size) as (socket, peer):
            assert socket._transport is not None
            assert not socket._transport.is_reading()
            peer.say(*(frame(number.to_bytes(2, "big") + bytes(size - 2)) for number in range(count)))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await peer.writer.drain()
            assert len(socket._kept) == 1
            assert await socket.receive() == b"first"
            assert not socket._transport.is_reading(), "nobody asks for more"
            for number in range(count):
                assert (await socket.receive())[:2] == number.to_bytes(2, "big")
                assert len(socket._kept) <= 1
                assert not socket._transport.is_reading()

    run(work())


@RUN
def test_one_that_listens_reads_on(run: Run) -> None:
    async def work() -> None:
        ear = Ear()
        async with linked(frame(b"first")) as (socket, peer), asyncio.TaskGroup() as group:
            peer.say(*[frame(bytes(LONGEST))] * 2_000)
            group.create_task(socket.listen(ear.hear))
            await ear.until(2_001)
            peer.vanish()

    run(work())


@pytest.mark.parametrize(
    "parts",
    [[b"ab", b"cd", b"e"], [b"", b"abcde"], [b"abcde", b""], [b"", b"", b"abcde", b"", b""]],
    ids=lambda parts: b"-".join(parts).decode(),
)
async def test_a_message_comes_in_several_frames_between_which_others_may_come(parts: list[bytes]) -> None:
    last = len(parts) - 1
    frames = [frame(part, Opcode.CONT if at else Opcode.BINARY, fin=at == last) for at, part in enumerate(parts)]
    frames.insert(1, frame(b"?", Opcode.PING))
    ear = Ear()
    async with linked(b"".join(frames)) as (socket, peer), asyncio.TaskGroup() as group:
        assert await peer.hear() == (Opcode.PONG, b"?")
        assert await socket.receive() == b"abcde"
        group.create_task(socket.listen(ear.hear))
        for one in frames:  # in reads of their own
            peer.say(one)
            peer.say(frame(b"!", Opcode.PING))
            while await peer.hear() != (Opcode.PONG, b"!"):
                pass
        peer.say(frame(b"", Opcode.PONG), frame(b""), frame(b"whole"))
        await ear.until(3)
        peer.vanish()
    assert ear.heard == [b"abcde", b"", b"whole"]


async def test_a_peer_that_asks_for_a_sign_of_life_gets_one() -> None:
    async with linked() as (_, peer):
        peer.say(frame(b"alive?", Opcode.PING))
        assert await peer.hear() == (Opcode.PONG, b"alive?")


# --- how it ends


@pytest.mark.parametrize("fin", [True, False], ids=["whole", "begun"])
async def test_text_ends_it(*, fin: bool) -> None:
    ear = Ear()
    after = frame(b"2") if fin else frame(b"2", Opcode.CONT)
    async with linked() as (socket, peer), asyncio.TaskGroup() as group:
        listening_ = group.create_task(socket.listen(ear.hear))
        peer.say(frame(b"1"), frame(b"text", Opcode.TEXT, fin=fin), after)
        await listening_
        peer.say(frame(b"3") if fin else b"")
        with pytest.raises(ConnectionResetError):
            await socket.receive()
    assert ear.heard == [b"1"]


async def test_who_waits_for_a_message_and_gets_text_hears_that_it_is_over() -> None:
    async with linked(frame(b"text", Opcode.TEXT)) as (socket, _):
        with pytest.raises(ConnectionResetError):
            await socket.receive()


@pytest.mark.parametrize("parts", [1, 3])
async def test_a_message_that_is_too_long_ends_it_and_the_peer_is_told(parts: int) -> None:
    ear = Ear()
    async with linked() as (socket, peer), asyncio.TaskGroup() as group:
        listens = group.create_task(socket.listen(ear.hear))
        for size in (LONGEST, LONGEST + 1):
            piece = size // parts
            whole = [bytes(piece)] * (parts - 1) + [bytes(size - piece * (parts - 1))]
            for at, part in enumerate(whole):
                peer.say(frame(part, Opcode.CONT if at else Opcode.BINARY, fin=at == parts - 1))
        peer.say(frame(b"after it"))
        opcode, data = await peer.hear()
        assert (opcode, Close.parse(data).code) == (Opcode.CLOSE, CloseCode.MESSAGE_TOO_BIG)
        await listens
    assert ear.heard == [bytes(LONGEST)]


@pytest.mark.parametrize("bad", [b"\xff\xff", frame(b"", Opcode.CONT), b"\x82\x80abcd"], ids=["bits", "order", "mask"])
async def test_what_is_no_websocket_ends_it_and_the_peer_is_told(bad: bytes) -> None:
    ear = Ear()
    async with linked() as (socket, peer), asyncio.TaskGroup() as group:
        listens = group.create_task(socket.listen(ear.hear))
        peer.say(frame(b"1"), bad)
        opcode, data = await peer.hear()
        assert (opcode, Close.parse(data).code) == (Opcode.CLOSE, CloseCode.PROTOCOL_ERROR)
        await listens
    assert ear.heard == [b"1"]


@pytest.mark.parametrize("kept", [True, False])
async def test_what_the_listener_raises_ends_it_and_nothing_more_is_heard(*, kept: bool) -> None:
    error, heard = ValueError("no"), list[bytes]()

    def hear(message: BytesLike) -> None:
        heard.append(bytes(message))
        if message == b"2":
            raise error

    frames = b"".join(map(frame, (b"1", b"2", b"3")))
    async with linked(frames if kept else b"") as (socket, peer):
        if not kept:
            peer.say(frames)
        with pytest.raises(ValueError, match="no") as raised:
            await socket.listen(hear)
        assert raised.value is error
        assert socket.over
        peer.say(frame(b"4"), frame(b"", Opcode.PING))
        assert await peer.hear() == (Opcode.PONG, b"")
    assert heard == [b"1", b"2"]


async def test_what_was_put_off_before_an_error_is_done() -> None:
    turn, done = Turn(), list[bool]()

    def hear(message: BytesLike) -> None:
        turn.put_off(lambda: done.append(True))
        raise ValueError("no")

    async with linked(turn=turn) as (socket, peer):
        peer.say(frame(b"1"))
        with pytest.raises(ValueError, match="no"):
            await socket.listen(hear)
    assert done == [True]


async def test_a_peer_that_says_goodbye_is_answered_and_it_is_over() -> None:
    ear = Ear()
    async with linked() as (socket, peer), asyncio.TaskGroup() as group:
        listens = group.create_task(socket.listen(ear.hear))
        peer.say(frame(b"1"), frame(CLOSING, Opcode.CLOSE))
        assert await peer.hear() == (Opcode.CLOSE, CLOSING)
        await listens
        assert ear.heard == [b"1"]
        with pytest.raises(ConnectionResetError):
            await socket.send(b"too late")
        with pytest.raises(ConnectionResetError):
            await socket.receive()


async def test_what_was_kept_can_be_had_from_a_peer_that_said_goodbye() -> None:
    async with linked(frame(b"1") + frame(b"2") + frame(CLOSING, Opcode.CLOSE)) as (socket, _):
        assert [await socket.receive(), await socket.receive()] == [b"1", b"2"]
        with pytest.raises(ConnectionResetError):
            await socket.receive()


async def test_what_was_kept_is_heard_of_a_peer_that_said_goodbye() -> None:
    ear = Ear()
    async with linked(frame(b"1") + frame(b"2") + frame(CLOSING, Opcode.CLOSE)) as (socket, _):
        await socket.listen(ear.hear)
    assert ear.heard == [b"1", b"2"]


@RUN
@pytest.mark.parametrize("rude", [True, False], ids=["reset", "end of file"])
def test_a_peer_that_vanishes_ends_it(run: Run, *, rude: bool) -> None:
    async def work() -> None:
        ear = Ear()
        async with linked() as (socket, peer), asyncio.TaskGroup() as group:
            listens = group.create_task(socket.listen(ear.hear))
            peer.say(frame(b"1"))
            await ear.until(1)
            peer.vanish() if rude else peer.writer.close()
            await listens
            await refuse(socket.receive())
            await socket._lost.wait()
            await refuse(socket.send(b"too late"))
            with pytest.raises(ConnectionResetError):
                await socket.receive()

    run(work())


@RUN
def test_a_peer_that_breaks_off_ends_it(run: Run) -> None:
    async def work() -> None:
        async with linked() as (socket, peer), asyncio.TaskGroup() as group:
            listens = group.create_task(socket.listen(Ear().hear))
            sends = group.create_task(refuse(socket.send(MUCH)))
            peer.break_off()
            await sends
            await listens
            await refuse(socket.send(b"too late"))
            await refuse(socket.receive())

    run(work())


async def test_what_came_before_a_peer_broke_off_can_be_had() -> None:
    """Though what it is answered finds nobody any more."""
    async with linked() as (socket, peer):
        peer.say(frame(b"?", Opcode.PING), frame(b"1"))
        peer.break_off()
        assert await socket.receive() == b"1"
        await refuse(socket.receive())
        await refuse(socket.send(b"too late"))


# --- who does not agree


async def refused(answers: Callable[[str], bytes], url: str = "") -> Exception:
    """What is raised instead of a connection."""
    async with listening(answers) as server, asyncio.timeout(LIMIT_S):
        with pytest.raises((OSError, WebSocketException)) as error:
            async with open_socket(url or server.url, NOBODY, {}, LONGEST, Turn()):
                raise AssertionError("it was opened")
        for peer in server.all:
            await peer.left()
    return error.value


@pytest.mark.parametrize("status", [404, 503, 200, 302, 401])
async def test_an_answer_that_is_no_agreement_is_raised(status: int) -> None:
    error = await refused(lambda key: answer(f"{status} Because", b"of this"))
    assert isinstance(error, InvalidStatus)
    assert error.response.status_code == status
    assert f"HTTP {status}" in str(error)


@pytest.mark.parametrize("rubbish", [b"SSH-2.0\r\n", b"\0" * 100 + b"\n", b"x" * 100_000, b"HTTP/1.1 101\r\n\r\n"])
async def test_what_is_no_answer_at_all_is_an_error_of_the_library(rubbish: bytes) -> None:
    assert isinstance(await refused(lambda key: rubbish), WebSocketException)


async def test_an_agreement_to_what_another_one_asked_is_none() -> None:
    assert isinstance(await refused(lambda key: agreement("another")), InvalidHandshake)
    bare = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    assert isinstance(await refused(lambda key: bare), InvalidHandshake)
    extended = b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    assert isinstance(await refused(lambda key: agreement(key)[:-4] + extended), InvalidHandshake)


async def test_an_answer_that_comes_bit_by_bit_is_put_together() -> None:
    async with listening(lambda key: b"") as server, asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:

        async def open_and_receive() -> bytes:
            async with open_socket(server.url, NOBODY, {}, LONGEST, Turn()) as socket:
                message = await socket.receive()
                peer.vanish()
                return message

        opening = group.create_task(open_and_receive())
        peer = await server.peer()
        peer.writer.transport.set_write_buffer_limits(0)
        for byte in agreement(peer.key) + frame(b"message"):
            peer.say(bytes((byte,)))
            await peer.writer.drain()
        assert await opening == b"message"


async def test_a_server_that_leaves_without_an_answer_has_not_agreed() -> None:
    async with listening(lambda key: b"") as server, asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:

        async def leave(*, rude: bool) -> None:
            peer = await server.peer()
            peer.vanish() if rude else peer.writer.write_eof()

        for rude in (True, False):
            group.create_task(leave(rude=rude))
            with pytest.raises(InvalidMessage):
                async with open_socket(server.url, NOBODY, {}, LONGEST, Turn()):
                    raise AssertionError("it was opened")


@RUN
def test_a_server_that_breaks_off_without_an_answer_is_an_error_of_the_system(run: Run) -> None:
    """It has not read what was asked."""

    async def work() -> None:
        def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            Peer(reader, writer).break_off()

        async with await asyncio.start_server(break_off, "127.0.0.1", 0) as server, asyncio.timeout(LIMIT_S):
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            with pytest.raises(ConnectionResetError):
                async with open_socket(url, NOBODY, {}, LONGEST, Turn()):
                    raise AssertionError("it was opened")

    run(work())


async def test_where_nobody_listens_is_an_error_of_the_system() -> None:
    async with await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    with pytest.raises(ConnectionRefusedError):
        async with open_socket(url, NOBODY, {}, LONGEST, Turn()):
            raise AssertionError("it was opened")


@RUN
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_server_that_says_nothing_is_left_after_a_while(
    run: Run, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_socket, "OPEN_S", 0.05)

    async def work() -> None:
        async with listening(lambda key: b"") as server, asyncio.timeout(LIMIT_S):
            with pytest.raises(TimeoutError):
                async with open_socket(scheme + server.url[2:], NOBODY, {}, LONGEST, Turn()):
                    raise AssertionError("it was opened")
            for peer in server.all:
                await peer.left()

    run(work())


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "127.0.0.1:port", "[127", f"{'a' * 64}.test:1", ":1"])
async def test_an_address_that_is_none_is_an_error_of_the_system_or_the_library(address: str) -> None:
    """As every other that can't be reached: those who try again know no more kinds."""
    with pytest.raises((OSError, WebSocketException)):
        async with open_socket(f"ws://{address}/peer", NOBODY, {}, LONGEST, Turn()):
            raise AssertionError("it was opened")


# --- what is said


@RUN
def test_who_sends_waits_while_the_peer_takes_nothing(run: Run) -> None:
    async def work() -> None:
        async with linked() as (socket, peer), asyncio.TaskGroup() as group:
            first = await deaf_and_full(socket, group)
            second = group.create_task(socket.send(b"second"))
            peer.say(frame(b"1"))
            assert await socket.receive() == b"1", "it reads all the same"
            assert not first.done()
            assert not second.done()
            assert await peer.hear() == (Opcode.BINARY, MUCH)
            assert await peer.hear() == (Opcode.BINARY, b"second")
            await first
            await second

    run(work())


@RUN
def test_who_waits_to_send_is_told_that_the_peer_is_gone(run: Run) -> None:
    async def work() -> None:
        async with linked() as (socket, peer), asyncio.TaskGroup() as group:
            sending = group.create_task(refuse(socket.send(MUCH)))
            ponging = group.create_task(socket.receive())
            peer.say(frame(b"1"))
            await ponging
            assert not sending.done()
            peer.vanish()
            await sending

    run(work())


async def test_after_the_end_nothing_is_sent() -> None:
    async with linked() as (socket, _):
        await socket.send(b"1")
    await refuse(socket.send(b"2"))
    await refuse(socket.receive())
    ear = Ear()
    await socket.listen(ear.hear)
    assert ear.heard == []


# --- signs of life


class Clock:
    """Sleep, as long as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._sleepers: asyncio.Queue[tuple[float, asyncio.Event]] = asyncio.Queue()
        monkeypatch.setattr(asyncio, "sleep", self._sleep)

    async def _sleep(self, delay_s: float) -> None:
        done = asyncio.Event()
        self._sleepers.put_nowait((delay_s, done))
        await done.wait()

    async def sleeper(self) -> tuple[float, asyncio.Event]:
        """How long the next one sleeps, and what wakes it."""
        async with asyncio.timeout(LIMIT_S):
            return await self._sleepers.get()


async def test_a_peer_that_lives_is_asked_for_a_sign_of_it_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    async with linked() as (socket, peer), asyncio.TaskGroup() as group:
        group.create_task(socket.listen(Ear().hear))
        beating = group.create_task(socket.beat())
        for sign in (frame(b"", Opcode.PONG), frame(b"anything"), frame(b"half of it")[:5]):
            delay_s, wake = await clock.sleeper()
            assert delay_s == link_socket.HEARTBEAT_S
            wake.set()
            assert await peer.hear() == (Opcode.PING, b"")
            delay_s, wake = await clock.sleeper()
            assert delay_s == link_socket.HEARTBEAT_S / 2
            read = seen(socket, monkeypatch, "data_received")
            peer.say(sign)
            await read.wait()
            wake.set()
        assert (await clock.sleeper())[0] == link_socket.HEARTBEAT_S
        beating.cancel()
        peer.vanish()


async def test_what_a_peer_said_before_it_was_asked_is_no_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    async with linked() as (socket, peer), asyncio.TaskGroup() as group:

        async def beat() -> None:
            with pytest.raises(TimeoutError):
                await socket.beat()

        beating = group.create_task(beat())
        _, wake = await clock.sleeper()
        peer.say(frame(b"before", Opcode.PING))
        await peer.hear()
        wake.set()
        _, wake = await clock.sleeper()
        assert await peer.hear() == (Opcode.PING, b"")
        wake.set()
        await beating


@pytest.mark.parametrize("over", [True, False])
async def test_a_peer_that_gives_no_sign_of_life_is_cut_off(monkeypatch: pytest.MonkeyPatch, *, over: bool) -> None:
    monkeypatch.setattr(link_socket, "HEARTBEAT_S", 0.02)
    async with linked() as (socket, peer):
        if over:
            peer.vanish()
            await socket._lost.wait()
        with pytest.raises(TimeoutError):
            await socket.beat()


# --- the end of it


@RUN
def test_what_was_sent_before_the_end_arrives_and_so_does_a_goodbye(run: Run) -> None:
    async def work() -> None:
        async with listening() as server, asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            async with open_socket(server.url, NOBODY, {}, LONGEST, Turn()) as socket:
                peer = await server.peer()
                for number in range(3):
                    await socket.send(bytes((number,)))
                sending = await deaf_and_full(socket, group)
                hearing = group.create_task(peer.hear_out())
            assert socket._transport is None
            await sending
            assert await hearing == [b"\0", b"\1", b"\2", MUCH]

    run(work())


@RUN
def test_a_second_one_who_closes_it_waits_for_the_end_too(run: Run) -> None:
    """As when a link is cut, and so leaves its context."""

    async def work() -> None:
        async with listening() as server, asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            async with open_socket(server.url, NOBODY, {}, LONGEST, Turn()) as socket:
                peer = await server.peer()
                sending = group.create_task(suppressed(socket.send(MUCH)))
                listens = group.create_task(socket.listen(Ear().hear))
                closing = group.create_task(socket.close())
                await listens
                hearing = group.create_task(peer.hear_out())
            assert await hearing == [MUCH]
            await sending
            await closing

    run(work())


@RUN
def test_a_peer_that_does_not_answer_a_goodbye_is_left_after_a_while(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_socket, "CLOSE_S", 0.05)

    async def work() -> None:
        async with listening() as server, asyncio.timeout(LIMIT_S):
            async with open_socket(server.url, NOBODY, {}, LONGEST, Turn()) as socket:
                peer = await server.peer()
                began_s = asyncio.get_running_loop().time()
            assert 0.04 < asyncio.get_running_loop().time() - began_s < 2
            assert socket._transport is None
            assert await peer.hear() == (Opcode.CLOSE, b"")
            await peer.left()

    run(work())


@RUN
def test_a_peer_that_takes_nothing_is_left_after_a_while(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_socket, "CLOSE_S", 0.05)

    async def work() -> None:
        async with listening() as server, asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            async with open_socket(server.url, NOBODY, {}, LONGEST, Turn()) as socket:
                await server.peer()
                sending = group.create_task(refuse(socket.send(MUCH)))
            await sending
            assert socket._transport is None

    run(work())


async def test_at_the_end_what_still_comes_is_read_and_not_kept() -> None:
    """Or the answer to the goodbye would never be seen, behind messages that nobody asks for."""
    async with (
        listening(lambda key: agreement(key) + frame(b"kept")) as server,
        asyncio.timeout(LIMIT_S),
        asyncio.TaskGroup() as group,
    ):
        async with open_socket(server.url, NOBODY, {}, LONGEST, Turn()) as socket:
            peer = await server.peer()
            peer.say(*[frame(bytes(LONGEST))] * 2_000)
            group.create_task(peer.hear_out())
        assert socket._protocol.close_rcvd is not None
        assert list(socket._kept) == [b"kept"]


@RUN
@pytest.mark.parametrize("calls", ["receive", "listen", "send"])
def test_who_is_cancelled_leaves_nothing_open(run: Run, calls: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_socket, "CLOSE_S", 0.05)

    async def work() -> None:
        inside: asyncio.Future[LinkSocket] = asyncio.get_running_loop().create_future()

        async def use(socket: LinkSocket) -> None:
            match calls:
                case "receive":
                    await socket.receive()
                case "listen":
                    await socket.listen(Ear().hear)
                case _:
                    await socket.send(MUCH)

        async with listening() as server, asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            staying = group.create_task(stay(server.url, inside, use))
            peer = await server.peer()
            socket = await inside
            staying.cancel()
            await ended(staying)
            assert staying.cancelled()
            assert socket._transport is None
            await peer.left()

    run(work())


async def stay(
    url: str, inside: asyncio.Future[LinkSocket], use: Callable[[LinkSocket], Coroutine[None, None, object]]
) -> None:
    """Open it, say so, and use it."""
    async with open_socket(url, NOBODY, {}, LONGEST, Turn()) as socket:
        inside.set_result(socket)
        await use(socket)


async def ended(task: asyncio.Task[None]) -> None:
    """Return when it is over, however."""
    await asyncio.wait([task])


@RUN
def test_who_is_cancelled_while_it_opens_leaves_nothing_open(run: Run) -> None:
    async def work() -> None:
        async def never(_: LinkSocket) -> None:
            raise AssertionError("it was opened")

        async with listening(lambda key: b"") as server, asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            for url in (server.url, f"wss{server.url[2:]}"):
                server.came.clear()
                staying = group.create_task(stay(url, asyncio.get_running_loop().create_future(), never))
                await server.came.wait()
                staying.cancel()
                await ended(staying)
                assert staying.cancelled()
            for peer in server.all:
                await peer.left()

    run(work())


@RUN
def test_who_is_cancelled_again_while_it_closes_leaves_nothing_open(run: Run) -> None:
    """As a link that was ended, when then all of them are."""

    async def work() -> None:
        inside: asyncio.Future[LinkSocket] = asyncio.get_running_loop().create_future()
        async with listening() as server, asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            staying = group.create_task(stay(server.url, inside, LinkSocket.receive))
            peer = await server.peer()
            socket = await inside
            staying.cancel()
            assert await peer.hear() == (Opcode.CLOSE, b"")
            staying.cancel()
            await ended(staying)
            left_open = socket._transport is not None and not socket._transport.is_closing()
        assert not left_open

    run(work())


# --- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@RUN
def test_over_tls_it_is_the_same(run: Run, authority: trustme.CA, tmp_path: Path) -> None:
    files = issue(authority, tmp_path)
    certificate = certificate_of(ServeSettings("postgresql://db", **files))
    assert certificate is not None
    context = certificate.context

    async def work() -> None:
        ear = Ear()
        trust = trusting(files["tls_authorities"])
        async with (
            listening(lambda key: agreement(key) + frame(b"1") + frame(b"2"), context) as server,
            asyncio.timeout(LIMIT_S),
            asyncio.TaskGroup() as group,
        ):
            async with open_socket(server.url, trust, {}, LONGEST, Turn()) as socket:
                peer = await server.peer()
                assert await socket.receive() == b"1"
                listens = group.create_task(socket.listen(ear.hear))
                peer.say(*[frame(bytes(LONGEST))] * 1_000)
                await ear.until(1_001)
                sending = group.create_task(suppressed(socket.send(MUCH)))
                again = await deaf_and_full(socket, group, MUCH)
                hearing = group.create_task(peer.hear_out())
            assert await hearing == [MUCH, MUCH]
            await sending
            await again
            await listens
            assert socket._transport is None
        assert ear.heard == [b"2"] + [bytes(LONGEST)] * 1_000

    run(work())


@RUN
def test_a_server_whose_certificate_is_not_trusted_is_refused(run: Run, authority: trustme.CA, tmp_path: Path) -> None:
    certificate = certificate_of(ServeSettings("postgresql://db", **issue(authority, tmp_path)))
    assert certificate is not None
    context = certificate.context

    async def work() -> None:
        async with listening(certificate=context) as server, asyncio.timeout(LIMIT_S):
            with pytest.raises(ssl.SSLCertVerificationError):
                async with open_socket(server.url, NOBODY, {}, LONGEST, Turn()):
                    raise AssertionError("it was opened")
            assert server.all == [], "it was asked for nothing"

    run(work())


async def test_a_peer_that_asks_and_asks_and_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its signs of life would wait for it without end."""
    monkeypatch.setattr(link_socket, "UNSENT_BYTES", len(MUCH) + 1_000_000)
    async with linked() as (socket, peer), asyncio.TaskGroup() as group:
        await deaf_and_full(socket, group)
        listening_ = group.create_task(socket.listen(lambda _: None))
        asked = 0
        while not peer.writer.transport.is_closing() and not listening_.done():
            peer.say(*[frame(bytes(125), Opcode.PING)] * 1_000)
            with suppress(ConnectionError):
                await peer.writer.drain()
            asked += 127_000
        await listening_
        assert asked > 1_000_000
