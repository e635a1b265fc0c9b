"""The demo of `ringwheel dev`: a webhook target on a port of its own, and a little traffic to look at.

Every few seconds one task is submitted, now and then one that fails twice before it succeeds.
"""

import asyncio
import itertools
import os
import sys
from collections.abc import Sequence
from shutil import which

import structlog
from aiohttp import web
from yarl import URL

from actors.core.codec import SpecCodec
from actors.core.draft import Draft
from actors.core.errors import RingwheelError
from actors.core.retry import RetryPolicy
from actors.core.spec import HttpTarget, Spec
from actors.ports.queues import QueueStore
from gateway.cli.options import DEFAULT_URL
from gateway.context import DEFAULT_TENANT, IntakePort
from gateway.logs import output
from gateway.settings import LOOPBACK
from gateway.sink import Sink

PERIOD_S = 5.0
ABOVE = 9
"""The target's port is so much above the service's, if nobody else is there: tasks of an earlier run find it again."""
MOST_PORT = 65_535
RETRY = RetryPolicy(max_attempts=5, min_backoff_ms=500, max_backoff_ms=2_000)
log = structlog.get_logger("demo")


class Demo:
    """The demo target and its traffic."""

    def __init__(self, intake: IntakePort, queues: QueueStore, codec: SpecCodec) -> None:
        self._intake = intake
        self._queues = queues
        self._codec = codec

    async def run(self, url: str, others: Sequence[str], *, traffic: bool) -> None:
        """Serve the target, say where everything is, and submit tasks until cancelled."""
        runner = web.AppRunner(Sink().app(), access_log=None)
        await runner.setup()
        try:
            await listen(runner, URL(url).port or 0)
            target = f"http://{LOOPBACK}:{runner.addresses[0][1]}"
            if output.only_json:
                log.info("the webhook target listens", url=target)
            else:
                output.say(_welcome(url, others, target, "demo" if traffic else "default"))
            if traffic:
                await self._traffic(target)
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _traffic(self, target: str) -> None:
        for number in itertools.count():
            path = "/flaky?failures=2" if number % 4 == 3 else "/ok"
            spec, _ = self._codec.intern(Spec(http=HttpTarget(target + path), retry=RETRY))
            try:
                queue = await self._queues.ensure(DEFAULT_TENANT, "demo")
                payload = b'{"number": %d}' % number
                await self._intake.submit([Draft(queue, spec, delay_ms=1_000, payload=payload)])
            except RingwheelError as error:
                log.warning("the demo could not submit", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(PERIOD_S)


async def listen(runner: web.AppRunner, port: int) -> None:
    """Listen for a target beside the service at `port`, or where there is room."""
    beside = port + ABOVE
    try:
        await web.TCPSite(runner, LOOPBACK, beside if beside <= MOST_PORT else 0).start()
    except OSError:
        await web.TCPSite(runner, LOOPBACK, 0).start()


def _program() -> str:
    """How this program can be called from here."""
    return "ringwheel" if which("ringwheel") else os.path.relpath(sys.argv[0])


def _welcome(url: str, others: Sequence[str], target: str, queue: str) -> str:
    task = f'{{"http": {{"url": "{target}/ok"}}, "payload": {{"hello": "world"}}, "delay": 3}}'
    more = "".join(f"\n  another node is at      {other}" for other in others)
    there = "" if url == DEFAULT_URL else f" --url {url}"
    return f"""
  ringwheel is ready at   {url}{more}
  a webhook target is at  {target}   (open it to see what arrives)

  Try:  curl -s {url}/v1/tasks -H 'content-type: application/json' -d '{task}'
        {_program()} list{there}
        {_program()} watch --queue {queue}{there}
  Ctrl-C stops everything; nothing is lost.
"""
