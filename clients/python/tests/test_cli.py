"""`ringwheel-worker`, as a process."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fake_service import LIMIT_S, Fake
from ringwheel.cli import main

MODULE = """
import time
from ringwheel import Client, Worker

client = Client()
app = Worker(client, "q", grace=0.1)
other = None

@app.task
def work(seconds: float) -> str:
    time.sleep(seconds)
    return client.transport.url
"""


OWN = """
from ringwheel import Client, Worker

client = Client({url!r}, {key!r})
app = Worker(client, "q")

@app.task
async def work() -> None: ...
"""


@asynccontextmanager
async def command(folder: Path, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command in a folder."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from ringwheel.cli import main; main()",
        *words,
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def output(process: asyncio.subprocess.Process) -> str:
    """All that it says until it ends."""
    async with asyncio.timeout(LIMIT_S):
        out, _ = await process.communicate()
    return out.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the module is."""
    (tmp_path / "work.py").write_text(MODULE)
    (tmp_path / "two.py").write_text(f"{MODULE}\nsecond = Worker(client)\n")
    (tmp_path / "idle.py").write_text("from ringwheel import Worker\napp = Worker()\n")
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    return tmp_path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command runs in this process, in that folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("RINGWHEEL_URL", "http://nowhere")
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nowhere:app",), "there is no module 'nowhere' here"),
        (("work:missing",), "'missing' is not there in module 'work'; its workers are: app"),
        (("work:other",), "'other' is no Worker in module 'work'; its workers are: app"),
        (("two",), "say which worker of 'two', as two:app; its workers are: app, second"),
        ((":app",), "expected module:app, not ':app'"),
        (("work:app", "--concurrency", "0"), "from 1 to 10000"),
        (("work:app", "--url", "here"), "not a URL of a service: 'here'"),
        (("idle",), "this worker has no handler: register a function with its decorator `task`"),
        ((), "the following arguments are required"),
    ],
)
def test_wrong_usage_is_told_in_a_line(
    here: None, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_what_a_module_misses_is_its_own_matter(here: None) -> None:
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        main(["broken:app"])


async def test_it_works_until_a_signal_and_gives_back_what_runs(fake: Fake, folder: Path) -> None:
    done, stuck = fake.add({"seconds": 0}), fake.add({"seconds": 60})
    words = ("work", "--url", fake.url, "--key", "rw_a_key", "--concurrency", "3")
    async with command(folder, *words) as process:
        await fake.ended(done)
        await fake.until(lambda: stuck.state == "running")
        process.send_signal(signal.SIGTERM)
        told = await output(process)
    assert process.returncode == 0, told
    assert done.ends[0]["result"] == fake.url
    assert stuck.ends[0]["snooze"] == 0
    assert fake.authorization == {"Bearer rw_a_key"}
    assert "leaving while a handler still runs in a thread" in told
    assert fake.frames[1] == {"queue": "q", "credits": 3, "type": "ready"}


async def test_ctrl_c_is_a_signal_too(fake: Fake, folder: Path) -> None:
    done = fake.add({"seconds": 0})
    async with command(folder, "work:app", "--url", fake.url, "--log-level", "error") as process:
        await fake.ended(done)
        process.send_signal(signal.SIGINT)
        assert await output(process) == ""
    assert process.returncode == 0


async def test_a_refused_key_ends_it(fake: Fake, folder: Path) -> None:
    fake.door = 403
    async with command(folder, "work:app", "--url", fake.url) as process:
        told = await output(process)
    assert process.returncode == 1
    assert "error: 403" in told


@pytest.mark.parametrize("option", ["--url", "--key"])
async def test_an_option_overrides_only_its_own_setting(fake: Fake, folder: Path, option: str) -> None:
    url, key, value = (fake.url, "rw_old", "rw_new") if option == "--key" else ("http://nowhere", "rw_new", fake.url)
    (folder / "own.py").write_text(OWN.format(url=url, key=key))
    task = fake.add()
    async with command(folder, "own", option, value) as process:
        await fake.ended(task)
        process.send_signal(signal.SIGTERM)
        told = await output(process)
    assert process.returncode == 0, told
    assert fake.authorization == {"Bearer rw_new"}
