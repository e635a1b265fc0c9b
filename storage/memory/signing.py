"""Memory twin of the SigningStore port."""

from actors.core.errors import Conflict, Unknown
from actors.core.signing import ACTIVE, SigningSecret
from storage.memory.link import MemoryLink


class MemorySigningStore:
    """Signing secrets in the twin's tables."""

    def __init__(self, link: MemoryLink) -> None:
        self._link = link
        self._db = link.database

    async def create(self, tenant: str, key: bytes) -> SigningSecret:
        """See the port."""
        return await self._link.call("create", lambda: self._create(tenant, key))

    async def rotate(self, tenant: str, key: bytes) -> SigningSecret:
        """See the port."""
        return await self._link.call("rotate", lambda: self._rotate(tenant, key))

    async def revoke(self, tenant: str, secret_id: int) -> None:
        """See the port."""
        await self._link.call("revoke", lambda: self._revoke(tenant, secret_id))

    async def of(self, tenant: str | None) -> list[SigningSecret]:
        """See the port."""
        return await self._link.call("of", lambda: self._of(tenant))

    def _create(self, tenant: str, key: bytes) -> SigningSecret:
        if self._of(tenant):
            raise Conflict(f"tenant {tenant} has a signing secret: rotate it")
        return self._insert(tenant, key)

    def _rotate(self, tenant: str, key: bytes) -> SigningSecret:
        if not self._of(tenant):
            raise Unknown(f"tenant {tenant} has no signing secret: create one")
        secret = self._insert(tenant, key)
        for old in self._of(tenant)[ACTIVE:]:
            del self._db.signing[old.id]
        return secret

    def _revoke(self, tenant: str, secret_id: int) -> None:
        secret = self._db.signing.get(secret_id)
        if secret is None or secret.tenant != tenant:
            raise Unknown(f"tenant {tenant} has no signing secret {secret_id}")
        self._db.settings_version += 1
        del self._db.signing[secret_id]

    def _of(self, tenant: str | None) -> list[SigningSecret]:
        secrets = [secret for secret in self._db.signing.values() if tenant in (None, secret.tenant)]
        return sorted(secrets, key=lambda secret: -secret.id)

    def _insert(self, tenant: str, key: bytes) -> SigningSecret:
        self._db.settings_version += 1
        secret = SigningSecret(self._db.settings_version, tenant, int(self._db.clock_ms()), key)
        self._db.signing[secret.id] = secret
        return secret
