"""Every benchmark runs, in its smallest size. How fast is not looked at here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import NAMES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", NAMES)
def test_smoke(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", name, "--smoke", "--json"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert rows
    assert all(row["ours"] > 0 or row["goal"] == "0" for row in rows)
    assert all(row["ok"] is None for row in rows)
