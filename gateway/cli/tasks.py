"""`get`, `list` and `cancel`."""

from typing import Any

import click

from gateway.cli.exits import Exit, Refused, carry_out, show_problem
from gateway.cli.options import TEXT, client_options
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
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Tasks at most.")
@client_options
def list_command(queue: str | None, state: tuple[str, ...], limit: int, url: str, as_json: bool) -> None:
    """List tasks by schedule time (with --json: one object a line)."""
    filters = ({} if queue is None else {"queue": queue}) | ({"state": ",".join(state)} if state else {})
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


@click.command()
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True, type=TEXT)
@client_options
def cancel_command(task_ids: tuple[str, ...], url: str, as_json: bool) -> None:
    """Cancel tasks that wait. Goes on after a refusal; the first one gives the exit code."""
    carry_out(_cancel(url, task_ids, as_json), as_json)


async def _cancel(url: str, task_ids: tuple[str, ...], as_json: bool) -> Exit:
    from gateway.cli.api import connected, task_path
    from gateway.cli.show import show, show_json, task_table

    refusals: list[Refused] = []
    cancelled: list[dict[str, Any]] = []
    async with connected(url) as api:
        for task_id in task_ids:
            try:
                cancelled.append(await api.post(task_path(task_id, ":cancel")))
            except Refused as error:
                show_problem(error.problem | {"detail": f"{task_id}: {error}"}, as_json)
                refusals.append(error)
    if as_json:
        for task in cancelled:
            show_json(task)
    elif cancelled:
        show(task_table(cancelled))
    return refusals[0].code if refusals else Exit.OK
