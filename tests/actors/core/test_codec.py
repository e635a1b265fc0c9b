import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core import codec
from actors.core.codec import EMPTY, SpecCodec
from actors.core.errors import Invalid
from actors.core.retry import RetryPolicy
from actors.core.spec import HttpTarget, Spec

texts = st.text(max_size=10)
retries = st.builds(RetryPolicy, max_attempts=st.integers(1, 9), max_retry_duration_ms=st.none() | st.integers(0, 9))
targets = st.builds(HttpTarget, url=texts, method=texts, headers=st.dictionaries(texts, texts, max_size=3))
specs = st.builds(
    Spec,
    http=st.none() | targets,
    retry=st.none() | retries,
    dispatch_deadline_ms=st.none() | st.integers(0, 2**62),
    ttl_ms=st.none() | st.integers(0, 2**62),
    content_type=st.none() | texts,
)


@given(specs)
def test_round_trip(spec: Spec) -> None:
    data = SpecCodec().encode(spec)
    assert data.startswith(b'{"v":1')
    assert SpecCodec().decode(data) == spec


def test_the_stored_form_never_changes() -> None:
    spec = Spec(http=HttpTarget("http://a/", headers={"x": "y"}), retry=RetryPolicy(max_attempts=1), ttl_ms=9)
    assert SpecCodec().encode(Spec()) == EMPTY == b'{"v":1}'
    assert SpecCodec().encode(spec) == (
        b'{"v":1,"http":{"url":"http://a/","headers":{"x":"y"}},"retry":{"max_attempts":1},"ttl_ms":9}'
    )


def test_equal_bytes_give_the_same_object() -> None:
    book = SpecCodec()
    data = book.encode(Spec(ttl_ms=9))
    assert book.decode(data) is book.decode(bytes(data))


def test_interned_specs_are_shared() -> None:
    book = SpecCodec()
    first, data = book.intern(Spec(ttl_ms=9))
    assert book.intern(Spec(ttl_ms=9)) == (first, data)
    assert book.intern(Spec(ttl_ms=9))[0] is first
    assert book.decode(data) is first


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "INTERNED", 3)
    book = SpecCodec()
    stored = [book.intern(Spec(ttl_ms=number))[1] for number in range(5)]
    assert [book.decode(data).ttl_ms for data in stored] == [0, 1, 2, 3, 4]
    assert len(book._specs) <= 3


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b'{"v":2}', b'{"v":10}', b'{"v":1', b'{"v":1,}', b'{"v":1,"ttl_ms":"x"}', b'{"v":1,"http":1}',
     b'{"v":1,"content_type":"\xff"}', b'{"v":1,"x":' + b"[" * 100_000],
)  # fmt: skip
def test_what_can_not_be_read(data: bytes) -> None:
    book = SpecCodec()
    for _ in range(2):
        with pytest.raises(Invalid, match="stored spec"):
            book.decode(data)


def test_fields_of_a_later_minor_version_are_passed_over() -> None:
    assert SpecCodec().decode(b'{"v":1,"priority":2,"ttl_ms":9}') == Spec(ttl_ms=9)
