"""For tests of code that uses ringwheel: a real service, whose time a test can let pass.

In `conftest.py`: `from ringwheel.testing import ringwheel_server`. The fixture is one server for all tests of a run;
tests keep apart by queue. `await ringwheel_server.advance(3600)` makes an hour pass.
"""

from collections.abc import Iterator

import pytest

from ringwheel.devserver import DevServer

__all__ = ["DevServer", "ringwheel_server"]


@pytest.fixture(scope="session")
def ringwheel_server() -> Iterator[DevServer]:
    """A running server."""
    with DevServer() as server:
        yield server
