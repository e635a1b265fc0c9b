"""Options that several commands share."""

from collections.abc import Callable
from math import isfinite
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

DEFAULT_URL = "http://127.0.0.1:7070"


def client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--url` and `--json`."""
    url = click.option(
        "--url",
        envvar="RINGWHEEL_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        callback=_http_url,
        help="Where the service is.",
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="JSON on standard output, nothing else.")
    return url(as_json(command))


def database_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--database-url`."""
    return click.option(
        "--database-url",
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


def _http_url(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise click.BadParameter("expected http://... or https://...")
    return value.rstrip("/")
