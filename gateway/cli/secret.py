"""`secret`: the secrets that webhooks are signed with. Works on the database, as `migrate` does.

Promises: a secret is shown once, by the command that makes it, and nowhere else. What was done is said on standard
error, as a line of the audit log.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.exits import Exit, show_problem
from gateway.cli.options import TEXT, database_option, json_option
from gateway.cli.servers import answer_of
from gateway.cli.streams import NoReader, Unwritable

if TYPE_CHECKING:
    from actors.core.signing import SigningSecret
    from storage.signing import PgSigningStore


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    tenant = click.option("--tenant", type=TEXT, default="default", show_default=True, help="Whose secrets.")
    return database_option(tenant(json_option(command)))


@click.group()
def secret_command() -> None:
    """Secrets that webhooks are signed with (Standard Webhooks)."""


@secret_command.command("create")
@_options
def create_command(database_url: str, tenant: str, as_json: bool) -> None:
    """Make a tenant's first secret, and show it once."""
    _make("created", _do(database_url, as_json, lambda store: store.create(tenant, _new_key())), as_json)


@secret_command.command("rotate")
@_options
def rotate_command(database_url: str, tenant: str, as_json: bool) -> None:
    """Make a new secret, and show it once. The last one signs as well until it is revoked or rotated out."""
    _make("rotated", _do(database_url, as_json, lambda store: store.rotate(tenant, _new_key())), as_json)


@secret_command.command("revoke")
@click.argument("secret_id", type=click.IntRange(1, 2**63 - 1), metavar="ID")
@_options
def revoke_command(secret_id: int, database_url: str, tenant: str, as_json: bool) -> None:
    """Sign with this secret no more."""
    from gateway import audit

    _do(database_url, as_json, lambda store: store.revoke(tenant, secret_id))
    audit.secret_revoked(tenant, secret_id)
    _show({"id": secret_id, "revoked": True}, as_json)


@secret_command.command("list")
@_options
def list_command(database_url: str, tenant: str, as_json: bool) -> None:
    """The secrets that sign now, newest first; never what they are."""
    known = _do(database_url, as_json, lambda store: store.of(tenant))
    for secret in known:
        _show(_seen(secret), as_json, quiet=True)


def _new_key() -> bytes:
    import secrets

    from actors.core.signing import SECRET_BYTES

    return secrets.token_bytes(SECRET_BYTES)


def _do(database_url: str, as_json: bool, work: "Callable[[PgSigningStore], Awaitable[Any]]") -> Any:
    """What `work` answers; what it refuses ends the command."""
    from actors.core.errors import Conflict, Unknown
    from gateway import logs

    logs.set_up(errors=True)
    answer = answer_of(lambda: _on_database(database_url, work), as_json)
    if isinstance(answer, Conflict | Unknown):
        code = Exit.CONFLICT if isinstance(answer, Conflict) else Exit.NOT_FOUND
        show_problem({"title": code.name.replace("_", " ").capitalize(), "detail": str(answer)}, as_json)
        click.get_current_context().exit(code)
    return answer


async def _on_database(database_url: str, work: "Callable[[PgSigningStore], Awaitable[Any]]") -> Any:
    from actors.core.errors import Conflict, Unknown
    from actors.membership import new_boot
    from storage.pool import Database
    from storage.signing import PgSigningStore

    async with Database(database_url, new_boot()) as database:
        try:
            return await work(PgSigningStore(database))
        except (Conflict, Unknown) as error:
            return error


def _seen(secret: "SigningSecret") -> dict[str, Any]:
    from gateway.webhook import rfc3339

    return {"id": secret.id, "tenant": secret.tenant, "create_time": rfc3339(secret.made_ms)}


def _make(act: str, secret: "SigningSecret", as_json: bool) -> None:
    """`act` in the audit log, and the secret to whoever asked for it."""
    from gateway import audit

    audit.secret_made(act, secret.tenant, secret.id)
    _show({**_seen(secret), "secret": secret.text}, as_json)


def _show(fields: dict[str, Any], as_json: bool, *, quiet: bool = False) -> None:
    from gateway.cli.show import show_json, show_task

    try:
        if as_json:
            show_json(fields)
        else:
            show_task(fields)
    except Unwritable as error:
        if quiet and isinstance(error, NoReader):
            click.get_current_context().exit(Exit.NO_READER)
        show_problem({"title": "It is done, but can't be shown", "detail": str(error)}, as_json)
        click.get_current_context().exit(Exit.FAILED)
