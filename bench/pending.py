"""What a large store costs those who do not use it: a million tasks an hour ahead, and a million due that nobody takes.

Three services run side by side, each on a database of its own: empty, waiting, backlog. Each iteration measures
another queue's lateness, then its ingest, on every one of them in turn, and on the empty one twice: what those two
differ by is the spread that the machine itself has (A/A). Memory is compared after all that, with the same work behind
each.
"""

from dataclasses import dataclass, field
from statistics import median

import uvloop

from bench import ingest, lateness
from bench.ingest import CONNECTIONS
from bench.load import closed_loop
from bench.processes import Child
from bench.report import Options, Row, percentile
from bench.stage import Stage, stage
from bench.work import batches

MEMORY_MIB = 64.0
TOLERANCE = 0.10
RATE_HZ = 500.0
SECONDS = 8.0
INGESTS = 4
"""Samples of ingest in an iteration: many short ones, for what else the machine does comes and goes in seconds."""


def run(options: Options) -> list[Row]:
    """Measures it."""
    return uvloop.run(_run(options))


@dataclass(slots=True)
class Side:
    """One service, and what was measured on it."""

    name: str
    child: Child
    late_ms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    async def lateness(self, here: Stage, options: Options) -> None:
        """One sample more."""
        await here.checkpoint()
        seen = await lateness.observe(here, self.child.port, RATE_HZ, 1.0 if options.smoke else SECONDS, "other")
        self.late_ms.append(percentile(seen.lateness_ms, 99))

    async def ingest(self, here: Stage, options: Options) -> None:
        """One sample more."""
        await here.checkpoint()
        count = options.size(50_000, 2_000)
        self.rates.append(await ingest.rate(self.child.port, here.sink.url, count, "other"))


async def _run(options: Options) -> list[Row]:
    count = options.size(1_000_000, 10_000)
    async with stage() as here:
        empty, waiting, backlog = [
            Side(name, await here.service(name)) for name in ("empty", "an hour ahead", "due, not taken")
        ]
        again = Side("empty again", empty.child)
        sides = (empty, waiting, again, backlog)
        turns = [Side.lateness, *[Side.ingest] * options.size(INGESTS, 1)]
        with options.steps("pending", 2 + len(sides) * len(turns) * options.iterations) as steps:
            steps.begin("filling")
            await _fill(waiting.child, count, url=here.sink.url, delay=3600)
            steps.done()
            await _fill(backlog.child, count, url=None)
            steps.done()
            for number, measure in enumerate(turns * options.iterations):
                # Every second turn runs backwards, so that what grows or warms up favours nobody.
                for side in sides if number % 2 == 0 else reversed(sides):
                    steps.begin(side.name)
                    await measure(side, here, options)
                    steps.done()
        return [row for side in (waiting, backlog) for row in _rows(side, empty, again, count)]


async def _fill(child: Child, count: int, **fields: object) -> None:
    (await closed_loop(child.port, batches(count, queue="crowd", **fields), CONNECTIONS)).expect(200)


def _rows(side: Side, empty: Side, again: Side, count: int) -> list[Row]:
    name = f"{count:,} {side.name}"
    memory, floor = side.child.rss_mib(), empty.child.rss_mib()
    ok = memory - floor < MEMORY_MIB
    return [
        Row(f"{name}: memory", memory, "MiB", floor, memory / floor, f"< floor + {MEMORY_MIB:g}", ok),
        _beside(f"{name}: lateness p99", "ms", side.late_ms, empty.late_ms, again.late_ms, worse=1),
        _beside(f"{name}: ingest", "tasks/s", side.rates, empty.rates, again.rates, worse=-1),
    ]


def _beside(name: str, unit: str, ours: list[float], empty: list[float], again: list[float], *, worse: int) -> Row:
    """Ours within TOLERANCE of the empty store, or within what the empty store's medians differ from each other by."""
    ratio = median(one / other for one, other in zip(ours, empty, strict=True))
    spread = max(TOLERANCE, abs(median(one / other for one, other in zip(again, empty, strict=True)) - 1))
    goal = f"within {spread:.0%} of empty"
    return Row(name, median(ours), unit, median(empty), ratio, goal, worse * (ratio - 1) <= spread)
