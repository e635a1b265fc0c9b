"""What every connection is set to, and what is checked before the service starts.

Settings are made once for each connection and read back, because a pooler that shares sessions loses them, and with
them the time-outs that keep a stopped client from holding locks forever.

Refuses (Misconfigured) a server that could lose by itself what it acknowledged (fsync or synchronous_commit off; what
`local` and `remote_write` mean is for whoever has a standby to decide), one that is too old or not a primary, a
database that is not UTF-8, and a pooler in transaction mode.
"""

from dataclasses import dataclass
from typing import Any

from actors.core.errors import Misconfigured

OLDEST_SERVER = 140_000
IDLE_IN_TRANSACTION_MS = 5_000
NAME_PREFIX = "ringwheel:"

Connection = Any
"""asyncpg.Connection, or the pool's stand-in for one: asyncpg ships no types."""


@dataclass(frozen=True, slots=True)
class Session:
    """What one kind of connection is for, and its bounds."""

    purpose: str
    size: int
    """Most connections of this kind."""
    statement_ms: int
    """The server gives a statement up after this time."""
    lock_ms: int
    """The server gives waiting for one lock up after this time."""
    fixed_plans: bool = True
    """Hot statements are planned once, by index only, and by the one in whose order they ask: statistics of a table
    that is now empty, now full of a million rows, must not talk the planner into scanning it."""

    sorts: bool = False
    """Its statements sort few rows: that costs less than to walk through an index in their order."""
    slow: bool = False
    """What a client asks for may take too long: no sign of trouble."""
    beats: bool = False
    """It is used all the time, so that an outage shows here first, and its end."""

    def settings(self, name: str) -> dict[str, str]:
        """Postgres settings of a connection that belongs to `name`."""
        made = {
            "application_name": name,
            "statement_timeout": f"{self.statement_ms}ms",
            "lock_timeout": f"{self.lock_ms}ms",
            "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_MS}ms",
            "default_transaction_isolation": "read committed",
            "jit": "off",
        }
        if self.fixed_plans:
            made |= {"plan_cache_mode": "force_generic_plan", "enable_hashjoin": "off", "enable_mergejoin": "off"}
            made |= {"enable_seqscan": "off", "enable_sort": "on" if self.sorts else "off"}
        return made


_SET = "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS s (name, value)"
_SHOW = "SELECT name, current_setting(name) AS value FROM unnest($1::text[]) AS s (name)"


async def prepare(connection: Connection, session: Session, name: str) -> None:
    """Set a new connection up; raises Misconfigured when the settings do not stick."""
    wanted = session.settings(name)
    await connection.execute(_SET, list(wanted), list(wanted.values()))
    shown = {row["name"]: row["value"] for row in await connection.fetch(_SHOW, list(wanted))}
    for setting, value in wanted.items():
        if _plain(shown[setting]) != _plain(value):
            raise Misconfigured(
                f"the setting {setting} = {value} did not stay on the connection (found {shown[setting]!r}): "
                "a pooler shares sessions; connect directly, or use session mode"
            )


_UNITS_MS = {"ms": 1, "s": 1_000, "min": 60_000}


def _plain(value: str) -> str:
    """`5s` and `5000ms` are one value: SHOW answers in the largest unit that fits."""
    digits = value.rstrip("mins")
    unit = value[len(digits) :]
    return f"{int(digits) * _UNITS_MS[unit]}ms" if digits.isdigit() and unit in _UNITS_MS else value


async def check_server(connection: Connection) -> None:
    """Raise Misconfigured when this server can't keep the service's promises."""
    shown = await connection.fetchrow(
        "SELECT current_setting('server_version_num')::int4 AS version, current_setting('fsync') AS fsync, "
        "current_setting('synchronous_commit') AS commits, current_setting('server_encoding') AS encoding, "
        "pg_is_in_recovery() AS standby"
    )
    if shown["version"] < OLDEST_SERVER:
        raise Misconfigured(f"PostgreSQL 14 or newer is needed, this is {shown['version'] // 10_000}: upgrade it")
    if shown["standby"]:
        raise Misconfigured("this server is a standby: point the DSN to the primary (target_session_attrs=read-write)")
    if shown["fsync"] == "off":
        raise Misconfigured("fsync is off: accepted tasks could be lost; set fsync = on")
    if shown["commits"] == "off":
        raise Misconfigured("synchronous_commit is off: accepted tasks could be lost; set synchronous_commit = on")
    if shown["encoding"] != "UTF8":
        raise Misconfigured(f"the database's encoding is {shown['encoding']}: create one with ENCODING 'UTF8'")


_PID = "SELECT pg_backend_pid()"


async def check_direct(first: Connection, second: Connection) -> None:
    """Raise Misconfigured when two connections share server sessions, as behind a pooler in transaction mode.

    While `second` is inside a transaction it keeps a session; `first` must still be on the one that it had before.
    """
    before = await first.fetchval(_PID)
    async with second.transaction():
        other = await second.fetchval(_PID)
        after = before if other == before else await first.fetchval(_PID)
    if other == before or after != before:
        raise Misconfigured(
            "a pooler in transaction mode stands before the database: connect directly, or use session mode"
        )
