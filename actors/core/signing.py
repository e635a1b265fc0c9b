"""Secrets that a tenant's webhooks are signed with, and the signature (Standard Webhooks 1.0, `v1`: HMAC-SHA256).

A tenant has none, one, or two while a rotation is under way: then each request carries a signature of either, the
newest first, and a receiver may know one or the other.
"""

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from hmac import digest

SECRET_BYTES = 32
"""The standard asks for 24 to 64."""
ACTIVE = 2
"""Secrets that may sign at once."""
PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """One secret. Its key is in no text that it makes of itself but `text`."""

    id: int
    """Higher is newer."""
    tenant: str
    made_ms: int
    key: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """As a receiver configures it."""
        return PREFIX + b64encode(self.key).decode()


def signatures(keys: Iterable[bytes], message_id: str, timestamp: str, body: bytes | None) -> str:
    """The value of `webhook-signature`: one signature a key, in their order."""
    signed = b"%b.%b.%b" % (message_id.encode(), timestamp.encode(), body or b"")
    return " ".join([f"v1,{b64encode(digest(key, signed, 'sha256')).decode()}" for key in keys])
