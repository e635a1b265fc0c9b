"""The API keys in use, in this node's memory, and whose request a key makes it.

Every node asks once a second whether keys were made or revoked, and holds all keys in use (MAX_KEYS of them at most).
So a request costs no look-up, a wrong prefix asks nobody and takes as long as a wrong secret, and there is nothing to
fill with guesses.

Promises: a revoked key is refused everywhere within MAX_AGE_S of the commit, a socket that it opened is told within
that time too. What is known is trusted for so long and no longer: then keyed requests are answered with 503. Sockets
outlive an outage of the database, which has nothing to tell them meanwhile, and are looked at again right after it.
Without keys: a server on the loopback interface takes everybody for the tenant `default`, until the first key is made;
from then on a key is required, also when that one is revoked. Every other server needs a key for each request.
Refuses: to say whether a key is unknown, revoked or expired, and to keep or to log any secret.
"""

import asyncio
import hmac
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from actors.core.errors import Unavailable
from actors.core.keys import ALL, ApiKey, Scope, key_parts, secret_hash
from actors.ports.keys import KeyStore
from gateway.context import DEFAULT_TENANT, Caller
from gateway.problems import Problem

POLL_S = 1.0
MAX_AGE_S = 4.5
"""How long after it was asked for an answer of the database may be relied on."""
NAMED = 20
"""Keys that one line of the log names."""

_NOBODY = ApiKey("", bytes(32), "", "", frozenset(), 0, None, None)
"""What an unknown prefix is compared with."""
_ANYBODY = Caller(DEFAULT_TENANT, ALL, None)
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="ringwheel"'}
_INVALID = {"WWW-Authenticate": 'Bearer realm="ringwheel", error="invalid_token"'}
log = structlog.get_logger("keys")


class Keyring:
    """The keys of a cluster, as one node knows them. Belongs to the event loop's thread."""

    def __init__(
        self, store: KeyStore, now_ms: Callable[[], int], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._keys: dict[str, tuple[ApiKey, Caller]] = {}
        self._version = -1
        self._good_until = float("-inf")
        self._exist = False
        self._watched: dict[Caller, tuple[asyncio.Event, int]] = {}
        self.local = False
        """Only this machine can connect: as long as there are no keys, none is asked for."""
        self.refused = 0
        """Requests with a key that is of no use."""

    # --- what the database says

    async def run(self) -> None:
        """Keep up with the database until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.refresh()
            except Unavailable as error:
                log.debug("keys can't be read; trying again", detail=error.detail)
            self._look_again()

    async def refresh(self) -> None:
        """Ask for what has changed. Raises Unavailable."""
        asked_s = self._monotonic()
        found = await self._store.changed(self._version)
        if found is not None:
            before, first = set(self._keys), self._version < 0
            self._keys = {key.prefix: (key, self._caller_of(key)) for key in found.usable}
            self._version, self._exist = found.version, found.exist
            if not first:
                _tell(before, set(self._keys))
        self._good_until = asked_s + MAX_AGE_S
        self._look_again()

    def _caller_of(self, key: ApiKey) -> Caller:
        """The same object for the same key: those who watch are known by it."""
        known = self._keys.get(key.prefix)
        return known[1] if known is not None else Caller(key.tenant, key.scopes, key.prefix)

    @property
    def usable(self) -> int:
        """How many keys are in use, as of the last answer."""
        return len(self._keys)

    # --- a request

    def admit(self, header: str | None, scope: Scope, *, despite_outage: bool = False) -> Caller:
        """Whose request it is, by its Authorization header. Raises Problem (401, 403) or Unavailable.

        `despite_outage`: what was known last is good enough, and on the loopback interface that nothing is.
        """
        return _with_scope(self._caller(header, despite_outage), scope)

    def _caller(self, header: str | None, despite_outage: bool) -> Caller:
        if self.local and not self._exist and (despite_outage or self._version >= 0):
            return _ANYBODY
        if not despite_outage:
            self._check_age()
        if header is None:
            raise Problem("unauthenticated", "a key is needed: Authorization: Bearer rw_...", headers=_CHALLENGE)
        scheme, _, text = header.partition(" ")
        return self._holder(text if scheme.lower() == "bearer" else "")

    def holder(self, text: str, scope: Scope) -> Caller:
        """Whose request it is, by the key itself. Raises Problem (401, 403) or Unavailable."""
        self._check_age()
        return _with_scope(self._holder(text), scope)

    def _check_age(self) -> None:
        if self._monotonic() > self._good_until:
            raise Unavailable("this node can't tell at the moment which keys are in use")

    def _holder(self, text: str) -> Caller:
        prefix, secret = key_parts(text) or ("", "")
        key, caller = self._keys.get(prefix, (_NOBODY, _ANYBODY))
        right = hmac.compare_digest(key.hash, secret_hash(secret))
        if not right or key is _NOBODY or self._expired(key):
            self.refused += 1
            raise Problem("unauthenticated", "this key is not in use", headers=_INVALID)
        return caller

    @property
    def asks(self) -> bool:
        """Whether a key is needed. Raises Unavailable when that is not known."""
        if self._version < 0:
            raise Unavailable("this node does not know yet which keys are in use")
        return self._exist or not self.local

    def _expired(self, key: ApiKey) -> bool:
        return key.expires_ms is not None and self._now_ms() >= key.expires_ms

    # --- those who stay

    @contextmanager
    def watching(self, caller: Caller) -> Iterator[asyncio.Event]:
        """The event is set when what the caller came with is no longer good; one for all who came with it."""
        ended, count = self._watched.get(caller, (asyncio.Event(), 0))
        self._watched[caller] = ended, count + 1
        try:
            yield ended
        finally:
            if caller in self._watched and self._watched[caller][0] is ended:
                self._leave(caller)

    def _leave(self, caller: Caller) -> None:
        ended, count = self._watched[caller]
        if count > 1:
            self._watched[caller] = ended, count - 1
        else:
            del self._watched[caller]

    def _look_again(self) -> None:
        for caller in [caller for caller in self._watched if not self._good(caller)]:
            self._watched.pop(caller)[0].set()

    def _good(self, caller: Caller) -> bool:
        if caller.prefix is None:
            return self.local and not self._exist
        key, known = self._keys.get(caller.prefix, (_NOBODY, None))
        return known is caller and not self._expired(key)


def missing(scope: Scope) -> Problem:
    """The refusal of a key that may not do this."""
    challenge = f'Bearer realm="ringwheel", error="insufficient_scope", scope="{scope}"'
    return Problem("forbidden", f"the key lacks the scope {scope}", headers={"WWW-Authenticate": challenge})


def _tell(before: set[str], now: set[str]) -> None:
    log.info(
        "the keys in use have changed",
        usable=len(now),
        came=sorted(now - before)[:NAMED],
        went=sorted(before - now)[:NAMED],
    )


def _with_scope(caller: Caller, scope: Scope) -> Caller:
    if scope not in caller.scopes:
        raise missing(scope)
    return caller
