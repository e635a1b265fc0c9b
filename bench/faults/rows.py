"""What each fault prints: the invariants, and figures beside their goals."""

from collections.abc import Sequence

from bench.report import Row, percentile
from bench.scene import Scene
from bench.verdict import BROKEN

PATIENCE_S = 120.0
LEAST = "> 0"
SHOWN = 5
WORDS = 200
"""So much is shown of each of the first lines: how it begins and how it ends."""


def zero(name: str, count: float, unit: str = "") -> Row:
    """A promise: there is none."""
    return Row(name, count, unit, None, None, "0", count == 0, promise=True)


def some(name: str, count: float, unit: str = "") -> Row:
    """A promise: there is at least one, else the fault did not happen."""
    return Row(name, count, unit, None, None, LEAST, count > 0, promise=True)


def several(name: str, count: float, unit: str = "") -> Row:
    """A count that should not be 0 at full size."""
    return Row(name, count, unit, None, None, LEAST, count > 0)


def told(name: str, figure: float, unit: str = "") -> Row:
    """For information."""
    return Row(name, figure, unit)


def at_most(name: str, figure: float, goal: float, unit: str = "s") -> Row:
    """A figure with a goal."""
    return Row(name, figure, unit, None, None, f"<= {goal:g}", figure <= goal)


def spread(name: str, seconds: Sequence[float], goals: dict[float, float]) -> list[Row]:
    """Percentiles of times: goals by percentile; `inf` = none. No row when nothing was measured."""
    rows = []
    for percent, goal in goals.items():
        words = f"{name}, " + ("worst" if percent == 100 else f"p{percent:g}")
        if seconds:
            figure = percentile(seconds, percent)
            rows.append(told(words, figure, "s") if goal == float("inf") else at_most(words, figure, goal))
    return rows


async def ending(here: Scene, fault: str, late_s: float, *, patience_s: float = PATIENCE_S) -> list[Row]:
    """Wait until nothing is left to do; the invariants C1 to C8 and what was logged, with what explains them.

    `late_s`: the bound of C5.
    """
    await here.settled(patience_s)
    counted = await here.nodes.counters()
    verdict, _ = await here.judged()
    return [
        some(f"{fault}: accepted", verdict.accepted, "tasks"),
        told(f"{fault}: submits sent again", here.traffic.refused, "requests"),
        told(f"{fault}: ran again after a change of owner", verdict.explained, "calls"),
        told(f"{fault}: found by the probe", counted["ringwheel_probe_finds"], "tasks"),
        *(zero(f"{fault}: {words}", getattr(verdict, name)) for name, words in BROKEN.items()),
        *(told(f"{fault}: wrong: {story}", 1, "task") for story in verdict.examples),
        told(f"{fault}: lateness p99", verdict.late_ms(99) / 1e3, "s"),
        at_most(f"{fault}: C5 lateness, worst", verdict.late_ms(100) / 1e3, late_s),
        told(f"{fault}: that was {verdict.latest}", 1, "task"),
        *(
            told(f"{fault}: logged: {line[:WORDS]} ... {line[-WORDS:]}", 1, "line")
            for line in here.nodes.complaints[:SHOWN]
        ),
        told(f"{fault}: calls of a former owner for what it had begun", verdict.overlaps, "calls"),
        *([told(f"{fault}: the latest: {verdict.overlap}", verdict.overlap_ms / 1e3, "s")] if verdict.overlap else []),
        told(f"{fault}: the target's longest pause", here.target.pause_s, "s"),
        told(f"{fault}: calls that it read after their callers had gone", here.target.hung_up, "calls"),
        zero(f"{fault}: C10 errors logged", len(here.nodes.complaints), "lines"),
    ]
