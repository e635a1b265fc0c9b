"""Lines of the log for what administrators do, and for what they are refused. No secret is ever part of one."""

import structlog

from actors.core.keys import ApiKey

log = structlog.get_logger("audit")


def key_created(key: ApiKey) -> None:
    """Somebody may do something from now on."""
    log.info(
        "key created",
        prefix=key.prefix,
        tenant=key.tenant,
        name=key.name,
        scopes=sorted(key.scopes),
        expires_ms=key.expires_ms,
    )


def key_revoked(key: ApiKey) -> None:
    """And from now on no longer."""
    log.info("key revoked", prefix=key.prefix, tenant=key.tenant, name=key.name, revoked_ms=key.revoked_ms)


def start_refused(bind: str) -> None:
    """A server would have been open to others without a key."""
    log.error("start refused: no API key is in use", bind=bind)
