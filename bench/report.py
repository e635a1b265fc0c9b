"""Rows that hold a figure against its floor, and their table.

A floor is measured in the same run, interleaved with ours; what is compared are medians, and of ratios the median over
the pairs, since a shared machine's absolute figures wander. Absolute figures are for orientation; ratios are the claim.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import ceil
from statistics import median

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One claim and what was measured. `ratio` = ours / floor; `ok` None = for information, without a goal.

    `promise`: it has to hold whatever the size of the load; others only count at full size.
    """

    name: str
    ours: float
    unit: str
    floor: float | None = None
    ratio: float | None = None
    goal: str = ""
    ok: bool | None = None
    promise: bool = False


@dataclass(slots=True)
class Pairs:
    """Interleaved measurements of one figure and its floor."""

    name: str
    unit: str
    ours: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)

    def ratio(self) -> float:
        """The median over the pairs of ours / floor."""
        return median(ours / floor for ours, floor in zip(self.ours, self.floor, strict=True))

    def at_least(self, goal: float) -> Row:
        """A row that holds when ours is at least `goal` times the floor."""
        ratio = self.ratio()
        return Row(
            self.name, median(self.ours), self.unit, median(self.floor), ratio, f">= {goal:g} x floor", ratio >= goal
        )

    def plain(self) -> Row:
        """A row for information."""
        return Row(self.name, median(self.ours), self.unit, median(self.floor), self.ratio())

    def above_floor(self, allowance: float) -> Row:
        """A row that holds when ours is at most the floor plus `allowance`."""
        excess = median(ours - floor for ours, floor in zip(self.ours, self.floor, strict=True))
        goal = f"<= floor + {allowance:g}"
        return Row(self.name, median(self.ours), self.unit, median(self.floor), self.ratio(), goal, excess <= allowance)


class Options:
    """How a benchmark is to run, and where it tells of its progress."""

    def __init__(
        self,
        iterations: int = 5,
        *,
        smoke: bool = False,
        progress: Progress | None = None,
        only: Sequence[str] = (),
        rate_hz: float | None = None,
        shards: int | None = None,
    ) -> None:
        """`only`: these parts of it, if not all; `rate_hz`: tasks a second, and `shards`: how many the cluster has, if
        it is not to choose by itself.
        """
        self.iterations = 1 if smoke else iterations
        self.smoke = smoke
        self.only = only
        self.rate_hz = rate_hz
        self.shards = shards
        self._progress = progress

    def size(self, full: int, smoke: int) -> int:
        """The size of a load: the full one, or one that only shows that the benchmark works."""
        return smoke if self.smoke else full

    @contextmanager
    def steps(self, name: str, count: int) -> "Iterator[Steps]":
        """A progress bar of `count` steps."""
        bar = None if self._progress is None else self._progress.add_task(name, total=count, note="")
        yield Steps(self._progress, bar)


class Steps:
    """The bar of one benchmark; draws nothing when there is no terminal."""

    def __init__(self, progress: Progress | None, bar: object) -> None:
        self._progress = progress
        self._bar = bar

    def begin(self, note: str) -> None:
        """The next step begins."""
        if self._progress is not None:
            self._progress.update(self._bar, note=note)  # type: ignore[arg-type]

    def done(self) -> None:
        """It has ended."""
        if self._progress is not None:
            self._progress.advance(self._bar)  # type: ignore[arg-type]


def progress(console: Console) -> Progress:
    """The bars of a run."""
    return Progress(
        TextColumn("{task.description:10}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[note]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the rows as a table."""
    table = Table(box=None, pad_edge=False)
    for title in ("what", "ours", "floor", "unit", "ratio", "goal", ""):
        table.add_column(title, justify="right" if title in {"ours", "floor", "ratio"} else "left")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        mark = {None: "", True: "[green]ok[/]", False: "[red]missed[/]"}[row.ok]
        table.add_row(row.name, number(row.ours), number(row.floor), row.unit, ratio, row.goal, mark)
    console.print(table)


def number(value: float | None) -> str:
    """Three significant figures, thousands apart."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def as_json(rows: Sequence[Row]) -> str:
    """The rows for programs."""
    return json.dumps([asdict(row) for row in rows], indent=2)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]
