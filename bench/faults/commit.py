"""The reply to a commit is cut off, again and again: of the transaction that accepts keyed tasks, and of the ledger's
statement, which commits by itself. Whoever waits does not know what came of it, and tries again.
"""

import asyncio
from contextlib import AsyncExitStack

from bench.faults.rows import ending, told, zero
from bench.proxy import COMMIT, Proxy
from bench.report import Options, Row
from bench.scene import Scene, scene
from bench.scripted import WITH_FAULTS
from bench.traffic import Traffic, batch_of
from storage.datafolder import DataFolder

RATE_HZ = 200.0
SPAN_S = 1.0
LEDGER = "ledger"
MARKS = {LEDGER: b"FOR SHARE OF s"}
LATE_S = 10.0
LIMIT_S = 600.0


async def run(options: Options) -> list[Row]:
    """Measures it."""
    wanted = {COMMIT: options.size(500, 6), LEDGER: options.size(200, 3)}
    rate_hz = options.rate_hz or RATE_HZ
    proxies: list[Proxy] = []

    async def through(folder: DataFolder, stack: AsyncExitStack) -> str:
        proxies.append(await stack.enter_async_context(Proxy(folder.socket, MARKS)))
        return proxies[0].dsn("ringwheel", "ringwheel")

    async with scene(options.size(2, 1), scripts=WITH_FAULTS, span_s=SPAN_S, through=through) as here:
        (proxy,) = proxies
        proxy.wanted.update(wanted)
        with options.steps("commit", sum(wanted.values())) as steps:
            async with asyncio.TaskGroup() as group:
                load = group.create_task(here.traffic.run(rate_hz, 1 << 40))
                for done in range(sum(wanted.values())):
                    async with asyncio.timeout(LIMIT_S):
                        while proxy.cut.total() <= done:
                            proxy.changed.clear()
                            await proxy.changed.wait()
                    steps.done()
                here.traffic.over = True
                await load
        rows = await ending(here, "commit", LATE_S)
        again = await _again(here, rate_hz)
    return [
        zero("commit: replies to COMMIT not cut as wanted", wanted[COMMIT] - proxy.cut[COMMIT], "of them"),
        told("commit: replies to COMMIT cut", proxy.cut[COMMIT], ""),
        told("commit: replies to the ledger's statement cut", proxy.cut[LEDGER], ""),
        told("commit: keys submitted", here.traffic.submitted, "keys"),
        zero("commit: keys with no row, or with several", again[0], "keys"),
        zero("commit: keys that have another id when they are submitted again", again[1], "keys"),
        *rows,
    ]


async def _again(here: Scene, rate_hz: float) -> tuple[int, int]:
    """How many rows there are too many or too few; how many keys answer another id than before."""
    rows = (await here.ask("SELECT (SELECT count(*) FROM tasks) + (SELECT count(*) FROM finished)"))[0][0]
    traffic = here.traffic
    again = Traffic(traffic.plan, traffic.ports)
    await again.run(rate_hz * 10, traffic.submitted, batch=batch_of(rate_hz))
    return abs(rows - traffic.submitted), len(again.accepted.keys() ^ traffic.accepted.keys())
