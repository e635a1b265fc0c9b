"""Pulled tasks between nodes, over real sockets: they go to where workers are, and nothing is lost with a link."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from actors import parked
from actors.core.errors import Overloaded, Unavailable
from actors.core.events import Verdict
from actors.core.lease import Extension, Lent, Said
from actors.core.wire import Frame, Message, Moved, Reports, Taken, encode
from gateway import guest, link, peers
from gateway.commands_api import MAX_RESULT_BYTES
from gateway.context import Settings
from gateway.guest import STEP, STEP_BYTES
from gateway.link import FRAME_BYTES, OUTBOX
from gateway.peers import REPORTED
from tests.gateway.lent import EPOCH, a_kept, a_lent, a_report, a_word
from tests.gateway.linked import End, end, pair
from tests.support.builders import LABELS, TRACE, task_id

MAIL = 7
PAYLOAD = Settings().payload_bytes
"""Of the largest task."""


@asynccontextmanager
async def lending() -> AsyncIterator[tuple[End, End]]:
    """A node with workers, and the owner of tasks that it wants."""
    async with pair() as (a, b):
        a.peers.want([MAIL])
        await b.node.until(lambda: list(b.node.lending.takers.values()) == [[MAIL]])
        yield a, b


def ids(*numbers: int) -> list[str]:
    return [task_id(number) for number in numbers]


# --- what is wanted


async def test_what_workers_want_is_told_and_what_there_is_is_told_back() -> None:
    async with lending() as (a, b):
        b.node.lending.taker.supply([MAIL])
        await a.node.until(lambda: a.node.pulling.supplies == [("boot-b", [MAIL])])
        a.peers.want([])
        await b.node.until(lambda: list(b.node.lending.takers.values()) == [[]])


async def test_whoever_is_linked_later_is_told_what_is_wanted() -> None:
    async with end("boot-a") as a, end("boot-b") as b:
        a.peers.want([MAIL, 8])
        a.see(b)
        b.see(a)
        await b.node.until(lambda: list(b.node.lending.takers.values()) == [[MAIL, 8]])
        a.see()
        await b.node.until(lambda: b.node.lending.takers == {})
        b.see()


async def test_a_link_that_breaks_takes_its_wants_along_and_says_them_again() -> None:
    async with lending() as (a, b):
        former = b.node.lending.taker
        await (await a.linked(b)).cut()
        await b.node.until(lambda: former not in b.node.lending.takers and bool(b.node.lending.takers))
        assert list(b.node.lending.takers.values()) == [[MAIL]]


# --- tasks


async def test_tasks_are_taken_with_all_that_they_have() -> None:
    async with lending() as (a, b):
        tasks = [
            a_lent(1, MAIL, payload=b'{"a":1}', labels=LABELS, trace=TRACE),
            a_lent(2, MAIL, payload=b"\x00\xff", content_type="image/png"),
            a_lent(3, MAIL, attempt=9),
        ]
        b.node.lending.due[MAIL] = list(tasks)
        assert await a.peers.take("boot-b", MAIL, 2, 0, len) == (tasks[:2], True)
        assert await a.peers.take("boot-b", MAIL, 2, 0, len) == (tasks[2:], False)
        assert await a.peers.take("boot-b", MAIL, 2, 0, len) == ([], False)
        assert b.node.lending.taken == [2, 2, 2]


class Parts:
    """What came in parts, and for how many more there is room after each."""

    def __init__(self, *rooms: int) -> None:
        self._rooms = iter(rooms)
        self.came: asyncio.Queue[list[Lent]] = asyncio.Queue()

    def take(self, tasks: list[Lent]) -> int:
        self.came.put_nowait(tasks)
        return next(self._rooms)


async def confirmed(a: End, b: End) -> None:
    """What `a` has said so far has been heard."""
    a.peers.want([MAIL, 8])
    await b.node.until(lambda: list(b.node.lending.takers.values()) == [[MAIL, 8]])


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes stay for longer than a test."""
    monkeypatch.setattr(parked, "WAIT_MS", 30_000)


@pytest.mark.usefixtures("_patient")
async def test_what_comes_due_next_comes_in_parts_as_there_is_room() -> None:
    async with lending() as (a, b), asyncio.TaskGroup() as group:
        taker, parts = b.node.lending.taker, Parts(0, 1, 5, 0)
        staying = group.create_task(a.peers.take("boot-b", MAIL, 4, 2, parts.take))
        assert await parts.came.get() == [], "there was nothing yet"
        taker.supply([8])
        await a.node.until(lambda: a.node.pulling.supplies == [("boot-b", [8])])
        b.node.lending.due[MAIL] = [a_lent(1, MAIL)]
        taker.supply([MAIL])
        assert await parts.came.get() == [a_lent(1, MAIL)]
        await confirmed(a, b)
        b.node.lending.due[MAIL] = [a_lent(2, MAIL), a_lent(3, MAIL), a_lent(4, MAIL)]
        taker.supply([MAIL])
        assert await parts.came.get() == [a_lent(2, MAIL), a_lent(3, MAIL)], (
            "one was left of two, and room for one more"
        )
        assert await parts.came.get() == [a_lent(4, MAIL)]
        assert b.node.lending.taken == [4, 2, 2, 5]
        a.peers.want([])
        assert await staying == ([], False)


@pytest.mark.usefixtures("_patient")
async def test_of_parts_those_that_were_not_confirmed_are_given_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    say, lost = guest.Guest._say_now, asyncio.Event()

    def lose(self: guest.Guest, message: Message) -> None:
        if isinstance(message, Taken) and [task.id for task in message.tasks] == ids(2):
            lost.set()
        else:
            say(self, message)

    monkeypatch.setattr(guest.Guest, "_say_now", lose)
    async with lending() as (a, b), asyncio.TaskGroup() as group:
        taker, parts = b.node.lending.taker, Parts(0, 5)
        waits = group.create_task(unavailable(a.peers.take("boot-b", MAIL, 9, 4, parts.take)))
        assert await parts.came.get() == []
        b.node.lending.due[MAIL] = [a_lent(1, MAIL)]
        taker.supply([MAIL])
        assert await parts.came.get() == [a_lent(1, MAIL)]
        await confirmed(a, b)
        b.node.lending.due[MAIL] = [a_lent(2, MAIL)]
        taker.supply([MAIL])
        await lost.wait()
        await (await a.linked(b)).cut()
        await waits
        await b.node.until(lambda: b.node.lending.given_back == ids(2))


@pytest.mark.usefixtures("_patient")
async def test_parts_that_a_node_does_not_read_wait_for_it_in_their_order() -> None:
    async with lending() as (a, b), asyncio.TaskGroup() as group:
        taker, parts = b.node.lending.taker, Parts(*[0] * 20)
        assert isinstance(taker, guest.Guest)
        staying = group.create_task(a.peers.take("boot-b", MAIL, 1_000, 900, parts.take))
        assert await parts.came.get() == []
        transport = deafen(await a.linked(b))
        count = 0
        while not taker._outbox:
            b.node.lending.due[MAIL] = [a_lent(count + n, MAIL, payload=bytes(PAYLOAD)) for n in range(10)]
            taker.supply([MAIL])
            count += len(b.node.lending.due[MAIL]) or 10
        transport.resume_reading()
        came: list[str] = []
        while len(came) < count:
            came += [task.id for task in await parts.came.get()]
        assert came == ids(*range(count))
        a.peers.want([])
        await staying


def deafen(to: link.Link) -> asyncio.ReadTransport:
    """Its node reads nothing any more, until `resume_reading`."""
    assert to._socket is not None
    transport = to._socket._transport
    assert transport is not None
    transport.pause_reading()
    return transport


async def unavailable(taking: Awaitable[object]) -> None:
    with pytest.raises(Unavailable):
        await taking


async def test_a_take_that_stays_ends_with_its_time_or_with_what_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with lending() as (a, b), asyncio.TaskGroup() as group:
        assert await a.peers.take("boot-b", MAIL, 2, 1, len) == ([], False)
        monkeypatch.setattr(parked, "WAIT_MS", 30_000)
        waits = group.create_task(a.peers.take("boot-b", MAIL, 2, 1, len))
        await b.node.until(lambda: b.node.lending.taken == [2, 2])
        a.peers.want([])
        assert await waits == ([], False)


async def test_what_came_is_confirmed_and_not_given_to_others() -> None:
    async with lending() as (a, b):
        b.node.lending.due[MAIL] = [a_lent(1, MAIL)]
        former = b.node.lending.taker
        await a.peers.take("boot-b", MAIL, 5, 0, len)
        await a.peers.take("boot-b", MAIL, 5, 0, len)  # what was said before it has arrived
        assert isinstance(former, guest.Guest)
        assert former._unconfirmed == {}
        await (await a.linked(b)).cut()
        await b.node.until(lambda: former not in b.node.lending.takers)
        assert b.node.lending.given_back == []


async def test_what_was_on_its_way_when_a_link_broke_is_given_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    say, held = guest.Guest._say_now, asyncio.Event()

    def lose(self: guest.Guest, message: Message) -> None:
        if isinstance(message, Taken):
            held.set()
        else:
            say(self, message)

    monkeypatch.setattr(guest.Guest, "_say_now", lose)
    async with lending() as (a, b), asyncio.TaskGroup() as group:
        b.node.lending.due[MAIL] = [a_lent(1, MAIL), a_lent(2, MAIL)]
        taking = group.create_task(refused(a))
        await held.wait()
        await (await a.linked(b)).cut()
        assert isinstance(await taking, Unavailable)
        await b.node.until(lambda: b.node.lending.given_back == ids(1, 2))


async def refused(a: End, boot: str = "boot-b") -> Exception:
    with pytest.raises((Unavailable, Overloaded)) as caught:
        await a.peers.take(boot, MAIL, 5, 0, len)
    return caught.value


async def test_of_a_node_that_is_not_linked_nothing_is_taken() -> None:
    async with pair() as (a, b):
        assert isinstance(await refused(a, "boot-x"), Unavailable)
        a.see()
        assert isinstance(await refused(a), Unavailable)
        assert not a.peers.report("boot-b", "default", [a_report(1)])
        assert not a.peers.extend("boot-b", "default", [Extension(task_id(1), EPOCH, 1)])
        assert b.node.lending.taken == []


async def test_many_tasks_are_taken_in_steps_and_large_ones_in_parts() -> None:
    async with lending() as (a, b):
        b.node.lending.due[MAIL] = [a_lent(n, MAIL, payload=b"{}") for n in range(3 * STEP)]
        tasks, more = await a.peers.take("boot-b", MAIL, 2 * STEP + 1, 0, len)
        assert ([task.id for task in tasks], more) == (ids(*range(2 * STEP + 1)), True)
        assert b.node.lending.taken == [STEP, STEP, 1]
        b.node.lending.due[MAIL] = [a_lent(n, MAIL, payload=bytes(PAYLOAD)) for n in range(2 * STEP)]
        tasks, more = await a.peers.take("boot-b", MAIL, 500, 0, len)
        assert (len(tasks), more) == (STEP, True), "no more than a frame can bear"
        assert STEP * PAYLOAD >= STEP_BYTES


async def test_the_most_that_is_given_at_once_fits_a_frame_whatever_else_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames: list[tuple[int, int]] = []

    def watched(frame: Frame) -> bytes:
        data = encode(frame)
        frames.append((len(data), len(frame.messages)))
        return data

    monkeypatch.setattr(guest, "encode", watched)
    async with lending() as (a, b):
        nearly = (STEP_BYTES - 1) // STEP
        b.node.lending.due[MAIL] = [a_lent(n, MAIL, payload=bytes(nearly)) for n in range(STEP)]
        b.node.lending.due[MAIL] += [a_lent(n, MAIL, payload=bytes(PAYLOAD)) for n in range(STEP, 2 * STEP)]
        taker = b.node.lending.taker
        for n in range(50):
            taker.answer([a_word(n, detail="x" * 1_000) for n in range(n, n + 100)])
        tasks, _ = await a.peers.take("boot-b", MAIL, 500, 0, len)
        assert len(tasks) == 2 * STEP
        await a.node.until(lambda: len(a.node.pulling.words) == 5_000)
        assert max(frames)[0] <= FRAME_BYTES
        assert max(frames)[1] == 1, "the tasks went by themselves"
        assert await a.peers.look("boot-b", []) == [], "the link lives"


# --- what workers say


async def test_reports_are_carried_and_answered() -> None:
    async with lending() as (a, b):
        reports = [
            a_report(1, result=b'{"a":1}'),
            a_report(2, verdict=Verdict.FAILED, error="x", retry_after_ms=5, jitter=0.25),
            a_report(3, verdict=Verdict.SNOOZED, retry_after_ms=7),
        ]
        assert a.peers.report("boot-b", "acme", reports)
        await b.node.until(lambda: b.node.lending.reported)
        ((taker, tenant, told),) = b.node.lending.reported
        assert (taker, tenant, told) == (b.node.lending.taker, "acme", reports)
        words = [a_word(1, state="succeeded"), a_word(2, Said.OVER, state="dead", detail="x"), a_word(3, Said.UNSURE)]
        taker.answer(words)
        await a.node.until(lambda: a.node.pulling.words == words)


async def test_extensions_are_carried_and_answered() -> None:
    async with lending() as (a, b):
        extensions = [Extension(task_id(1), EPOCH, 1, 5_000), Extension(task_id(2), EPOCH, 3)]
        assert a.peers.extend("boot-b", "acme", extensions)
        await b.node.until(lambda: b.node.lending.extended)
        ((taker, tenant, told),) = b.node.lending.extended
        assert (tenant, told) == ("acme", extensions)
        kept = [a_kept(1), a_kept(2, Said.OVER, attempt=3)]
        taker.keep(kept)
        await a.node.until(lambda: a.node.pulling.kept == kept)


async def test_what_was_cancelled_is_told() -> None:
    async with lending() as (a, b):
        b.node.lending.taker.revoke([(task_id(1), 1), (task_id(2), 4)])
        await a.node.until(lambda: a.node.pulling.revoked == [(task_id(1), 1), (task_id(2), 4)])


async def test_that_a_worker_came_here_is_told_to_where_it_was() -> None:
    async with pair() as (a, b):
        moved: list[str] = []

        def hear(some: list[str]) -> None:
            moved.extend(some)
            b.node.news.set()

        b.peers.moved = hear
        b.see()  # the next link is of a guest that tells of it
        a.see()
        b.see(a)
        a.see(b)
        await a.linked(b)
        a.peers.tell_moved(ids(*range(2 * REPORTED + 1)))
        await b.node.until(lambda: len(moved) == 2 * REPORTED + 1)
        assert moved == ids(*range(2 * REPORTED + 1))


# --- bounds


async def test_many_large_results_go_in_frames_that_fit() -> None:
    async with lending() as (a, b):
        reports = [a_report(n, result=bytes(MAX_RESULT_BYTES)) for n in range(500)]
        assert a.peers.report("boot-b", "acme", reports)
        await b.node.until(lambda: sum(len(told) for _, _, told in b.node.lending.reported) == 500)
        assert [told.id for _, _, some in b.node.lending.reported for told in some] == ids(*range(500))
        assert all(
            sum(len(told.result or b"") for told in some) <= peers.REPORTED_BYTES
            for _, _, some in b.node.lending.reported
        )
        assert list(b.node.lending.takers) == [b.node.lending.taker], "over one link"


async def test_many_small_results_go_in_few_messages() -> None:
    async with lending() as (a, b):
        assert a.peers.report("boot-b", "acme", [a_report(n) for n in range(2 * REPORTED + 1)])
        await b.node.until(lambda: len(b.node.lending.reported) == 3)
        assert [len(told) for _, _, told in b.node.lending.reported] == [REPORTED, REPORTED, 1]


async def test_the_extensions_of_many_workers_go_in_frames_that_fit() -> None:
    async with lending() as (a, b):
        for _ in range(40):
            assert a.peers.extend("boot-b", "acme", [Extension(task_id(n), EPOCH, 1) for n in range(10_000)])
        await b.node.until(lambda: sum(len(told) for _, _, told in b.node.lending.extended) == 400_000)
        taker = b.node.lending.taker
        for _, _, told in b.node.lending.extended:
            taker.keep([a_kept(n) for n in range(len(told))])
        await a.node.until(lambda: len(a.node.pulling.kept) == 400_000)
        assert b.node.lending.taker is taker, "over one link"


async def test_a_full_link_takes_no_more_of_what_workers_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "OUTBOX", 20)
    async with lending() as (a, b):
        assert a.peers.report("boot-b", "acme", [a_report(n) for n in range(20)])
        assert not a.peers.report("boot-b", "acme", [a_report(21)])
        assert not a.peers.extend("boot-b", "acme", [Extension(task_id(1), EPOCH, 1)])
        assert isinstance(await refused(a), Unavailable)
        await b.node.until(lambda: len(b.node.lending.reported) == 1)
        assert a.peers.report("boot-b", "acme", [a_report(22)])


@pytest.mark.parametrize(
    ("message", "weight"),
    [
        (Reports("acme", [a_report(n) for n in range(7)]), 7),
        (Reports("acme", [a_report(1, result=bytes(64 * 1024))]), 17),
        (Moved(ids(*range(500))), 11),
    ],
)
def test_what_a_message_weighs(message: Message, weight: int) -> None:
    assert link._weight(message) == weight
    assert weight < OUTBOX
