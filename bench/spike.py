"""Ten times the usual traffic for half a minute: what is accepted is answered soon and never lost, the rest is told so.

Usual is a quarter of what the service carries through the whole life, one task a request, each due at once. Latency
counts from the moment at which a request should have left. Back to normal means that the usual traffic, `REST_S` after
the end of the spike, is answered as before it.
"""

from collections.abc import Iterator
from itertools import count
from time import time

import uvloop

from bench.load import Run, closed_loop, open_loop
from bench.report import Options, Row, percentile
from bench.stage import Stage, stage
from bench.work import single

USUAL = 0.25
TIMES = 10
CONNECTIONS = 1_000
REST_S = 10.0
ALLOWED_MS = 250.0


def run(options: Options) -> list[Row]:
    """Measures it."""
    return uvloop.run(_run(options))


async def _run(options: Options) -> list[Row]:
    spike_s, calm_s = options.size(30, 1), options.size(10, 1)
    async with stage() as here:
        service = await here.service("ours")
        numbers = count()
        with options.steps("spike", 5) as steps:

            async def load(name: str, rate_hz: float, seconds: float) -> Run:
                steps.begin(name)
                requests = _requests(here, numbers, round(rate_hz * seconds))
                done = await open_loop(service.port, requests, rate_hz, CONNECTIONS)
                steps.done()
                return done

            steps.begin("capacity")
            capacity_hz, accepted = await _capacity(here, service.port, numbers, options.size(20_000, 500))
            steps.done()
            usual_hz = capacity_hz * USUAL
            before = await load("usual", usual_hz, calm_s)
            spike = await load("spike", usual_hz * TIMES, spike_s)
            rest = await load("rest", usual_hz, REST_S if spike_s > 1 else 1)
            after = await load("usual again", usual_hz, calm_s)
        accepted += sum(len(each.kept_ms) for each in (before, spike, rest, after))
        seen = await here.sink.wait(accepted)
    before_ms, spike_ms, after_ms = (percentile(each.kept_ms, 99) for each in (before, spike, after))
    lost = accepted - seen.distinct
    refused = len(spike.latencies_ms) - len(spike.kept_ms)
    return [
        Row("usual load, a request a task", usual_hz, "tasks/s"),
        Row("spike: accepted", len(spike.kept_ms) / spike.seconds, "tasks/s"),
        Row("spike: refused", refused / spike.seconds, "tasks/s"),
        Row("spike: other answers than 201 and 503", _odd(before, spike, rest, after), "", None, None, "0", None),
        Row("spike: accepted and lost", lost, "tasks", None, None, "0", lost == 0),
        Row("spike: accepted, p99", spike_ms, "ms", before_ms, None, f"<= {ALLOWED_MS:g}", spike_ms <= ALLOWED_MS),
        Row("after it, p99", after_ms, "ms", before_ms, None, "<= 2 x + 10", after_ms <= 2 * before_ms + 10),
    ]


async def _capacity(here: Stage, port: int, numbers: Iterator[int], tasks: int) -> tuple[float, int]:
    """Tasks a second from the first POST to the last arrival, and how many were accepted."""
    await here.sink.reset()
    begin_ms = time() * 1e3
    done = await closed_loop(port, _requests(here, numbers, tasks), 128)
    seen = await here.sink.wait(len(done.kept_ms))
    return len(done.kept_ms) / (seen.last_ms - begin_ms) * 1e3, len(done.kept_ms)


def _requests(here: Stage, numbers: Iterator[int], tasks: int) -> Iterator[bytes]:
    return (single(number, url=here.sink.url) for number, _ in zip(numbers, range(tasks), strict=False))


def _odd(*runs: Run) -> int:
    return sum(count for each in runs for status, count in each.statuses.items() if status not in (201, 503))
