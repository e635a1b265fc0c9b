"""Simulate histories of a whole cluster by the thousand, or tell one of them: see docs/simulation.md.

python -m tests.simulate --seeds 0..9999 [--processes 2]    prints the seed of every violation
python -m tests.simulate --seed 42                          prints all that happened in one history
with --unheard: in a world that has queues that hold or wait for attempts whose end nobody knows, too
with --workers: in a world where half of the tasks are taken by workers
"""

import argparse
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial

from tests.support.guards import LEASED, PATCHES, UNHEARD
from tests.support.history import Broken
from tests.support.simulation import Trace, simulate
from tests.support.world import Figures

GUARDS = PATCHES | UNHEARD | LEASED
BLOCK = 20
"""Seeds that a process takes at a time."""


def run_block(
    seeds: range, without: str | None = None, *, unheard: bool = False, pulled: bool = False
) -> tuple[list[Figures], list[str]]:
    """What these histories came to, and what was wrong with the others."""
    figures: list[Figures] = []
    broken: list[str] = []
    with GUARDS[without]() if without else nullcontext():
        for seed in seeds:
            try:
                figures.append(simulate(seed, unheard=unheard, pulled=pulled))
            except Broken as error:
                broken.append(str(error))
    return figures, broken


def run_all(
    seeds: range, processes: int, without: str | None = None, *, unheard: bool = False, pulled: bool = False
) -> bool:
    """Whether every invariant held in every history."""
    began_s = time.monotonic()
    figures: list[Figures] = []
    broken = 0
    blocks = [seeds[at : at + BLOCK] for at in range(0, len(seeds), BLOCK)]
    with ProcessPoolExecutor(processes) as pool:
        for some, errors in pool.map(partial(run_block, without=without, unheard=unheard, pulled=pulled), blocks):
            figures += some
            broken += len(errors)
            for error in errors:
                print(error, flush=True)
    took_s = time.monotonic() - began_s
    print(f"{len(seeds)} seeds in {took_s:.0f} s, {broken} violations; the others: {_sums(figures)}")
    return not broken


def _sums(figures: Iterable[Figures]) -> str:
    all_of = list(figures)
    sums = [sum(getattr(each, name) for each in all_of) for name in ("tasks", "runs", "faults", "seconds")]
    tasks, runs, faults, seconds = sums
    return f"{tasks} tasks accepted, {runs} attempts, {faults} faults, {seconds / 3_600:.1f} virtual hours"


def tell(seed: int, without: str | None = None, *, unheard: bool = False, pulled: bool = False) -> bool:
    """Print one history, and whether its invariants held."""
    trace = Trace()
    try:
        with GUARDS[without]() if without else nullcontext():
            outcome, held = str(simulate(seed, trace, unheard=unheard, pulled=pulled)), True
    except Broken as error:
        outcome, held = str(error), False
    print(*trace.lines, outcome, sep="\n")
    return held


def _range(text: str) -> range:
    first, _, last = text.partition("..")
    seeds = range(int(first), int(last or first) + 1)
    if not seeds:
        raise ValueError("no seeds")
    return seeds


def _processes(text: str) -> int:
    if (count := int(text)) < 1:
        raise ValueError("no processes")
    return count


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulate", description="Simulate a cluster under faults.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seeds", type=_range, metavar="A..B", help="run all of these")
    which.add_argument("--seed", type=int, metavar="N", help="tell this one")
    parser.add_argument("--processes", type=_processes, default=1)
    parser.add_argument("--without", choices=GUARDS, metavar="GUARD", help="one of: " + "; ".join(GUARDS))
    parser.add_argument("--unheard", action="store_true", help="with queues that hold or wait for unknown ends")
    parser.add_argument("--workers", action="store_true", help="with tasks that workers take")
    given = parser.parse_args()
    if given.seed is not None:
        held = tell(given.seed, given.without, unheard=given.unheard, pulled=given.workers)
    else:
        held = run_all(given.seeds, given.processes, given.without, unheard=given.unheard, pulled=given.workers)
    sys.exit(not held)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        main()
