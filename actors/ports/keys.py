"""Port: API keys. Never on the hot path: a node asks once a second what has changed."""

from typing import Protocol

from actors.core.keys import ApiKey, Keys, NewKey


class KeyStore(Protocol):
    """The keys of all tenants. Times are the primary's."""

    async def create(self, key: NewKey) -> ApiKey:
        """Answers after COMMIT. Conflict: the prefix is taken. Invalid: there are MAX_KEYS in use."""
        ...

    async def revoke(self, prefix: str) -> ApiKey:
        """Answers after COMMIT; revoked again, it stays as it was. Unknown: there is no such key."""
        ...

    async def known(self, tenant: str | None = None) -> list[ApiKey]:
        """All keys (of this tenant), also those of no use any more, newest first, at most MAX_KEYS."""
        ...

    async def changed(self, version: int) -> Keys | None:
        """The keys in use (not revoked, not expired); None: nothing was made or revoked since `version`."""
        ...
