"""A trial: tasks with random delays to a target that misbehaves by script, with or without faults.

    python -m bench.trial                       20,000 tasks, delays of 0-20 s
    python -m bench.trial --kill                the service is killed (-9) at 5 s, Postgres at 10 s; both start again
    python -m bench.trial --pair                two nodes on one database; one is stopped (SIGSTOP) from 5 s to 15 s
    python -m bench.trial --watch               a subscriber that reconnects with its cursor every second

Every accepted task must end as its script says; none may start early; no task may run twice without a recorded failure
or a change of owner; after the last fault, nothing may be left. Exit code 1 when one of these does not hold.
"""

import asyncio
import signal
import sys
from collections import Counter
from dataclasses import dataclass

import click
import uvloop
from rich.console import Console
from rich.progress import Progress

from bench.scene import Scene, scene
from bench.scripted import SCRIPTS
from bench.traffic import Traffic
from bench.verdict import BROKEN, Tables, Verdict
from bench.watcher import Watcher

PATIENCE_S = 120.0


@dataclass(slots=True)
class Options:
    """What to do."""

    tasks: int = 20_000
    span_s: float = 20.0
    kill: bool = False
    pair: bool = False
    watch: bool = False
    seed: int = 0


async def submit(traffic: Traffic, options: Options, progress: Progress) -> None:
    """Submit everything within half of the span."""
    bar = progress.add_task("submitted", total=options.tasks)
    await traffic.run(2 * options.tasks / options.span_s, options.tasks, lambda count: progress.advance(bar, count))


async def faults(options: Options, here: Scene) -> None:
    """Carry the faults out, at their times."""
    if options.kill:
        await asyncio.sleep(5)
        here.nodes.signal("a", signal.SIGKILL)
        await here.nodes.start("a")
        await asyncio.sleep(5)
        here.postgres.end("killed")
    if options.pair:
        await asyncio.sleep(5)
        here.nodes.signal("a", signal.SIGSTOP)
        await asyncio.sleep(10)
        here.nodes.signal("a", signal.SIGCONT)


def figures(verdict: Verdict, traffic: Traffic, counted: Counter[str]) -> dict[str, object]:
    """What was found; keys that end in `!` must be 0."""
    return {
        "accepted": verdict.accepted,
        **{f"{words}!": getattr(verdict, name) for name, words in BROKEN.items()},
        "ran again after a change of owner": verdict.explained,
        "stale writes refused": counted["ringwheel_stale_writes"],
        "boots that found themselves dead": counted["ringwheel_rejoins"],
        "found by the probe": counted["ringwheel_probe_finds"],
        "submits sent again": traffic.refused,
        **{f"lateness p{percent:g} ms": round(verdict.late_ms(percent), 1) for percent in (50, 99, 100)},
    }


def watched(watcher: Watcher, tables: Tables) -> dict[str, object]:
    """What a watcher saw of it."""
    unseen = sum(watcher.terminal.get(row.task_id) != row.state for row in tables.ended)
    return {
        "watcher: connections": watcher.connections,
        "watcher: gaps told": watcher.gaps,
        "watcher: terminal states not seen, and no gap told!": 0 if watcher.gaps else unseen,
        "watcher: terminal states not seen": unseen,
        "watcher: versions that went back!": watcher.went_back,
    }


async def run(options: Options, console: Console) -> dict[str, object]:
    """One trial on a database of its own."""
    nodes = 2 if options.pair else 1
    async with scene(nodes, scripts=SCRIPTS, span_s=options.span_s, seed=options.seed) as here:
        with Progress(console=console) as progress:
            watcher, watching = Watcher(here.nodes.ports[0], here.traffic.plan.queue), None
            async with asyncio.TaskGroup() as group:
                if options.watch:
                    watching = group.create_task(watcher.run())
                group.create_task(faults(options, here))
                await submit(here.traffic, options, progress)
                bar = progress.add_task("settled", total=options.tasks)
                settled = await here.settled(
                    options.span_s + PATIENCE_S, lambda left: progress.update(bar, completed=options.tasks - left)
                )
                if not settled:
                    console.print("[red]tasks were left at the end[/red]")
                if watching is not None:
                    await asyncio.sleep(2)
                    watching.cancel()
        counted = await here.nodes.counters()
        verdict, tables = await here.judged()
        seen = watched(watcher, tables) if options.watch else {}
        return figures(verdict, here.traffic, counted) | seen


@click.command()
@click.option("--tasks", default=20_000, show_default=True)
@click.option("--span", default=20.0, show_default=True, help="Seconds over which the tasks are due.")
@click.option("--kill", is_flag=True, help="Kill the service, then Postgres.")
@click.option("--pair", is_flag=True, help="Two nodes; one is stopped for 10 s.")
@click.option("--watch", is_flag=True, help="Watch with a subscriber that reconnects every second.")
@click.option("--seed", default=0, show_default=True)
def main(tasks: int, span: float, seed: int, *, kill: bool, pair: bool, watch: bool) -> None:
    """Run one trial and print what it found."""
    options = Options(tasks, span, kill=kill, pair=pair, watch=watch, seed=seed)
    console = Console(stderr=True)
    found = uvloop.run(run(options, console))
    failed = False
    for name, figure in found.items():
        bad = name.endswith("!") and figure != 0
        failed = failed or bad
        print(f"{'FAIL ' if bad else '     '}{name.rstrip('!'):60} {figure}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
