"""`python -m bench <name>|all`: measure ringwheel beside its floors, and say whether it keeps what it promises.

Exit code 1 when a goal is missed, so that CI can hold it; with --smoke, whose sizes say nothing about speed, only when
a promise is broken. `faults` does its worst to a cluster; it takes long, and is no part of `all`.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

import click
from rich.console import Console

from bench.faults import FAULTS
from bench.report import Options, Row, as_json, progress, show
from bench.work import SHARDS

NAMES = (
    "wheel",
    "ingest",
    "single",
    "life",
    "webhook",
    "lateness",
    "pull",
    "bulk",
    "pending",
    "siege",
    "spike",
    "scale",
)
DIVISORS = [SHARDS >> power for power in range(6)]
"""Of the parts of the ids by which tasks are told apart: a shard has to be one or several of them."""


def runner(name: str) -> Callable[[Options], list[Row]]:
    """The `run` of a benchmark, imported when it is needed."""
    run: Callable[[Options], list[Row]] = import_module(f"bench.{name}").run
    return run


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name", type=click.Choice([*NAMES, "faults", "all"]))
@click.option("--iterations", default=5, show_default=True, type=click.IntRange(1), help="Rounds; medians are shown.")
@click.option("--smoke", is_flag=True, help="One small round: shows that the benchmark works, not how fast.")
@click.option("--json", "machine", is_flag=True, help="Print JSON on standard output.")
@click.option("--only", multiple=True, type=click.Choice(FAULTS), help="Of faults: these; may be repeated.")
@click.option("--rate", type=click.IntRange(1), help="Of faults, and of what comes evenly in pull: tasks a second.")
@click.option("--shards", type=click.Choice(DIVISORS), help="Of pull: how many its cluster has.")
def main(
    name: str,
    iterations: int,
    only: tuple[str, ...],
    rate: int | None,
    shards: int | None,
    *,
    smoke: bool,
    machine: bool,
) -> None:
    """Measure NAME, each figure beside its floor."""
    console = Console(stderr=True)
    rows: list[Row] = []
    with progress(console) as bars:
        options = Options(iterations, smoke=smoke, progress=bars, only=only, rate_hz=rate, shards=shards)
        for each in NAMES if name == "all" else (name,):
            rows += runner(each)(options)
    if smoke:
        rows = [row if row.promise else replace(row, ok=None) for row in rows]
    if machine:
        print(as_json(rows))
    else:
        show(rows, Console())
    sys.exit(any(row.ok is False for row in rows))


if __name__ == "__main__":
    main()
