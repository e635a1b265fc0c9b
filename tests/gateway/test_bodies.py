"""Cutting a batch into items, against the json module."""

import asyncio
import json
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import bodies
from gateway.bodies import FEW_BYTES, STEP_BYTES, WINDOW_BYTES, Item, cut_array, cut_lines
from gateway.problems import Problem

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
DEEP = b"[" * 3_000 + b"]" * 3_000


SPACE = b" " * FEW_BYTES
"""Makes a body long, so that its items are counted while they are decoded."""


def cut(body: bytes, limit: int = 100) -> Sequence[Item]:
    return asyncio.run(cut_array(body, limit))


async def turns_of(work: Coroutine[Any, Any, Any]) -> int:
    """How often the loop came round while `work` was done."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with asyncio.TaskGroup() as group:
        counting = group.create_task(count())
        try:
            await work
        except Problem:
            pass  # how it ends is another test's question
        counting.cancel()
    return turns


@given(st.lists(JSON, min_size=1, max_size=5), st.sampled_from([b"", SPACE]))
def test_items_are_what_the_array_holds(items: list[object], space: bytes) -> None:
    assert [json.loads(bytes(item)) for item in cut(space + json.dumps(items).encode())] == items


@given(st.lists(JSON, max_size=4), st.lists(JSON, max_size=4), st.sampled_from([DEEP, b"NaN", b"{a}", b'"\\ud800"']))
def test_what_can_not_be_decoded_leaves_its_neighbours_whole(
    before: list[object], after: list[object], bad: bytes
) -> None:
    texts = [json.dumps(item).encode() for item in before] + [bad] + [json.dumps(item).encode() for item in after]
    items = cut(b" [" + b" , ".join(texts) + b"] ")
    assert bytes(items[len(before)]).strip() == bad
    assert [json.loads(bytes(item)) for item in items[: len(before)]] == before
    assert [json.loads(bytes(item)) for item in items[len(before) + 1 :]] == after


@pytest.mark.parametrize("body", [b"[", b"[}", b'["]', b"[{]", b"[]]", b"[[]", b"x", b"", b"[NaN", b"NaN]", b"[NaN}{]"])
@pytest.mark.parametrize("space", [b"", SPACE])
def test_what_is_no_array_is_not_json(body: bytes, space: bytes) -> None:
    with pytest.raises(Problem) as caught:
        cut(body + space)
    assert caught.value.kind in {"not-json", "invalid"}


@pytest.mark.parametrize("filler", [b"0", b"NaN"])
@pytest.mark.parametrize("space", [b"", SPACE])
def test_the_limit_holds_however_the_array_is_cut(filler: bytes, space: bytes) -> None:
    assert len(cut(space + b"[" + b",".join([filler] * 100) + b"]")) == 100
    with pytest.raises(Problem) as caught:
        cut(space + b"[" + b",".join([filler] * 101) + b"]")
    assert caught.value.kind == "too-large"


def test_a_long_array_is_not_decoded_beyond_its_limit() -> None:
    with pytest.raises(Problem) as caught:
        cut(SPACE + b"[" + b"{}," * 100 + b"{},x")
    assert caught.value.kind == "too-large", "and not that what follows is no JSON"


@pytest.mark.parametrize(
    "text",
    [
        rb'"a,]"',
        rb'"\"],"',
        rb'"\\"',
        rb'"\\\"],"',
        b'"' + b"," * 3 * STEP_BYTES + b'"',
        b'"' + rb"\"" * STEP_BYTES + b'"',
        b" " * 3 * STEP_BYTES + b"1",
    ],
)
def test_texts_hide_what_they_hold_from_the_search(text: bytes) -> None:
    assert [bytes(item) for item in cut(b"[NaN," + text + b",NaN]")] == [b"NaN", text, b"NaN"]


@pytest.mark.parametrize("line", [b"\n", b" \n", b"{}\n" + b" " * 1_000 + b"\n"])
async def test_lines_are_cut_in_many_turns(line: bytes) -> None:
    body = line * (20 * WINDOW_BYTES // len(line))
    assert await turns_of(cut_lines(body, 10_000)) > 15


async def test_no_lines_are_cut_beyond_the_limit() -> None:
    with pytest.raises(Problem) as caught:
        await cut_lines(b"0\n" * WINDOW_BYTES * 4, 10)
    assert caught.value.kind == "too-large"
    assert await turns_of(cut_lines(b"0\n" * WINDOW_BYTES * 4, 10)) <= 1


@given(st.lists(st.sampled_from([b"", b" ", b"1", b"22", b"333"])), st.integers(1, 8))
def test_lines_are_the_same_whatever_the_window(lines: list[bytes], window: int) -> None:
    wanted = [line for line in lines if line.strip()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bodies, "WINDOW_BYTES", window)
        try:
            assert asyncio.run(cut_lines(b"\n".join(lines), 1_000)) == wanted
        except Problem:
            assert not wanted


def test_a_search_ends() -> None:
    body = b"[" + DEEP + b",[" + b"0," * 2_500_000 + b"0]]"
    with pytest.raises(Problem) as caught:
        cut(body)
    assert caught.value.kind == "not-json"


async def test_lines_may_end_as_they_like() -> None:
    assert [bytes(line).strip() for line in await cut_lines(b'{"a":1}\r\n\n  \n{"b":2}', 2)] == [b'{"a":1}', b'{"b":2}']
