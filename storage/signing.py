"""The table of signing secrets. Changes are rare, and serialized by the cluster's row (sql/signing.sql)."""

from typing import Any

from actors.core.errors import Conflict, Unknown
from actors.core.signing import ACTIVE, SigningSecret
from storage.pool import Database
from storage.sessions import Connection
from storage.statements import statements

_SQL = statements("signing")


class PgSigningStore:
    """Implements actors.ports.signing.SigningStore."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, tenant: str, key: bytes) -> SigningSecret:
        """See the port."""
        async with self._db.reads.use() as connection, connection.transaction():
            secret_id = await connection.fetchval(_SQL["change"])
            if await connection.fetch(_SQL["of"], tenant):
                raise Conflict(f"tenant {tenant} has a signing secret: rotate it")
            return await _insert(connection, secret_id, tenant, key)

    async def rotate(self, tenant: str, key: bytes) -> SigningSecret:
        """See the port."""
        async with self._db.reads.use() as connection, connection.transaction():
            secret_id = await connection.fetchval(_SQL["change"])
            if not await connection.fetch(_SQL["of"], tenant):
                raise Unknown(f"tenant {tenant} has no signing secret: create one")
            secret = await _insert(connection, secret_id, tenant, key)
            await connection.execute(_SQL["retire"], tenant, ACTIVE)
            return secret

    async def revoke(self, tenant: str, secret_id: int) -> None:
        """See the port."""
        async with self._db.reads.use() as connection, connection.transaction():
            await connection.execute(_SQL["change"])
            if await connection.fetchval(_SQL["revoke"], tenant, secret_id) is None:
                raise Unknown(f"tenant {tenant} has no signing secret {secret_id}")

    async def of(self, tenant: str | None) -> list[SigningSecret]:
        """See the port."""
        async with self._db.reads.use() as connection:
            return [_secret(row) for row in await connection.fetch(_SQL["of"], tenant)]


async def _insert(connection: Connection, secret_id: int, tenant: str, key: bytes) -> SigningSecret:
    return _secret(await connection.fetchrow(_SQL["insert"], secret_id, tenant, key))


def _secret(row: Any) -> SigningSecret:
    return SigningSecret(row["secret_id"], row["tenant"], row["made_ms"], row["secret"])
