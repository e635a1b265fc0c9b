"""`get`, `list`, and the commands on tasks: `cancel`, `run`, `reschedule`, `redrive`."""

import json
from typing import Any

import click

from gateway.cli.exits import Exit, Refused, carry_out, show_problem
from gateway.cli.options import TEXT, client_options, duration_of, label_option
from gateway.cli.streams import note

PAGE = 500
STATES = ("scheduled", "running", "succeeded", "dead", "expired", "cancelled")


@click.command()
@click.argument("task_id", metavar="ID", type=TEXT)
@click.option("--full", is_flag=True, help="With its payload.")
@click.option("--attempts", is_flag=True, help="With the attempts that failed or were slow.")
@client_options
def get_command(task_id: str, full: bool, attempts: bool, url: str, as_json: bool) -> None:
    """Show a task."""
    carry_out(_get(url, task_id, full, attempts, as_json), as_json)


async def _get(url: str, task_id: str, full: bool, attempts: bool, as_json: bool) -> Exit:
    from gateway.cli.api import connected, task_path
    from gateway.cli.show import show_json, show_task

    async with connected(url) as api:
        task = await api.get(task_path(task_id), {"view": "full"} if full else None)
        if attempts:
            task |= await api.get(task_path(task_id, "/attempts"))
    (show_json if as_json else show_task)(task)
    return Exit.OK


@click.command()
@click.option("--queue", type=TEXT, help="Of this queue only.")
@click.option("--state", type=click.Choice(STATES), multiple=True, help="In this state; may be repeated.")
@label_option
@click.option("--from", "first", type=TEXT, metavar="TIME", help="Scheduled at this time (RFC 3339) or later.")
@click.option("--until", "end", type=TEXT, metavar="TIME", help="Scheduled before this time.")
@click.option("--oldest-first", is_flag=True, help="The other way round.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Tasks at most.")
@client_options
def list_command(
    queue: str | None,
    state: tuple[str, ...],
    label: dict[str, str],
    first: str | None,
    end: str | None,
    oldest_first: bool,
    limit: int,
    url: str,
    as_json: bool,
) -> None:
    """List tasks by when they run next or ran last, the latest first (with --json: one object a line)."""
    order = "asc" if oldest_first else "desc"
    given = {"queue": queue, "state": ",".join(state), "schedule_time.gte": first, "schedule_time.lt": end}
    given |= {"order": order}
    filters = {name: value for name, value in given.items() if value}
    filters |= {f"label.{name}": value for name, value in label.items()}
    carry_out(_list(url, filters, limit, as_json), as_json)


async def _list(url: str, filters: dict[str, str], limit: int, as_json: bool) -> Exit:
    from gateway.cli.api import connected
    from gateway.cli.show import show, show_json, task_table

    tasks: list[dict[str, Any]] = []
    cursor: str | None = None
    async with connected(url) as api:
        while True:
            params = filters | {"limit": str(min(limit - len(tasks), PAGE))} | ({"cursor": cursor} if cursor else {})
            page = await api.get("/v1/tasks", params)
            tasks += page["tasks"]
            cursor = page["next_cursor"]
            if cursor is None or len(tasks) >= limit:
                break
    if as_json:
        for task in tasks:
            show_json(task)
    else:
        show(task_table(tasks))
        if cursor is not None:
            note("there are more: raise --limit")
    return Exit.OK


_ids = click.argument("task_ids", metavar="ID...", nargs=-1, required=True, type=TEXT)


@click.command()
@_ids
@client_options
def cancel_command(task_ids: tuple[str, ...], url: str, as_json: bool) -> None:
    """Cancel tasks that wait. Goes on after a refusal; the first one gives the exit code."""
    carry_out(_command(url, "cancel", task_ids, b"", as_json), as_json)


@click.command()
@_ids
@client_options
def run_command(task_ids: tuple[str, ...], url: str, as_json: bool) -> None:
    """Run waiting tasks now. Goes on after a refusal; the first one gives the exit code."""
    carry_out(_command(url, "run", task_ids, b"", as_json), as_json)


@click.command()
@_ids
@client_options
def redrive_command(task_ids: tuple[str, ...], url: str, as_json: bool) -> None:
    """Give dead, expired or cancelled tasks another life. Goes on after a refusal, like cancel."""
    carry_out(_command(url, "redrive", task_ids, b"", as_json), as_json)


@click.command()
@_ids
@click.option("--delay", type=TEXT, callback=duration_of, help="From now: seconds, or text like 1h30m.")
@click.option("--at", type=TEXT, metavar="TIME", help="An RFC 3339 time with a zone.")
@client_options
def reschedule_command(
    task_ids: tuple[str, ...], delay: float | str | None, at: str | None, url: str, as_json: bool
) -> None:
    """Move waiting tasks to another time. Goes on after a refusal, like cancel."""
    if (delay is None) == (at is None):
        raise click.UsageError("give either --delay or --at")
    body = {"schedule_time": at} if delay is None else {"delay": delay}
    carry_out(_command(url, "reschedule", task_ids, json.dumps(body).encode(), as_json), as_json)


async def _command(url: str, name: str, task_ids: tuple[str, ...], body: bytes, as_json: bool) -> Exit:
    from gateway.cli.api import connected, task_path
    from gateway.cli.show import show, show_json, task_table

    refusals: list[Refused] = []
    done: list[dict[str, Any]] = []
    async with connected(url) as api:
        for task_id in task_ids:
            try:
                done.append(await api.post(task_path(task_id, f":{name}"), body))
            except Refused as error:
                show_problem(error.problem | {"detail": f"{task_id}: {error}"}, as_json)
                refusals.append(error)
    if as_json:
        for task in done:
            show_json(task)
    elif done:
        show(task_table(done))
    return refusals[0].code if refusals else Exit.OK
