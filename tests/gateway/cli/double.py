"""A service that answers as a test says, and the command line as a real process against it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from tests.gateway.watched import World, id_of, serving

ROOT = Path(__file__).parents[3]
RINGWHEEL = (sys.executable, "-c", "from gateway.cli import main; main(prog_name='ringwheel')")
ENV = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}


def a_task(number: int = 1, state: str = "scheduled", **more: Any) -> dict[str, Any]:
    """A task as answered."""
    task: dict[str, Any] = {
        "id": id_of(number),
        "queue": "mail",
        "state": state,
        "schedule_time": "2027-01-15T08:00:00.000Z",
        "next_attempt_time": "2027-01-15T08:00:00.000Z" if state == "scheduled" else None,
        "attempt": 0,
        "labels": {},
        "lateness_ms": None,
        "last_attempt": None,
        "http": None,
    }
    return task | more


def a_problem(status: int, title: str, detail: str, *pointers: str) -> dict[str, Any]:
    errors = [{"pointer": pointer, "detail": detail} for pointer in pointers]
    return {"type": "some", "title": title, "status": status, "detail": detail, "errors": errors}


@dataclass
class Done:
    """How a process ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list[Any]:
        return [orjson.loads(line) for line in self.out.splitlines()]


@dataclass
class Asked:
    """One request."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Double:
    """Scripted answers, and what was asked."""

    world: World = field(init=False)
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def answer(self, body: dict[str, Any], status: int = 200) -> None:
        """The answer to the next request that has none yet."""
        self.answers.append((status, body))

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(
            Asked(f"{request.method} {request.raw_path}", dict(request.headers), await request.read())
        )  # fmt: skip
        status, body = self.answers.pop(0)
        return web.json_response(body, status=status, headers={"Retry-After": "0"})

    @property
    def url(self) -> str:
        return self.world.url.removesuffix("/v1/stream")

    async def run(self, *words: str, stdin: bytes = b"") -> Done:
        """`ringwheel <words>` against this service, to its end."""
        process = await self.start(*words)
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    async def run_full(self, *words: str, stdin: bytes = b"") -> Done:
        """The same with its standard output on a full disk."""
        return await self._run_into(os.open("/dev/full", os.O_WRONLY), *words, stdin=stdin)

    async def run_unread(self, *words: str) -> Done:
        """The same when whoever read its standard output has left."""
        reader, writer = os.pipe()
        os.close(reader)
        return await self._run_into(writer, *words)

    async def _run_into(self, descriptor: int, *words: str, stdin: bytes = b"") -> Done:
        try:
            process = await self.start(*words, terminal=descriptor)
        finally:
            os.close(descriptor)
        async with asyncio.timeout(60):
            _, err = await process.communicate(stdin)
        assert process.returncode is not None
        return Done(process.returncode, "", err.decode())

    async def start(self, *words: str, terminal: int | None = None) -> asyncio.subprocess.Process:
        """The same, on its way; standard output goes to `terminal` when given."""
        pipe = asyncio.subprocess.PIPE
        out = pipe if terminal is None else terminal
        env = ENV | {"RINGWHEEL_URL": self.url, "TERM": "xterm"}
        return await asyncio.create_subprocess_exec(*RINGWHEEL, *words, stdin=pipe, stdout=out, stderr=pipe, env=env)


@asynccontextmanager
async def double() -> AsyncIterator[Double]:
    """A service on a real socket; its stream is the real one, on tables that a test fills."""
    service = Double()
    async with serving(rest=service.serve) as service.world:
        yield service
