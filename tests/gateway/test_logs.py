"""Log lines: they come out whole, or are lost and counted; never is anything raised."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway import logs
from gateway.logs import Output, output


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    logging.getLogger().removeHandler(logs._library)
    logging.raiseExceptions = True
    output.descriptor, output.lost, output.only_json = None, 0, False


@contextmanager
def logging_to(path: Path | str) -> Iterator[None]:
    """Standard output goes to a file."""
    with pytest.MonkeyPatch.context() as patch, open(path, "w") as stream:
        patch.setattr(sys, "stdout", stream)
        logs.set_up()
        yield


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_for_programs(tmp_path: Path) -> None:
    with logging_to(tmp_path / "log"):
        structlog.get_logger("node").info("listening", url="http://x", text="\udcff")
        try:
            raise ValueError("inside")
        except ValueError:
            structlog.get_logger("node").exception("broke")
        logging.getLogger("aiohttp.server").error("unexpected %s", 7)
        logging.getLogger("aiohttp.server").info("not worth a line")
        structlog.get_logger("node").debug("nor is this")
    first, second, third = lines_of(tmp_path / "log")
    assert (first["event"], first["level"], first["url"]) == ("listening", "info", "http://x")
    assert second["exception"].endswith("builtins.ValueError")
    assert "in test_lines_for_programs" in second["exception"]
    assert (third["event"], third["level"]) == ("unexpected 7", "error")


def test_only_json_is_json_on_a_terminal_too() -> None:
    screen, terminal = os.openpty()
    with pytest.MonkeyPatch.context() as patch, os.fdopen(terminal, "w") as stream, os.fdopen(screen, "rb") as seen:
        patch.setattr(sys, "stdout", stream)
        logs.set_up(only_json=True)
        structlog.get_logger("node").info("listening", url="http://x")
        assert json.loads(seen.readline())["url"] == "http://x"


def test_what_was_sent_is_in_no_line(tmp_path: Path) -> None:
    secret = "canary-6b1f"
    log, library = structlog.get_logger("node"), logging.getLogger("some.library")

    def fail(depth: int) -> None:
        try:
            if depth:
                fail(depth - 1)
            raise OSError(28, secret, secret)
        except OSError as error:
            raise ValueError(secret) from error

    with logging_to(tmp_path / "log"):
        log.info("a field that nobody knows", payload=secret, **{"x-token": secret}, node="node-a")
        try:
            fail(2)
        except ValueError as error:
            log.error("told", exc_info=error)
            log.exception("caught")
            library.error("failed", exc_info=error)
            log.error("group", exc_info=ExceptionGroup(secret, [error, TypeError(secret)]))
        library.error("got %r from %s after %d of %.1f s", secret, secret, 3, 1.5)
        library.error("mapped %(one)s", {"one": secret})
        library.error(f"never retrieved\nfuture: <Task exception=ValueError({secret!r})>")
    lines = lines_of(tmp_path / "log")
    assert secret not in (tmp_path / "log").read_text()
    assert (lines[0]["payload"], lines[0]["x-token"], lines[0]["node"]) == ("[redacted]", "[redacted]", "node-a")
    for line in lines[1:4]:
        assert line["exception"].count("builtins.ValueError") == 1
        assert line["exception"].count("builtins.OSError: No space left on device\nwhich led to:") == 1
    assert "builtins.TypeError" in lines[4]["exception"]
    assert [line["event"] for line in lines[5:]] == [
        "got '[redacted]' from [redacted] after 3 of 1.5 s",
        "mapped %(one)s",
        "never retrieved",
    ]
    assert logs.output.lost == 0


def test_a_long_chain_of_errors_is_cut() -> None:
    error: BaseException = ValueError("first")
    for _ in range(100):
        later = ValueError("later")
        later.__cause__ = error
        error = later
    assert len(list(logs.outline(error))) < 20


def test_lines_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as stream, os.fdopen(ours, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stdout", stream)
        logs.set_up()
        structlog.get_logger("node").info("listening", url="http://x")
        shown = screen.read(4096).decode()
    assert "listening" in shown
    assert not shown.startswith("{")


def test_on_a_full_disk_lines_are_lost_and_counted(tmp_path: Path) -> None:
    with logging_to("/dev/full"):
        structlog.get_logger("node").info("listening")
        logging.getLogger("asyncio").error("never retrieved")
        output.say("and what is no log line")
    assert output.lost == 3
    with logging_to(tmp_path / "log"):
        structlog.get_logger("node").info("again")
    (line,) = lines_of(tmp_path / "log")
    assert line["lines_lost"] == 3


def test_without_standard_output_nothing_is_written_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    logs.set_up()
    structlog.get_logger("node").info("listening")
    assert output.lost == 1


def test_a_reader_that_died() -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    broken = Output(ours)
    broken.say("nobody hears it")
    os.close(ours)
    broken.say("nor this")
    assert broken.lost == 2


def test_a_line_that_was_torn_ends_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    room = [3, -1, 99, 99]
    written = b""

    def write(_descriptor: int, data: bytes) -> int:
        nonlocal written
        size = room.pop(0)
        if size < 0:
            raise OSError(28, "No space left on device")
        written += data[:size]
        return min(size, len(data))

    monkeypatch.setattr(os, "write", write)
    lines = Output(1)
    for text in ("first", "second", "third"):
        lines.say(text)
    assert (written, lines.lost) == (b"fir\nsecond\nthird\n", 1)


def test_a_library_whose_words_do_not_fit_raises_nothing(tmp_path: Path) -> None:
    with logging_to(tmp_path / "log"):
        logging.getLogger("some").warning("%d things", "three")
    assert output.lost == 1
