"""Two nodes on one database against one on another: batch ingest and a webhook drain, and who kept the processors busy.

Both databases are of the same server, and load generator and target are the same: what a second node gains here is
bounded by the processors that all of them share. In the table, `floor` is one node.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from os import cpu_count
from time import process_time

import uvloop

from bench import webhook
from bench.cpu import Cores, machine_s
from bench.ingest import CONNECTIONS
from bench.load import closed_loops
from bench.owners import Owners
from bench.processes import Child
from bench.report import Options, Pairs, Row
from bench.stage import Stage, stage
from bench.work import BATCH, batches

NAMES = "ab"
TARGET = "target"
MACHINE = f"all processes, of {cpu_count()}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """One or two nodes, and who uses the processors while they work."""

    nodes: list[Child]
    cores: Cores

    @property
    def ports(self) -> list[int]:
        """Where they listen."""
        return [node.port for node in self.nodes]


@dataclass(frozen=True, slots=True)
class Load:
    """A kind of work."""

    name: str
    parties: tuple[str, ...]
    """Who has a part in it."""
    count: int
    work: Callable[[Stage, Cluster, int], Awaitable[float]]
    """Has so many tasks done; how many a second."""


def run(options: Options) -> list[Row]:
    """Measures it."""
    return uvloop.run(_run(options))


async def _run(options: Options) -> list[Row]:
    most = ("nodes", "PostgreSQL", "load generator", MACHINE)
    loads = (
        Load("ingest, batches of 1,000", most, options.size(200_000, 20_000), _ingest),
        Load("webhook drain", (*most, TARGET), options.size(30_000, 2_000), _drain),
    )
    found: dict[tuple[str, str], Pairs] = {}
    async with stage() as here:
        one, two = await _cluster(here, NAMES[:1]), await _cluster(here, NAMES)
        with options.steps("scale", 2 * len(loads) * (options.iterations + 1)) as steps:
            for iteration in range(options.iterations + 1):
                for load in loads:
                    for cluster in (one, two) if iteration % 2 else (two, one):
                        steps.begin(f"{load.name}: {len(cluster.nodes)}")
                        await here.checkpoint()
                        rate = await load.work(here, cluster, load.count if iteration else load.count // 10)
                        if iteration:  # the first one is to warm up
                            _note(found, load, rate, cluster)
                        steps.done()
    return [pairs.plain() for pairs in found.values()]


async def _cluster(here: Stage, names: str) -> Cluster:
    """So many nodes on a database of their own, each with its shards."""
    dsn = await here.database(f"nodes-{len(names)}")
    nodes = [await here.node(dsn, name) for name in names]
    owners = Owners(dsn)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(owners.run())
        await owners.owned()
        await owners.placed(names)
        watching.cancel()
    cores = Cores(
        {
            "nodes": lambda: sum(node.cpu_s() for node in nodes),
            "PostgreSQL": here.server.cpu_s,
            "load generator": process_time,
            TARGET: here.sink.cpu_s,
            MACHINE: machine_s,
        }
    )
    return Cluster(nodes, cores)


async def _ingest(here: Stage, cluster: Cluster, count: int) -> float:
    requests = list(batches(count, url=here.sink.url, delay=3600))
    cluster.cores.begin()
    run = await closed_loops(cluster.ports, requests, CONNECTIONS)
    cluster.cores.end()
    return run.expect(200).rate * BATCH


async def _drain(here: Stage, cluster: Cluster, count: int) -> float:
    rate = await webhook.rate(here, cluster.ports, count, cluster.cores.begin)
    cluster.cores.end()
    return rate


def _note(found: dict[tuple[str, str], Pairs], load: Load, rate: float, cluster: Cluster) -> None:
    """One measurement: the rate, what a task costs, and who worked how much for it."""
    used = cluster.cores.used
    figures = {"": (rate, "tasks/s"), ", CPU of nodes and PostgreSQL": (_cost_us(used, rate), "us/task")}
    figures |= {f", used by {party}": (used[party], "cores") for party in load.parties}
    for name, (figure, unit) in figures.items():
        pairs = found.setdefault((load.name, name), Pairs(f"{load.name}{name}", unit))
        (pairs.floor if len(cluster.nodes) == 1 else pairs.ours).append(figure)


def _cost_us(used: dict[str, float], rate: float) -> float:
    return (used["nodes"] + used["PostgreSQL"]) / rate * 1e6
