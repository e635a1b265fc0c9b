"""Signs webhooks with the secrets of their tenant, as Standard Webhooks says.

Keeps the keys of all tenants in memory, read anew whenever the cluster's settings version moved (`Node`).
Promises: nothing is signed with keys that were never read (`known`); a tenant without a secret costs one look into a
dictionary. Keys are in no text.
"""

import asyncio

from actors.core.signing import ACTIVE, signatures
from actors.ports.signing import SigningStore


class Signer:
    """The keys of one process."""

    def __init__(self, store: SigningStore) -> None:
        self._store = store
        self._keys: dict[str, list[bytes]] = {}
        self.known = asyncio.Event()
        """The keys were read once: before, it is not known who has to be signed for."""

    async def refresh(self) -> None:
        """Read all keys anew. Raises Unavailable; the old ones stay then."""
        keys: dict[str, list[bytes]] = {}
        for secret in await self._store.of(None):
            mine = keys.setdefault(secret.tenant, [])
            if len(mine) < ACTIVE:
                mine.append(secret.key)
        self._keys = keys
        self.known.set()

    def signatures(self, tenant: str, message_id: str, timestamp: str, body: bytes | None) -> str | None:
        """The value of `webhook-signature`, newest first; None when the tenant has no secret."""
        keys = self._keys.get(tenant)
        return None if keys is None else signatures(keys, message_id, timestamp, body)
