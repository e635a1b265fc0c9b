"""Lines of the log for what administrators do, and for what they are refused. No secret is ever part of one.

Each says what was done, to what, whose it is (`tenant`), and who did it (`by`): the prefix of a key; `dev` where no key
is asked for; `database` for who worked on the database itself, with the command line.
"""

import structlog

from actors.core.keys import ApiKey
from gateway.context import Caller

DEV = "dev"
DATABASE = "database"
log = structlog.get_logger("audit")


def key_created(key: ApiKey) -> None:
    """Somebody may do something from now on."""
    log.info(
        "key created",
        by=DATABASE,
        prefix=key.prefix,
        tenant=key.tenant,
        name=key.name,
        scopes=sorted(key.scopes),
        expires_ms=key.expires_ms,
    )


def key_revoked(key: ApiKey) -> None:
    """And from now on no longer."""
    log.info("key revoked", by=DATABASE, prefix=key.prefix, tenant=key.tenant, name=key.name, revoked_ms=key.revoked_ms)


def secret_made(act: str, tenant: str, secret_id: int) -> None:
    """`act`: created or rotated. A tenant's webhooks are signed with this one, too."""
    log.info(f"signing secret {act}", by=DATABASE, tenant=tenant, id=secret_id)


def secret_revoked(tenant: str, secret_id: int) -> None:
    """And with this one no longer."""
    log.info("signing secret revoked", by=DATABASE, tenant=tenant, id=secret_id)


def queue_changed(act: str, caller: Caller, queue: str) -> None:
    """`act`: put, patched, deleted, paused or resumed."""
    log.info(f"queue {act}", by=caller.prefix or DEV, tenant=caller.tenant, queue=queue)


def queue_purged(caller: Caller, queue: str, count: int, *, done: bool) -> None:
    """So many tasks were cancelled; not `done`: there is more, or one could not be reached."""
    log.info("queue purged", by=caller.prefix or DEV, tenant=caller.tenant, queue=queue, count=count, done=done)


def node_marked(act: str, caller: Caller, name: str) -> None:
    """`act`: drained or undrained."""
    log.info(f"node {act}", by=caller.prefix or DEV, tenant=caller.tenant, name=name)


def start_refused(bind: str) -> None:
    """A server would have been open to others without a key."""
    log.error("start refused: no API key is in use", bind=bind)
