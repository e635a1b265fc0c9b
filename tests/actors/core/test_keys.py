"""What a key looks like, and what is kept of it."""

import hashlib

import pytest

from actors.core.keys import ApiKey, Scope, key_parts, key_text, secret_hash

PREFIX, SECRET = "abcdefghij12", "S" * 43


def test_a_key_is_taken_apart_as_it_was_put_together() -> None:
    assert key_parts(key_text(PREFIX, SECRET)) == (PREFIX, SECRET)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rw_",
        PREFIX,
        f"rw_{PREFIX}",
        f"rw_{PREFIX}_",
        f"rw_{PREFIX}_{SECRET}x",
        f"rw_{PREFIX}_{SECRET[1:]}",
        f"sk_{PREFIX}_{SECRET}",
        f"RW_{PREFIX}_{SECRET}",
        f"rw_{PREFIX}-{SECRET}",
        f"rw_{PREFIX}_{SECRET[1:]}é",
        f"rw_{PREFIX}_{SECRET[1:]}\udcff",
        "rw_" * 100_000,
    ],
)
def test_what_is_no_key_has_no_parts(text: str) -> None:
    assert key_parts(text) is None


def test_of_a_secret_its_hash_is_kept_and_never_shown() -> None:
    kept = secret_hash(SECRET)
    assert kept == hashlib.sha256(SECRET.encode()).digest()
    key = ApiKey(PREFIX, kept, "acme", "ci", frozenset({Scope.READ}), 1, None, None)
    assert "hash" not in repr(key)
