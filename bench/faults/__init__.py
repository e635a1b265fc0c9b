"""`python -m bench faults`: a cluster of real processes, and all that may happen to one.

Each fault sets its own scene (`bench/scene.py`), does its worst under load, waits until nothing is left to do, and is
judged (`bench/verdict.py`). Promises hold at every size; figures count at full size only.

| fault | what happens |
|---|---|
| kills | nodes are killed (-9), one or most of them at a time, and start again |
| stops | nodes are stopped (SIGSTOP) for longer and for shorter than a lease, and go on |
| postgres | the database is restarted in order, at once, by kill -9; and stays away for a while |
| commit | the reply to a COMMIT, or to a statement that commits by itself, is cut off |
| peers | no node can reach another, by silence and by refusal; the database is there |
| hints | nobody is told of what was accepted elsewhere |
| moves | a node joins and leaves again and again; then each node is restarted in turn |
| clocks | the wall clock of a node is set by an hour, forward and back |
| workers | workers are killed (-9), stopped, go away, move to another node; nodes die while workers hold long jobs |
"""

from importlib import import_module

import uvloop

from bench.report import Options, Row

FAULTS = ("kills", "stops", "postgres", "commit", "peers", "hints", "moves", "clocks", "workers")


def run(options: Options) -> list[Row]:
    """All of them, or those that were asked for."""
    rows: list[Row] = []
    for name in options.only or FAULTS:
        rows += uvloop.run(import_module(f"bench.faults.{name}").run(options))
    return rows
