"""Further nodes of `ringwheel dev --nodes N`: `serve` processes beside the first node, on the same database.

Promises: one that ends by itself is told of and started again, after a pause that grows while it does not last. All end
with the first node, in good order (their standard input ends, which they watch: `serve --attached`), so also when it
was killed; one that takes too long is killed.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Sequence

import structlog

from gateway.logs import output
from gateway.settings import LOOPBACK, DevSettings, ServeSettings

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STEADY_S = 10.0
"""A node that lived this long was well: its next pause is the first one again."""
END_S = 15.0
"""Longer than the grace time of its attempts: for what it has to write, and to close."""
SERVE = ("-P", "-c", "from gateway.cli import main; main()", "serve", "--attached")
PREFIX = "RINGWHEEL_"
log = structlog.get_logger("dev")


def siblings_of(settings: DevSettings, database_url: str) -> list[ServeSettings]:
    """What the further nodes are told: the ports after the first one's, or free ones."""
    count = settings.nodes - 1
    ports = [settings.port + number for number in range(1, count + 1)] if settings.port else _free_ports(count)
    return [settings.serve(database_url, port) for port in ports]


def _free_ports(count: int) -> list[int]:
    """Free a moment ago; a node that finds its port taken tells so, and tries again."""
    held = [socket.create_server((LOOPBACK, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


class Siblings:
    """Keeps the processes running until `stopping` is set."""

    def __init__(self, nodes: Sequence[ServeSettings], stopping: asyncio.Event) -> None:
        self._nodes = nodes
        self._stopping = stopping

    async def run(self) -> None:
        """Return when all have ended, after `stopping` was set; cancelled, it ends them first."""
        async with asyncio.TaskGroup() as group:
            for node in self._nodes:
                group.create_task(self._keep(node), name=f"node-{node.port}")

    async def _keep(self, node: ServeSettings) -> None:
        loop, pause_s = asyncio.get_running_loop(), FIRST_PAUSE_S
        while True:
            began_s = loop.time()
            code = await self._live(node)
            if self._stopping.is_set():
                return
            if loop.time() - began_s >= STEADY_S:
                pause_s = FIRST_PAUSE_S
            log.warning("a node ended; it is started again", url=node.url, reason=f"exit code {code}, in {pause_s:g} s")
            await self._rest(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _rest(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _live(self, node: ServeSettings) -> int | None:
        """One process from its start to its end; its exit code."""
        if self._stopping.is_set():
            return None
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *SERVE,
            *words(node),
            *(["--json"] if output.only_json else []),
            stdin=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
            start_new_session=True,  # Ctrl-C reaches the first node, which ends the others
        )
        try:
            async with asyncio.TaskGroup() as group:
                both = [group.create_task(process.wait()), group.create_task(self._stopping.wait())]
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                for each in both:
                    each.cancel()
        finally:
            await _end(process, node)
        return process.returncode


def words(node: ServeSettings) -> list[str]:
    """A node's settings as `serve` is told them."""
    found = ["--database-url", node.database_url, "--bind", node.bind, "--port", str(node.port)]
    found += ["--grace", f"{node.grace_s:g}"]
    for network in node.allow_targets:
        found += ["--allow-target", network]
    return found


async def _end(process: asyncio.subprocess.Process, node: ServeSettings) -> None:
    """Let it leave in good order, if it has not ended; then by force."""
    if process.returncode is not None:
        return
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(node.grace_s + END_S):
            await process.wait()
    except TimeoutError:
        log.warning("a node did not end in time; it is killed", url=node.url)
        process.kill()
        await process.wait()
