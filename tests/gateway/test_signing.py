"""Signed webhooks, as a receiver sees and verifies them."""

import time
from base64 import b64decode

import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from standardwebhooks.webhooks import hmac_data

from actors.core.errors import Unavailable
from actors.core.events import Verdict
from gateway.signing import Signer
from storage.memory import MemoryDatabase, MemoryStores
from tests.support.dispatch import FakeNode, StillClock, courier, webhook
from tests.support.raw_target import OK, Exchange, raw_target, says

KEY, NEW_KEY, FOREIGN_KEY = (bytes([n]) * 32 for n in range(3))


def stores() -> MemoryStores:
    return MemoryStores(MemoryDatabase(lambda: 1.0), "boot")


async def send(signer: Signer, *payloads: bytes | None) -> list[Exchange]:
    """The requests that a target got, sent now."""
    node, clock = FakeNode(), StillClock()
    clock.at_ms = int(time.time() * 1000)
    async with raw_target(says(OK)) as target, courier(node, signing=signer, clock=clock):
        node.offer([webhook(target.url(), payload, n=n) for n, payload in enumerate(payloads)])
        outcomes = await node.until(len(payloads))
        assert {outcome.verdict for outcome in outcomes} == {Verdict.SUCCEEDED}
        return target.exchanges


def verify(secret: str, exchange: Exchange) -> None:
    """As a receiver does, from what came over the wire alone."""
    Webhook(secret).verify(exchange.body, exchange.headers, json_parse=False)


async def test_without_a_secret_nothing_is_signed() -> None:
    kept = stores()
    await kept.signing.create("acme", FOREIGN_KEY)
    signer = Signer(kept.signing)
    await signer.refresh()
    (exchange,) = await send(signer, b"{}")
    assert "webhook-signature" not in exchange.headers


async def test_a_receiver_verifies_before_during_and_after_a_rotation() -> None:
    kept = stores()
    signer = Signer(kept.signing)
    old = await kept.signing.create("default", KEY)
    await signer.refresh()
    bodies = [b'{"n": 1}', None, "bytes: £".encode(), b"x" * 100_000]
    for exchange in await send(signer, *bodies):
        verify(old.text, exchange)
        assert exchange.headers["webhook-signature"].count(" ") == 0

    new = await kept.signing.rotate("default", NEW_KEY)
    await signer.refresh()
    for exchange in await send(signer, *bodies):
        verify(old.text, exchange)
        verify(new.text, exchange)
        first, _, second = exchange.headers["webhook-signature"].partition(" ")
        verify_alone = {**exchange.headers, "webhook-signature": first}
        Webhook(new.text).verify(exchange.body, verify_alone, json_parse=False)
        assert second.startswith("v1,")

    await kept.signing.revoke("default", old.id)
    await signer.refresh()
    for exchange in await send(signer, *bodies):
        verify(new.text, exchange)
        with pytest.raises(WebhookVerificationError):
            verify(old.text, exchange)

    await kept.signing.revoke("default", new.id)
    await signer.refresh()
    (exchange,) = await send(signer, b"{}")
    assert "webhook-signature" not in exchange.headers


async def test_bytes_that_are_no_text_are_signed_as_they_arrive() -> None:
    kept = stores()
    await kept.signing.create("default", KEY)
    signer = Signer(kept.signing)
    await signer.refresh()
    (exchange,) = await send(signer, b"\xff\x00\xfe")
    head = exchange.headers
    signed = f"{head['webhook-id']}.{head['webhook-timestamp']}.".encode() + exchange.body
    assert b64decode(head["webhook-signature"].removeprefix("v1,")) == hmac_data(KEY, signed)


async def test_what_was_tampered_with_is_found() -> None:
    kept = stores()
    secret = await kept.signing.create("default", KEY)
    signer = Signer(kept.signing)
    await signer.refresh()
    (exchange,) = await send(signer, b'{"amount": 1}')
    exchange.body = b'{"amount": 2}'
    with pytest.raises(WebhookVerificationError):
        verify(secret.text, exchange)


async def test_nothing_is_sent_before_it_is_known_whose_webhooks_are_signed() -> None:
    kept = stores()
    secret = await kept.signing.create("default", KEY)
    signer, node, clock = Signer(kept.signing), FakeNode(), StillClock()
    clock.at_ms = int(time.time() * 1000)
    kept.link.away = True
    with pytest.raises(Unavailable):
        await signer.refresh()
    async with raw_target(says(OK)) as target, courier(node, signing=signer, clock=clock):
        node.offer([webhook(target.url())])
        kept.link.away = False
        assert target.exchanges == []
        await signer.refresh()
        await node.until(1)
        verify(secret.text, target.exchanges[0])


async def test_keys_stay_when_they_cannot_be_read_anew() -> None:
    kept = stores()
    secret = await kept.signing.create("default", KEY)
    signer = Signer(kept.signing)
    await signer.refresh()
    kept.link.away = True
    with pytest.raises(Unavailable):
        await signer.refresh()
    (exchange,) = await send(signer, b"{}")
    verify(secret.text, exchange)
