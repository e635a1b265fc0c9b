"""The table of API keys.

Refuses to read a scope that this program does not know: the key keeps the others.
"""

from collections.abc import Sequence
from typing import Any

from actors.core.errors import Conflict, Invalid, Unknown
from actors.core.keys import MAX_KEYS, ApiKey, Keys, NewKey, Scope
from storage.pool import Database
from storage.statements import statements

_SQL = statements("keys")
_KNOWN = frozenset(str(scope) for scope in Scope)


class PgKeyStore:
    """Implements actors.ports.keys.KeyStore."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, key: NewKey) -> ApiKey:
        """See the port."""
        values = key.prefix, key.hash, key.tenant, key.name, sorted(key.scopes), key.ttl_ms, MAX_KEYS
        async with self._db.reads.use() as connection:
            row = await connection.fetchrow(_SQL["create"], *values)
            if row is not None:
                return _key(row)
            if await connection.fetchrow(_SQL["get"], key.prefix) is not None:
                raise Conflict("the prefix is taken")
        raise Invalid(f"{MAX_KEYS} keys are in use already: revoke some")

    async def revoke(self, prefix: str) -> ApiKey:
        """See the port."""
        async with self._db.reads.use() as connection:
            row = await connection.fetchrow(_SQL["revoke"], prefix)
            row = row or await connection.fetchrow(_SQL["get"], prefix)
        if row is None:
            raise Unknown(prefix)
        return _key(row)

    async def known(self, tenant: str | None = None) -> list[ApiKey]:
        """See the port."""
        async with self._db.reads.use() as connection:
            return [_key(row) for row in await connection.fetch(_SQL["known"], tenant, MAX_KEYS)]

    async def changed(self, version: int) -> Keys | None:
        """See the port."""
        async with self._db.leases.use() as connection:  # reads may all be taken: a revocation can't wait for them
            rows = await connection.fetch(_SQL["changed"], version)
        return _keys(rows) if rows else None


def _keys(rows: Sequence[Any]) -> Keys:
    return Keys(rows[0]["keys_version"], rows[0]["exist"], [_key(row) for row in rows if row["prefix"] is not None])


def _key(row: Any) -> ApiKey:
    return ApiKey(
        row["prefix"],
        row["hash"],
        row["tenant"],
        row["name"],
        frozenset(Scope(scope) for scope in row["scopes"] if scope in _KNOWN),
        row["created_ms"],
        row["expires_ms"],
        row["revoked_ms"],
    )
