"""Cutting a batch into items, against the json module."""

import asyncio
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bodies import Item, cut_array, cut_lines
from gateway.problems import Problem

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
DEEP = b"[" * 3_000 + b"]" * 3_000


def cut(body: bytes, limit: int = 100) -> Sequence[Item]:
    return asyncio.run(cut_array(body, limit))


@given(st.lists(JSON, min_size=1, max_size=5))
def test_items_are_what_the_array_holds(items: list[object]) -> None:
    assert [json.loads(bytes(item)) for item in cut(json.dumps(items).encode())] == items


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
def test_what_is_no_array_is_not_json(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        cut(body)
    assert caught.value.kind in {"not-json", "invalid"}


@pytest.mark.parametrize("filler", [b"0", b"NaN"])
def test_the_limit_holds_however_the_array_is_cut(filler: bytes) -> None:
    assert len(cut(b"[" + b",".join([filler] * 100) + b"]")) == 100
    with pytest.raises(Problem) as caught:
        cut(b"[" + b",".join([filler] * 101) + b"]")
    assert caught.value.kind == "too-large"


def test_a_search_ends() -> None:
    body = b"[" + DEEP + b",[" + b"0," * 2_500_000 + b"0]]"
    with pytest.raises(Problem) as caught:
        cut(body)
    assert caught.value.kind == "not-json"


def test_lines_may_end_as_they_like() -> None:
    assert [bytes(line).strip() for line in cut_lines(b'{"a":1}\r\n\n  \n{"b":2}', 2)] == [b'{"a":1}', b'{"b":2}']
