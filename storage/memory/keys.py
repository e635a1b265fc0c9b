"""Memory twin of the KeyStore port."""

from dataclasses import replace

from actors.core.errors import Conflict, Invalid, Unknown
from actors.core.keys import MAX_KEYS, ApiKey, Keys, NewKey
from storage.memory.link import MemoryLink


class MemoryKeyStore:
    """Keys in the twin's tables."""

    def __init__(self, link: MemoryLink) -> None:
        self._link = link
        self._db = link.database

    async def create(self, key: NewKey) -> ApiKey:
        """See the port."""
        return await self._link.call("create_key", lambda: self._create(key))

    async def revoke(self, prefix: str) -> ApiKey:
        """See the port."""
        return await self._link.call("revoke_key", lambda: self._revoke(prefix))

    async def known(self, tenant: str | None = None) -> list[ApiKey]:
        """See the port."""
        return await self._link.call("known_keys", lambda: self._known(tenant))

    async def changed(self, version: int) -> Keys | None:
        """See the port."""
        return await self._link.call("changed_keys", lambda: self._changed(version))

    def _create(self, key: NewKey) -> ApiKey:
        if key.prefix in self._db.keys:
            raise Conflict("the prefix is taken")
        if len(self._usable()) >= MAX_KEYS:
            raise Invalid(f"{MAX_KEYS} keys are in use already: revoke some")
        now_ms = int(self._db.clock_ms())
        expires_ms = None if key.ttl_ms is None else now_ms + key.ttl_ms
        made = ApiKey(key.prefix, key.hash, key.tenant, key.name, key.scopes, now_ms, expires_ms, None)
        return self._put(made)

    def _revoke(self, prefix: str) -> ApiKey:
        key = self._db.keys.get(prefix)
        if key is None:
            raise Unknown(prefix)
        if key.revoked_ms is not None:
            return key
        return self._put(replace(key, revoked_ms=int(self._db.clock_ms())))

    def _put(self, key: ApiKey) -> ApiKey:
        self._db.keys[key.prefix] = key
        self._db.keys_version += 1
        return key

    def _known(self, tenant: str | None) -> list[ApiKey]:
        mine = [key for key in self._db.keys.values() if tenant in (None, key.tenant)]
        return sorted(mine, key=lambda key: (-key.created_ms, key.prefix))[:MAX_KEYS]

    def _changed(self, version: int) -> Keys | None:
        if version == self._db.keys_version:
            return None
        return Keys(self._db.keys_version, bool(self._db.keys), self._usable())

    def _usable(self) -> list[ApiKey]:
        now_ms = self._db.clock_ms()
        return [
            key
            for key in self._db.keys.values()
            if key.revoked_ms is None and (key.expires_ms is None or key.expires_ms > now_ms)
        ]
