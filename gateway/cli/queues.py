"""`queue`: the settings of queues, pausing, and the end of all that waits in one."""

import json
from collections.abc import Callable
from typing import Any

import click

from gateway.cli.exits import Exit, Refused, carry_out
from gateway.cli.options import TEXT, client_options, duration_of
from gateway.cli.streams import say

PAGE = 500
RETAINED = ("succeeded", "dead", "expired", "cancelled")
RETRY = ("max_attempts", "min_backoff", "max_backoff", "max_doublings", "max_retry_duration")
UNKNOWN = ("retry", "wait_deadline", "hold")
_name = click.argument("name", metavar="QUEUE", type=TEXT)


@click.group()
def queue_command() -> None:
    """Show and change queues."""


def _periods(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, float | str]:
    return _pairs(_ctx, _param, values, RETAINED)


def _retry(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, float | str]:
    return _pairs(_ctx, _param, values, RETRY)


def _pairs(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...], names: tuple[str, ...]
) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for text in values:
        name, _, value = text.partition("=")
        number = duration_of(ctx, param, value)
        if name not in names or number is None or not value:
            raise click.BadParameter(f"expected name=value, with a name of {', '.join(names)}")
        found[name] = int(number) if isinstance(number, float) and number.is_integer() else number
    return found


@queue_command.command("list")
@client_options
def list_command(url: str, as_json: bool) -> None:
    """List queues by name (with --json: one object a line)."""
    carry_out(_list(url, as_json), as_json)


async def _list(url: str, as_json: bool) -> Exit:
    from gateway.cli.api import connected
    from gateway.cli.show import queue_table, show, show_json

    queues: list[dict[str, Any]] = []
    cursor: str | None = ""
    async with connected(url) as api:
        while cursor is not None:
            params = {"limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
            page = await api.get("/v1/queues", params)
            queues += page["queues"]
            cursor = page["next_cursor"]
    if as_json:
        for queue in queues:
            show_json(queue)
    else:
        show(queue_table(queues))
    return Exit.OK


@queue_command.command("get")
@_name
@client_options
def get_command(name: str, url: str, as_json: bool) -> None:
    """Show a queue, with what waits in it."""
    carry_out(_call(url, "GET", name, as_json=as_json), as_json)


@queue_command.command("set")
@_name
@click.option("--dispatch-deadline", type=TEXT, callback=duration_of, metavar="DURATION", help="Limit of one attempt.")
@click.option("--retry", type=TEXT, multiple=True, callback=_retry, metavar="NAME=VALUE", help="Like max_attempts=3.")
@click.option("--retain", type=TEXT, multiple=True, callback=_periods, metavar="STATE=TIME", help="Like dead=7d.")
@click.option("--unknown", type=click.Choice(UNKNOWN), help="What becomes of an attempt whose node was lost.")
@click.option("--paused/--running", "paused", default=None, help="Whether it stands still.")
@click.option("--replace", is_flag=True, help="Defaults for all that is not named; makes the queue when it is new.")
@client_options
def set_command(
    name: str,
    dispatch_deadline: float | str | None,
    retry: dict[str, float | str],
    retain: dict[str, float | str],
    unknown: str | None,
    paused: bool | None,
    replace: bool,
    url: str,
    as_json: bool,
) -> None:
    """Change settings of a queue. What is named is set as a whole: the rest of --retry, too, is as by default."""
    named = {"dispatch_deadline": dispatch_deadline, "retry": retry, "retention": retain}
    named |= {"unknown": unknown, "paused": paused}
    body = {key: value for key, value in named.items() if value is not None and value != {}}
    if not body and not replace:
        raise click.UsageError("name a setting")
    carry_out(_set(url, name, json.dumps(body).encode(), replace, as_json), as_json)


async def _set(url: str, name: str, body: bytes, replace: bool, as_json: bool) -> Exit:
    try:
        return await _call(url, "PUT" if replace else "PATCH", name, body=body, as_json=as_json)
    except Refused as refused:
        if refused.code is Exit.NOT_FOUND and not replace:
            refused.problem["detail"] = f"{refused.problem.get('detail')}; with --replace it is made"
        raise


def _plain(verb: str, words: str) -> Callable[..., Any]:
    @queue_command.command(verb, help=words)
    @_name
    @client_options
    def command(name: str, url: str, as_json: bool) -> None:
        carry_out(_call(url, "POST", name, f":{verb}", as_json=as_json), as_json)

    return command


pause_command = _plain("pause", "Let nothing of a queue start.")
resume_command = _plain("resume", "Let a paused queue go on.")


@queue_command.command("purge")
@_name
@click.option("--yes", is_flag=True, help="Do not ask.")
@client_options
def purge_command(name: str, yes: bool, url: str, as_json: bool) -> None:
    """Cancel all that waits in a queue. What runs goes on."""
    if not yes:
        click.confirm(f"Cancel all that waits in {name}?", abort=True, err=True)
    carry_out(_purge(url, name, as_json), as_json)


async def _purge(url: str, name: str, as_json: bool) -> Exit:
    from gateway.cli.api import connected
    from gateway.cli.show import show_json

    purged, done = 0, False
    async with connected(url) as api:
        while not done:
            answer = await api.post(_path(name, ":purge"))
            purged, done = purged + answer["purged"], answer["done"]
    if as_json:
        show_json({"purged": purged})
    else:
        say(f"{purged} cancelled")
    return Exit.OK


@queue_command.command("delete")
@_name
@client_options
def delete_command(name: str, url: str, as_json: bool) -> None:
    """Forget a queue that has no live tasks."""
    carry_out(_call(url, "DELETE", name, as_json=as_json), as_json)


async def _call(url: str, method: str, name: str, verb: str = "", *, body: bytes = b"", as_json: bool) -> Exit:
    from gateway.cli.api import connected
    from gateway.cli.show import show_json, show_task

    async with connected(url) as api:
        queue = await api.send(method, _path(name, verb), body)
    if queue or as_json:
        (show_json if as_json else show_task)(queue)
    return Exit.OK


def _path(name: str, verb: str = "") -> str:
    from urllib.parse import quote

    return f"/v1/queues/{quote(name, safe='')}{verb}"
