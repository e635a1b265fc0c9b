"""API keys for tests."""

import itertools

from actors.core.keys import ALL, NewKey, Scope, key_text, secret_hash

_numbers = itertools.count(1)


def new_key(
    tenant: str = "acme", scopes: frozenset[Scope] = ALL, ttl_ms: int | None = None, name: str = "test"
) -> tuple[NewKey, str]:
    """A key that no other test has: what is stored, and what its holder has."""
    number = next(_numbers)
    prefix, secret = f"p{number:011}", f"canary{number:037}"
    return NewKey(prefix, secret_hash(secret), tenant, name, scopes, ttl_ms), key_text(prefix, secret)


def bearer(text: str) -> dict[str, str]:
    """The header of a request."""
    return {"Authorization": f"Bearer {text}"}
