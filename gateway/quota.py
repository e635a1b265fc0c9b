"""How many tasks a second a tenant may submit to this node, by the generic cell rate algorithm (ITU-T I.371).

A tenant that was quiet may submit `BURST_S` seconds' worth at once. A batch is let in while anything is left, and the
rest of it is owed; what is refused takes nothing. Remembers one number a tenant, and tenants come from keys alone.

Answers carry `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers) where there is a quota.
"""

from collections.abc import Callable, Mapping
from math import ceil
from time import monotonic

from gateway.problems import Problem

BURST_S = 2.0


class Quota:
    """The quotas of a node: tasks a second by tenant, and that of all others (None: no limit)."""

    def __init__(
        self,
        rate_hz: float | None = None,
        by_tenant: Mapping[str, float] | None = None,
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        self._rate_hz = rate_hz
        self._by_tenant = dict(by_tenant or {})
        self._monotonic = monotonic
        self._even_s: dict[str, float] = {}
        """When a tenant will have paid for what it submitted."""
        self.refused = 0

    def take(self, tenant: str, tasks: int) -> dict[str, str]:
        """Let so many tasks in; headers for the answer. Raises Problem (429)."""
        rate_hz = self._by_tenant.get(tenant, self._rate_hz)
        if rate_hz is None:
            return {}
        now_s = self._monotonic()
        owed_s = max(0.0, self._even_s.get(tenant, 0.0) - now_s)
        wait_s = owed_s + 1 / rate_hz - _span_s(rate_hz)
        if wait_s > 0:
            self.refused += 1
            detail = f"this tenant may submit {rate_hz:g} tasks a second to a node"
            wait = {"Retry-After": str(ceil(wait_s))}
            raise Problem("overloaded", detail, headers=_headers(rate_hz, owed_s) | wait)
        owed_s += tasks / rate_hz
        self._even_s[tenant] = now_s + owed_s
        return _headers(rate_hz, owed_s)


def _span_s(rate_hz: float) -> float:
    """For how long a tenant may save up: a task at least."""
    return max(BURST_S, 1 / rate_hz)


def _headers(rate_hz: float, owed_s: float) -> dict[str, str]:
    span_s = _span_s(rate_hz)
    left = max(0, int((span_s - owed_s) * rate_hz))
    return {
        "RateLimit-Policy": f'"tenant";q={int(rate_hz * span_s)};w={ceil(span_s)}',
        "RateLimit": f'"tenant";r={left};t={ceil(owed_s)}',
    }
