import msgspec
import pytest

from actors.core.retry import RetryPolicy
from actors.core.spec import HttpTarget, Spec


def test_limits_default_to_as_the_queue_says() -> None:
    spec = Spec()
    assert (spec.http, spec.retry, spec.dispatch_deadline_ms, spec.ttl_ms, spec.content_type) == (None,) * 5


def test_a_target_is_posted_to_without_headers() -> None:
    target = HttpTarget("http://example.com/")
    assert (target.method, target.headers) == ("POST", {})


def test_specs_are_shared_so_they_do_not_change() -> None:
    spec = Spec(http=HttpTarget("http://example.com/"))
    with pytest.raises(AttributeError):
        spec.ttl_ms = 5  # type: ignore[misc]
    with pytest.raises(TypeError, match="unhashable"):
        hash(spec)


def test_defaults_are_left_out() -> None:
    assert msgspec.json.encode(Spec()) == b"{}"
    full = Spec(http=HttpTarget("http://example.com/", "PUT", {"a": "b"}), retry=RetryPolicy(max_attempts=1), ttl_ms=9)
    assert msgspec.json.decode(msgspec.json.encode(full), type=Spec) == full


def test_a_target_has_no_unknown_fields() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `uri`"):
        msgspec.json.decode(b'{"url":"http://example.com/","uri":1}', type=HttpTarget)
