"""Tenants of a running service: their keys, made in its database, and their clients."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from actors.core.keys import ALL, Scope
from storage.keys import PgKeyStore
from storage.pool import Database
from tests.service.api import LIMIT_S, Api
from tests.support.keys import bearer, new_key


async def make_key(dsn: str, tenant: str, scopes: frozenset[Scope] = ALL, ttl_ms: int | None = None) -> str:
    """The text of a new key, as another process would make it."""
    new, text = new_key(tenant, scopes, ttl_ms)
    async with Database(dsn, "key maker") as database:
        await PgKeyStore(database).create(new)
    return text


async def revoke_key(dsn: str, text: str) -> None:
    """And revoke it."""
    async with Database(dsn, "key maker") as database:
        await PgKeyStore(database).revoke(text.split("_")[1])


@asynccontextmanager
async def client(url: str, text: str) -> AsyncIterator[Api]:
    """A client with this key; the service has heard of it."""
    async with aiohttp.ClientSession(headers=bearer(text)) as session:
        api = Api(url, session)
        await status(api, 200)
        yield api


async def status(api: Api, wanted: int) -> None:
    """Return once a list of tasks is answered with this status."""
    async with asyncio.timeout(LIMIT_S):
        while (await api.call("GET", "/v1/tasks?limit=1")).status != wanted:
            pass
