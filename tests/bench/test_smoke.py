"""Every benchmark runs, in its smallest size. How fast is not looked at here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import NAMES

ROOT = Path(__file__).parents[2]

# What a machine that is quick enough for the smallest size does not do at all.
MAY_BE_NONE = {"spike: refused"}


def smoke(*words: str) -> list[dict[str, Any]]:
    """The rows of a benchmark in its smallest size."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words, "--smoke", "--json"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + done.stdout
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_smoke(name: str) -> None:
    rows = smoke(name)
    assert rows
    assert all(row["ours"] > 0 or row["goal"] == "0" or row["name"] in MAY_BE_NONE for row in rows)
    assert all(row["ok"] is (True if row["promise"] else None) for row in rows)


def test_one_fault() -> None:
    rows = smoke("faults", "--only", "commit")
    assert {row["ok"] for row in rows if row["promise"]} == {True}
    assert {row["ok"] for row in rows if not row["promise"]} == {None}
    invariants = {word for row in rows for word in row["name"].split() if word[0] == "C" and word[1:].isdigit()}
    assert invariants == {"C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C10"}
