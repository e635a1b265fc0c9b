"""Who may call a route: its place in the route table says so, and nothing is reachable without one.

Promises: a handler behind a guard finds its caller on the request, and `tenant_of` answers that caller's tenant. The
tenant comes from the key alone, never from a path, a query, a header or a body.
Refuses, as problem details: no key or a bad one (401 with WWW-Authenticate), a key that lacks the scope (403). Where no
key is needed, it refuses what pages of other origins make a browser send, also under a name of theirs that they let
point to this machine (403): a developer's browser must not be a stranger's way in.
"""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from actors.core.keys import Scope
from gateway.context import CALLER, Caller
from gateway.keyring import Keyring
from gateway.problems import Handler, Problem


@dataclass(frozen=True, slots=True)
class Access:
    """What a route asks of its callers; None: nothing."""

    scope: Scope | None
    by_message: bool = False
    """A websocket: who brings no header may authenticate by the first message; the handler sees to it."""
    despite_outage: bool = False
    """Answered by what was last known of keys: it is needed most when the database is away."""


OPEN = Access(None)
SUBMIT = Access(Scope.SUBMIT)
READ = Access(Scope.READ)
WORK = Access(Scope.WORK)
ADMIN = Access(Scope.ADMIN)
WATCH = Access(Scope.READ, by_message=True)
PULL = Access(Scope.WORK, by_message=True)
OPERATE = Access(Scope.OPERATE)
METRICS = Access(Scope.METRICS, despite_outage=True)


def guarded(keyring: Keyring, access: Access, handler: Handler) -> Handler:
    """The handler, for those who may. No coroutine of its own: that would cost each request."""
    scope = access.scope
    if scope is None:
        return handler

    def guard(request: web.Request) -> Awaitable[web.StreamResponse]:
        headers = request.headers
        if not (access.by_message and hdrs.AUTHORIZATION not in headers and keyring.asks):
            request[CALLER] = admitted(keyring, scope, headers, despite_outage=access.despite_outage)
        return handler(request)

    return guard


def admitted(keyring: Keyring, scope: Scope, headers: Mapping[str, str], *, despite_outage: bool = False) -> Caller:
    """Who makes a request with these headers, who may. Raises Problem or Unavailable."""
    caller = keyring.admit(headers.get(hdrs.AUTHORIZATION), scope, despite_outage=despite_outage)
    if caller.prefix is None:
        _check_local(headers)
    return caller


def _check_local(headers: Mapping[str, str]) -> None:
    host, origin = headers.get(hdrs.HOST, ""), headers.get(hdrs.ORIGIN)
    if not _is_local(host) or (origin is not None and urlsplit(origin).netloc.lower() != host.lower()):
        detail = "without a key only loopback addresses and localhost are answered, and no foreign page"
        raise Problem("forbidden", detail)


@lru_cache(maxsize=256)
def _is_local(host: str) -> bool:
    """Whether a Host header may be this machine's: no stranger can register a name without a dot."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        plain = "." not in name and ":" not in name
        return plain or name.endswith(".localhost") or ip_address(name).is_loopback
    except ValueError:
        return False
