"""What all tests of the gateway share."""

import pytest

from actors.core import changes


@pytest.fixture(autouse=True)
def two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a version is twice the revision, and one more while the task runs: short enough to be read."""
    monkeypatch.setattr(changes, "STEPS", 2)
