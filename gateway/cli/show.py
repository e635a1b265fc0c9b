"""Tasks, queues and nodes on a terminal, or as JSON."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from rich.cells import cell_len
from rich.console import Console, OverflowMethod, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.cli.exits import printable
from gateway.cli.streams import say

COLOURS = {
    "scheduled": "cyan",
    "running": "yellow",
    "succeeded": "green",
    "dead": "red",
    "expired": "magenta",
    "cancelled": "dim",
    "held": "bold yellow",
}
TASK_COLUMNS = ("id", "queue", "state", "attempt", "schedule_time", "late ms", "last attempt")
FIRST_TO_GO = ("last attempt", "late ms", "schedule_time", "attempt", "queue")
"""What is left out, one after the other, where a terminal has no room for it."""
QUEUE_COLUMNS = ("name", "paused", "attempts", "deadline s", "kept s (succeeded, dead)")
QUEUES_FIRST_TO_GO = ("kept s (succeeded, dead)", "deadline s", "attempts")
NODE_COLUMNS = ("name", "state", "shards", "still ms", "armed", "rows", "missing", "address", "boot")
NODES_FIRST_TO_GO = ("boot", "rows", "armed", "still ms", "address")
LEAST = {"queue": 12, "name": 12, "owner": 12, "last attempt": 20}
"""Columns that may be narrower than what they hold, but not than this; names are folded, errors are cut."""
GAP = 2
"""Between two columns."""
_OVERFLOW: dict[str, OverflowMethod] = {"last attempt": "ellipsis"}
PIPE_COLUMNS = 250
"""Width of what goes into a file or a pipe: nothing is cut there."""


def console() -> Console:
    """Standard output."""
    return Console(width=None if sys.stdout and sys.stdout.isatty() else PIPE_COLUMNS, highlight=False)


def show(what: RenderableType) -> None:
    """Anything that rich can draw. Raises Unwritable, like all that is shown here."""
    screen = console()
    with screen.capture() as drawn:
        screen.print(what)
    say(drawn.get(), nl=False)


def show_json(value: object) -> None:
    """One line of JSON."""
    say(orjson.dumps(value))


def show_task(task: dict[str, Any]) -> None:
    """All that is known of one task."""
    grid = Table.grid(padding=(0, 2))
    for name, value in task.items():
        if value not in (None, {}, []):
            grid.add_row(Text(name, style="bold"), _state(value) if name == "state" else text_of(value))
    show(grid)


def task_table(tasks: Iterable[dict[str, Any]], columns: int | None = None) -> Table:
    """Tasks; ids and states are never left out."""
    return _table(TASK_COLUMNS, (_cells(task) for task in tasks), FIRST_TO_GO, columns)


def _cells(task: dict[str, Any]) -> dict[str, Text]:
    return {
        "id": text_of(task["id"]),
        "queue": text_of(task["queue"]),
        "state": _state("held" if task.get("held") else task["state"]),
        "attempt": text_of(task["attempt"]),
        "schedule_time": text_of(task["schedule_time"]),
        "late ms": text_of("" if task["lateness_ms"] is None else task["lateness_ms"]),
        "last attempt": text_of(_last(task)),
    }


def queue_table(queues: Iterable[dict[str, Any]], columns: int | None = None) -> Table:
    """Queues."""
    return _table(QUEUE_COLUMNS, (_queue_cells(queue) for queue in queues), QUEUES_FIRST_TO_GO, columns)


def _queue_cells(queue: dict[str, Any]) -> dict[str, Text]:
    kept = queue["retention"]
    return {
        "name": text_of(queue["name"]),
        "paused": Text("paused", style="yellow") if queue["paused"] else Text(""),
        "attempts": text_of(queue["retry"]["max_attempts"]),
        "deadline s": text_of(queue["dispatch_deadline"]),
        "kept s (succeeded, dead)": text_of(f"{kept['succeeded']:g}, {kept['dead']:g}"),
    }


def node_table(nodes: Iterable[dict[str, Any]], columns: int | None = None) -> Table:
    """Nodes; the one that was asked has a star."""
    return _table(NODE_COLUMNS, (_node_cells(node) for node in nodes), NODES_FIRST_TO_GO, columns)


def _node_cells(node: dict[str, Any]) -> dict[str, Text]:
    armed = node["armed"] or {}
    missing = armed.get("missing")
    return {
        "name": text_of(node["name"] + (" *" if node["asked"] else "")),
        "state": Text(printable(node["state"]), style="green" if node["state"] == "up" else "yellow"),
        "shards": text_of(node["shards"]),
        "still ms": _known(node["still_ms"]),
        "armed": _known(armed.get("entries")),
        "rows": _known(armed.get("rows")),
        "missing": Text(str(missing), style="red") if missing else _known(missing),
        "address": text_of(node["address"]),
        "boot": text_of(node["boot"]),
    }


def shard_table(shards: Iterable[dict[str, Any]]) -> Table:
    """Shards."""
    return _table(("shard", "owner", "epoch"), (_shard_cells(shard) for shard in shards))


def _shard_cells(shard: dict[str, Any]) -> dict[str, Text]:
    owner = shard["owner"]
    shown = Text("nobody", style="red") if owner is None else text_of(owner)
    return {"shard": text_of(shard["shard"]), "owner": shown, "epoch": text_of(shard["epoch"])}


def plan_table(nodes: Iterable[dict[str, Any]]) -> Table:
    """How many shards each node has before and after."""
    return _table(("name", "before", "after", "change"), (_plan_cells(node) for node in nodes))


def _plan_cells(node: dict[str, Any]) -> dict[str, Text]:
    change = f"{node['after'] - node['before']:+d}"
    return {name: text_of(value) for name, value in {**node, "change": change}.items()}


def _table(
    names: Sequence[str],
    rows: Iterable[dict[str, Text]],
    first_to_go: Iterable[str] = (),
    columns: int | None = None,
) -> Table:
    """A table that fits into so many columns: what there is no room for is left out, and said to be."""
    shown = list(rows)
    widest = {name: max(len(name), *(cell_len(row[name].plain) for row in shown), 0) for name in names}
    widths = _fitting(widest, console().width if columns is None else columns, first_to_go)
    left_out = ", ".join(name for name in names if name not in widths)
    table = Table(box=None, pad_edge=False, caption_justify="left", caption_style="dim")
    table.caption = f"no room for: {left_out}" if left_out else None
    for name, width in widths.items():
        overflow = _OVERFLOW.get(name, "fold")
        table.add_column(name, width=width, no_wrap=name not in LEAST or overflow != "fold", overflow=overflow)
    for row in shown:
        table.add_row(*(row[name] for name in widths))
    return table


def _fitting(widest: dict[str, int], columns: int, first_to_go: Iterable[str]) -> dict[str, int]:
    """Widths of the columns that are shown."""
    widths = {name: min(width, LEAST.get(name, width)) for name, width in widest.items()}

    def room() -> int:
        return columns - sum(widths.values()) - GAP * (len(widths) - 1)

    for name in first_to_go:
        if room() >= 0:
            break
        del widths[name]
    for name in [name for name in LEAST if name in widths]:
        widths[name] += min(widest[name] - widths[name], max(room(), 0))
    return widths


def _known(figure: object) -> Text:
    return Text("?", style="yellow") if figure is None else text_of(figure)


def line_of(task: dict[str, Any]) -> str:
    """One change of a task in one line."""
    words = [task["time"], task["id"], task["state"], f"attempt {task['attempt']}", _last(task)]
    return printable("  ".join(word for word in words if word))


def text_of(value: object) -> Text:
    """A value of the service as plain text: no markup, nothing that could steer a terminal."""
    if isinstance(value, dict | list):
        return Text(printable(orjson.dumps(value).decode()))
    return Text(printable(value))


def _state(state: object) -> Text:
    return Text(printable(state), style=COLOURS.get(str(state), ""))


def _last(task: dict[str, Any]) -> str:
    """How the last attempt ended; before that, when there is another one."""
    attempt = task.get("last_attempt") or {}
    words = " ".join(str(part) for part in (attempt.get("status"), attempt.get("error")) if part is not None)
    again = task.get("next_attempt_time") if task["attempt"] else None
    return words if again is None else f"again at {again}" + (f" after {words}" if words else "")
