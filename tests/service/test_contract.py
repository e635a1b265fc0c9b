"""The document and the service, held to each other by generated requests (schemathesis).

The service is a real one on a real database, but no webhook is ever called: generated URLs point anywhere. What the
document can't say (`contract_hooks.py`) is checked there.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway import leases_api
from gateway.deliver import Courier
from tests.service.served import serving

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "what_the_document_allows_is_taken",
    "what_it_does_not_allow_is_refused",
)
SHORT = ("--phases", "examples,coverage,fuzzing", "--max-examples", "3", "--seed", "1")
"""Some seconds, and the same requests each time; for a long run, `--max-time 300` and no seed."""
SCHEMATHESIS = str(Path(sys.executable).with_name("st"))
CONFIG = str(Path(__file__).with_name("schemathesis.toml"))


async def _rest(courier: Courier) -> None:
    await asyncio.Event().wait()


async def _hurry(*ends: Coroutine[object, object, object], within_s: float) -> None:
    """No call waits for tasks that do not come."""
    for end in ends:
        end.close()


@asynccontextmanager
async def quiet(dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The URL of a service that calls nobody."""
    monkeypatch.setattr(Courier, "run", _rest)
    monkeypatch.setattr(leases_api, "_first", _hurry)
    async with serving(dsn, allow_targets=()) as api:
        yield api.url


async def schemathesis(url: str, *words: str, folder: Path) -> tuple[int | None, str]:
    """Exit code and report of a run."""
    process = await asyncio.create_subprocess_exec(
        SCHEMATHESIS,
        *("--config-file", CONFIG, "run", f"{url}/openapi.json", "--checks", ",".join(CHECKS), *words),
        *("--exclude-operation-id", "events"),  # its answer does not end
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.service.contract_hooks", "PYTHONPATH": os.getcwd()},
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_generated_requests(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with quiet(database_url, monkeypatch) as url:
        code, report = await schemathesis(url, *SHORT, folder=tmp_path)
    assert code == 0, report
