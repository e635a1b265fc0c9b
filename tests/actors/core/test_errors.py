import inspect

import pytest

from actors.core import errors
from actors.core.errors import Conflict, Invalid, NotSupported, Overloaded, RingwheelError, Unavailable


def test_all_errors_have_one_root() -> None:
    leaves = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert len(leaves) >= 9
    assert all(issubclass(kind, RingwheelError) for kind in leaves)


def test_a_field_that_is_not_supported_is_invalid_too() -> None:
    error = NotSupported("ttl is not supported yet", "/ttl")
    assert isinstance(error, Invalid)
    assert (str(error), error.detail, error.pointer) == ("ttl is not supported yet", error.detail, "/ttl")


def test_an_error_without_a_field_points_at_the_whole() -> None:
    assert Invalid("not JSON").pointer == ""


def test_conflict_knows_the_state() -> None:
    assert Conflict("too late", "succeeded").state == "succeeded"
    assert Conflict("too late").state == ""


@pytest.mark.parametrize("kind", [Overloaded, Unavailable])
def test_try_again_after(kind: type[Overloaded] | type[Unavailable]) -> None:
    assert kind("full").retry_after_ms == 1_000
    error = kind("full", 250)
    assert (str(error), error.detail, error.retry_after_ms) == ("full", "full", 250)
