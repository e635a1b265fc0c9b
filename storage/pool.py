"""Connections to one database, a small group for each purpose: a slow read never keeps a commit waiting.

`Database` is an async context manager; on entry it checks the server and the schema (`sessions.py`, `migrations.py`).
Stores use it as `async with db.ledger.use() as connection`.

Promises: every error that means an outage leaves as Unavailable; once entered, so does every refusal of a connection
(roles, passwords and limits are changed, and changed back, while we run). A connection whose state is in doubt is cut,
never used again; after an outage connections come back by themselves. Every wait is bounded.
Refuses: to send anything twice. What a lost reply means is for the caller to decide.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Self

import asyncpg

from actors.core.errors import Misconfigured, RingwheelError, Unavailable
from storage.migrations import check_version
from storage.outages import as_refusal, as_unavailable, is_outage, keeps_session
from storage.outcry import Outcry
from storage.rights import check_rights, refused
from storage.sessions import NAME_PREFIX, Connection, Session, check_direct, check_server, prepare
from storage.unreadable import Unreadable

CONNECT_S = 5.0
ACQUIRE_S = 5.0
"""How long a caller waits for a free connection, connecting included."""
GRACE_S = 1.0
"""The client waits this much longer than the server's own statement time-out: the server's answer says more."""
GIVEN_UP_S = 1.0
"""A heartbeat that is cancelled after this time was given up, for want of an answer."""
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0


async def _leave_alone(_: Connection) -> None:
    """No reset on release: no store leaves state behind, and it would cost a round trip each time."""


class Line:
    """A bounded group of connections for one purpose."""

    def __init__(self, dsn: str, session: Session, name: str, outcry: Outcry | None = None) -> None:
        self._dsn = dsn
        self._session = session
        self._outcry = outcry
        self.name = name
        """What connections made from now on are called (application_name)."""
        self.proven = False
        """These settings have worked: a connection that is refused now is an outage."""
        self._pool: Any = None
        self._pause_s = 0.0
        self._closed_until = 0.0

    async def __aenter__(self) -> Self:
        self._pool = asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=self._session.size,
            max_inactive_connection_lifetime=0,
            init=self._prepare,
            reset=_leave_alone,
            timeout=CONNECT_S,
            command_timeout=self._session.statement_ms / 1000 + GRACE_S,
            max_cached_statement_lifetime=0,
            server_settings={"application_name": self.name},
        )
        await self._pool
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not close(): that one waits for a server that may hang.
        self._pool.terminate()

    async def _prepare(self, connection: Connection) -> None:
        await prepare(connection, self._session, self.name)

    async def expire(self) -> None:
        """Replace every connection before its next use."""
        await self._pool.expire_connections()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """A connection for one statement or transaction. Raises Unavailable for every outage inside."""
        if self._outcry is None:
            async with self._use() as connection:
                yield connection
            return
        began_s = asyncio.get_running_loop().time()
        try:
            async with self._use() as connection:
                yield connection
        except (Unavailable, asyncio.CancelledError) as error:
            self._cry(self._outcry, error, asyncio.get_running_loop().time() - began_s)
            raise
        if self._session.beats:
            self._outcry.works()

    def _cry(self, outcry: Outcry, error: Unavailable | asyncio.CancelledError, after_s: float) -> None:
        if isinstance(error, Unavailable):
            expected = isinstance(error.__cause__, asyncpg.QueryCanceledError) and self._session.slow
            if error.__cause__ is not None and not expected:
                outcry.fails(self._session.purpose, error.detail)
        elif self._session.beats and after_s >= GIVEN_UP_S:
            outcry.fails(self._session.purpose, f"no answer in {after_s:.1f} s")

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[Connection]:
        connection = await self._acquire()
        try:
            yield connection
        except BaseException as error:
            if not isinstance(error, RingwheelError) and not keeps_session(error):
                _cut(connection)
            if is_outage(error):
                raise as_unavailable(error) from error
            if isinstance(error, asyncpg.InsufficientPrivilegeError):
                raise await self._refused(connection, error) from error
            raise
        finally:
            await self._release(connection)

    async def _refused(self, connection: Connection, error: Exception) -> RingwheelError:
        """A service goes on: what was taken from its role may be given back."""
        if self._outcry is not None and self.proven:
            return as_unavailable(error)
        return await refused(connection, error)

    async def _release(self, connection: Connection) -> None:
        try:
            await self._pool.release(connection)
        except asyncpg.InternalClientError:  # asyncpg's, when the server cuts it just as it is given back
            if not _is_taken_back(connection):
                raise

    async def _acquire(self) -> Connection:
        if self._pool is None:
            raise Unavailable("the database has not been reached yet")
        left_s = self._closed_until - asyncio.get_running_loop().time()
        if left_s > 0:
            raise Unavailable("the database was away a moment ago", retry_after_ms=int(left_s * 1000) + 1)
        try:
            async with asyncio.timeout(ACQUIRE_S):
                connection = await self._pool.acquire()
        except TimeoutError as error:
            raise Unavailable(f"no free connection for {self._session.purpose} in {ACQUIRE_S} s") from error
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            self._back_off()
            raise (as_unavailable(error) if self.proven else as_refusal(error)) from error
        except Misconfigured as error:
            self._back_off()
            if not self.proven:
                raise
            raise as_unavailable(error) from error
        self._pause_s = 0.0
        return connection

    def _back_off(self) -> None:
        """Nobody tries to connect for a while: 50 ms, doubled each time, at most a second."""
        self._pause_s = min(max(self._pause_s * 2, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        self._closed_until = asyncio.get_running_loop().time() + self._pause_s


def _cut(connection: Connection) -> None:
    try:
        connection.terminate()
    except asyncpg.InterfaceError:
        # The server cut it first, and the pool has taken it back.
        return


def _is_taken_back(connection: Connection) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True


INTAKE = Session("accepting", size=2, statement_ms=10_000, lock_ms=5_000)
KEYED = Session("accepting by key", size=2, statement_ms=10_000, lock_ms=5_000)
LEDGER = Session("recording results", size=2, statement_ms=10_000, lock_ms=5_000)
LEASES = Session("heartbeats", size=2, statement_ms=2_000, lock_ms=500, beats=True, sorts=True)
LOADS = Session("loading", size=2, statement_ms=10_000, lock_ms=2_000)
READS = Session("reading", size=4, statement_ms=10_000, lock_ms=2_000, fixed_plans=False)
LISTS = Session("listing", size=2, statement_ms=5_000, lock_ms=2_000, fixed_plans=False, slow=True)


class Database:
    """One PostgreSQL database, as one process start (`boot`) uses it."""

    def __init__(self, dsn: str, boot: str, outcry: Outcry | None = None) -> None:
        """`outcry`: who says of an outage; without one nobody does, and who asked is told alone."""
        self.boot = boot
        self._lasts = outcry is not None
        self.shards = 0
        """The cluster's number of shards; known once entered."""
        self.unreadable = Unreadable()
        """Its rows that this program can't read."""
        name = NAME_PREFIX + boot
        self.intake = Line(dsn, INTAKE, name, outcry)
        self.keyed = Line(dsn, KEYED, name, outcry)
        self.ledger = Line(dsn, LEDGER, name, outcry)
        self.leases = Line(dsn, LEASES, name, outcry)
        self.loads = Line(dsn, LOADS, name, outcry)
        self.reads = Line(dsn, READS, name, outcry)
        self.lists = Line(dsn, LISTS, name, outcry)
        self._stack = AsyncExitStack()

    @property
    def _lines(self) -> tuple[Line, ...]:
        return self.intake, self.keyed, self.ledger, self.leases, self.loads, self.reads, self.lists

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for line in self._lines:
                await stack.enter_async_context(line)
            await self._check()
            for line in self._lines:
                line.proven = True
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _check(self) -> None:
        async with self.intake.use() as first, self.reads.use() as second:
            await check_server(first)
            if self._lasts:
                await check_rights(first)
            await check_direct(first, second)
            self.shards = await check_version(first)

    async def rename(self, boot: str) -> None:
        """Go on as another boot: sessions of the old name are replaced before their next use."""
        self.boot = boot
        for line in self._lines:
            line.name = NAME_PREFIX + boot
            await line.expire()
