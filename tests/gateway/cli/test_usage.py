"""What is checked before anything is asked: options, settings, exit codes; and what `--help` costs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from actors.core.errors import Misconfigured, Unavailable
from gateway.cli import COMMANDS, NO_READER, main
from gateway.cli.exits import Exit
from gateway.settings import DevSettings, ServeSettings
from tests.gateway.cli.double import ROOT


def run(*words: str, **env: str) -> Result:
    return CliRunner(env={"RINGWHEEL_URL": None, "RINGWHEEL_DATABASE_URL": None, **env}).invoke(main, words)


class Root:
    """Stands in for the composition root: keeps the settings, ends as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings: Any = None
        self.error: Exception | None = None
        monkeypatch.setitem(sys.modules, "gateway.__main__", self)
        monkeypatch.setattr("gateway.logs.set_up", lambda *, only_json: None)

    async def serve(self, settings: ServeSettings) -> None:
        self.settings = settings
        if self.error is not None:
            raise self.error

    async def dev(self, settings: DevSettings) -> None:
        self.settings = settings


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Root:
    return Root(monkeypatch)


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.output
        assert run(name, "--help").exit_code == 0


def _verbs(command: click.Command, *words: str) -> list[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        return [words]
    context = click.Context(command)
    below = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return [verb for name, one in below.items() if one is not None for verb in _verbs(one, *words, name)]


@pytest.mark.parametrize("words", _verbs(main), ids=" ".join)
def test_every_command_has_json(words: tuple[str, ...]) -> None:
    assert "--json " in run(*words, "--help").output


@pytest.mark.parametrize("words", [("serve",), ("migrate",), ("key", "list"), ("secret", "list")])
def test_a_refusal_as_json(words: tuple[str, ...]) -> None:
    result = run(*words, "--database-url", "nonsense", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert json.loads(result.stderr)["title"] == "Can't run like this"


def test_version() -> None:
    assert run("--version").output.startswith("main ")


@pytest.mark.parametrize(
    "words",
    [
        ["fly"],
        ["serve"],
        ["serve", "--database-url", "postgresql://x", "--port", "99999"],
        ["migrate", "--database-url", "postgresql://x", "--shards", "0"],
        ["migrate", "--database-url", "postgresql://x", "--shards", "1025"],
        ["serve", "--database-url", "postgresql://x", "--allow-target", "10.0.0.0/99"],
        ["serve", "--database-url", "postgresql://x", "--grace", "nan"],
        ["submit", "--payload", "{"],
        ["submit", "--payload", "@/nowhere/at/all"],
        ["submit", "--label", "team"],
        ["submit", "--delay", "1", "--at", "2027-01-01T00:00:00Z"],
        ["submit", "--delay", "nan"],
        ["submit", "--delay", "-inf"],
        ["submit", "--delay", "1e400"],
        ["submit", "--queue", "\udcff"],
        ["submit", "--label", "a=\udcff"],
        ["submit", "--idempotency-key", "a\nb"],
        ["submit", "--idempotency-key", ""],
        ["submit", "--idempotency-key", "é"],
        ["submit", ""],
        ["submit", " "],
        ["submit", "http://x", "--ndjson", "-"],
        ["submit", "--queue", "", "--ndjson", "-"],
        ["get"],
        ["get", "x", "--url", "localhost:7070"],
        ["get", "\udcff"],
        ["list", "--url", "http://127.0.0.1:99999"],
        ["list", "--url", "http://[::1"],
        ["list", "--url", "http://"],
        ["list", "--url", "http://a b"],
        ["list", "--url", "http://a/?b"],
        ["list", "--url", "http://" + "a" * 64],
        ["serve", "--database-url", "postgresql://x", "--bind", "a" * 64],
        ["serve", "--database-url", "postgresql://x", "--tenant-rate", "fast"],
        ["serve", "--database-url", "postgresql://x", "--tenant-rate", "0"],
        ["serve", "--database-url", "postgresql://x", "--tenant-rate", "a=1", "--tenant-rate", "a=2"],
        ["list", "--state", "tired"],
        ["watch"],
        ["watch", "x", "--queue", "mail"],
        ["watch", "x", "--label", "a=b"],
        ["watch", "--label", "a"],
        ["watch", *(str(number) for number in range(101))],
        ["cancel"],
        ["nodes", "x"],
        ["ring", "plan"],
        ["ring", "plan", "--add", "x", "--remove", "x"],
    ],
)
def test_wrong_usage_is_2(words: list[str]) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert "Error:" in result.output or "Usage:" in result.output


def test_serve_takes_flags(root: Root) -> None:
    words = "serve --database-url postgresql://db --bind 0.0.0.0 --port 80 --advertise a:80 --name n1 --grace 3"
    assert run(*words.split(), "--allow-target", "10.0.0.0/8").exit_code == 0
    assert root.settings == ServeSettings(
        database_url="postgresql://db",
        bind="0.0.0.0",
        port=80,
        advertise="a:80",
        name="n1",
        grace_s=3.0,
        allow_targets=("10.0.0.0/8",),
    )


def test_serve_takes_a_certificate_with_its_key(root: Root, tmp_path: Path) -> None:
    cert, key, ca = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem"))
    for path in (cert, key, ca):
        path.touch()
    words = ["serve", "--database-url", "postgresql://db", "--tls-cert", str(cert)]
    assert run(*words).exit_code == 2
    assert run(*words, "--tls-key", str(tmp_path / "none")).exit_code == 2
    assert run(*words, "--tls-key", str(key), "--tls-ca", str(ca)).exit_code == 0
    assert root.settings == ServeSettings(
        database_url="postgresql://db", tls_certificate=cert, tls_key=key, tls_authorities=ca
    )


@pytest.mark.parametrize("value", ["a:80", "10.0.0.7:7070", "node_1.internal.:65535", "[::1]:1", "[fe80::2]:7070"])
def test_where_a_node_may_say_that_it_is(root: Root, value: str) -> None:
    assert run("serve", "--database-url", "postgresql://db", "--advertise", value).exit_code == 0
    assert isinstance(root.settings, ServeSettings)
    assert root.settings.advertise == value


@pytest.mark.parametrize(
    "value",
    [
        *("foo", "foo:", ":80", "foo:0", "foo:65536", "foo:-1", "foo:1e3", "foo:８０", "::1:80", "[::1]", "[foo]:80"),
        *("http://foo:80", "foo:80/x", "a b:80", "foo:80 ", "u@foo:80", "föö:80", "a..b:80"),
    ],
)
def test_where_no_node_can_be(root: Root, value: str) -> None:
    result = run("serve", "--database-url", "postgresql://db", "--advertise", value)
    assert result.exit_code == 2
    assert "expected host:port" in " ".join(result.output.split())
    assert run("serve", RINGWHEEL_DATABASE_URL="postgresql://db", RINGWHEEL_ADVERTISE=value).exit_code == 2


def test_serve_takes_the_environment(root: Root) -> None:
    assert run("serve", RINGWHEEL_DATABASE_URL="postgresql://db", RINGWHEEL_ALLOW_TARGETS="::1/128").exit_code == 0
    assert root.settings == ServeSettings(database_url="postgresql://db", allow_targets=("::1/128",))


def test_dev_settings(root: Root, tmp_path: Path) -> None:
    assert run("dev", "--data", str(tmp_path), "--port", "0", "--no-demo").exit_code == 0
    assert root.settings == DevSettings(data=tmp_path, port=0, demo=False)
    assert run("dev", XDG_DATA_HOME=str(tmp_path)).exit_code == 0
    assert root.settings == DevSettings(data=tmp_path / "ringwheel")
    served = root.settings.serve("postgresql://db")
    assert (served.database_url, served.port, served.bind, served.attached) == (
        "postgresql://db",
        7070,
        "127.0.0.1",
        False,
    )


def test_dev_for_tests_ends_with_them_and_leaves_nothing(root: Root, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert run("dev", "--data", str(tmp_path / "data"), "--attached", "--scratch").exit_code == 0
    assert isinstance(root.settings, DevSettings)
    assert root.settings.serve("postgresql://db").attached
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "precious").touch()
    assert run("dev", "--data", str(tmp_path), "--scratch").exit_code == 2
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Misconfigured("set RINGWHEEL_X"), 2),
        (ExceptionGroup("children", [ExceptionGroup("more", [Misconfigured("set RINGWHEEL_X")])]), 2),
        (Unavailable("set RINGWHEEL_X"), 5),
    ],
)
def test_a_server_that_cannot_run_says_why(root: Root, error: Exception, code: int) -> None:
    root.error = error
    result = run("serve", "--database-url", "postgresql://db")
    assert result.exit_code == code
    assert "set RINGWHEEL_X" in result.output
    assert "Traceback" not in result.output


def test_migrate(monkeypatch: pytest.MonkeyPatch) -> None:
    applied = [["0001_tasks", "0002_more"], []]
    wished: list[int | None] = []

    async def migrate(dsn: str, shards: int | None) -> list[str]:
        assert dsn == "postgresql://db"
        wished.append(shards)
        return applied.pop(0)

    monkeypatch.setattr("storage.migrations.migrate", migrate)
    words = ("migrate", "--database-url", "postgresql://db")
    assert run(*words).output == "applied 0001_tasks\napplied 0002_more\n"
    assert run(*words).output == "up to date\n"
    applied += [["0003_last"], []]
    assert [json.loads(run(*words, "--json").output) for _ in range(2)] == [{"applied": ["0003_last"]}, {"applied": []}]
    applied += [[], []]
    run(*words, "--shards", "32")
    monkeypatch.setenv("RINGWHEEL_SHARDS", "64")
    run(*words)
    assert wished == [None, None, None, None, 32, 64]


def test_a_service_that_is_not_there_is_5() -> None:
    result = run("get", "x", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 5
    assert "can't be reached" in result.output


@pytest.mark.parametrize(
    ("words", "redirect", "code", "said"),
    [
        ("--help", ">/dev/full", 1, "error: standard output can't be written: No space left on device\n"),
        ("--version", ">/dev/full", 1, "error: standard output can't be written: No space left on device\n"),
        ("fly", "2>/dev/full", 2, ""),
        ("get x --url http://127.0.0.1:1", "2>/dev/full", 5, ""),
        ("migrate --database-url x", ">&-", 2, "Can't run like this"),
        ("get x --url http://127.0.0.1:1", "<&- >&- 2>&-", 5, ""),
        ("submit --payload -", "<&-", 2, "standard input is closed"),
        ("submit --ndjson -", "<&-", 2, "standard input is closed"),
    ],
)
def test_streams_that_can_not_be_used_change_no_exit_code(words: str, redirect: str, code: int, said: str) -> None:
    program = [sys.executable, "-c", "from gateway.cli import main; main()"]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", *program, *words.split()],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", ["--help", "--version", "list --help"])
def test_a_reader_that_has_left_is_no_failure(words: str) -> None:
    program = [sys.executable, "-c", "from gateway.cli import main; main()"]
    reader, writer = os.pipe()
    os.close(reader)
    env = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    with os.fdopen(writer, "wb") as nobody:
        done = subprocess.run([*program, *words.split()], env=env, stdout=nobody, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")
    assert NO_READER == Exit.NO_READER


HEAVY = {"aiohttp", "asyncio", "rich", "uvloop", "asyncpg", "orjson", "msgspec", "prometheus_client", "structlog"}


def test_help_loads_nothing_heavy() -> None:
    program = f"""
import sys
from gateway.cli import main
main(["--help"], standalone_mode=False)
print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)
"""
    assert _python(program).stderr.strip() == "[]"


def test_help_costs_little_more_than_click() -> None:
    bare = min(_cpu_s("import click") for _ in range(5))
    ours = min(_cpu_s("from gateway.cli import main; main(['--help'], standalone_mode=False)") for _ in range(5))
    assert ours < 4 * bare


def _python(program: str) -> subprocess.CompletedProcess[str]:
    env = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)


def _cpu_s(program: str) -> float:
    """Processor time of a process: what else the machine does matters less."""
    clock = "import time, sys; sys.stderr.write(str(time.process_time()))"
    return float(_python(f"{program}\n{clock}").stderr)
