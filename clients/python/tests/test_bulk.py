"""Many tasks: none twice, none lost, none read too early."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from aiohttp import web

from fake_service import Fake
from ringwheel import Client, Draft, Invalid, Unavailable

FAULTS = [0, 503, 500, 429, -500, -503]


def drafts(count: int) -> Iterator[Draft]:
    return (Draft("emails", number) for number in range(count))


async def test_each_exists_once_whatever_happens_to_requests(fake: Fake, client: Client) -> None:
    chance = random.Random(7)
    fake.faults.extend([lambda request: chance.choice(FAULTS)] * 12)
    progress: list[int] = []
    submitted = await client.submit_many(drafts(10_000), chunk=500, progress=progress.append)
    assert submitted.refused == []
    assert [fake.tasks[task_id or ""].body["payload"] for task_id in submitted.ids] == [*range(10_000)]
    assert len(fake.tasks) == 10_000
    assert progress == [*range(500, 10_001, 500)]


async def test_one_draft_may_be_many_tasks(fake: Fake, client: Client) -> None:
    draft = Draft("emails")
    submitted = await client.submit_many([draft] * 3)
    assert len({*submitted.ids}) == 3
    assert draft.key is None
    mine = await client.submit_many([Draft("emails", key="mine")] * 2)
    assert mine.ids[0] == mine.ids[1] == fake.keys["mine"]


async def test_a_refused_one_hurts_no_other(client: Client) -> None:
    submitted = await client.submit_many([Draft("a"), Draft("bad", 7), Draft("b")])
    assert [task_id is None for task_id in submitted.ids] == [False, True, False]
    [refused] = submitted.refused
    assert (refused.place, refused.draft.payload) == (1, 7)
    assert isinstance(refused.problem, Invalid)


async def test_one_that_could_not_be_taken_is_sent_again(fake: Fake, client: Client) -> None:
    asked: list[int] = []

    def full(request: web.Request) -> int:
        asked.append(1)
        return 200

    fake.faults.extend([full, full])
    fake.full = 1
    submitted = await client.submit_many(drafts(3))
    assert len({*submitted.ids}) == 3
    assert None not in submitted.ids
    assert len(asked) == 2


async def test_drafts_are_read_as_they_are_sent(fake: Fake, client: Client) -> None:
    read: list[int] = []
    gate = asyncio.Event()

    async def reading() -> AsyncIterator[Draft]:
        for number in range(100):
            read.append(number)
            yield Draft("emails", number)

    async with asyncio.TaskGroup() as group:
        fake.gate = gate
        submitting = group.create_task(client.submit_many(reading(), chunk=10, at_once=2))
        await fake.until(lambda: fake.requests["/v1/tasks:batch"] == 2)
        assert len(read) <= 30, "two on their way, one that waits"
        gate.set()
    assert len(submitting.result().ids) == 100


async def test_a_chunk_is_bounded_in_bytes_too(fake: Fake, client: Client) -> None:
    await client.submit_many(Draft("emails", "x" * 250_000) for _ in range(9))
    assert fake.requests["/v1/tasks:batch"] == 3


async def test_what_ends_it_is_raised_as_it_is(fake: Fake) -> None:
    def broken() -> Iterator[Draft]:
        yield Draft("emails")
        raise KeyError("mine")

    async with Client(fake.url, patience=0) as client:
        with pytest.raises(KeyError, match="mine"):
            await client.submit_many(broken())
        fake.faults.append(lambda request: 503)
        with pytest.raises(Unavailable):
            await client.submit_many(drafts(1))
        with pytest.raises(ValueError, match="a chunk has"):
            await client.submit_many(drafts(1), chunk=10_001)
        for at_once in (0, -1):
            with pytest.raises(ValueError, match="at_once is at least 1"):
                await client.submit_many(drafts(1), at_once=at_once)
        assert (await client.submit_many([])).ids == []


async def test_one_that_is_no_json_hurts_no_other(fake: Fake, client: Client) -> None:
    deep: list[Any] = []
    deep.append(deep)
    odd = [Draft("emails", payload) for payload in ("a", float("nan"), "b", object(), "c", deep)]
    told: list[int] = []
    done = await client.submit_many(odd, chunk=2, at_once=1, progress=told.append)
    assert done.ids == ["t1", None, "t2", None, "t3", None]
    assert [(refused.place, refused.draft, refused.problem.status) for refused in done.refused] == [
        (1, odd[1], 422),
        (3, odd[3], 422),
        (5, odd[5], 422),
    ]
    assert [str(refused.problem) for refused in done.refused[:2]] == [
        "422 Can't be sent: payload: NaN and infinite numbers are no JSON",
        "422 Can't be sent: Encoding objects of type object is unsupported",
    ]
    assert told[-1] == 6


async def test_what_is_no_draft_is_refused_by_its_place(fake: Fake, client: Client) -> None:
    odd: list[Any] = [Draft("emails"), {"queue": "emails"}]
    with pytest.raises(TypeError, match=r"^draft 1: expected a Draft, not a value of type dict$"):
        await client.submit_many(odd)
    assert fake.tasks == {}


def test_a_draft_keeps_the_key_that_it_has() -> None:
    assert b'"mine"' in Draft(key="mine").encoded("other")
    assert msgspec.json.decode(Draft().encoded("other"), type=dict[str, str]) == {"idempotency_key": "other"}
