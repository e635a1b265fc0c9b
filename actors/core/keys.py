"""API keys: what one is, what it may do, and how its text is taken apart.

A key is `rw_<prefix>_<secret>`. The prefix names it and is no secret; of the secret only a hash is kept. The secret
has 256 random bits, so that a plain SHA-256 is as hard to turn back as the secret is to guess (docs/decisions/0004).
"""

import enum
import hashlib
from dataclasses import dataclass, field

PREFIX_CHARS = 12
SECRET_CHARS = 43
"""Of 62 letters and digits: 256 bits."""
KEY_CHARS = 3 + PREFIX_CHARS + 1 + SECRET_CHARS
_SECRET_AT = KEY_CHARS - SECRET_CHARS
MAX_KEYS = 10_000
"""Keys that a cluster may have in use: every node holds them all in memory."""


class Scope(enum.StrEnum):
    """What a key may do; none includes another."""

    SUBMIT = "submit"
    """Take tasks in, and command them."""
    READ = "read"
    """Look at tasks, also live."""
    WORK = "work"
    """Carry tasks out."""
    ADMIN = "admin"
    """Make, set up, hold up and empty the queues of its tenant."""
    METRICS = "metrics"
    """See how the service does, for all tenants: for operators."""
    OPERATE = "operate"
    """See and change the cluster, which serves all tenants: for operators."""


ALL = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key on its way into the tables."""

    prefix: str
    hash: bytes = field(repr=False)
    tenant: str
    name: str
    scopes: frozenset[Scope]
    ttl_ms: int | None
    """It expires so long after it was made, on the primary's clock; None = never."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as the tables have it."""

    prefix: str
    hash: bytes = field(repr=False)
    tenant: str
    name: str
    scopes: frozenset[Scope]
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys in use, as of `version`."""

    version: int
    exist: bool
    """There are keys at all, be they revoked or expired."""
    usable: list[ApiKey]


def key_text(prefix: str, secret: str) -> str:
    """The key as its holder has it."""
    return f"rw_{prefix}_{secret}"


def key_parts(text: str) -> tuple[str, str] | None:
    """Prefix and secret; None: this is no key."""
    if len(text) != KEY_CHARS or text[:3] != "rw_" or text[_SECRET_AT - 1] != "_" or not text.isascii():
        return None
    return text[3 : _SECRET_AT - 1], text[_SECRET_AT:]


def secret_hash(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).digest()
