"""`traceparent`: taken from the request, kept with the task, sent on."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.trace import child_of, trace_of
from tests.gateway.served import served
from tests.support.builders import TRACE
from tests.support.dispatch import FakeNode, courier, webhook
from tests.support.raw_target import OK, raw_target, says

IDS, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def read(*values: str) -> str | None:
    return trace_of(CIMultiDict([("TraceParent", value) for value in values]))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (TRACE, TRACE),
        (f"00-{IDS}-{PARENT}-00", f"00-{IDS}-{PARENT}-00"),
        (f"00-{IDS}-{PARENT}-03", f"00-{IDS}-{PARENT}-03"),
        (f"00-{IDS}-{PARENT}-ff", f"00-{IDS}-{PARENT}-03"),  # unknown flags are not passed on
        (f"01-{IDS}-{PARENT}-01", TRACE),  # a later version is read as far as this one goes
        (f"cc-{IDS}-{PARENT}-01-what-the-future-brings", TRACE),
    ],
)
def test_a_valid_one_is_kept(text: str, kept: str) -> None:
    assert read(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"ff-{IDS}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{IDS}-{'0' * 16}-01",
        f"00-{IDS.upper()}-{PARENT}-01",
        f"00-{IDS}-{PARENT.upper()}-01",
        f"0-{IDS}-{PARENT}-01",
        f"00-{IDS[:-1]}-{PARENT}-01",
        f"00-{IDS}-{PARENT}0-01",
        f"00-{IDS}-{PARENT}-1",
        f"00-{IDS}-{PARENT}-0g",
        f"00-{IDS}-{PARENT}-01-more",  # not in version 00
        f"cc-{IDS}-{PARENT}-01.more",
        f"cc-{IDS}-{PARENT}-01-more\n",
        f"00-{IDS}-{PARENT}-01\n",
        f" {TRACE}",
        f"{TRACE} ",
        f"{TRACE},{TRACE}",
        TRACE.replace("0", "\u0660"),
    ],
)
def test_any_other_is_ignored(text: str) -> None:
    assert read(text) is None


def test_none_and_two_are_none() -> None:
    assert read() is None
    assert read(TRACE, TRACE) is None


@given(st.text())
def test_whatever_it_says_nothing_but_a_valid_one_gets_through(text: str) -> None:
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", read(text) or TRACE)


def test_every_attempt_is_a_parent_of_its_own() -> None:
    children = [child_of(TRACE) for _ in range(100)]
    parents = {re.fullmatch(rf"00-{IDS}-([0-9a-f]{{16}})-01", child)[1] for child in children}  # type: ignore[index]
    assert len(parents) == 100
    assert PARENT not in parents
    assert all(read(child) == child for child in children)


async def test_a_target_gets_the_trace_with_a_new_parent() -> None:
    node = FakeNode()
    users = {"TraceParent": f"00-{'1' * 32}-{'2' * 16}-00"}
    async with raw_target(says(OK)) as target, courier(node):
        for n, task in enumerate(
            [
                webhook(target.url(), n=0, trace=TRACE),
                webhook(target.url(), n=1),
                webhook(target.url(), n=2, trace=TRACE, headers=users),
                webhook(target.url(), n=3, headers=users),
            ]
        ):
            node.offer([task])
            await node.until(n + 1)
        sent = [exchange.headers.get("traceparent") for exchange in target.exchanges]
        heads = [exchange.head.lower().count("traceparent") for exchange in target.exchanges]
    assert heads == [1, 0, 1, 1]
    for traced in (sent[0], sent[2]):
        assert traced is not None
        assert traced.startswith(f"00-{IDS}-")
        assert traced.endswith("-01")
        assert traced != TRACE
    assert sent[3] == users["TraceParent"]


@pytest.mark.parametrize(("text", "kept"), [(TRACE, TRACE), ("nonsense", None), (None, None)])
async def test_the_header_of_a_submit_is_that_of_its_tasks(text: str | None, kept: str | None) -> None:
    headers = {} if text is None else {"traceparent": text}
    async with served() as world:
        one = await world.send("POST", "/v1/tasks", {}, headers={**headers, "Content-Type": "application/json"})
        many = await world.send(
            "POST", "/v1/tasks:batch", [{}, {"queue": ""}, {}], headers={**headers, "Content-Type": "application/json"}
        )
        assert (one.status, many.status) == (201, 200)
        assert [draft.trace for draft in world.intake.drafts] == [kept] * 3


async def test_a_trace_is_no_part_of_what_a_key_stands_for() -> None:
    async with served() as world:
        answers = []
        for parent in ("1" * 16, "2" * 16):
            headers = {"Idempotency-Key": "k", "traceparent": f"00-{IDS}-{parent}-01"}
            answers.append(await world.send("POST", "/v1/tasks", {}, headers=headers))
    assert [answer.status for answer in answers] == [201, 200]
