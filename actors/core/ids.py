"""Task ids: canonical UUID text whose last 16 bits are the task's position on the ring.

- Without an idempotency key: UUIDv7 (RFC 9562, 5.7), leading with the creation time, so that an index grows at its end.
- With one: UUIDv8 (RFC 9562, 5.8), a hash of what the key is scoped to, so that the primary key finds the replay.

Promises: hashes are BLAKE2b over length-prefixed fields, the same on every machine and in every version; a changed
hash would lose tasks and double keys. Refuses: time and randomness of its own; both are arguments.
"""

import re
from hashlib import blake2b

from actors.core.errors import Invalid

POSITIONS = 1 << 16
"""Size of the ring: a position is 0 <= position < POSITIONS."""

ENTROPY_BYTES = 10
"""Random bytes that one new id takes."""

ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_VERSION_7 = bytes(0x70 | byte & 0x0F for byte in range(256))
_VARIANT = bytes(0x80 | byte & 0x3F for byte in range(256))


def new_ids(now_ms: int, entropy: bytes, count: int) -> list[str]:
    """`count` fresh UUIDv7s at random positions; `entropy` holds ENTROPY_BYTES random bytes for each.

    Raises ValueError when `entropy` has another length: one byte used twice could make two tasks one.
    """
    if len(entropy) != count * ENTROPY_BYTES:
        raise ValueError(f"{count} ids need {count * ENTROPY_BYTES} bytes of entropy, not {len(entropy)}")
    head = head_of(now_ms)
    return [f"{head}-{tail}" for tail in new_tails(entropy)]


def head_of(now_ms: int) -> str:
    """The first two groups of a UUIDv7: its time."""
    stamp = f"{now_ms:012x}"
    return f"{stamp[:8]}-{stamp[8:]}"


def new_tails(entropy: bytes) -> list[str]:
    """The other three groups, one for each ENTROPY_BYTES; they may be made before the time is known."""
    tails = bytearray(entropy)
    tails[0::ENTROPY_BYTES] = tails[0::ENTROPY_BYTES].translate(_VERSION_7)
    tails[2::ENTROPY_BYTES] = tails[2::ENTROPY_BYTES].translate(_VARIANT)
    text = tails.hex()
    return [
        f"{text[at : at + 4]}-{text[at + 4 : at + 8]}-{text[at + 8 : at + 20]}"
        for at in range(0, len(text), 2 * ENTROPY_BYTES)
    ]


def keyed_id(tenant: str, key: str, queue: str, ring_key: str | None) -> str:
    """The id of the task that stands under an idempotency key.

    The key's scope is the tenant and, when the task has a ring key, also the queue and that key; so the task can lie
    at its ring key's position without a key ever standing for two tasks of one scope.
    """
    if ring_key is None:
        text = _digest(b"id", _bytes(tenant), _bytes(key)).hex()
    else:
        digest = _digest(b"id+ring", _bytes(tenant), _bytes(key), _bytes(queue), _bytes(ring_key))
        text = f"{digest.hex()[:28]}{position_of_key(tenant, queue, ring_key):04x}"
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


def with_position(task_id: str, position: int) -> str:
    """The same id at another position; what is lost is 16 random bits."""
    return f"{task_id[:32]}{position:04x}"


def position_of(task_id: str) -> int:
    """The ring position of a canonical id."""
    return int(task_id[32:], 16)


def position_of_key(tenant: str, queue: str, key: str) -> int:
    """Where all tasks of one ordering or flow key lie."""
    return int.from_bytes(_digest(b"position", _bytes(tenant), _bytes(queue), _bytes(key))[:2], "big")


def shard_of(task_id: str, shards: int) -> int:
    """The shard of a canonical id in a cluster of `shards` shards, at most POSITIONS."""
    return int(task_id[32:], 16) * shards >> 16


def request_hash(*parts: bytes) -> bytes:
    """16 bytes that tell whether two requests under one idempotency key are the same."""
    return _digest(b"request", *parts)


def valid(text: str) -> bool:
    """Whether `text` is a UUID in its 36-character form, in either case."""
    return ID.fullmatch(text) is not None


def canonical(text: str) -> str:
    """The lower-case form of an id; raises Invalid when it is none."""
    if not valid(text):
        raise Invalid("not a task id: a UUID in its 36-character form is expected")
    return text.lower()


def _digest(purpose: bytes, *parts: bytes) -> bytes:
    digest = blake2b(digest_size=16, person=purpose)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def _bytes(text: str) -> bytes:
    # Header values may carry lone surrogates (bytes that were not UTF-8): every text has to have a hash.
    return text.encode("utf-8", "surrogatepass")
