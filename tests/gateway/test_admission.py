"""Admission: the limit as a rule, and what is refused on real sockets."""

import asyncio
from collections.abc import Sequence
from unittest.mock import Mock

import orjson
import pytest

from actors.core.draft import Draft, Receipt
from gateway.admission import LEAST, MOST, WINDOW_S, Admission
from tests.gateway.served import Served, served
from tests.gateway.test_connections import answer, connected

BODY = orjson.dumps({"delay": "1h"})
HEAD = b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(BODY)
WHOLE = HEAD + b"\r\n" + BODY
LIVE = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"


class Load:
    """As many submits at once as the limit lets in, each of which takes its time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr("gateway.admission.perf_counter", lambda: self.now_s)
        self.admission = Admission()

    def run(self, windows: int, took_s: float, most: int = MOST) -> float:
        """The limit after so many windows."""
        for _ in range(windows):
            count = 0
            while not self.admission.full and count < most:
                self.admission.begin()
                count += 1
            self.now_s += 1.01 * WINDOW_S
            for _ in range(count):
                self.admission.end(self.now_s - took_s)
        assert self.admission.under_way == 0
        return self.admission.limit


def test_the_limit_follows_what_submits_take(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(monkeypatch)
    first = load.run(1, 0.005)
    grown = load.run(20, 0.01)
    assert first < grown < MOST
    assert load.run(10, 0.5) < grown / 4
    assert load.run(100, 5.0) == LEAST, "never nothing"
    assert load.run(100, 0.01) > grown, "and back"
    assert load.run(1_000, 0.01) == MOST


def test_a_hiccup_is_no_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(monkeypatch)
    limit = load.run(1, 0.005)
    for _ in range(10):
        load.run(1, 2.0, most=100)
        load.run(3, 0.005, most=100)
    assert load.admission.limit == limit


def test_what_is_not_used_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(monkeypatch)
    limit = load.admission.limit
    assert load.run(100, 0.01, most=10) == limit


def test_a_slow_disk_is_no_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(monkeypatch)
    assert load.run(30, 0.2) > 256, "each takes 200 ms, however few there are"
    assert load.run(30, 1.0) < 256


async def test_one_too_many_is_refused_before_it_is_parsed_and_its_connection_stays() -> None:
    async with served() as world, connected(world) as (reader, writer):
        world.gateway.admission.limit = 0
        for _ in range(4):
            writer.write(WHOLE)
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(b": ", 1) for line in head.strip().split(b"\r\n")[1:])
            body = orjson.loads(await reader.readexactly(int(fields[b"Content-Length"])))
            assert (head.split()[1], body["status"], body["type"]) == (b"503", 503, "unavailable")
            assert 1 <= int(fields[b"Retry-After"]) <= 3
            assert fields[b"RateLimit"] == b'"submits";r=0;t=' + fields[b"Retry-After"]
        assert world.gateway.admission.refused == 4
        writer.write(LIVE)
        assert (await answer(reader))[0] == 200, "others are not refused"
        world.gateway.admission.limit = 1
        writer.write(WHOLE)
        assert (await answer(reader))[0] == 201
        assert world.intake.batches == 1


@pytest.mark.parametrize(
    "parts",
    [
        (HEAD + b"\r\n", BODY),
        (HEAD + b"\r\n" + BODY[:3], BODY[3:]),
        (HEAD[:30], HEAD[30:] + b"\r\n" + BODY),
        (HEAD.replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked") + b"\r\n0\r\n\r\n",),
    ],
)
async def test_one_too_many_that_comes_in_parts_is_read_and_refused(parts: tuple[bytes, ...]) -> None:
    async with served() as world, connected(world) as (reader, writer):
        world.gateway.admission.limit = 0
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
        assert (await answer(reader))[0] == 503
        writer.write(LIVE)
        assert (await answer(reader))[0] == 200
        assert world.gateway.admission.under_way == 0


async def ask(world: Served, request: bytes) -> int:
    async with connected(world) as (reader, writer):
        writer.write(request)
        return (await answer(reader))[0]


async def test_every_answer_ends_a_submit() -> None:
    async with served() as world:
        assert await ask(world, WHOLE) == 201
        assert await ask(world, WHOLE.replace(b'"1h"', b'"xh"')) == 422
        assert await ask(world, WHOLE.replace(b"Host: a", b"Host: evil.example")) == 403
        assert await ask(world, b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n") == 400
        world.intake.error = ValueError("a bug")
        assert await ask(world, WHOLE) == 500
        assert world.gateway.admission.under_way == 0


@pytest.mark.parametrize("held_back", [HEAD, HEAD + b"\r\n", HEAD + b"\r\n" + BODY[:3]])
async def test_what_a_client_holds_back_takes_no_place(held_back: bytes) -> None:
    async with served() as world, connected(world) as (_, slow), connected(world) as (reader, writer):
        world.gateway.admission.limit = 1
        writer.write(LIVE)
        assert (await answer(reader))[0] == 200
        slow.write(held_back)
        writer.write(LIVE)
        assert (await answer(reader))[0] == 200
        for _ in range(3):
            writer.write(WHOLE)
            assert (await answer(reader))[0] == 201
        assert world.gateway.admission.under_way == 0


@pytest.mark.parametrize("first", [(WHOLE,), (HEAD + b"\r\n", BODY)])
async def test_a_refusal_is_for_one_submit_alone(first: tuple[bytes, ...]) -> None:
    batch = WHOLE.replace(b"/v1/tasks", b"/v1/tasks:batch").replace(b": %d" % len(BODY), b": %d" % (len(BODY) + 2))
    batch = batch.replace(BODY, b"[" + BODY + b"]")
    async with served() as world, connected(world) as (reader, writer):
        writer.write(LIVE)
        assert (await answer(reader))[0] == 200
        world.gateway.admission.limit = 0
        for part in first:
            writer.write(part)
            await asyncio.sleep(0.01)
        assert (await answer(reader))[0] == 503
        world.gateway.admission.limit = 1
        writer.write(batch)
        assert (await answer(reader))[0] == 200


async def test_the_first_bytes_of_a_connection_may_be_one_too_many() -> None:
    """They often come with the connection, before anybody waits for them."""
    async with served() as world:
        world.gateway.admission.limit = 0
        runner = world.server.runner
        assert runner is not None
        made = runner.server
        assert made is not None
        connection, transport = made(), Mock(asyncio.Transport)
        connection.connection_made(transport)
        connection.data_received(WHOLE)
        (written,) = transport.write.call_args.args
        assert written.startswith(b"HTTP/1.1 503 ")
        connection.connection_lost(None)


async def test_one_too_many_that_asks_for_the_end_of_its_connection_gets_it() -> None:
    async with served() as world, connected(world) as (reader, writer), asyncio.timeout(10):
        world.gateway.admission.limit = 0
        writer.write(HEAD + b"Connection: close\r\n\r\n" + BODY)
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")


class Signal(Admission):
    """Tells of its beginnings and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    def begin(self) -> float:
        self.begun.set()
        return super().begin()

    def end(self, began_s: float) -> None:
        super().end(began_s)
        self.ended.set()


async def test_a_client_that_leaves_ends_its_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.gateway.served.Admission", Signal)
    async with served() as world, asyncio.timeout(10):
        admission = world.gateway.admission
        assert isinstance(admission, Signal)
        released = asyncio.Event()
        submit = world.intake.submit

        async def held(drafts: Sequence[Draft]) -> list[Receipt | Exception]:
            await released.wait()
            return await submit(drafts)

        monkeypatch.setattr(world.intake, "submit", held)
        async with connected(world) as (_, writer):
            writer.write(WHOLE)
            await admission.begun.wait()
        await admission.ended.wait()
        released.set()
        assert admission.under_way == 0
