"""`key create`, `key list` and `key revoke`: API keys, made in the database itself.

The key is shown once, on standard output, and kept nowhere. What was done is said on standard error, as a line of the
audit log. A running service knows of it within 5 s.
"""

import re
import secrets
import string
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from actors.core.keys import PREFIX_CHARS, SECRET_CHARS, ApiKey, NewKey, Scope, key_text, secret_hash
from gateway.cli.exits import Exit, show_problem
from gateway.cli.options import TEXT, database_option, json_option
from gateway.cli.servers import answer_of
from gateway.cli.streams import NoReader, Unwritable

if TYPE_CHECKING:
    from actors.ports.keys import KeyStore

T = TypeVar("T")

TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}(?![\s\S])", re.ASCII)
NAME_CHARS = 100
USUAL = (Scope.SUBMIT, Scope.READ)
_PREFIX_LETTERS = string.ascii_lowercase + string.digits
_SECRET_LETTERS = string.ascii_letters + string.digits


@click.group()
def key_command() -> None:
    """Make, list and revoke API keys."""


def _tenant(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is not None and TENANT.match(value) is None:
        raise click.BadParameter("expected 1 to 64 letters, digits, dots, dashes and underscores")
    return value


def _name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if len(value) > NAME_CHARS or not (value.isprintable() or value == ""):
        raise click.BadParameter(f"expected at most {NAME_CHARS} printable characters")
    return value


def _scopes(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> frozenset[Scope]:
    try:
        return frozenset(Scope(name.strip()) for text in value for name in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"expected some of {', '.join(Scope)}") from error


def _ttl_ms(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    from actors.core.errors import Invalid
    from gateway.times import duration_ms

    if value is None:
        return None
    try:
        return duration_ms(value, least_ms=1_000)
    except Invalid as error:
        raise click.BadParameter(error.detail) from error


@key_command.command("create")
@database_option
@click.option(
    "--tenant", type=TEXT, default="default", show_default=True, callback=_tenant, help="Whose tasks it is for."
)
@click.option("--name", type=TEXT, default="", callback=_name, help="Who or what holds it; shown in lists.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=[str(scope) for scope in USUAL],
    show_default=True,
    callback=_scopes,
    metavar="SCOPE",
    help=f"What it may do: {', '.join(Scope)}; may be repeated, none includes another.",
)
@click.option("--expires-in", "ttl_ms", metavar="DURATION", callback=_ttl_ms, help='Like "90d".  [default: never]')
@json_option
def create_command(
    database_url: str, tenant: str, name: str, scopes: frozenset[Scope], ttl_ms: int | None, as_json: bool
) -> None:
    """Make a key, and show it this once."""
    from gateway import audit

    prefix, secret = _random(_PREFIX_LETTERS, PREFIX_CHARS), _random(_SECRET_LETTERS, SECRET_CHARS)
    new = NewKey(prefix, secret_hash(secret), tenant, name, scopes, ttl_ms)
    made = _on(database_url, lambda store: store.create(new), as_json)
    audit.key_created(made)
    text = key_text(prefix, secret)
    try:
        _say_made(made, text, as_json)
    except Unwritable as error:
        detail = f"{error}; nobody has seen the key: revoke {prefix}"
        show_problem({"title": "The key can't be shown", "detail": detail}, as_json)
        click.get_current_context().exit(Exit.FAILED)


def _say_made(made: ApiKey, text: str, as_json: bool) -> None:
    from gateway.cli.show import show_json
    from gateway.cli.streams import note, say

    if as_json:
        show_json({"key": text} | _object(made))
        return
    say(text)
    note("Keep it now: it is not shown again. Give it to programs as RINGWHEEL_KEY.")


@key_command.command("list")
@database_option
@click.option("--tenant", type=TEXT, callback=_tenant, help="Of this tenant only.")
@json_option
def list_keys_command(database_url: str, tenant: str | None, as_json: bool) -> None:
    """List keys, newest first (with --json: one object a line). Secrets are not known."""
    from gateway.cli.show import show, show_json

    keys = [_object(key) for key in _on(database_url, lambda store: store.known(tenant), as_json)]
    if not as_json:
        _shown(lambda: show(_table(keys)), as_json)
        return
    for key in keys:
        _shown(lambda key=key: show_json(key), as_json)  # type: ignore[misc]


@key_command.command("revoke")
@database_option
@click.argument("prefix", type=TEXT)
@json_option
def revoke_command(database_url: str, prefix: str, as_json: bool) -> None:
    """End a key, named by its PREFIX (or by the whole key, of which only that is used)."""
    from gateway import audit
    from gateway.cli.show import show_json
    from gateway.cli.streams import say

    wanted = prefix.split("_")[1] if prefix.startswith("rw_") else prefix
    gone = _on(database_url, lambda store: store.revoke(wanted), as_json)
    audit.key_revoked(gone)
    _shown(lambda: show_json(_object(gone)) if as_json else say(f"revoked {gone.prefix}"), as_json)


def _shown(show: Callable[[], None], as_json: bool) -> None:
    try:
        show()
    except NoReader:
        click.get_current_context().exit(Exit.NO_READER)
    except Unwritable as error:
        show_problem({"title": "The answer can't be shown", "detail": str(error)}, as_json)
        click.get_current_context().exit(Exit.FAILED)


def _on(database_url: str, work: "Callable[[KeyStore], Awaitable[T]]", as_json: bool) -> T:
    """What the work answers; a refusal ends the command."""
    from actors.core.errors import Conflict, Invalid, Unknown
    from gateway import logs
    from storage.keys import PgKeyStore
    from storage.pool import Database

    async def carry_out() -> T:
        async with Database(database_url, "key command") as database:
            return await work(PgKeyStore(database))

    logs.set_up(errors=True)
    try:
        answer: T = answer_of(carry_out, as_json)
    except Unknown:
        show_problem({"title": "Not found", "detail": "there is no key of this prefix"}, as_json)
        click.get_current_context().exit(Exit.NOT_FOUND)
    except (Conflict, Invalid) as error:
        show_problem({"title": "Not possible", "detail": error.detail}, as_json)
        click.get_current_context().exit(Exit.CONFLICT)
    return answer


def _random(letters: str, count: int) -> str:
    return "".join(secrets.choice(letters) for _ in range(count))


def _object(key: ApiKey) -> dict[str, Any]:
    from gateway.times import time_text

    def text(at_ms: int | None) -> str | None:
        return None if at_ms is None else time_text(at_ms)

    return {
        "prefix": key.prefix,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "create_time": text(key.created_ms),
        "expire_time": text(key.expires_ms),
        "revoke_time": text(key.revoked_ms),
    }


def _table(keys: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    from gateway.cli.show import text_of

    table = Table(box=None, pad_edge=False)
    for name in ("prefix", "tenant", "name", "scopes", "create_time", "expire_time", "revoke_time"):
        table.add_column(name, no_wrap=True, overflow="fold")
    for key in keys:
        cells = key | {"scopes": ",".join(key["scopes"])}
        table.add_row(*(text_of("" if cell is None else cell) for cell in cells.values()))
    return table
