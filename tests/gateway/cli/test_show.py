"""The table of tasks, on terminals of many widths."""

import asyncio
import fcntl
import io
import os
import struct
import termios
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from gateway.cli.show import TASK_COLUMNS, node_table, queue_table, task_table
from tests.gateway.cli.double import a_task, double
from tests.gateway.cli.test_client import all_of
from tests.gateway.watched import id_of

STATES = ("scheduled", "running", "succeeded", "dead", "expired", "cancelled")
ERROR = "connection refused: nobody listens at the address that this name stands for, and never did"


def failed(**more: Any) -> dict[str, Any]:
    return {"attempt": 100_000, "lateness_ms": 123_456, "last_attempt": {"status": 503, "error": ERROR}} | more


def drawn(columns: int, *tasks: dict[str, Any]) -> list[str]:
    screen = Console(width=columns, file=io.StringIO(), force_terminal=False)
    screen.print(task_table(tasks, columns))
    assert isinstance(screen.file, io.StringIO)
    lines = screen.file.getvalue().splitlines()
    assert all(len(line) <= columns for line in lines)
    return lines


@pytest.mark.parametrize("columns", [62, 80, 100, 120, 160, 250])
@pytest.mark.parametrize("queue", ["default", "billing.invoices-eu", "q" * 100])
def test_ids_states_and_queues_are_there_whole(columns: int, queue: str) -> None:
    tasks = [a_task(number, state, queue=queue, **failed()) for number, state in enumerate(STATES)]
    text = drawn(columns, *tasks)
    rows = [line for line in text if line[:36] in {task["id"] for task in tasks}]
    for task, row in zip(tasks, rows, strict=True):
        assert {task["id"], task["state"]} <= set(row.split())
    table = "\n".join(text[1:]).partition("no room for")[0].splitlines()
    folded = "".join(line[38:].split(" ")[0] for line in table if line[38:39].strip())
    assert queue * len(tasks) == folded


@pytest.mark.parametrize(
    ("columns", "gone"),
    [
        (60, ["attempt", "schedule_time", "late ms", "last attempt"]),
        (80, ["schedule_time", "late ms", "last attempt"]),
        (100, ["last attempt"]),
        (120, []),
        (160, []),
    ],
)
def test_what_there_is_no_room_for_is_left_out_and_said_to_be(columns: int, gone: list[str]) -> None:
    text = drawn(columns, a_task(1, "dead", queue="default", **failed()))
    shown = [name for name in TASK_COLUMNS if name in text[0]]
    assert [name for name in TASK_COLUMNS if name not in shown] == gone
    assert (f"no room for: {', '.join(gone)}" in " ".join(line.strip() for line in text)) == bool(gone)
    assert ("503 connection" in text[1]) == ("last attempt" in shown)
    assert ("123456" in text[1]) == ("late ms" in shown)


def test_what_is_short_keeps_every_column_on_a_narrow_terminal() -> None:
    assert [name in drawn(112, a_task(1, queue="q"))[0] for name in TASK_COLUMNS] == [True] * 7


async def test_a_list_on_a_terminal_of_80_columns() -> None:
    async with double() as service:
        service.answer({"tasks": [a_task(1, "dead", **failed())], "next_cursor": None})
        screen, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        process = await service.start("list", terminal=terminal)
        os.close(terminal)
        try:
            text = await asyncio.to_thread(all_of, screen)
        finally:
            os.close(screen)
        assert await process.wait() == 0
        assert [id_of(1), "mail", "dead", "100000"] == text.splitlines()[1].split()


def words(table: Table, columns: int) -> set[str]:
    screen = Console(width=columns, file=io.StringIO(), force_terminal=False)
    screen.print(table)
    assert isinstance(screen.file, io.StringIO)
    text = screen.file.getvalue()
    assert all(len(line) <= columns for line in text.splitlines())
    return set(text.split())


@pytest.mark.parametrize("columns", [44, 60, 80, 100, 250])
def test_figures_of_nodes_and_queues_are_there_whole_or_not_at_all(columns: int) -> None:
    """A number that is cut is another number."""
    boot, address = "863ebb8c0bb19ee8", "192.0.2.17:65535"
    armed = {"entries": 123_456, "rows": 234_567, "missing": 345_678}
    node = {"name": "n" * 30, "state": "leaving", "shards": 256, "still_ms": 98_765, "asked": True}
    shown = words(node_table([{**node, "address": address, "boot": boot, "armed": armed}], columns), columns)
    assert {"leaving", "256", "345678"} <= shown
    for figure, name in (
        ("98765", "still"),
        ("123456", "armed"),
        ("234567", "rows"),
        (address, "address"),
        (boot, "boot"),
    ):
        assert figure in shown or ("no" in shown and name in {word.strip(",") for word in shown})
        assert not {figure[:length] for length in range(3, len(figure))} & shown
    queue = {"name": "q" * 100, "paused": True, "retry": {"max_attempts": 12_345}, "dispatch_deadline": 86_400.5}
    shown = words(queue_table([{**queue, "retention": {"succeeded": 604_800, "dead": 2_592_000}}], columns), columns)
    for figure in ("12345", "86400.5"):
        assert not {figure[:length] for length in range(3, len(figure))} & shown
    assert "paused" in shown
