"""The SigningStore port: secrets that webhooks are signed with."""

import asyncio

import pytest

from actors.core.errors import Conflict, Unknown
from actors.core.signing import SECRET_BYTES, SigningSecret
from tests.actors.ports.worlds import Stores, World

KEYS = [bytes([n]) * SECRET_BYTES for n in range(4)]


async def keys_of(stores: Stores, tenant: str | None = "default") -> list[bytes]:
    return [secret.key for secret in await stores.signing.of(tenant)]


async def test_at_first_there_is_none(stores: Stores) -> None:
    assert await keys_of(stores) == []
    with pytest.raises(Unknown):
        await stores.signing.rotate("default", KEYS[0])
    with pytest.raises(Unknown):
        await stores.signing.revoke("default", 1)
    assert await keys_of(stores) == []


async def test_a_secret_is_kept_as_it_was_made_and_seen_everywhere(world: World, stores: Stores) -> None:
    made = await stores.signing.create("default", KEYS[0])
    other = await world.process("boot-b")
    assert list(await other.signing.of("default")) == [made]
    assert (made.tenant, made.key) == ("default", KEYS[0])
    assert made.made_ms > 0


async def test_the_first_secret_is_made_once(stores: Stores) -> None:
    await stores.signing.create("default", KEYS[0])
    with pytest.raises(Conflict):
        await stores.signing.create("default", KEYS[1])
    assert await keys_of(stores) == [KEYS[0]]


async def test_of_many_that_make_the_first_one_at_once_one_wins(world: World, stores: Stores) -> None:
    other = await world.process("boot-b")
    answers: list[SigningSecret | None] = []

    async def create(home: Stores, key: bytes) -> None:
        try:
            answers.append(await home.signing.create("default", key))
        except Conflict:
            answers.append(None)

    async with asyncio.TaskGroup() as group:
        for n, key in enumerate(KEYS):
            group.create_task(create([stores, other][n % 2], key))
    [won] = [answer for answer in answers if answer is not None]
    assert len(answers) == len(KEYS)
    assert list(await stores.signing.of("default")) == [won]


async def test_rotation_keeps_two_the_newest_first(stores: Stores) -> None:
    await stores.signing.create("default", KEYS[0])
    for n in (1, 2, 3):
        made = await stores.signing.rotate("default", KEYS[n])
        assert (await stores.signing.of("default"))[0] == made
        assert await keys_of(stores) == [KEYS[n], KEYS[n - 1]]


async def test_a_revoked_secret_is_gone_and_its_number_is_not_used_again(stores: Stores) -> None:
    old = await stores.signing.create("default", KEYS[0])
    new = await stores.signing.rotate("default", KEYS[1])
    await stores.signing.revoke("default", new.id)
    assert await keys_of(stores) == [KEYS[0]]
    with pytest.raises(Unknown):
        await stores.signing.revoke("default", new.id)
    again = await stores.signing.rotate("default", KEYS[2])
    assert old.id < new.id < again.id
    for secret in (old, again):
        await stores.signing.revoke("default", secret.id)
    assert await keys_of(stores) == []


async def test_tenants_have_their_own(stores: Stores) -> None:
    mine = await stores.signing.create("default", KEYS[0])
    await stores.signing.create("acme", KEYS[1])
    await stores.signing.rotate("acme", KEYS[2])
    await stores.signing.rotate("acme", KEYS[3])
    assert await keys_of(stores) == [KEYS[0]]
    assert await keys_of(stores, "acme") == [KEYS[3], KEYS[2]]
    assert await keys_of(stores, None) == [KEYS[3], KEYS[2], KEYS[0]]
    with pytest.raises(Unknown):
        await stores.signing.revoke("acme", mine.id)
    assert await keys_of(stores) == [KEYS[0]]


async def test_every_change_is_seen_by_the_next_beat_and_a_refused_one_is_none(stores: Stores) -> None:
    await stores.leases.join("boot-a", "a", "a:1")

    async def version() -> int:
        beat = await stores.leases.beat("boot-a")
        assert beat is not None
        return beat.settings_version

    seen = [await version()]
    made = await stores.signing.create("default", KEYS[0])
    seen.append(await version())
    with pytest.raises(Conflict):
        await stores.signing.create("default", KEYS[1])
    with pytest.raises(Unknown):
        await stores.signing.revoke("default", made.id + 1)
    assert await version() == seen[-1]
    await stores.signing.rotate("default", KEYS[1])
    seen.append(await version())
    await stores.signing.revoke("default", made.id)
    seen.append(await version())
    assert seen == sorted(set(seen))
