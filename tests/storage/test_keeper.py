"""The keeper's log: bounded, and a full disk does not end the keeper."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import keeper
from storage.keeper import Log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "postgres.log"


@pytest.fixture
def log(path: Path) -> Iterator[Log]:
    log = Log(str(path))
    yield log
    log.close()


def test_two_files_of_bounded_size(log: Log, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOG_BYTES", 1000)
    for number in range(500):
        log.write(b"%09d\n" % number)
    assert sorted(file.name for file in path.parent.iterdir()) == ["postgres.log", "postgres.log.1"]
    assert all(file.stat().st_size <= 1010 for file in path.parent.iterdir())
    assert path.read_text().endswith("000000499\n")


def test_it_goes_on_where_the_last_one_ended(log: Log, path: Path) -> None:
    path.write_text("before\n")
    log.say("after")
    assert path.read_text().startswith("before\n")
    assert path.read_text().endswith("KEEPER:  after\n")


def test_a_pipe_is_copied_to_its_end(log: Log, path: Path) -> None:
    source, sink = os.pipe()
    os.write(sink, b"one\ntwo\n")
    os.close(sink)
    with os.fdopen(source, "rb") as pipe:
        log.copy(pipe)
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_full_disk_costs_words_only(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, chunk: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    log.say("lost")
