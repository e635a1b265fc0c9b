from base64 import b64decode
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from standardwebhooks.webhooks import hmac_data

from actors.core.signing import SigningSecret, signatures

SECRET = SigningSecret(7, "default", 0, bytes(range(32)))
OTHER = SigningSecret(8, "default", 0, bytes(range(32, 64)))


@given(st.text(), st.integers(0, 2**32))
def test_the_signature_is_that_of_the_library(body: str, at_s: int) -> None:
    expected = Webhook(SECRET.text).sign("msg", datetime.fromtimestamp(at_s, UTC), body)
    assert signatures([SECRET.key], "msg", str(at_s), body.encode()) == expected


@given(st.binary())
def test_bytes_that_are_no_text_are_signed_as_they_are(body: bytes) -> None:
    version, _, signature = signatures([SECRET.key], "msg", "1", body).partition(",")
    assert (version, b64decode(signature)) == ("v1", hmac_data(SECRET.key, b"msg.1." + body))


def test_no_body_is_an_empty_one() -> None:
    assert signatures([SECRET.key], "msg", "1", None) == signatures([SECRET.key], "msg", "1", b"")


def test_two_secrets_make_two_signatures_in_their_order() -> None:
    one, other = (signatures([secret.key], "msg", "1", b"x") for secret in (SECRET, OTHER))
    assert signatures([SECRET.key, OTHER.key], "msg", "1", b"x") == f"{one} {other}"


def test_a_secret_shows_itself_only_when_it_is_asked_to() -> None:
    assert SECRET.text.startswith("whsec_")
    shown = f"{SECRET} {SECRET!r}"
    assert repr(SECRET.key) not in shown
    assert SECRET.text.removeprefix("whsec_") not in shown
