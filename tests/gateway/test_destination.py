"""Many calls to one host: who gets which line, how many are made, and what becomes of calls when none can be."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp.connector import Connection

from actors.core.task import Phase
from gateway import destination
from gateway.call import LeaseEnded
from gateway.client import Client, open_client
from gateway.destination import DIALS, Destination
from gateway.reply import Reply
from gateway.targets import TargetPolicy
from gateway.webhook import Plan
from tests.support.dispatch import NOW_MS, webhook
from tests.support.letters import unsigned
from tests.support.raw_target import OK, Exchange, hangs, raw_target, says


class Sender:
    """A client whose connecting can be held up, and what its calls came to."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.results: list[tuple[int, Reply | Exception]] = []
        self.dials = 0
        self.free_dials = 1 << 30
        """How many may go through before all further ones wait for `gate`."""
        self.gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lease = True
        self.spoil: Callable[[Connection], object] = lambda connection: None
        """What happens to each connection before anybody has it."""
        self._told = asyncio.Event()
        self._connect = client._connector.connect
        client._connector.connect = self._dial  # type: ignore[method-assign]

    async def _dial(self, *args: Any, **settings: Any) -> Connection:
        self.dials += 1
        if self.dials > self.free_dials:
            await asyncio.shield(self.gate)
        connection: Connection = await self._connect(*args, **settings)
        self.spoil(connection)
        return connection

    def send(self, url: str, *numbers: int, limit_s: float = 30.0) -> None:
        for n in numbers:
            task = webhook(url, n=n)
            task.phase = Phase.RUNNING
            letter = Plan(task.spec).letter(task, "fence", NOW_MS, unsigned)
            self.client.send(letter, limit_s, lambda result, n=n: self._tell(n, result))  # type: ignore[misc]

    def _tell(self, n: int, result: Reply | Exception) -> None:
        self.results.append((n, result))
        self._told.set()

    async def until(self, count: int) -> list[int]:
        """Wait for so many ends; whose they are, in their order."""
        while len(self.results) < count:
            self._told.clear()
            await self._told.wait()
        return [n for n, _ in self.results]

    @property
    def host(self) -> Destination:
        (known,) = self.client._destinations.values()
        return known


@asynccontextmanager
async def sender() -> AsyncIterator[Sender]:
    made: list[Sender] = []
    async with open_client(TargetPolicy(["loopback"]), lambda: made[0].lease, 512) as client:
        made.append(Sender(client))
        yield made[0]


async def test_a_burst_makes_few_lines_at_a_time_and_all_calls_are_made() -> None:
    most = 0

    async def answer(exchange: Exchange) -> None:
        nonlocal most
        most = max(most, len(sending.host._dialing))
        await exchange.answer(OK)

    async with raw_target(answer) as target, sender() as sending:
        sending.send(target.url(), *range(300))
        assert len(sending.host._dialing) == DIALS
        await sending.until(300)
        assert all(isinstance(result, Reply) and result.status == 200 for _, result in sending.results)
        assert most <= DIALS
        assert target.connections < 150  # most took a line that had come free
        assert len({exchange.headers["webhook-id"] for exchange in target.exchanges}) == 300


async def test_who_waits_takes_the_first_line_that_comes_free() -> None:
    async with raw_target(says(OK)) as target, sender() as sending:
        sending.free_dials = 1
        sending.send(target.url(), 1, 2, 3)
        assert await sending.until(3) == [1, 2, 3]
        assert target.connections == 1
        sending.gate.set_result(None)


async def test_as_many_lines_are_made_as_calls_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "DIALS", 2)
    got = asyncio.Event()

    async def hang(exchange: Exchange) -> None:
        if len(target.exchanges) == 20:
            got.set()
        await hangs(exchange)

    async with raw_target(hang) as target, sender() as sending:
        sending.send(target.url(), *range(20))
        await got.wait()
        assert target.connections == 20
        assert not sending.host.busy


async def test_what_a_connection_fails_of_ends_one_call() -> None:
    async with raw_target(says(OK)) as target:
        url = target.url()
    async with sender() as sending:
        sending.send(url, *range(40))
        await sending.until(40)
        assert all(isinstance(result, aiohttp.ClientConnectorError) for _, result in sending.results)
        assert sending.dials == 40
        await asyncio.sleep(0)
        assert not sending.host.busy


def _close(connection: Connection) -> None:
    assert connection.transport is not None
    connection.transport.close()


def _lose(connection: Connection) -> None:
    assert connection.transport is not None
    assert connection.protocol is not None
    connection.transport.abort()
    connection.protocol.connection_lost(ConnectionResetError())


def _speak(connection: Connection) -> None:
    assert connection.protocol is not None
    connection.protocol.data_received(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("spoil", [_close, _lose, _speak])
async def test_a_connection_that_is_of_no_use_as_it_comes_ends_one_call(spoil: Callable[[Connection], None]) -> None:
    async with raw_target(says(OK)) as target, sender() as sending:
        sending.spoil = spoil
        sending.send(target.url(), *range(20), limit_s=0.5)
        await sending.until(20)
        assert all(isinstance(result, aiohttp.ServerDisconnectedError) for _, result in sending.results)
        assert sending.dials == 20
        assert not sending.client._connector._acquired
        assert target.exchanges == []


async def test_one_that_takes_too_long_ends_all_that_waited_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "DIALS", 2)
    async with raw_target(says(OK)) as target, sender() as sending:
        sending.free_dials = 0
        sending.send(target.url(), 1, 2, 3, 4)
        await asyncio.sleep(0.01)
        sending.send(target.url(), 5)
        sending.gate.set_exception(TimeoutError())
        assert await sending.until(4) == [1, 2, 3, 4]
        assert all(isinstance(result, aiohttp.ConnectionTimeoutError) for _, result in sending.results)
        sending.free_dials = 1 << 30
        await sending.until(5)
        assert isinstance(sending.results[4][1], Reply)


async def test_a_call_whose_time_is_over_while_it_waits_takes_its_dial_along() -> None:
    async with raw_target(says(OK)) as target, sender() as sending:
        sending.free_dials = 0
        sending.send(target.url(), 1, 2, limit_s=0.02)
        sending.send(target.url(), 3)
        await sending.until(2)
        assert all(type(result) is TimeoutError for _, result in sending.results)
        await asyncio.sleep(0)
        assert len(sending.host._dialing) == 1
        sending.gate.set_result(None)
        assert await sending.until(3) == [1, 2, 3]
        assert target.connections == 1


async def test_a_lease_that_ends_while_calls_wait_ends_them_unsent() -> None:
    async with raw_target(says(OK)) as target, sender() as sending:
        sending.free_dials = 0
        sending.send(target.url(), 1, 2, 3)
        await asyncio.sleep(0)
        sending.lease = False
        sending.gate.set_result(None)
        await sending.until(3)
        assert all(isinstance(result, LeaseEnded) for _, result in sending.results)
        sending.lease = True
        sending.send(target.url(), 4)
        await sending.until(4)
        assert len(target.exchanges) == 1


async def test_to_leave_ends_what_waits_without_a_word() -> None:
    async with raw_target(says(OK)) as target:
        async with sender() as sending:
            sending.free_dials = 0
            sending.send(target.url(), *range(20), limit_s=0.02)
        await asyncio.sleep(0.05)
        assert (sending.results, target.connections) == ([], 0)


async def test_what_is_known_of_hosts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.client.KEPT_DESTINATIONS", 2)
    async with raw_target(says(OK)) as target, sender() as sending:
        for n in range(6):
            sending.send(f"http://127.0.0.{n + 1}:{target.port}/", n)
            await asyncio.sleep(0)
        await sending.until(6)
        assert len(sending.client._destinations) == 6  # all have a line: those are bounded by the pool
        sending.client._pool.close()
        sending.send(f"http://127.0.0.9:{target.port}/", 7)
        await sending.until(7)
        assert len(sending.client._destinations) <= 2


async def test_a_host_is_known_as_long_as_it_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or who waits for one would not hear that it came free."""
    monkeypatch.setattr("gateway.client.KEPT_DESTINATIONS", 1)
    answer = asyncio.Event()

    async def late(exchange: Exchange) -> None:
        await answer.wait()
        await exchange.answer(OK)

    async with raw_target(late) as target, raw_target(says(OK)) as other, sender() as sending:
        sending.send(target.url(), 1)
        await target.got.wait()
        sending.send(other.url(), 2)
        await sending.until(1)
        sending.free_dials = 2
        sending.send(target.url(), 3, limit_s=0.5)
        answer.set()
        assert await sending.until(3) == [2, 1, 3]
        assert isinstance(sending.results[2][1], Reply)
        sending.gate.set_result(None)
