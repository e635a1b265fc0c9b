"""Options that several commands share."""

from collections.abc import Callable
from math import isfinite
from typing import Any

import click

from gateway.bounds import NODE, whole

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_KEY = "ringwheel.key"
DEFAULT_URL = "http://127.0.0.1:7070"


class _Text(click.ParamType[str]):
    """Text that can be sent: bytes that are not UTF-8 come to a program as halves of surrogate pairs."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            value.encode()  # which takes no halves
        except UnicodeEncodeError:
            self.fail("not UTF-8", param, ctx)
        return value


TEXT = _Text()


class _NodeName(_Text):
    """What a node may be called: it is shown in tables and logs."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = super().convert(value, param, ctx)
        if not whole(NODE).match(text):
            self.fail("expected 1 to 255 characters, none of them a control character", param, ctx)
        return text


NODE_NAME = _NodeName()


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`, which every command has."""
    return click.option("--json", "as_json", is_flag=True, help="JSON on standard output, nothing else.")(command)


def client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--url`, `--key` and `--json`. The key is no argument of the command: `key_given` has it."""
    url = click.option(
        "--url",
        type=TEXT,
        envvar="RINGWHEEL_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        callback=_http_url,
        help="Where the service is.",
    )
    key = click.option(
        "--key",
        "api_key",
        envvar="RINGWHEEL_KEY",
        show_envvar=True,
        metavar="KEY|@FILE",
        expose_value=False,
        callback=_api_key,
        help="API key, or @ and a file that holds it; others can see what is written here, but not the variable.",
    )
    return url(key(json_option(command)))


def key_given() -> str | None:
    """The API key of the command that runs."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(_KEY)


def database_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--database-url`."""
    return click.option(
        "--database-url",
        type=TEXT,
        envvar="RINGWHEEL_DATABASE_URL",
        required=True,
        show_envvar=True,
        help="DSN of the PostgreSQL primary.",
    )(command)


def finite(value: float) -> float:
    """The number; raises BadParameter when it is none that a service could be told."""
    if not isfinite(value):
        raise click.BadParameter("expected a finite number")
    return value


def _api_key(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    """Never part of what is said about it."""
    from pathlib import Path

    from actors.core.keys import key_parts

    value = (value or "").strip()
    if not value:
        return
    if value.startswith("@"):
        try:
            value = Path(value[1:]).read_text(encoding="ascii").strip()
        except (OSError, UnicodeError) as error:
            raise click.BadParameter(f"the file can't be read: {error}") from error
    if key_parts(value) is None:
        raise click.BadParameter("expected an API key, rw_<prefix>_<secret>, or @ and a file that holds one")
    ctx.meta[_KEY] = value


def labels_of(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    """`name=value`, as a callback."""
    pairs = [text.partition("=") for text in value]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise click.BadParameter("expected name=value")
    return {name: text for name, _, text in pairs}


label_option = click.option(
    "--label",
    type=TEXT,
    callback=labels_of,
    multiple=True,
    metavar="K=V",
    help="With this label; may be repeated: all of them.",
)


def duration_of(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | str | None:
    """As a callback; a plain number is seconds."""
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        return value
    return finite(number)


def _http_url(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    from yarl import URL

    if not value.startswith(("http://", "https://")):
        raise click.BadParameter("expected http://... or https://...")
    try:
        url = URL(value)
        host = (url.host or "").encode("idna")
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if not host or url.query_string or url.fragment or " " in value or not value.isprintable():
        raise click.BadParameter("expected a host, and neither a query nor a fragment nor spaces")
    return value.rstrip("/")
