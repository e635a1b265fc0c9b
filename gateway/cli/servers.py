"""`dev`, `serve` and `migrate`: flags and environment to settings, then to the composition root."""

import json
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

from gateway.cli.exits import Exit, show_problem
from gateway.cli.options import NODE_NAME, TEXT, database_option, finite, json_option
from gateway.cli.streams import Unwritable, say
from gateway.settings import GRACE_S, LOOPBACK, PORT, DevSettings, ServeSettings

MAX_PORT = 65_535
MOST_SHARDS = 1_024
"""Each costs its owner a little at every heartbeat, and tasks that come together rarely share one of many."""
NODES = 5
"""The embedded server has connections for so many, and some to spare."""
_PORT = click.IntRange(0, MAX_PORT)
_attached = click.option("--attached", is_flag=True, hidden=True, help="End when standard input does.")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _data_home() -> Path:
    """Where a user's programs keep their data (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_DATA_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".local" / "share") / "ringwheel"


def _host(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    try:
        value.encode("idna")
    except UnicodeError as error:
        raise click.BadParameter(str(error)) from error
    return value


def _advertised(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """`host:port`, as other nodes put it into a URL."""
    import re
    from ipaddress import IPv6Address

    if value is None:
        return None
    host, _, port = value.rpartition(":")
    try:
        if host.startswith("[") and host.endswith("]"):
            IPv6Address(host[1:-1])
        elif re.fullmatch(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", host) is None:
            raise ValueError
        if not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65_536):
            raise ValueError
    except ValueError as error:
        words = f"{value!r}: expected host:port or [IPv6 address]:port, with a port from 1 to 65535"
        raise click.BadParameter(words) from error
    return value


def _networks(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    from ipaddress import ip_network

    for text in value:
        try:
            ip_network(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return value


def _rates(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> dict[str, float]:
    """Tenant -> rate; that of all others under the empty name."""
    rates: dict[str, float] = {}
    for text in value:
        tenant, _, number = text.rpartition("=")
        try:
            rate_hz = float(number)
        except ValueError:
            rate_hz = 0.0
        if not 0 < rate_hz < 1e9 or tenant in rates:
            raise click.BadParameter(f"{text!r}: expected N or TENANT=N, once a tenant, with N above 0")
        rates[tenant] = rate_hz
    return rates


@click.command()
@click.option(
    "--port",
    type=_PORT,
    default=PORT,
    show_default=True,
    envvar="RINGWHEEL_PORT",
    help="0 = any free one. The webhook target is 9 above, if that is free.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=_data_home,
    envvar="RINGWHEEL_DATA",
    show_envvar=True,
    help="Folder of the database.  [default: ~/.local/share/ringwheel]",
)
@click.option(
    "--nodes",
    type=click.IntRange(1, NODES),
    default=1,
    show_default=True,
    envvar="RINGWHEEL_NODES",
    help="Processes, on the ports from --port on.",
)
@click.option("--no-demo", is_flag=True, help="Without the demo's tasks; its webhook target is there all the same.")
@_attached
@click.option("--scratch", is_flag=True, hidden=True, help="Remove the data folder, which is empty, at the end.")
@json_option
def dev_command(port: int, data: Path, nodes: int, no_demo: bool, attached: bool, scratch: bool, as_json: bool) -> None:
    """Run the service on a PostgreSQL of its own, for development."""
    if port + nodes - 1 > MAX_PORT:
        raise click.BadParameter(f"there are no {nodes} ports from {port} on", param_hint="--nodes")
    settings = DevSettings(data=data, port=port, nodes=nodes, demo=not no_demo, attached=attached)
    with _removed(data) if scratch else nullcontext():
        _run("dev", settings, as_json)


@contextmanager
def _removed(data: Path) -> Iterator[None]:
    """The folder is gone at the end, whatever the end is."""
    from shutil import rmtree

    if data.exists() and any(data.iterdir()):
        raise click.BadParameter(f"{data} is not empty", param_hint="--scratch")
    try:
        yield
    finally:
        rmtree(data, ignore_errors=True)


@click.command()
@database_option
@click.option(
    "--bind",
    type=TEXT,
    default=LOOPBACK,
    show_default=True,
    callback=_host,
    envvar="RINGWHEEL_BIND",
    help="Address to listen on.",
)
@click.option("--port", type=_PORT, default=PORT, show_default=True, envvar="RINGWHEEL_PORT", help="0 = any free one.")
@click.option(
    "--advertise",
    type=TEXT,
    callback=_advertised,
    envvar="RINGWHEEL_ADVERTISE",
    metavar="HOST:PORT",
    help="Where other nodes reach this one.",
)
@click.option(
    "--name", type=NODE_NAME, envvar="RINGWHEEL_NAME", help="Stable name of this node.  [default: host name and port]"
)
@click.option(
    "--grace",
    type=click.FloatRange(0, 3600),
    default=GRACE_S,
    show_default=True,
    callback=lambda _ctx, _param, value: finite(value),
    envvar="RINGWHEEL_GRACE",
    help="Seconds that running attempts may take to end after SIGTERM.",
)
@click.option("--tls-cert", type=_FILE, envvar="RINGWHEEL_TLS_CERT", help="Certificate and chain (PEM): speak TLS.")
@click.option("--tls-key", type=_FILE, envvar="RINGWHEEL_TLS_KEY", help="The certificate's key (PEM).")
@click.option("--tls-ca", type=_FILE, envvar="RINGWHEEL_TLS_CA", help="Who signs the other nodes' certificates (PEM).")
@click.option(
    "--allow-target",
    multiple=True,
    envvar="RINGWHEEL_ALLOW_TARGETS",
    callback=_networks,
    metavar="CIDR",
    help="A private network that webhooks may reach; may be repeated.",
)
@click.option(
    "--tenant-rate",
    multiple=True,
    envvar="RINGWHEEL_TENANT_RATE",
    callback=_rates,
    metavar="[TENANT=]N",
    help="Tasks a second that a tenant may submit to this node; may be repeated.",
)
@_attached
@json_option
def serve_command(
    database_url: str,
    bind: str,
    port: int,
    advertise: str | None,
    name: str | None,
    grace: float,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    allow_target: tuple[str, ...],
    tenant_rate: dict[str, float],
    attached: bool,
    as_json: bool,
) -> None:
    """Run a node on a PostgreSQL that is there already."""
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    settings = ServeSettings(
        database_url=database_url,
        bind=bind,
        port=port,
        advertise=advertise,
        name=name,
        grace_s=grace,
        tls_certificate=tls_cert,
        tls_key=tls_key,
        tls_authorities=tls_ca,
        allow_targets=allow_target,
        tenant_rate_hz=tenant_rate.pop("", None),
        tenant_rates_hz=tenant_rate,
        attached=attached,
    )
    _run("serve", settings, as_json)


@click.command()
@database_option
@click.option(
    "--shards",
    type=click.IntRange(1, MOST_SHARDS),
    envvar="RINGWHEEL_SHARDS",
    show_envvar=True,
    help="Of a new cluster, for its whole life: ten for each node that it may ever have.  [default: 256]",
)
@json_option
def migrate_command(database_url: str, shards: int | None, as_json: bool) -> None:
    """Bring the database's schema up to date."""
    from storage.migrations import migrate

    applied: list[str] = answer_of(lambda: migrate(database_url, shards), as_json)
    words = [f"applied {name}" for name in applied] or ["up to date"]
    try:
        say(json.dumps({"applied": applied}) if as_json else "\n".join(words))
    except Unwritable as error:
        show_problem({"title": "The schema is up to date", "detail": str(error)}, as_json)
        click.get_current_context().exit(Exit.FAILED)


def _run(entry: str, settings: ServeSettings | DevSettings, as_json: bool) -> None:
    from importlib import import_module

    from gateway import logs

    logs.set_up(only_json=as_json)
    root = import_module("gateway.__main__")
    answer_of(lambda: getattr(root, entry)(settings), as_json)


def answer_of(work: Callable[[], Coroutine[Any, Any, Any]], as_json: bool) -> Any:
    """What `work` answers; what it refuses ends the process with words and an exit code."""
    import uvloop

    from actors.core.errors import Misconfigured, Unavailable

    refusals: list[tuple[Exit, str, BaseExceptionGroup[BaseException]]] = []
    answer = None
    try:
        answer = uvloop.run(work())
    except* Misconfigured as group:
        refusals.append((Exit.USAGE, "Can't run like this", group))
    except* Unavailable as group:
        refusals.append((Exit.UNREACHABLE, "Not available", group))
    for code, title, errors in refusals:
        for error in _leaves(errors):
            show_problem({"title": title, "detail": str(error)}, as_json)
        click.get_current_context().exit(code)
    return answer


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
