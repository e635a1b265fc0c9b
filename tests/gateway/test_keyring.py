"""The keys in memory: what is admitted, for how long, and what it costs."""

import asyncio
import gc
import hmac
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from actors.core.errors import Unavailable
from actors.core.keys import ALL, Scope
from gateway import keyring as module
from gateway.context import DEFAULT_TENANT, Caller
from gateway.keyring import MAX_AGE_S, Keyring
from gateway.problems import Problem
from storage.memory import MemoryDatabase, MemoryStores
from tests.support.keys import new_key

READ = frozenset({Scope.READ})


@dataclass
class World:
    """A keyring on the twin, with clocks that a test moves."""

    now_ms: int = 1_800_000_000_000
    boot_s: float = 100.0
    stores: MemoryStores = field(init=False)
    ring: Keyring = field(init=False)

    def __post_init__(self) -> None:
        self.stores = MemoryStores(MemoryDatabase(lambda: self.now_ms), "boot")
        self.ring = Keyring(self.stores.keys, lambda: self.now_ms, monotonic=lambda: self.boot_s)

    async def key(self, **more: Any) -> str:
        """A key that the ring has heard of."""
        new, text = new_key(**more)
        await self.stores.keys.create(new)
        await self.ring.refresh()
        return text

    async def revoke(self, text: str) -> None:
        await self.stores.keys.revoke(text.split("_")[1])

    def admit(self, text: str | None, scope: Scope = Scope.READ) -> Caller:
        return self.ring.admit(None if text is None else f"Bearer {text}", scope)

    def refusal(self, text: str | None, scope: Scope = Scope.READ) -> tuple[int, str]:
        """Status and challenge."""
        with pytest.raises(Problem) as caught:
            self.admit(text, scope)
        return caught.value.status, caught.value.headers["WWW-Authenticate"]


@pytest.fixture
def world() -> World:
    return World()


async def test_a_key_says_whose_request_it_is(world: World) -> None:
    mine, theirs = await world.key(tenant="acme"), await world.key(tenant="other", scopes=READ)
    assert (world.admit(mine).tenant, world.admit(theirs).tenant) == ("acme", "other")
    assert world.ring.admit(f"bearer {mine}", Scope.ADMIN).scopes == ALL


async def test_a_scope_includes_no_other(world: World) -> None:
    for held in Scope:
        text = await world.key(scopes=frozenset({held}))
        assert world.admit(text, held)
        for other in set(Scope) - {held}:
            status, challenge = world.refusal(text, other)
            assert (status, f'scope="{other}"' in challenge) == (403, True)


def mangled(text: str) -> list[str]:
    """Keys that are nearly right."""
    _, prefix, secret = text.split("_")
    swapped = ("x" if secret[0] != "x" else "y") + secret[1:]
    return [
        f"rw_{prefix}_{swapped}",
        f"rw_{prefix}_{secret[:-1]}!",
        f"rw_{prefix[::-1]}_{secret}",
        f"rw_{'z' * 12}_{secret}",
        f"rw_{prefix}_{secret.upper()}",
        f"rw_{prefix}_{secret}0",
        secret,
        "",
        "é" * 59,
    ]


async def test_forged_keys_are_refused_alike(world: World) -> None:
    text = await world.key()
    answers = {world.refusal(forged) for forged in mangled(text)}
    assert len(answers) == 1
    ((status, challenge),) = answers
    assert (status, 'error="invalid_token"' in challenge) == (401, True)
    for header in (f"Basic {text}", text, "Bearer", f"Bearer  {text}", f"Bearer {text} x"):
        with pytest.raises(Problem, match="not in use"):
            world.ring.admit(header, Scope.READ)
    assert world.ring.refused == len(mangled(text)) + 5
    assert world.refusal(None) == (401, 'Bearer realm="ringwheel"')


async def test_the_dummy_opens_nothing(world: World) -> None:
    await world.key()
    world.ring._keys.clear()  # even a hash of zeros, could it be hit, is nobody's
    assert world.refusal("")[0] == 401


async def test_an_expired_key_is_refused_from_that_moment_on(world: World) -> None:
    text = await world.key(ttl_ms=1_000)
    world.now_ms += 999
    assert world.admit(text)
    world.now_ms += 1
    assert world.refusal(text) == world.refusal(mangled(text)[0])


async def test_a_revoked_key_is_refused_once_the_ring_has_asked(world: World) -> None:
    text = await world.key()
    await world.revoke(text)
    await world.ring.refresh()
    assert world.refusal(text) == world.refusal(mangled(text)[0])


async def test_what_is_known_is_trusted_for_a_while_and_no_longer(world: World) -> None:
    text = await world.key()
    await world.revoke(text)  # and nobody can say so
    world.stores.link.away = True
    world.boot_s += MAX_AGE_S
    assert world.admit(text)
    with pytest.raises(Unavailable):
        await world.ring.refresh()
    world.boot_s += 0.001
    for given in (text, mangled(text)[0], None):
        with pytest.raises(Unavailable):
            world.admit(given)
    with pytest.raises(Unavailable):
        world.ring.holder(text, Scope.READ)
    assert world.ring.admit(f"Bearer {text}", Scope.ADMIN, despite_outage=True).tenant == "acme"
    with pytest.raises(Problem, match="not in use"):
        world.ring.admit(f"Bearer {mangled(text)[0]}", Scope.ADMIN, despite_outage=True)
    world.stores.link.away = False
    await world.ring.refresh()
    assert world.refusal(text)[0] == 401
    assert MAX_AGE_S < 5


async def test_a_request_asks_nobody(world: World) -> None:
    text = await world.key()
    world.stores.link.away = True
    for _ in range(100):
        assert world.admit(text)
        assert world.refusal(mangled(text)[0])[0] == 401


async def test_before_it_has_asked_it_admits_nobody(world: World) -> None:
    for world.ring.local in (True, False):
        with pytest.raises(Unavailable):
            world.admit(None)
    world.ring.local = True
    assert world.ring.admit(None, Scope.ADMIN, despite_outage=True).tenant == DEFAULT_TENANT


async def test_without_keys_only_this_machine_needs_none(world: World) -> None:
    await world.ring.refresh()
    assert world.refusal(None)[0] == 401
    world.ring.local = True
    assert (world.admit(None).tenant, world.ring.asks) == (DEFAULT_TENANT, False)
    text = await world.key()
    assert (world.refusal(None)[0], world.ring.asks) == (401, True)
    assert world.admit(text).tenant == "acme"
    await world.revoke(text)
    await world.ring.refresh()
    assert world.refusal(None)[0] == 401, "revoking the last key opens no door"
    assert world.ring.usable == 0


async def test_who_stays_is_told_when_the_key_ends(world: World) -> None:
    revoked, expiring, kept = await world.key(), await world.key(ttl_ms=1_000), await world.key()
    with (
        world.ring.watching(world.admit(revoked)) as first,
        world.ring.watching(world.admit(revoked)) as second,
        world.ring.watching(world.admit(expiring)) as third,
        world.ring.watching(world.admit(kept)) as last,
    ):
        await world.revoke(revoked)
        await world.ring.refresh()
        assert (first.is_set(), second.is_set(), third.is_set(), last.is_set()) == (True, True, False, False)
        world.now_ms += 1_000
        await world.ring.refresh()
        assert (third.is_set(), last.is_set()) == (True, False)
    assert world.ring._watched == {}


async def test_who_came_without_a_key_is_told_when_one_is_needed(world: World) -> None:
    world.ring.local = True
    await world.ring.refresh()
    with world.ring.watching(world.admit(None)) as ended:
        await world.ring.refresh()
        assert not ended.is_set()
        await world.key()
        assert ended.is_set()


async def test_it_keeps_up_and_outlives_an_outage(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.0)
    text = await world.key()
    with world.ring.watching(world.admit(text)) as ended:
        world.stores.link.fail_next("changed_keys")
        await world.revoke(text)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            running = group.create_task(world.ring.run())
            await ended.wait()
            running.cancel()
    assert world.refusal(text)[0] == 401


async def test_a_wrong_prefix_costs_what_a_wrong_secret_does(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    text = await world.key()
    compared: list[tuple[int, int]] = []

    def compare(kept: bytes, given: bytes) -> bool:
        compared.append((len(kept), len(given)))
        return hmac.compare_digest(kept, given)

    monkeypatch.setattr(module, "hmac", type("Hmac", (), {"compare_digest": staticmethod(compare)}))
    for given in [*mangled(text), text]:
        compared.clear()
        try:
            world.admit(given)
        except Problem:
            assert given != text
        assert compared == [(32, 32)], "one comparison, of whole hashes, whatever was given"


def tenth_us(world: World, texts: list[str], calls: int) -> list[float]:
    """The tenth percentile of `calls` refusals of each, one after the other in turns: all see the same machine."""
    admit, headers = world.ring.admit, [f"Bearer {text}" for text in texts]
    taken_us: list[list[float]] = [[] for _ in texts]
    for _ in range(calls):
        for header, mine in zip(headers, taken_us, strict=True):
            began = time.perf_counter()
            try:
                admit(header, Scope.SUBMIT)
            except Problem:
                mine.append((time.perf_counter() - began) * 1e6)
    return [sorted(mine)[calls // 10] for mine in taken_us]


async def test_the_clock_tells_no_prefix(world: World) -> None:
    wrong_secret, _, _, wrong_prefix = mangled(await world.key(ttl_ms=10**9))[:4]
    gc.disable()
    try:
        secret_us, prefix_us = tenth_us(world, [wrong_secret, wrong_prefix], 10_000)
    finally:
        gc.enable()
    assert abs(secret_us - prefix_us) < 0.3 * max(secret_us, prefix_us), (secret_us, prefix_us)
