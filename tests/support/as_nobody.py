"""Run Python as an ordinary user, also when the tests run as root."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534
_BECOME = (f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
_NAMESPACE = ("unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}")


@contextmanager
def as_nobody(folder: Path) -> Iterator[list[str]]:
    """The words before Python's arguments; `folder` belongs to that user meanwhile.

    As root: "nobody", if there is a Python that he may run (root's own is often closed to him), else a user namespace,
    where the tests' Python is not root either.
    """
    if os.geteuid() != 0:
        yield [sys.executable]
        return
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        command = ["setpriv", *_BECOME, "env", f"HOME={folder}", f"PYTHONPATH={os.pathsep.join(sys.path)}", python]
        if _imports(command):
            os.chown(folder, _NOBODY, _NOBODY)
            yield command
            os.chown(folder, 0, 0)
            return
    yield [*_NAMESPACE, sys.executable]


def _imports(command: list[str]) -> bool:
    try:
        return subprocess.run([*command, "-c", "import asyncpg, structlog"], capture_output=True).returncode == 0
    except OSError:
        return False
