"""The short way of a plain submit: that nobody can tell it from the long one, and what it leaves behind."""

import asyncio
import logging
import random
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from unittest.mock import Mock

import orjson
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from actors.core.draft import Draft, Receipt
from actors.core.errors import Invalid, Overloaded, Unavailable
from actors.core.keys import Scope
from actors.core.task import State
from gateway.context import Settings
from gateway.decode import TaskDecoder
from gateway.express import Express
from gateway.quota import Quota
from gateway.server import Bounds, Connection, Runner
from tests.gateway.served import NOW_MS, SMALL, Served, served
from tests.gateway.test_admission import Signal
from tests.gateway.test_auth import key
from tests.gateway.test_bad_input import CASES as BAD
from tests.gateway.test_connections import answer, connected, rest

LIVE = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
JSON = b"Content-Type: application/json\r\n"
BODY = b'{"delay":"1h"}'
TRACE = b"traceparent: 00-%b-00f067aa0ba902b7-01\r\n" % (b"4bf92f3577b34da6" * 2)
FULL = orjson.dumps(
    {
        "schedule_time": "2026-09-22T00:00:00Z",
        "http": {"url": "https://api.example.com/hook?x=1", "method": "PUT", "headers": {"X-A": "b"}},
        "payload": {"n": [1, None, "zoë"]},
        "retry": {"max_attempts": 3, "min_backoff": "250ms"},
        "ttl": "1h30m",
        "labels": {"team": "zoë", "app": "shop"},
    }
)


TURNS = 10
"""In so many turns of the loop a connection that was answered waits for its next request."""


def submit(
    body: bytes = BODY, *, fields: bytes = JSON, host: bytes = b"Host: a\r\n", line: bytes = b"/v1/tasks HTTP/1.1"
) -> bytes:
    return b"POST %b\r\n%b%bContent-Length: %d\r\n\r\n%b" % (line, host, fields, len(body), body)


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    parts = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + parts + b"0\r\n%b\r\n" % trailers


def numbered(number: int) -> bytes:
    return submit(orjson.dumps({"delay": "1h", "labels": {"n": str(number)}}))


def number_of(body: bytes) -> int:
    return int(orjson.loads(body)["labels"]["n"])


@pytest.fixture
def went(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry a submit that was offered to the short way: whether it was taken."""
    taken: list[bool] = []
    original = Express.submit

    def counted(self: Express, headers: CIMultiDictProxy[str], body: bytes, answer: Callable[[bytes], None]) -> bool:
        taken.append(original(self, headers, body, answer))
        return taken[-1]

    monkeypatch.setattr(Express, "submit", counted)
    return taken


class Heard:
    """What has reached the server, so that a test goes on when it has."""

    def __init__(self) -> None:
        self.bytes = 0
        self._more = asyncio.Event()

    def add(self, count: int) -> None:
        self.bytes += count
        self._more.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.bytes < count:
                self._more.clear()
                await self._more.wait()


@pytest.fixture
async def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """Counts the bytes that came on all connections together."""
    heard = Heard()
    original = Connection.data_received

    def counted(self: Connection, data: bytes) -> None:
        original(self, data)
        heard.add(len(data))

    monkeypatch.setattr(Connection, "data_received", counted)
    return heard


class Held:
    """The commits of a world, held until they are let go."""

    def __init__(self, world: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()
        submit = world.intake.submit

        async def held(drafts: Sequence[Draft]) -> list[Receipt | Exception]:
            self.reached.set()
            await self.open.wait()
            return await submit(drafts)

        monkeypatch.setattr(world.intake, "submit", held)


@asynccontextmanager
async def world_of(settings: Settings = SMALL, bounds: Bounds | None = None) -> AsyncIterator[Served]:
    async with served(settings, bounds) as world:
        await world.stores.queues.ensure("default", "default")
        yield world


def connection_of(world: Served) -> Connection:
    """The only one."""
    runner = world.server.runner
    assert isinstance(runner, Runner)
    assert runner.server is not None
    (connection,) = runner.server.connections
    assert isinstance(connection, Connection)
    return connection


@asynccontextmanager
async def waited_for(world: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that the server already waits on: its first bytes may come before that."""
    async with connected(world) as (reader, writer):
        writer.write(LIVE)
        assert (await answer(reader))[0] == 200
        for _ in range(TURNS):
            await asyncio.sleep(0)
        yield reader, writer


# --- the same answer on both ways


@dataclass(frozen=True)
class Case:
    request: bytes
    status: int
    short: list[bool] = field(default_factory=lambda: [True])
    """What `went` says of it in one piece."""
    arrange: Callable[[Served], Awaitable[bytes | None]] | None = None
    """Makes the world so; what it answers takes the place of KEY."""
    log: str = ""


async def _foreign_key(world: Served) -> None:
    await key(world, *Scope)


async def _own_key(world: Served) -> bytes:
    await world.stores.queues.ensure("acme", "default")
    return (await key(world, Scope.SUBMIT)).encode()


async def _other_scope(world: Served) -> bytes:
    return (await key(world, Scope.READ)).encode()


async def _quota(world: Served) -> None:
    world.gateway.quota = Quota(5, monotonic=lambda: 7.0)


async def _quota_used_up(world: Served) -> None:
    await _quota(world)
    world.gateway.quota.take("default", 100)


async def _draining(world: Served) -> None:
    world.gateway.draining = True


async def _draining_with_keys(world: Served) -> None:
    await _draining(world)
    await _foreign_key(world)


def _refused(error: Exception) -> Callable[[Served], Awaitable[None]]:
    async def arrange(world: Served) -> None:
        world.intake.error = error

    return arrange


def _fails(error: Exception) -> Callable[[Served], Awaitable[None]]:
    """The commit has begun when it is known."""

    async def arrange(world: Served) -> None:
        async def submit(drafts: Sequence[Draft]) -> list[Receipt | Exception]:
            return [error]

        world.intake.submit = submit  # type: ignore[method-assign]

    return arrange


MOST = 40_000
"""Bytes of a body. A segment of the loopback interface holds more, so that all of them may come at once."""
KEY = b"KEY"
BEARER = JSON + b"Authorization: Bearer KEY\r\n"
NOT_OFFERED: list[bool] = []
LEFT = [False]

CASES = {
    "plain": Case(submit(), 201),
    "without a media type": Case(submit(fields=b""), 201),
    "names in lower case": Case(submit(fields=JSON.lower(), host=b"host: a\r\n"), 201),
    "labels, payload, target, retry": Case(submit(FULL), 201),
    "two spaces and a tab": Case(submit(fields=b"Content-Type: \t application/json \t\r\n"), 201),
    "kept alive": Case(submit(fields=JSON + b"Connection: keep-alive\r\n"), 201),
    "in the past": Case(submit(b'{"schedule_time":"2026-09-01T00:00:00Z"}'), 201),
    "traced": Case(submit(fields=JSON + TRACE), 201),
    "traced twice": Case(submit(fields=JSON + TRACE * 2), 201),
    "unknown fields twice": Case(submit(fields=JSON + b"X-A: 1\r\nX-A: 2\r\n"), 201),
    "chunked": Case(chunked(BODY), 201),
    "chunked, with trailers": Case(chunked(BODY[:5], BODY[5:], trailers=b"Idempotency-Key: a\r\n"), 201),
    "long header": Case(submit(fields=JSON + b"X: %b\r\n" % (b"x" * 8_000)), 201),
    "header too long": Case(submit(fields=JSON + b"X: %b\r\n" % (b"x" * 9_000)), 400, NOT_OFFERED),
    "many headers": Case(submit(fields=JSON + b"X: x\r\n" * 100), 201),
    "too many headers": Case(submit(fields=JSON + b"X: x\r\n" * 200), 400, NOT_OFFERED),
    "line end behind it": Case(submit() + b"\r\n", 201),
    "new queue": Case(submit(b'{"queue":"new"}'), 201, LEFT),
    "new queue without a name": Case(submit(b'{"queue":"a b"}'), 422),
    "key in the body": Case(submit(b'{"idempotency_key":"k"}'), 201, LEFT),
    "bad key in the body": Case(submit(b'{"idempotency_key":""}'), 422),
    "key in the header": Case(submit(fields=JSON + b"idempotency-key: k\r\n"), 201, NOT_OFFERED),
    "two keys": Case(submit(fields=JSON + b"Idempotency-Key: k\r\nIdempotency-Key: l\r\n"), 422, NOT_OFFERED),
    "empty key": Case(submit(fields=JSON + b"Idempotency-Key:\r\n"), 422, NOT_OFFERED),
    "other charset": Case(submit(fields=b"Content-Type: application/json; charset=x\r\n"), 201, NOT_OFFERED),
    "other media type": Case(submit(fields=b"Content-Type: text/plain\r\n"), 415, NOT_OFFERED),
    "two media types": Case(submit(fields=JSON * 2), 400, NOT_OFFERED),
    "compressed": Case(submit(fields=JSON + b"Content-Encoding: gzip\r\n"), 415, NOT_OFFERED),
    "identity": Case(submit(fields=JSON + b"Content-Encoding: identity\r\n"), 201, NOT_OFFERED),
    "unmet expectation": Case(submit(fields=JSON + b"Expect: miracles\r\n"), 400, NOT_OFFERED),
    "HTTP/1.0": Case(submit(line=b"/v1/tasks HTTP/1.0"), 201, NOT_OFFERED),
    "HTTP/1.0, kept alive": Case(
        submit(line=b"/v1/tasks HTTP/1.0", fields=JSON + b"Connection: keep-alive\r\n"), 201, NOT_OFFERED
    ),
    "end of the connection": Case(submit(fields=JSON + b"Connection: close\r\n"), 201, NOT_OFFERED),
    "query": Case(submit(line=b"/v1/tasks?a=b HTTP/1.1"), 201, NOT_OFFERED),
    "absolute target": Case(submit(line=b"http://a/v1/tasks HTTP/1.1"), 201, NOT_OFFERED),
    "other protocol": Case(submit(fields=JSON + b"Connection: upgrade\r\nUpgrade: websocket\r\n"), 201, NOT_OFFERED),
    "without a host": Case(submit(host=b""), 400, NOT_OFFERED),
    "larger than allowed": Case(submit(b'{"payload":"%b"}' % (b"x" * MOST)), 413),
    "larger than allowed, chunked": Case(chunked(*[b" " * 1_000] * 41), 413, NOT_OFFERED),
    "foreign host": Case(submit(host=b"Host: evil.example\r\n"), 403),
    "foreign page": Case(submit(fields=JSON + b"Origin: http://evil.example\r\n"), 403),
    "own page": Case(submit(fields=JSON + b"Origin: http://a\r\n"), 201),
    "no key": Case(submit(), 401, arrange=_foreign_key),
    "wrong key": Case(submit(fields=BEARER), 401, arrange=_foreign_key),
    "no bearer": Case(submit(fields=JSON + b"Authorization: Basic eDp5\r\n"), 401, arrange=_foreign_key),
    "key": Case(submit(fields=BEARER), 201, arrange=_own_key),
    "key from a foreign page": Case(
        submit(fields=BEARER + b"Origin: http://evil.example\r\n", host=b"Host: b.example\r\n"), 201, arrange=_own_key
    ),
    "key of another scope": Case(submit(fields=BEARER), 403, arrange=_other_scope),
    "two keys of access": Case(submit(fields=BEARER * 2), 400, NOT_OFFERED, _own_key),
    "quota": Case(submit(), 201, arrange=_quota),
    "quota used up": Case(submit(), 429, arrange=_quota_used_up),
    "bad, quota used up": Case(submit(b"x"), 400, arrange=_quota_used_up),
    "draining": Case(submit(), 503, arrange=_draining),
    "draining, no key": Case(submit(), 401, arrange=_draining_with_keys),
    "draining, wrong key": Case(submit(fields=BEARER), 401, arrange=_draining_with_keys),
    "draining, foreign host": Case(submit(host=b"Host: evil.example\r\n"), 403, arrange=_draining),
    "full": Case(submit(), 429, arrange=_refused(Overloaded("full", 2_500))),
    "going away": Case(submit(), 503, arrange=_refused(Unavailable("gone"))),
    "lost commit": Case(submit(), 503, arrange=_fails(Unavailable("lost", 4_000))),
    "not storable": Case(submit(), 422, arrange=_fails(Invalid("has a NUL", "/labels/a"))),
    "a bug": Case(submit(), 500, arrange=_refused(ValueError("a bug")), log="ValueError: a bug"),
    "a bug in the commit": Case(submit(), 500, arrange=_fails(ValueError("a bug")), log="ValueError: a bug"),
} | {name: Case(submit(body), status) for name, (body, status, _, _) in BAD.items() if len(body) < MOST}


def cut(request: bytes) -> list[bytes]:
    """The request in two, the second of which begins in the middle of its body."""
    start = request.index(b"\r\n\r\n") + 4
    middle = (start + len(request)) // 2
    return [request[:middle], request[middle:]]


@dataclass
class Seen:
    status: int
    headers: list[bytes]
    body: bytes
    stays: bool
    log: list[str]
    refused: tuple[int, int, int]
    drafts: list[tuple[str | None, str | None, bytes | None]]


async def seen(case: Case, parts: list[bytes], heard: Heard, caplog: pytest.LogCaptureFixture) -> Seen:
    """All that can be seen of a request in a world of its own."""
    caplog.clear()
    async with world_of(Settings(body_bytes=MOST)) as world, waited_for(world) as (reader, writer):
        given = await case.arrange(world) if case.arrange is not None else None
        for part in parts:
            expected = heard.bytes + len(part)
            writer.write(part if given is None else part.replace(KEY, given))
            await heard.until(expected)
        async with asyncio.timeout(10):
            head, _, _ = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n\r\n")
            lines = [line for line in head.split(b"\r\n")[1:] if not line.startswith((b"Date:", b"Server:"))]
            length = next(line for line in lines if line.startswith(b"Content-Length: "))
            body = await reader.readexactly(int(length.split()[1]))
            writer.write(LIVE)
            try:
                await reader.readuntil(b"\r\n\r\n")
                stays = True
            except (asyncio.IncompleteReadError, ConnectionResetError):
                stays = False
        admission, keyring, quota = world.gateway.admission, world.gateway.keyring, world.gateway.quota
        assert admission.under_way == 0
        return Seen(
            int(head.split()[1]),
            sorted(lines),
            re.sub(rb"[0-9a-f]{32}", b"LOGGED", body),
            stays,
            [record.getMessage()[:17] for record in caplog.records if record.levelno > logging.INFO],
            (admission.refused, keyring.refused, quota.refused),
            [(draft.key, draft.trace, draft.payload) for draft in world.intake.drafts],
        )


@pytest.mark.parametrize("name", CASES)
async def test_both_ways_lead_to_the_same_answer(
    name: str, went: list[bool], heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    case = CASES[name]
    short = await seen(case, [case.request], heard, caplog)
    assert case.log in caplog.text
    assert (short.status, went) == (case.status, case.short)
    went.clear()
    long = await seen(case, cut(case.request), heard, caplog)
    assert case.log in caplog.text
    assert went == []
    assert short == long


async def test_who_asks_before_it_sends_is_answered_the_long_way(went: list[bool]) -> None:
    async with world_of() as world, waited_for(world) as (reader, writer):
        head, _, body = submit(fields=JSON + b"Expect: 100-continue\r\n").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        async with asyncio.timeout(10):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await answer(reader))[0] == 201
        assert went == []


async def test_clients_of_a_library_go_the_short_way(went: list[bool]) -> None:
    async with world_of() as world:
        for _ in range(3):
            await world.create(delay="1h")
        assert went[-2:] == [True, True], "the first may come before the server waits for it"


# --- order


async def test_two_submits_at_once_are_answered_in_order(went: list[bool]) -> None:
    async with world_of() as world, waited_for(world) as (reader, writer):
        writer.write(numbered(1) + numbered(2))
        assert [number_of((await answer(reader))[1]) for _ in range(2)] == [1, 2]
        writer.write(numbered(3))
        assert number_of((await answer(reader))[1]) == 3
        assert went == [True]
        assert len(world.intake.drafts) == 3
        assert world.gateway.admission.under_way == 0


@pytest.mark.parametrize("apart", [True, False])
async def test_what_comes_while_a_commit_is_held_waits_for_its_answer(
    apart: bool, went: list[bool], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world_of() as world, waited_for(world) as (reader, writer):
        held = Held(world, monkeypatch)
        writer.write(numbered(1))
        await held.reached.wait()
        sent = heard.bytes
        for part in [LIVE, numbered(2), LIVE[:9], LIVE[9:], numbered(3)[:-3], numbered(3)[-3:]]:
            sent += len(part)
            writer.write(part)
            if apart:
                await heard.until(sent)
        await heard.until(sent)
        held.open.set()
        assert number_of((await answer(reader))[1]) == 1
        assert orjson.loads((await answer(reader))[1]) == {"status": "alive"}
        assert number_of((await answer(reader))[1]) == 2
        assert orjson.loads((await answer(reader))[1]) == {"status": "alive"}
        assert number_of((await answer(reader))[1]) == 3
        writer.write(numbered(4))
        assert number_of((await answer(reader))[1]) == 4, "and nothing is answered twice"
        assert went == [True, True]
        assert len(world.intake.drafts) == 4
        assert world.gateway.admission.under_way == 0


async def test_many_wait_behind_a_commit(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a connection parses ahead."""
    async with world_of() as world, waited_for(world) as (reader, writer):
        held = Held(world, monkeypatch)
        writer.write(numbered(0))
        await held.reached.wait()
        before = heard.bytes
        writer.write(b"".join(map(numbered, range(1, 200))))
        await heard.until(before + 1)
        held.open.set()
        assert [number_of((await answer(reader))[1]) for _ in range(200)] == list(range(200))


async def test_many_go_the_short_way_one_after_the_other(went: list[bool]) -> None:
    """More than a connection parses ahead: each has to make room for the next."""
    async with world_of() as world, waited_for(world) as (reader, writer):
        for number in range(100):
            writer.write(numbered(number))
            assert number_of((await answer(reader))[1]) == number
        assert went == [True] * 100
        writer.write(b"".join(map(numbered, range(40))))
        assert [number_of((await answer(reader))[1]) for _ in range(40)] == list(range(40))


async def test_garbage_behind_a_submit_ends_the_connection_after_its_answer(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world_of() as world, waited_for(world) as (reader, writer):
        held = Held(world, monkeypatch)
        writer.write(numbered(1))
        await held.reached.wait()
        before = heard.bytes
        writer.write(b"no HTTP\r\n\r\n" * 3)
        await heard.until(before + 33)
        held.open.set()
        assert number_of((await answer(reader))[1]) == 1
        status, body = await answer(reader)
        assert (status, orjson.loads(body)["type"]) == (400, "malformed")
        assert await rest(reader) == b""


@pytest.mark.parametrize("more", [b"no HTTP\r\n\r\n", b"}", b"\0"])
async def test_a_submit_with_garbage_at_its_end_is_no_submit(more: bytes, went: list[bool]) -> None:
    async with world_of() as world, waited_for(world) as (reader, writer):
        writer.write(submit() + more)
        status, body = await answer(reader)
        assert (status, orjson.loads(body)["type"]) == (400, "malformed")
        assert await rest(reader) == b""
        assert went == []
        assert world.intake.drafts == []
        assert world.gateway.admission.under_way == 0


async def test_another_protocol_behind_a_submit_waits_too(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with world_of() as world, waited_for(world) as (reader, writer):
        held = Held(world, monkeypatch)
        writer.write(numbered(1))
        await held.reached.wait()
        sent = heard.bytes
        for part in [upgrade + numbered(2)[:20], numbered(2)[20:]]:
            sent += len(part)
            writer.write(part)
            await heard.until(sent)
        held.open.set()
        assert number_of((await answer(reader))[1]) == 1
        assert (await answer(reader))[0] == 200
        assert number_of((await answer(reader))[1]) == 2


KINDS: list[Callable[[int], tuple[bytes, int]]] = [
    lambda number: (numbered(number), 201),
    lambda number: (numbered(number), 201),
    lambda number: (submit(b'{"queue":"q%d"}' % number), 201),
    lambda number: (submit(b'{"idempotency_key":"%d"}' % number), 201),
    lambda number: (submit(b'{"delay":"x"}'), 422),
    lambda number: (submit(host=b"Host: evil.example\r\n"), 403),
    lambda number: (submit(fields=JSON + b"Idempotency-Key: h%d\r\n" % number), 201),
    lambda number: (chunked(b"{", b"}", trailers=b"X: %d\r\n" % number), 201),
    lambda number: (LIVE, 200),
    lambda number: (LIVE.replace(b"livez", b"nothing"), 404),
    lambda number: (submit(b"", line=b"/v1/tasks/x:run HTTP/1.1"), 404),
]


@pytest.mark.parametrize("seed", range(40))
async def test_however_requests_are_cut_their_answers_come_in_order(
    seed: int, went: list[bool], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    made = [chance.choice(KINDS)(number) for number in range(40)]
    requests = [request for request, _ in made]
    async with world_of() as world, waited_for(world) as (reader, writer):
        commit = world.intake.submit

        async def slow(drafts: Sequence[Draft]) -> list[Receipt | Exception]:
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            return await commit(drafts)

        monkeypatch.setattr(world.intake, "submit", slow)

        async def send() -> None:
            sent = heard.bytes
            for request in requests:
                start = 0
                while start < len(request):
                    end = len(request) if chance.random() < 0.8 else chance.randrange(start, len(request)) + 1
                    sent += end - start
                    writer.write(request[start:end])
                    start = end
                    if chance.random() < 0.7:
                        await heard.until(sent)

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            answers = [await answer(reader) for _ in requests]
        assert [status for status, _ in answers] == [status for _, status in made]
        numbers = [n for n, (request, _) in enumerate(made) if b'"labels"' in request]
        assert [number_of(answers[n][1]) for n in numbers] == numbers
        assert len(world.intake.drafts) == sum(status == 201 for _, status in made)
        assert world.gateway.admission.under_way == 0


# --- the life of a connection


async def test_a_client_that_leaves_leaves_its_task(
    went: list[bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tests.gateway.served.Admission", Signal)
    async with world_of() as world, asyncio.timeout(10):
        admission, held = world.gateway.admission, Held(world, monkeypatch)
        assert isinstance(admission, Signal)
        for reset in (False, True):
            held.reached.clear()
            async with waited_for(world) as (_, writer):
                writer.write(submit())
                await held.reached.wait()
                admission.ended.clear()
                if reset:
                    client = writer.get_extra_info("socket")
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await admission.ended.wait()
            assert admission.under_way == 0
        held.open.set()
    assert went == [True, True]
    assert admission.under_way == 0
    assert len(world.intake.drafts) == 2
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_a_submit_under_way_keeps_its_connection_and_an_idle_one_is_closed(
    went: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world_of(bounds=Bounds(idle_s=0.2)) as world, waited_for(world) as (reader, writer):
        held = Held(world, monkeypatch)
        for _ in range(2):
            held.open.clear()
            writer.write(submit())
            await asyncio.sleep(0.5)
            held.open.set()
            assert (await answer(reader))[0] == 201
        assert went == [True, True]
        assert await rest(reader) == b""


async def test_every_submit_prolongs_the_life_of_its_connection(went: list[bool]) -> None:
    async with world_of(bounds=Bounds(idle_s=0.6)) as world, waited_for(world) as (reader, writer):
        for body in (BODY, b"no JSON") * 5:
            writer.write(submit(body))
            await answer(reader)
            await asyncio.sleep(0.1)
        assert went == [True] * 10
        assert await rest(reader) == b""


async def test_a_refusal_begins_no_head(went: list[bool]) -> None:
    """What is answered at once leaves the connection idle, not slow."""
    async with world_of(bounds=Bounds(head_s=0.1)) as world, waited_for(world) as (reader, writer):
        for _ in range(2):
            writer.write(submit(b"no JSON"))
            assert (await answer(reader))[0] == 400
            await asyncio.sleep(0.3)
        assert went == [True, True]
        writer.write(b"G")
        status, _ = await answer(reader)
        assert status == 408, "a slow one is still given up"


async def test_a_submit_under_way_is_answered_before_the_server_ends(
    went: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world_of() as world, waited_for(world) as (reader, writer), asyncio.timeout(10):
        held, runner = Held(world, monkeypatch), world.server.runner
        assert runner is not None
        shutting = asyncio.Event()
        shutdown = Connection.shutdown

        async def told(self: Connection, timeout: float | None = None) -> None:
            shutting.set()
            await shutdown(self, timeout)

        monkeypatch.setattr(Connection, "shutdown", told)
        writer.write(submit())
        await held.reached.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(runner.cleanup())
            await shutting.wait()
            held.open.set()
            assert (await answer(reader))[0] == 201
            assert await reader.read() == b""
        assert went == [True]
        assert world.gateway.admission.under_way == 0


async def test_a_commit_that_never_ends_does_not_keep_the_server(
    went: list[bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with world_of() as world, waited_for(world) as (reader, writer), asyncio.timeout(10):
        held, runner = Held(world, monkeypatch), world.server.runner
        assert isinstance(runner, Runner)
        runner._shutdown_timeout = 0.1
        writer.write(submit())
        await held.reached.wait()
        await runner.cleanup()
        assert await reader.read() == b""
        held.open.set()
    assert went == [True]
    assert world.gateway.admission.under_way == 0
    assert len(world.intake.drafts) == 1
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_a_commit_may_end_in_the_moment_when_the_server_gives_it_up(
    went: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the end of the wait and who waits hearing of it."""
    async with world_of() as world, waited_for(world) as (reader, writer), asyncio.timeout(10):
        held, connection = Held(world, monkeypatch), connection_of(world)
        writer.write(submit())
        await held.reached.wait()
        async with asyncio.TaskGroup() as group:
            ending = group.create_task(connection.shutdown(60))
            await asyncio.sleep(0)
            assert connection._handler_waiter is not None
            connection._handler_waiter.cancel()
            connection._answer(b"")
            await asyncio.sleep(0)
            connection.close()
            await ending
        assert await reader.read() == b""
        held.open.set()
    assert went == [True]


async def test_who_submits_and_does_not_read_is_cut_off(went: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {f"l{number}": "x" * 255 for number in range(16)}
    request = submit(orjson.dumps({"delay": "1h", "labels": labels}))
    lost = asyncio.Event()
    connection_lost = Connection.connection_lost

    def tell(self: Connection, exc: BaseException | None) -> None:
        connection_lost(self, exc)
        lost.set()

    monkeypatch.setattr(Connection, "connection_lost", tell)
    monkeypatch.setattr("tests.gateway.served.Admission", Signal)
    async with (
        world_of(bounds=Bounds(stall_s=0.1)) as world,
        waited_for(world) as (_, writer),
        asyncio.timeout(20),
    ):
        admission, connection = world.gateway.admission, connection_of(world)
        assert isinstance(admission, Signal)
        assert connection.transport is not None
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        while not connection.writing_paused:
            admission.ended.clear()
            writer.write(request)
            await admission.ended.wait()
        await lost.wait()
        assert len(went) > 10
        assert all(went)
        assert world.gateway.admission.under_way == 0


async def test_many_connections_that_break_off_leave_nothing(
    went: list[bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(7)
    async with world_of() as world:
        held, runner = Held(world, monkeypatch), world.server.runner
        world.gateway.admission.limit = 10_000
        assert isinstance(runner, Runner)

        async def visit(number: int) -> None:
            async with waited_for(world) as (reader, writer):
                writer.write(numbered(number) + (b"", LIVE, b"GET")[number % 3])
                if number % 5 == 0:
                    held.open.set()
                    assert number_of((await answer(reader))[1]) == number
                    held.open.clear()
                for _ in range(chance.randrange(5)):
                    await asyncio.sleep(0)
                writer.transport.abort()

        for start in range(0, 400, 100):
            async with asyncio.TaskGroup() as group:
                for number in range(start, start + 100):
                    group.create_task(visit(number))
        held.open.set()
        async with asyncio.timeout(10):
            assert runner.server is not None
            for _ in range(1_000):
                if not runner.server.connections:
                    break
                await asyncio.sleep(0.01)
            assert not runner.server.connections
        assert world.gateway.admission.under_way == 0
    assert any(went)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


# --- admission


async def test_one_on_the_short_way_takes_a_place_and_a_refusal_never_overtakes_its_answer(
    went: list[bool], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        world_of() as world,
        waited_for(world) as (reader, writer),
        waited_for(world) as (other, asks),
    ):
        held, admission = Held(world, monkeypatch), world.gateway.admission
        admission.limit = 1
        writer.write(numbered(1))
        await held.reached.wait()
        assert admission.under_way == 1
        before = heard.bytes
        writer.write(numbered(2))
        await heard.until(before + len(numbered(2)))
        asks.write(submit())
        assert (await answer(other))[0] == 503
        assert admission.refused == 1
        held.open.set()
        assert [number_of((await answer(reader))[1]) for _ in range(2)] == [1, 2]
        assert admission.under_way == 0
        asks.write(submit())
        assert (await answer(other))[0] == 201
        assert went == [True, True]


async def test_a_refusal_is_counted_as_an_end(went: list[bool]) -> None:
    async with world_of() as world, waited_for(world) as (reader, writer):
        for request in (submit(b"no JSON"), submit(host=b"Host: evil.example\r\n"), submit(b'{"queue":"new"}')):
            writer.write(request)
            await answer(reader)
            assert world.gateway.admission.under_way == 0
        assert went == [True, True, False]


# --- what must not happen


async def test_an_answer_that_can_t_be_written_is_not_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world_of() as world:
        loop = asyncio.get_running_loop()
        receipt: asyncio.Future[Receipt] = loop.create_future()
        monkeypatch.setattr(world.intake, "submit_one", lambda draft: receipt)
        answers: list[bytes] = []
        surfaced: list[object] = []
        loop.set_exception_handler(lambda _, context: surfaced.append(context["exception"]))
        error = RuntimeError("a closed connection")

        def fails(answer: bytes) -> None:
            answers.append(answer)
            raise error

        decoder = TaskDecoder(world.gateway.queues, world.gateway.queue_store, world.gateway.codec, 1_000)
        headers = CIMultiDictProxy(CIMultiDict({"Host": "a"}))
        assert Express(world.gateway, decoder).submit(headers, BODY, fails)
        receipt.set_result(Receipt("018f0000-0000-7000-8000-000000000000", 0, State.SCHEDULED, True, NOW_MS, 0))
        await asyncio.sleep(0)
        assert [answer.split()[1] for answer in answers] == [b"201"]
        assert surfaced == [error]


@pytest.mark.parametrize("first", [LIVE, submit()])
async def test_what_looks_like_a_submit_within_a_head_is_not_refused_as_one(first: bytes) -> None:
    """Else its sender would get an answer, and the next request would become a part of the head."""
    looks_so = b"POST /v1/tasks HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
    async with world_of() as world, waited_for(world) as (reader, writer):
        writer.write(first + b"POST /v1/nothing HTTP/1.1\r\nHost: a\r\nX: ")
        assert (await answer(reader))[0] < 300
        world.gateway.admission.limit = 0
        writer.write(looks_so)
        assert (await answer(reader))[0] == 404
        for request in (submit(), LIVE, submit()):
            writer.write(request)
            assert (await answer(reader))[0] == (200 if request == LIVE else 503)
        assert world.gateway.admission.refused == 2


@pytest.mark.parametrize(
    "fields", [b"Transfer-Encoding : chunked\r\n", b"Content-Length: 14\r\n", b"content-length: 1\r\n"]
)
async def test_a_submit_whose_length_is_in_doubt_is_not_refused_by_it(fields: bytes) -> None:
    async with world_of() as world, waited_for(world) as (reader, writer):
        world.gateway.admission.limit = 0
        writer.write(submit(fields=fields))
        assert (await answer(reader))[0] == 400
        assert await rest(reader) == b""


async def test_a_connection_whose_parser_breaks_leaves_no_task(caplog: pytest.LogCaptureFixture) -> None:
    async with world_of() as world, waited_for(world) as (reader, writer):
        connection = connection_of(world)
        task = connection._task_handler
        assert task is not None
        assert connection._manager is not None
        connection._manager.handler_cancellation = False  # as in the service
        connection._parser = Mock(feed_data=Mock(side_effect=ValueError("a bug")))
        writer.write(submit())
        assert await rest(reader) == b""
        assert (await asyncio.wait([task], timeout=5))[1] == set()
    assert "a bug" in caplog.text
