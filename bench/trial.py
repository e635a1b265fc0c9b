"""A trial: tasks with random delays to a target that misbehaves by script, with or without faults.

    python -m bench.trial                       20,000 tasks, delays of 0-20 s
    python -m bench.trial --kill                the service is killed (-9) at 5 s, Postgres at 10 s; both start again
    python -m bench.trial --pair                two nodes on one database; one is stopped (SIGSTOP) from 5 s to 15 s
    python -m bench.trial --watch               a subscriber that reconnects with its cursor every second

Every accepted task must end as its script says; none may start early; no task may run twice without a recorded failure
or a change of owner; after the last fault, nothing may be left. Exit code 1 when one of these does not hold.
"""

import asyncio
import itertools
import os
import random
import signal
import sys
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import aiohttp
import asyncpg
import click
import orjson
import uvloop
from rich.console import Console
from rich.progress import Progress

from bench.processes import Child, process
from bench.scripted import SCRIPTS, Target, listen
from bench.stage import SERVE
from bench.watcher import Watcher
from storage.embedded import EmbeddedPostgres
from storage.migrations import migrate

BATCH = 50
RETRY = {"max_attempts": 8, "min_backoff": 0.1, "max_backoff": 1}
STATES = {2: "succeeded", 3: "dead", 4: "expired", 5: "cancelled"}
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


@dataclass(slots=True)
class Trial:
    """One run and what it saw."""

    options: Options
    target: Target = field(default_factory=Target)
    accepted: dict[str, str] = field(default_factory=dict)
    """Id -> script."""
    nodes: list[Child] = field(default_factory=list)
    refused: int = 0
    """Requests that were answered 503 or cut, and sent again."""
    stale_refused: int = 0
    rejoins: int = 0
    probe_finds: int = 0
    watcher: Watcher | None = None
    url: str = ""


class Nodes:
    """The service's processes; a killed one is started again on its old port."""

    def __init__(self, dsn: str, stack: AsyncExitStack) -> None:
        self._dsn = dsn
        self._stack = stack
        self.children: dict[str, Child] = {}
        self._ports: dict[str, int] = {}

    async def start(self, name: str) -> None:
        """Start (or start again) the node of this name."""
        arguments = [*SERVE, "--database-url", self._dsn, "--name", name]
        arguments[arguments.index("--port") + 1] = str(self._ports.get(name, 0))
        child = await self._stack.enter_async_context(process(*arguments, ready=r"listening.*?127\.0\.0\.1:(\d+)"))
        self.children[name] = child
        self._ports[name] = child.port

    def signal(self, name: str, number: int) -> None:
        """Send the node a signal."""
        os.kill(self.children[name].pid, number)

    @property
    def ports(self) -> list[int]:
        """Where they listen."""
        return list(self._ports.values())


async def submit(trial: Trial, nodes: Nodes, progress: Progress) -> None:
    """Submit everything within half of the span, each batch under keys, again and again until it is answered."""
    options, roll = trial.options, random.Random(trial.options.seed)
    scripts = roll.choices(list(SCRIPTS), list(SCRIPTS.values()), k=options.tasks)
    bar = progress.add_task("submitted", total=options.tasks)
    begin, limit = monotonic(), asyncio.Semaphore(16)
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for first in range(0, options.tasks, BATCH):
            part = scripts[first : first + BATCH]
            body = [_item(trial, script, first + at, roll) for at, script in enumerate(part)]
            await asyncio.sleep(max(0.0, begin + options.span_s / 2 * first / options.tasks - monotonic()))
            await limit.acquire()
            sending = group.create_task(_send(trial, nodes, session, part, body))
            sending.add_done_callback(lambda _: (limit.release(), progress.advance(bar, BATCH)))  # type: ignore[func-returns-value]


def _item(trial: Trial, script: str, number: int, roll: random.Random) -> dict[str, object]:
    return {
        "queue": "trial",
        "http": {"url": f"{trial.url}/{script}"},
        "payload": {"number": number},
        "delay": round(roll.random() * trial.options.span_s, 3),
        "dispatch_deadline": 2,
        "retry": RETRY | ({"max_attempts": 3} if script == "dead" else {}),
        "idempotency_key": f"trial-{number}",
    }


async def _send(
    trial: Trial, nodes: Nodes, session: aiohttp.ClientSession, scripts: list[str], body: list[dict[str, object]]
) -> None:
    data = orjson.dumps(body)
    for turn in range(10_000):
        port = nodes.ports[turn % len(nodes.ports)]
        try:
            async with session.post(
                f"http://127.0.0.1:{port}/v1/tasks:batch",
                data=data,
                headers={"Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(total=3),
            ) as response:
                answer = orjson.loads(await response.read())
                if response.status == 200:
                    for script, item in zip(scripts, answer["results"], strict=True):
                        trial.accepted[item["id"]] = script
                    return
                assert response.status == 503, answer
        except (aiohttp.ClientError, TimeoutError):
            pass
        trial.refused += 1
        await asyncio.sleep(0.1)
    raise TimeoutError("a batch was never accepted")


async def faults(trial: Trial, nodes: Nodes, postgres: EmbeddedPostgres) -> None:
    """Carry the faults out, at their times."""
    if trial.options.kill:
        await asyncio.sleep(5)
        nodes.signal("a", signal.SIGKILL)
        await nodes.start("a")
        await asyncio.sleep(5)
        pid = int((postgres.folder.path / "pgdata" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
    if trial.options.pair:
        await asyncio.sleep(5)
        nodes.signal("a", signal.SIGSTOP)
        await asyncio.sleep(10)
        nodes.signal("a", signal.SIGCONT)


async def settled(trial: Trial, nodes: Nodes, dsn: str, progress: Progress) -> bool:
    """Wait until no live task is left."""
    bar = progress.add_task("settled", total=trial.options.tasks)
    deadline = monotonic() + trial.options.span_s + PATIENCE_S
    while monotonic() < deadline:
        for child in nodes.children.values():
            child.check()
        try:
            left = await _ask(dsn, "SELECT count(*) FROM tasks")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            continue
        progress.update(bar, completed=trial.options.tasks - left[0][0])
        if left[0][0] == 0:
            return True
        await asyncio.sleep(0.25)
    return False


async def _ask(dsn: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        rows: list[asyncpg.Record] = await connection.fetch(statement)
        return rows
    finally:
        await connection.close()


async def counters(trial: Trial, nodes: Nodes) -> None:
    """What the nodes count."""
    names = {"ringwheel_stale_writes_total": "stale_refused", "ringwheel_rejoins_total": "rejoins"}
    names["ringwheel_probe_finds_total"] = "probe_finds"
    async with aiohttp.ClientSession() as session:
        for port in nodes.ports:
            async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
                for line in (await response.text()).splitlines():
                    name, _, number = line.partition(" ")
                    if name in names:
                        setattr(trial, names[name], getattr(trial, names[name]) + int(float(number)))


async def judge(trial: Trial, dsn: str) -> dict[str, object]:
    """Hold what happened against what was promised; keys that end in `!` must be 0."""
    rows = await _ask(dsn, "SELECT id::text, state, schedule_ms, epoch, attempt, finish_ms FROM finished")
    recorded = {(r[0], r[1]) for r in await _ask(dsn, "SELECT id::text, fence FROM attempts")}
    finished = {row[0]: row for row in rows}
    wrong = Counter[str]()
    early = unexplained = repeated = stale = 0
    lateness: list[float] = []
    for task_id, script in trial.accepted.items():
        row = finished.get(task_id)
        if row is None:
            wrong["lost"] += 1
            continue
        wanted = "dead" if script == "dead" else "succeeded"
        wrong[f"{script} {STATES[row[1]]}"] += STATES[row[1]] != wanted
        calls = trial.target.calls.get(task_id, [])
        early += sum(call.arrived_ms < row[2] for call in calls)
        if calls:
            lateness.append(calls[0].arrived_ms - row[2])
        for before, after in itertools.pairwise(calls):
            if (task_id, before.fence) in recorded:
                continue
            if before.fence < after.fence and before.fence.split(".")[1] != after.fence.split(".")[1]:
                repeated += 1
            else:
                unexplained += 1
        stale += any(int(call.fence.split(".")[1]) > row[3] and call.arrived_ms < row[5] for call in calls)
    lateness = sorted(lateness) or [0.0]
    found: dict[str, object] = {
        "accepted": len(trial.accepted),
        "accepted and lost!": wrong.pop("lost", 0),
        "ended otherwise than scripted!": sum(wrong.values()),
        "finished but never accepted!": len(finished.keys() - trial.accepted.keys()),
        "early!": early,
        "repeated without a recorded failure or a change of owner!": unexplained,
        "repeated after a change of owner": repeated,
        "stale writes accepted!": stale,
        "stale writes refused": trial.stale_refused,
        "boots that found themselves dead": trial.rejoins,
        "found by the probe": trial.probe_finds,
        "submits sent again": trial.refused,
        "lateness p50 ms": round(lateness[len(lateness) // 2], 1),
        "lateness p99 ms": round(lateness[len(lateness) * 99 // 100], 1),
        "lateness max ms": round(lateness[-1], 1),
    }
    if trial.watcher is not None:
        watcher = trial.watcher
        unseen = sum(watcher.terminal.get(task_id) != STATES[row[1]] for task_id, row in finished.items())
        found |= {
            "watcher: connections": watcher.connections,
            "watcher: gaps told": watcher.gaps,
            "watcher: terminal states not seen, and no gap told!": 0 if watcher.gaps else unseen,
            "watcher: terminal states not seen": unseen,
            "watcher: versions that went back!": watcher.went_back,
        }
    return found


async def run(options: Options, console: Console) -> dict[str, object]:
    """One trial on a database of its own."""
    trial = Trial(options)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="ringwheel-trial-"))
        postgres = await stack.enter_async_context(EmbeddedPostgres(Path(folder) / "data"))
        await migrate(postgres.dsn)
        server = await listen(trial.target)
        stack.callback(server.close)
        trial.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        nodes = Nodes(postgres.dsn, stack)
        for name in ("a", "b") if options.pair else ("a",):
            await nodes.start(name)
        progress = stack.enter_context(Progress(console=console))
        watching = None
        async with asyncio.TaskGroup() as group:
            if options.watch:
                trial.watcher = Watcher(nodes.ports[0], "trial")
                watching = group.create_task(trial.watcher.run())
            group.create_task(faults(trial, nodes, postgres))
            await submit(trial, nodes, progress)
            if not await settled(trial, nodes, postgres.dsn, progress):
                console.print("[red]tasks were left at the end[/red]")
            if watching is not None:
                await asyncio.sleep(2)
                watching.cancel()
        await counters(trial, nodes)
        return await judge(trial, postgres.dsn)


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
