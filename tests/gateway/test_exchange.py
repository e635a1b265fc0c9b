"""One call on a real socket: every way in which an answer can come, and what becomes of the connection."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import uvloop

from actors.core.events import Verdict
from actors.core.queue import Queue
from actors.core.task import Phase, Task
from gateway import pool
from gateway.call import LeaseEnded
from gateway.client import Client, open_client
from gateway.reply import MAX_RESULT_BYTES, Reply
from gateway.targets import TargetPolicy
from gateway.webhook import Plan
from tests.support.dispatch import NOW_MS, FakeNode, courier, deliver, webhook
from tests.support.letters import unsigned
from tests.support.raw_target import OK, Exchange, Script, answers, hangs, raw_target, says

TOO_LONG = MAX_RESULT_BYTES + 1


RUN = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
"""For what depends on how a transport holds back and is cut: tests have asyncio's loop, the service uvloop's."""
Run = Callable[[Coroutine[None, None, None]], None]


class Caller:
    """A client, seen from inside: what it has open."""

    def __init__(self, made: Client) -> None:
        self.client = made

    async def send(self, task: Task, limit_s: float = 30.0) -> Reply:
        """The answer. Raises what the call ended with."""
        task.phase = Phase.RUNNING
        ended: asyncio.Future[Reply | Exception] = asyncio.get_running_loop().create_future()
        self.client.send(Plan(task.spec).letter(task, "fence", NOW_MS, unsigned), limit_s, ended.set_result)
        assert not ended.done()
        result = await ended
        if isinstance(result, Exception):
            raise result
        return result

    @property
    def pooled(self) -> int:
        return len(self.client._pool)

    async def has_nothing_open(self) -> bool:
        """No connection is in use or in the pool, and no task of it goes on."""
        await asyncio.sleep(0)  # what was cancelled ends
        connector = self.client._connector
        return (
            not self.pooled
            and not self.client._pool._open
            and not connector._acquired
            and not connector._conns
            and not any(map(_is_foreign, asyncio.all_tasks()))
        )


def _is_foreign(task: "asyncio.Task[object]") -> bool:
    """Whether a task runs code of others than the tests and their targets."""
    return "/tests/" not in task.get_coro().cr_code.co_filename and task is not asyncio.current_task()  # type: ignore[union-attr]


@asynccontextmanager
async def caller(connections: int = 8) -> AsyncIterator[Caller]:
    async with open_client(TargetPolicy(["loopback"]), lambda: True, connections) as made:
        yield Caller(made)


def in_pieces(*pieces: bytes) -> Script:
    """Answer every request with these, one segment each."""

    async def script(exchange: Exchange) -> None:
        for piece in pieces:
            await exchange.answer(piece)
            await asyncio.sleep(0.005)

    return script


def ends_with(data: bytes) -> Script:
    """Answer with this and close."""

    async def script(exchange: Exchange) -> None:
        await exchange.answer(data)
        exchange.writer.close()

    return script


def cut_up(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


# --- answers that are whole, after which the connection is used again


WHOLE = {
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\n\r\n",
    "trailers": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n",
    "after 100": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "after 102 and 103": b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE.keys())
@pytest.mark.parametrize("cut", [lambda data: [data], cut_up], ids=["at once", "byte by byte"])
async def test_an_answer_that_is_whole(data: bytes, cut: Callable[[bytes], list[bytes]]) -> None:
    async with raw_target(in_pieces(*cut(data))) as target, caller() as calling:
        for n in range(2):
            reply = await calling.send(webhook(target.url(), n=n))
            assert (reply.status, reply.body, reply.broken) == (200, b"hello", None)
        assert (target.connections, calling.pooled) == (1, 1)


@pytest.mark.parametrize("data", [OK, b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n"])
async def test_an_answer_to_head_has_no_body(data: bytes) -> None:
    async with raw_target(says(data)) as target, caller() as calling:
        for n in range(2):
            reply = await calling.send(webhook(target.url(), None, n=n, method="HEAD"))
            assert (reply.status, reply.body, reply.broken) == (200, b"", None)
        assert (target.connections, calling.pooled) == (1, 1)


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_never_has_a_body(status: int) -> None:
    async with raw_target(says(b"HTTP/1.1 %d X\r\n\r\n" % status)) as target, caller() as calling:
        for n in range(2):
            reply = await calling.send(webhook(target.url(), n=n))
            assert (reply.status, reply.body, reply.broken) == (status, b"", None)
        assert target.connections == 1


async def test_connections_are_used_again_by_their_tenant_and_their_host_alone() -> None:
    async with raw_target(says(OK)) as target, caller() as calling:
        connections = []
        queues = [Queue(1, "acme", "emails"), Queue(2, "other", "emails"), Queue(3, "acme", "bills")]
        for host in ("127.0.0.1", "localhost"):
            for n, queue in enumerate([*queues, *queues]):
                await calling.send(webhook(f"http://{host}:{target.port}/{n}", n=n, queue=queue))
                connections.append(target.connections)
        assert connections == [1, 2, 2, 2, 2, 2, 3, 4, 4, 4, 4, 4]
        assert calling.pooled == 4


async def test_connections_at_rest_are_bounded() -> None:
    async with raw_target(says(OK)) as target, caller(2) as calling:
        for n in range(5):
            await calling.send(webhook(target.url(), n=n, queue=Queue(n, f"tenant-{n}", "emails")))
            assert calling.pooled <= 2
        await calling.send(webhook(target.url(), n=4, queue=Queue(4, "tenant-4", "emails")))
        assert (target.connections, calling.pooled) == (5, 2)  # the one that rested longest made room, not this one


async def test_a_connection_rests_no_longer_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "KEEP_ALIVE_S", 0.05)
    monkeypatch.setattr(pool, "SWEEP_S", 0.02)
    async with raw_target(says(OK)) as target, caller() as calling:
        await calling.send(webhook(target.url()))
        assert calling.pooled == 1
        await target.cut.wait()
        assert await calling.has_nothing_open()


async def test_one_that_rested_too_long_is_not_used_though_nobody_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "KEEP_ALIVE_S", 0.02)
    async with raw_target(says(OK)) as target, caller() as calling:
        await calling.send(webhook(target.url()))
        await asyncio.sleep(0.03)
        await calling.send(webhook(target.url(), n=2))
        assert (target.connections, calling.pooled) == (2, 1)


# --- answers that end their connection


ENDING = {
    "connection: close": (says(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi"), b"hi"),
    "HTTP/1.0": (says(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi"), b"hi"),
    "up to the end": (ends_with(b"HTTP/1.1 200 OK\r\n\r\nhi"), b"hi"),
    "HTTP/1.0 up to the end": (ends_with(b"HTTP/1.0 200 OK\r\n\r\nhi"), b"hi"),
    "announced too long": (says(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\nhi" % TOO_LONG), None),
    "too long": (in_pieces(b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 8192] * (TOO_LONG // 8192 + 2)), None),
    "too long in chunks": (
        in_pieces(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", *[b"4000\r\n" + b"x" * 0x4000 + b"\r\n"] * 6
        ),
        None,
    ),
}


@pytest.mark.parametrize(("script", "body"), ENDING.values(), ids=ENDING.keys())
async def test_an_answer_that_ends_its_connection(script: Script, body: bytes | None) -> None:
    async with raw_target(script) as target, caller() as calling:
        reply = await calling.send(webhook(target.url()))
        assert (reply.status, reply.body, reply.broken) == (200, body, None)
        assert await calling.has_nothing_open()
        await target.cut.wait()
        await calling.send(webhook(target.url(), n=2))
        assert target.connections == 2


async def test_101_is_an_answer_and_the_end_of_its_connection() -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
    for data in (head, head + b"and more", head + OK):
        async with raw_target(says(data)) as target, caller() as calling:
            reply = await calling.send(webhook(target.url()))
            assert (reply.status, reply.body) == (101, b"")
            assert await calling.has_nothing_open()
            await target.cut.wait()
    bare = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"  # to what, it does not say
    async with raw_target(says(bare)) as target, caller() as calling:
        assert (await calling.send(webhook(target.url()))).status == 101
        assert await calling.has_nothing_open()
    async with raw_target(says(head)) as target:
        outcome = await deliver(webhook(target.url()))
    assert (outcome.verdict, outcome.status, outcome.error) == (Verdict.FAILED, 101, "HTTP 101")


# --- answers that break


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 %d X\r\ncontent-length: 9\r\n\r\nhalf",
        b"HTTP/1.1 %d X\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 %d X\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhalf",
    ],
    ids=["length", "last chunk", "chunk"],
)
async def test_an_answer_cut_short_breaks_a_success_alone(text: bytes) -> None:
    async with raw_target(ends_with(text % 200)) as target:
        outcome = await deliver(webhook(target.url()))
    assert (outcome.verdict, outcome.status, outcome.result) == (Verdict.FAILED, 200, None)
    assert outcome.error == "connection closed in mid-answer"
    async with raw_target(ends_with(text % 410)) as target:
        outcome = await deliver(webhook(target.url()))
    assert (outcome.verdict, outcome.error) == (Verdict.NEVER, "HTTP 410")
    async with raw_target(ends_with(text % 410)) as target, caller() as calling:
        reply = await calling.send(webhook(target.url()))
        assert (reply.status, reply.body, reply.broken is None) == (410, None, False)
        assert await calling.has_nothing_open()


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi and more",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
        b"\0",
    ],
)
async def test_an_answer_that_is_not_http_leaves_nothing_open(data: bytes) -> None:
    async with raw_target(says(data)) as target, caller() as calling:
        outcome = await deliver(webhook(target.url()))
        assert (outcome.verdict, outcome.error) == (Verdict.FAILED, "answer is not valid HTTP")
        with pytest.raises(Exception):  # noqa: B017, PT011 - the words above say which
            await calling.send(webhook(target.url()))
        assert await calling.has_nothing_open()


async def test_a_verdict_stands_when_the_deadline_passes_in_its_body() -> None:
    async with raw_target(says(b"HTTP/1.1 410 Gone\r\ncontent-length: 9\r\n\r\nhalf")) as target:
        outcome = await deliver(webhook(target.url(), deadline_ms=60))
        await target.cut.wait()
    assert (outcome.verdict, outcome.status, outcome.error) == (Verdict.NEVER, 410, "HTTP 410")


# --- more, or sooner, than was asked for


@pytest.mark.parametrize("later", [False, True])
async def test_a_second_answer_to_one_request_answers_nobody(later: bool) -> None:
    count = 0

    async def twice(exchange: Exchange) -> None:
        nonlocal count
        count += 1
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d"
        if count > 1:
            await exchange.answer(answer % count)
        elif later:
            await exchange.answer(answer % 1)
            await asyncio.sleep(0.02)
            await exchange.answer(answer % 9)
        else:
            await exchange.answer(answer % 1 + answer % 9)

    async with raw_target(twice) as target, caller() as calling:
        assert (await calling.send(webhook(target.url(), n=1))).body == b"1"
        await asyncio.sleep(0.05)  # the second one has come
        assert (await calling.send(webhook(target.url(), n=2))).body == b"2"
        assert (target.connections, calling.pooled) == (2, 1)


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", b"bodyHTT"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", b"\r\n\r\nHTTP"),
        (b"HTTP/1.1 200 OK\ncontent-length: 4\n\n\r\n\r\nHTTP",),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\nHTTP",),
    ],
)
async def test_a_piece_of_a_second_answer_is_no_part_of_the_next(pieces: tuple[bytes, ...]) -> None:
    async with raw_target(in_pieces(*pieces)) as target, caller() as calling:
        for n in range(2):
            reply = await calling.send(webhook(target.url(), n=n))
            assert (reply.status, len(reply.body or b""), reply.broken) == (200, 4, None)


async def bytes_left(reader: asyncio.StreamReader) -> int:
    """How many come until the connection ends, however it does."""
    size = 0
    try:
        while data := await reader.read(1 << 16):
            size += len(data)
    except ConnectionError:
        pass
    return size


@RUN
def test_an_answer_before_the_request_was_read_is_an_answer(run: Run) -> None:
    run(_answered_early())


async def _answered_early() -> None:
    """Its connection is cut, not closed: what is unsent is not sent any more, though nobody reads it now."""
    rest = asyncio.get_running_loop().create_future()

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n")
        await asyncio.sleep(0.1)
        rest.set_result(await bytes_left(reader))
        writer.close()

    async with await asyncio.start_server(hasty, "127.0.0.1", 0) as server, caller() as calling:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        payload = bytes(64 << 20)
        reply = await calling.send(webhook(url, payload))
        assert (reply.status, reply.body, reply.broken) == (413, b"", None)
        assert await calling.has_nothing_open()
        assert await rest < len(payload)


def anonymous(protocol: int) -> ssl.SSLContext:
    """TLS without certificates."""
    context = ssl.SSLContext(protocol)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("aNULL:@SECLEVEL=0")
    return context


@RUN
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_request_that_nobody_reads_is_not_sent_after_its_deadline(run: Run, secure: bool) -> None:
    run(_unread(anonymous(ssl.PROTOCOL_TLS_SERVER) if secure else None))


async def _unread(security: ssl.SSLContext | None) -> None:
    rest = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await over.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        rest.set_result(await bytes_left(reader))
        writer.close()

    async with await asyncio.start_server(deaf, "127.0.0.1", 0, ssl=security) as server, caller() as calling:
        calling.client._connector._ssl = anonymous(ssl.PROTOCOL_TLS_CLIENT)
        scheme = "http" if security is None else "https"
        url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        payload = bytes(64 << 20)
        with pytest.raises(TimeoutError):
            await calling.send(webhook(url, payload), 0.1)
        assert await calling.has_nothing_open()
        over.set()
        assert await rest < len(payload)


async def test_a_connection_that_closes_as_a_request_is_written_fails_it_and_is_not_tried_again() -> None:
    async def once(exchange: Exchange) -> None:
        if exchange.headers["webhook-id"].endswith("1"):
            await exchange.answer(OK)
        else:
            exchange.writer.transport.abort()

    node = FakeNode()
    async with raw_target(once) as target, courier(node):
        for n in (1, 2):
            node.offer([webhook(target.url(), n=n, method="PUT")])
            await node.until(n)
        assert (target.connections, len(target.exchanges)) == (1, 2)
    outcome = node.outcomes[1]
    assert (outcome.verdict, outcome.status, outcome.error) == (Verdict.FAILED, None, "connection closed")


async def test_a_connection_that_closed_while_idle_is_not_used() -> None:
    async with raw_target(ends_with(OK)) as target, caller() as calling:
        for n in (1, 2):
            assert (await calling.send(webhook(target.url(), n=n))).status == 200
            await asyncio.sleep(0.02)
        assert (target.connections, len(target.exchanges)) == (2, 2)


@RUN
def test_a_tls_target_that_says_no_farewell_keeps_no_connection_open(run: Run) -> None:
    run(_unfriendly())


def open_files() -> set[str]:
    """What this process has open."""
    paths = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return {os.readlink(path) for path in paths if os.path.lexists(path)}


async def _unfriendly() -> None:
    over = asyncio.Event()
    socket = ""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal socket
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        (line,) = calling.client._pool._open
        assert line.transport is not None
        socket = os.readlink(f"/proc/self/fd/{line.transport.get_extra_info('socket').fileno()}")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        await over.wait()
        writer.transport.abort()

    security = anonymous(ssl.PROTOCOL_TLS_SERVER)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=security) as server, caller() as calling:
        calling.client._connector._ssl = anonymous(ssl.PROTOCOL_TLS_CLIENT)
        await calling.send(webhook(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", None))
        await asyncio.sleep(0.02)
        assert socket.startswith("socket:")
        assert socket not in open_files()
        over.set()


# --- deadlines and cancellation, wherever the call is


@asynccontextmanager
async def silent() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A target that takes connections and never says a word, to TLS neither; and when one has come."""
    came = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", came


@asynccontextmanager
async def head_only() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A target that answers with a head and the half of a body."""
    async with raw_target(says(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")) as target:
        yield target.url(), target.got


@asynccontextmanager
async def wordless() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A target that takes requests and never answers."""
    async with raw_target(hangs) as target:
        yield target.url(), target.got


Place = Callable[[], AbstractAsyncContextManager[tuple[str, asyncio.Event]]]
PHASES = pytest.mark.parametrize("target", [silent, wordless, head_only], ids=["connect", "head", "body"])


@PHASES
async def test_the_deadline_bounds_every_phase_and_leaves_nothing_open(
    target: Place,
) -> None:
    async with target() as (url, _), caller() as calling:
        began = asyncio.get_running_loop().time()
        try:
            reply = await calling.send(webhook(url), 0.1)
        except TimeoutError:
            pass
        else:
            assert isinstance(reply.broken, TimeoutError)
        assert 0.09 < asyncio.get_running_loop().time() - began < 5
        assert await calling.has_nothing_open()
    async with target() as (url, _):
        assert (await deliver(webhook(url, deadline_ms=100))).error == "timed out after 0.1 s"


@PHASES
async def test_to_close_the_client_drops_a_call_in_every_phase_and_leaves_nothing_open(target: Place) -> None:
    async with target() as (url, came), caller() as calling:
        sending = asyncio.get_running_loop().create_task(calling.send(webhook(url)))
        await came.wait()
        await asyncio.sleep(0.02)
        calling.client.leave()
        assert await calling.has_nothing_open()
        await asyncio.sleep(0.02)
        assert not sending.done()  # nobody knows how it ended
        sending.cancel()


async def test_an_ended_lease_stops_a_letter_before_its_first_byte() -> None:
    """Wherever the connection comes from: `may_fire` and the phase are asked for last."""
    lease = True
    async with raw_target(says(OK)) as target, open_client(TargetPolicy(["loopback"]), lambda: lease, 8) as made:
        calling = Caller(made)
        for pooled in (0, 1):
            assert calling.pooled == pooled
            lease = False
            with pytest.raises(LeaseEnded):
                await calling.send(webhook(target.url()))
            lease = True
            assert calling.pooled == 1
        assert (target.connections, target.exchanges) == (1, [])


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "POST"])
async def test_without_payload_the_request_ends_with_its_head(method: str) -> None:
    async with raw_target(answers(200)) as target, caller() as calling:
        for n in range(2):
            reply = await calling.send(webhook(target.url(), None, n=n, method=method))
            assert (reply.status, reply.broken) == (200, None)
        assert target.connections == 1
        assert [exchange.lines[0] for exchange in target.exchanges] == [f"{method} /hook HTTP/1.1"] * 2
