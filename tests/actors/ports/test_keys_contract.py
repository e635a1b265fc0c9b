"""The KeyStore port: API keys, and how nodes hear of a change."""

import asyncio

import pytest

from actors.core.errors import Conflict, Invalid, Unknown
from actors.core.keys import Keys, NewKey, Scope, secret_hash
from tests.actors.ports.worlds import Stores, World


def a_key(prefix: str = "a", tenant: str = "acme", ttl_ms: int | None = None, **more: str) -> NewKey:
    scopes = frozenset({Scope.SUBMIT, Scope.READ})
    return NewKey(prefix.ljust(12, "0"), secret_hash(prefix), tenant, more.get("name", "ci"), scopes, ttl_ms)


async def seen(stores: Stores, version: int = -1) -> Keys:
    keys = await stores.keys.changed(version)
    assert keys is not None
    return keys


async def test_without_keys_there_are_none(stores: Stores) -> None:
    assert await seen(stores) == Keys(0, False, [])
    assert await stores.keys.known() == []
    assert await stores.keys.changed(0) is None


async def test_a_key_is_kept_as_it_was_made(stores: Stores) -> None:
    new = a_key(ttl_ms=3_600_000)
    made = await stores.keys.create(new)
    assert (made.prefix, made.hash, made.tenant, made.name) == (new.prefix, new.hash, new.tenant, new.name)
    assert (made.scopes, made.revoked_ms) == (new.scopes, None)
    assert made.expires_ms == made.created_ms + 3_600_000
    assert await stores.keys.known() == [made]
    assert await seen(stores) == Keys(1, True, [made])


async def test_a_prefix_is_taken_once(stores: Stores) -> None:
    made = await stores.keys.create(a_key())
    with pytest.raises(Conflict):
        await stores.keys.create(a_key(tenant="other"))
    assert await seen(stores) == Keys(1, True, [made])


async def test_a_revoked_key_is_listed_and_not_in_use(world: World, stores: Stores) -> None:
    other = await world.process("boot-b")
    first = await stores.keys.create(a_key("a"))
    second = await stores.keys.create(a_key("b"))
    assert await other.keys.changed(2) is None
    revoked = await stores.keys.revoke(first.prefix)
    assert revoked.revoked_ms is not None
    assert await seen(other, 2) == Keys(3, True, [second])
    assert await stores.keys.revoke(first.prefix) == revoked, "it stays as it was"
    assert await other.keys.changed(3) is None
    assert {key.prefix: key.revoked_ms for key in await other.keys.known()} == {
        first.prefix: revoked.revoked_ms,
        second.prefix: None,
    }
    await stores.keys.revoke(second.prefix)
    assert await seen(other) == Keys(4, True, []), "that there were keys is not forgotten"


async def test_an_expired_key_is_not_in_use(stores: Stores) -> None:
    expired = await stores.keys.create(a_key(ttl_ms=-1))
    assert await seen(stores) == Keys(1, True, [])
    assert await stores.keys.known() == [expired]


async def test_what_is_not_there_can_not_be_revoked(stores: Stores) -> None:
    with pytest.raises(Unknown):
        await stores.keys.revoke("nothing")
    assert await stores.keys.changed(0) is None


async def test_a_list_is_of_one_tenant_if_asked(stores: Stores) -> None:
    mine = await stores.keys.create(a_key("a"))
    theirs = await stores.keys.create(a_key("b", tenant="other"))
    assert await stores.keys.known("acme") == [mine]
    assert await stores.keys.known("nobody") == []
    assert {key.prefix for key in await stores.keys.known()} == {mine.prefix, theirs.prefix}


async def test_keys_in_use_are_bounded(world: World, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("storage.keys", "storage.memory.keys"):
        monkeypatch.setattr(f"{room}.MAX_KEYS", 2)
    first = await stores.keys.create(a_key("a"))
    await stores.keys.create(a_key("b"))
    with pytest.raises(Invalid, match="revoke some"):
        await stores.keys.create(a_key("c"))
    await stores.keys.revoke(first.prefix)
    assert (await stores.keys.create(a_key("c"))).prefix.startswith("c")


async def test_no_change_is_missed_when_many_come_at_once(world: World, stores: Stores) -> None:
    other = await world.process("boot-b")
    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task((stores, other)[number % 2].keys.create(a_key(f"k{number:02}")))
    keys = await seen(stores)
    assert (keys.version, len(keys.usable)) == (12, 12)
