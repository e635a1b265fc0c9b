"""What a service says of a database that can't be used: one line when that begins, each AGAIN_S, and when it is over.

Many need the database at once and each fails in its own words, some of them ten times a second. So nobody else warns of
it. Over it is when heartbeats work and nothing has failed for QUIET_S.

Refuses to name more of a DSN than its host and its database.
"""

import time
from collections.abc import Callable
from os import environ
from urllib.parse import parse_qs, unquote, urlsplit

import structlog

AGAIN_S = 10.0
QUIET_S = 2.0
log = structlog.get_logger("database")


class Outcry:
    """One a process."""

    def __init__(self, dsn: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = place_of(dsn)
        self._monotonic = monotonic
        self._since_s: float | None = None
        self._failed_s = 0.0
        self._said_s = 0.0
        self._left_out = 0

    def fails(self, purpose: str, detail: str) -> None:
        """Something could not be done, now."""
        now_s = self._monotonic()
        self._failed_s = now_s
        if self._since_s is None:
            self._since_s = now_s
            more: dict[str, float] = {}
        elif now_s - self._said_s < AGAIN_S:
            self._left_out += 1
            return
        else:
            more = {"for_s": round(now_s - self._since_s, 1), "left_out": self._left_out}
        self._said_s, self._left_out = now_s, 0
        log.warning(
            "the database can't be used; trying again", database=self._database, purpose=purpose, detail=detail, **more
        )

    def works(self) -> None:
        """A heartbeat came through."""
        if self._since_s is None:
            return
        now_s = self._monotonic()
        if now_s - self._failed_s >= QUIET_S:
            for_s = round(self._failed_s - self._since_s, 1)
            log.info("the database can be used again", database=self._database, for_s=for_s, left_out=self._left_out)
            self._since_s, self._left_out = None, 0


def place_of(dsn: str) -> str:
    """Host, port and database of a DSN; of one that is not well formed, nothing."""
    try:
        parts = urlsplit(dsn)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    except ValueError:
        return "?"
    if "@" in parts.path + parts.query + parts.fragment:  # some sign in a password was not encoded
        return "?"
    host = unquote(parts.netloc.rpartition("@")[2]) or query.get("host") or environ.get("PGHOST") or "localhost"
    port = query.get("port") or environ.get("PGPORT")
    name = unquote(parts.path.lstrip("/")) or query.get("database") or query.get("dbname") or environ.get("PGDATABASE")
    where = f"{host}:{port}" if port and not parts.netloc.rpartition("@")[2] else host
    return f"{where}/{name or ''}"
