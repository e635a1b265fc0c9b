"""`watch`: live status of tasks, or of a queue or of labels."""

from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING

import click

from gateway.cli.exits import Exit, carry_out, show_problem
from gateway.cli.options import TEXT, client_options, label_option
from gateway.cli.streams import note, say

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from gateway.cli.api import Api
    from gateway.cli.follow import Message, Seen, Wanted

MOST_IDS = 100


@click.command()
@click.argument("task_ids", metavar="[ID]...", nargs=-1, type=TEXT)
@click.option("--queue", type=TEXT, help="All tasks of this queue, until Ctrl-C.")
@label_option
@client_options
def watch_command(task_ids: tuple[str, ...], queue: str | None, label: dict[str, str], url: str, as_json: bool) -> None:
    """Follow tasks until they end, or a queue, or all with some labels, until Ctrl-C.

    On a terminal a live table, else one line a change (with --json: one object a line). Exit code 0 when all watched
    tasks succeeded, else 1; 3 when one is unknown.
    """
    group = ({"queue": queue} if queue is not None else {}) | ({"labels": label} if label else {})
    if bool(task_ids) == bool(group):
        raise click.UsageError("name either ids of tasks, or a --queue or a --label or both")
    if len(task_ids) > MOST_IDS:
        raise click.UsageError(f"at most {MOST_IDS} tasks at a time")
    wanted = [group] if group else [{"id": task_id} for task_id in dict.fromkeys(task_ids)]
    try:
        carry_out(_watch(url, wanted, as_json), as_json)
    except KeyboardInterrupt:
        click.get_current_context().exit(Exit.OK if group else Exit.FAILED)


async def _watch(url: str, wanted: Sequence["Wanted"], as_json: bool) -> Exit:
    from gateway.cli.api import connected

    async with connected(url) as api:
        return await watch_to_end(api, wanted, as_json)


async def watch_to_end(api: "Api", wanted: Sequence["Wanted"], as_json: bool) -> Exit:
    """Show every change until all watched tasks have ended (a queue or labels never do)."""
    from gateway.cli.follow import Seen, follow
    from gateway.cli.show import console

    seen = Seen()
    live = not as_json and console().is_terminal
    show = _show_json if as_json else _show_line
    with _board(seen) if live else nullcontext():
        async with aclosing(follow(api, wanted)) as messages:
            async for message in messages:
                news = seen.take(message)
                if not live:
                    show(message, news, seen)
                code = _end(seen, wanted)
                if code is not None:
                    return code
    raise AssertionError("following ends by an answer or an error")


def _end(seen: "Seen", wanted: Sequence["Wanted"]) -> Exit | None:
    """The exit code, once nothing more is to be waited for."""
    from gateway.cli.missing import ENDED

    if len(seen.shown) < len(wanted) or "id" not in wanted[0]:
        return None
    ids = [one["id"].lower() for one in wanted]
    unknown = [task_id for task_id in ids if task_id not in seen.tasks]
    if unknown:
        show_problem({"title": "Not found", "detail": ", ".join(unknown)}, as_json=False)
        return Exit.NOT_FOUND
    states = {seen.tasks[task_id]["state"] for task_id in ids}
    if not states <= ENDED:
        return None
    return Exit.OK if states == {"succeeded"} else Exit.FAILED


def _show_json(message: "Message", _news: list["Message"], _seen: "Seen") -> None:
    from gateway.cli.show import show_json

    show_json(message)


def _show_line(message: "Message", news: list["Message"], seen: "Seen") -> None:
    from gateway.cli.show import line_of

    if message["type"] in ("gap", "error", "unknown"):
        note(f"({seen.note})")
    for task in news:
        say(line_of(task))


def _board(seen: "Seen") -> "Live":
    """A live table of what changed last; drawn by a thread that only copies what it shows."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from gateway.cli.show import console, task_table, text_of

    screen = console()

    def draw() -> "RenderableType":
        tasks = list(seen.tasks.values())
        counts = Counter(task["state"] for task in tasks)
        words = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "nothing yet"
        note = Text(f"  {seen.note}", style="yellow") if seen.note else Text()
        return Group(text_of(words) + note, task_table(tasks[: -max(screen.height - 4, 1) - 1 : -1]))

    return Live(get_renderable=draw, console=screen, refresh_per_second=8)
