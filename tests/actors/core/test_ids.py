import os
import re
import subprocess
import sys
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core import ids
from actors.core.errors import Invalid

NOW_MS = 1_767_225_600_123
texts = st.text(max_size=20)
positions = st.integers(0, ids.POSITIONS - 1)

GOLDEN = {
    "ids.new_ids(1767225600123, bytes(range(20)), 2)": [
        "019b76da-a87b-7001-8203-040506070809",
        "019b76da-a87b-7a0b-8c0d-0e0f10111213",
    ],
    "ids.keyed_id('default', 'order-1', 'default', None)": "3b1359ac-3842-8dde-8d19-6508ddfbf985",
    "ids.keyed_id('default', 'order-1', 'emails', 'customer-7')": "56a6f736-307f-89b5-a2d9-2d895d97a5dd",
    "ids.position_of_key('default', 'emails', 'customer-7')": 42461,
    "ids.request_hash(b'a', b'bc').hex()": "64277215c2ed732f8740cbb99cb357fc",
}


def test_hashes_never_change() -> None:
    for expression, expected in GOLDEN.items():
        assert eval(expression) == expected, expression


def test_hashes_are_the_same_in_every_process() -> None:
    program = "import sys; from actors.core import ids; print([eval(e) for e in sys.argv[1:]])"
    environment = {**os.environ, "PYTHONHASHSEED": "4242"}
    done = subprocess.run(
        [sys.executable, "-c", program, *GOLDEN], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == str(list(GOLDEN.values()))


@given(st.integers(0, 2**48 - 1), st.integers(0, 5), st.data())
def test_new_ids_are_uuid_7_with_the_time_in_front(now_ms: int, count: int, data: st.DataObject) -> None:
    size = count * ids.ENTROPY_BYTES
    made = ids.new_ids(now_ms, data.draw(st.binary(min_size=size, max_size=size)), count)
    assert len(made) == count
    for text in made:
        number = uuid.UUID(text)
        assert str(number) == text
        assert (number.version, number.variant) == (7, uuid.RFC_4122)
        assert number.int >> 80 == now_ms


@given(st.binary(min_size=ids.ENTROPY_BYTES, max_size=ids.ENTROPY_BYTES))
def test_new_ids_keep_every_random_bit_that_the_layout_leaves(entropy: bytes) -> None:
    number = uuid.UUID(ids.new_ids(NOW_MS, entropy, 1)[0]).int
    mask = (1 << 80) - 1 - (0xF << 76) - (0b11 << 62)
    assert number & mask == int.from_bytes(entropy, "big") & mask


@pytest.mark.parametrize("length", [0, 19, 21])
def test_new_ids_refuse_another_amount_of_entropy(length: int) -> None:
    with pytest.raises(ValueError, match="20 bytes of entropy"):
        ids.new_ids(NOW_MS, bytes(length), 2)


@given(texts, texts, texts, st.none() | texts)
def test_keyed_ids_are_uuid_8_at_their_position(tenant: str, key: str, queue: str, ring_key: str | None) -> None:
    text = ids.keyed_id(tenant, key, queue, ring_key)
    number = uuid.UUID(text)
    assert (str(number), number.version, number.variant) == (text, 8, uuid.RFC_4122)
    if ring_key is not None:
        assert ids.position_of(text) == ids.position_of_key(tenant, queue, ring_key)


def test_the_scope_of_a_key() -> None:
    def keyed(tenant: str = "t", key: str = "k", queue: str = "q", ring_key: str | None = None) -> str:
        return ids.keyed_id(tenant, key, queue, ring_key)

    assert keyed(queue="other") == keyed()
    different = [
        keyed(),
        keyed(tenant="u"),
        keyed(key="l"),
        keyed(tenant="tk", key=""),
        keyed(ring_key=""),
        keyed(ring_key="r"),
        keyed(ring_key="r", queue="other"),
        keyed(ring_key="r", key="l"),
        keyed(ring_key="r", tenant="u"),
    ]
    # Not by their positions alone: the hash in front has to differ.
    assert len({text[:32] for text in different}) == len(different)


def test_fields_do_not_run_into_each_other() -> None:
    assert ids.position_of_key("t", "a", "bc") != ids.position_of_key("t", "ab", "c")
    assert ids.request_hash(b"a", b"bc") != ids.request_hash(b"ab", b"c")
    assert ids.request_hash(b"a") != ids.request_hash(b"a", b"")
    assert ids.keyed_id("a", "bc", "q", None) != ids.keyed_id("ab", "c", "q", None)


def test_any_text_has_a_hash() -> None:
    assert ids.valid(ids.keyed_id("t", "\udcff\x00", "q", "\ud800"))


def test_request_hash_is_16_bytes() -> None:
    assert len(ids.request_hash()) == len(ids.request_hash(b"x" * 1000)) == 16


@given(st.uuids(), positions)
def test_with_position(number: uuid.UUID, position: int) -> None:
    moved = ids.with_position(str(number), position)
    assert ids.position_of(moved) == position
    assert moved[:32] == str(number)[:32]
    assert uuid.UUID(moved).version == number.version


@given(positions, st.integers(1, ids.POSITIONS))
def test_shards_are_equal_stretches_of_the_ring(position: int, shards: int) -> None:
    shard = ids.shard_of(ids.with_position(str(uuid.UUID(int=0)), position), shards)
    assert 0 <= shard < shards
    assert shard / shards <= position / ids.POSITIONS < (shard + 1) / shards


def test_positions_spread_over_all_shards() -> None:
    counts = [0] * 256
    for index in range(25_600):
        counts[ids.shard_of(ids.keyed_id("default", f"key-{index}", "q", None), 256)] += 1
    assert min(counts) > 50
    assert max(counts) < 160


@given(st.uuids(), st.booleans())
def test_valid_takes_both_cases(number: uuid.UUID, upper: bool) -> None:
    text = str(number).upper() if upper else str(number)
    assert ids.valid(text)
    assert ids.canonical(text) == str(number)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "019b76da-a87b-7001-8203-04050607080",
        "019b76da-a87b-7001-8203-0405060708090",
        "019b76daa87b70018203040506070809",
        "019b76da-a87b-7001-8203-04050607080g",
        "019b76da-a87b-7001-8203-040506070809\n",
        "{019b76da-a87b-7001-8203-0405060708}",
        "019b76da_a87b_7001_8203_040506070809",
        "٠19b76da-a87b-7001-8203-040506070809",
    ],
)
def test_what_is_no_id(text: str) -> None:
    assert not ids.valid(text)
    with pytest.raises(Invalid, match="not a task id"):
        ids.canonical(text)


@given(st.text(alphabet="0123456789abcdefABCDEF-", min_size=34, max_size=38))
def test_valid_agrees_with_a_plain_reading(text: str) -> None:
    fields = text.split("-")
    plain = [len(field) for field in fields] == [8, 4, 4, 4, 12] and all(re.search("^[^-]*$", f) for f in fields)
    assert ids.valid(text) == plain
