"""Every example in the guide and in the README is run, and no document names an endpoint that is not there."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from gateway.routes import ROUTES
from ringwheel import Client
from tests.service.programs import LIMIT_S, URL, ringwheel

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CALL = re.compile(r"(?:GET|POST|PUT|PATCH|DELETE) (/[\w/{}:.]+)")
NOT_RUN = ("make run", "ringwheel dev", "--database-url", "RINGWHEEL_DATABASE_URL", "app/bin/")
"""Blocks that start a service, where there is one already, work on a database of one's own, or make an environment;
what is done in that is tried below."""
_PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples() -> list[str]:
    """The blocks in their order; those of a newcomer call the programs of his environment."""
    blocks = [block for page in PAGES for block in _BLOCK.findall(page.read_text())]
    return [block for block in blocks if not any(words in block for words in NOT_RUN)]


def here(block: str, service: str, target: str) -> str:
    """The block for a service on other ports; a view that never ends is looked at for a moment."""
    block = block.replace("http://127.0.0.1:7070", service).replace("http://127.0.0.1:7079", target)
    block = block.replace(".venv/bin/ringwheel", "ringwheel")
    return re.sub(r"^(ringwheel watch .*)$", r"timeout -s INT 3 \1 || test $? = 124", block, flags=re.MULTILINE)


@pytest.mark.timeout(240)
async def test_every_example_works(tmp_path: Path) -> None:
    assert len(examples()) > 5
    words = ("dev", "--data", str(tmp_path / "data"), "--port", "0")
    async with ringwheel(*words) as program:
        service = (await program.says(f"ready at +{URL}"))[1]
        target = (await program.says(f"target is at +{URL}"))[1]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        for block in examples():
            process = await asyncio.create_subprocess_exec(
                *("bash", "-euo", "pipefail", "-c", here(block, service, target)),
                env={**os.environ, "PATH": path, "RINGWHEEL_URL": service},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            async with asyncio.timeout(LIMIT_S):
                said, _ = await process.communicate()
            assert process.returncode == 0, f"{block}\n{said.decode()}"


async def test_the_worker_of_the_readme_works(tmp_path: Path) -> None:
    work, submit = _PROGRAM.findall((ROOT / "README.md").read_text())
    programs = Path(sys.executable).parent
    async with ringwheel("dev", "--data", str(tmp_path / "data"), "--port", "0", "--no-demo") as program:
        service = (await program.says(f"ready at +{URL}"))[1]
        (tmp_path / "work.py").write_text(work.replace("http://127.0.0.1:7070", service))
        worker = await asyncio.create_subprocess_exec(
            programs / "ringwheel-worker", "work:app", cwd=tmp_path, stdout=asyncio.subprocess.PIPE
        )
        try:
            submitted = await asyncio.create_subprocess_exec(
                sys.executable, "-c", submit.replace("http://127.0.0.1:7070", service)
            )
            async with asyncio.timeout(LIMIT_S), Client(service) as client:
                assert await submitted.wait() == 0
                assert worker.stdout is not None
                assert await worker.stdout.readline() == b"attempt 1: hello, Ann\n"
                (task,) = [task async for task in client.list(queue="emails")]
                assert (await client.wait(task.id)).result == "greeted Ann"
        finally:
            worker.terminate()
            await worker.wait()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_an_endpoint_that_is_not_there(page: Path) -> None:
    paths = {re.sub(r"\{\w+\}", "{}", route.path) for route in ROUTES}
    named = {re.sub(r"\{\w+\}", "{}", path.rstrip(".:")) for path in _CALL.findall(page.read_text())}
    assert named <= paths
