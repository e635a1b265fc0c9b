"""Port: the secrets that webhooks are signed with."""

from collections.abc import Sequence
from typing import Protocol

from actors.core.signing import SigningSecret


class SigningStore(Protocol):
    """The table of signing secrets. Every change counts the cluster's settings version up: nodes read it anew."""

    async def create(self, tenant: str, key: bytes) -> SigningSecret:
        """The tenant's first secret. Raises Conflict when it has one."""
        ...

    async def rotate(self, tenant: str, key: bytes) -> SigningSecret:
        """A new secret beside the newest one; older ones are gone. Raises Unknown when there is none."""
        ...

    async def revoke(self, tenant: str, secret_id: int) -> None:
        """The secret is gone. Raises Unknown when the tenant has no such secret."""
        ...

    async def of(self, tenant: str | None) -> Sequence[SigningSecret]:
        """The secrets of one tenant, or of all, newest first."""
        ...
