"""Data folder: where an embedded PostgreSQL lives, and the two locks that say who uses it and who keeps it.

    pgdata/         the database cluster, PostgreSQL's alone
    run/            the socket (elsewhere when the path would be too long), mode 0700
    lock            shared flock of every node that uses the folder; exclusive: nobody is left, the server stops
    keeper.lock     exclusive flock of the keeper, from before its first step until its end; holds its pid for readers
    postgres.log    what PostgreSQL and the keeper say; postgres.log.1 is what came before

One data folder belongs to one user of one host: flock and unix sockets do not reach further.
"""

import fcntl
import hashlib
import os
import pwd
import stat
from pathlib import Path
from urllib.parse import quote

from actors.core.errors import Misconfigured
from storage.account import Account

PORT = 5432
"""Only a part of the socket's name: nothing listens on TCP."""
_SOCKET_NAME = f".s.PGSQL.{PORT}"
_SOCKET_PATH_LIMIT = 103
"""Bytes in sockaddr_un.sun_path without the final NUL: 103 on BSD and macOS, 107 on Linux."""


class DataFolder:
    """The paths and locks below one folder. Raises Misconfigured when the folder can't be used."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.pgdata = self.path / "pgdata"
        self.log = self.path / "postgres.log"
        self.lock = self.path / "lock"
        self.keeper_lock = self.path / "keeper.lock"

    @property
    def sockets(self) -> Path:
        """Folder of the socket: the same for every process that uses this data folder, whatever its environment."""
        inside = self.path.resolve() / "run"
        # In PostgreSQL's setting and in a DSN the comma separates folders, a quote begins a quoted one.
        if len(os.fsencode(inside / _SOCKET_NAME)) <= _SOCKET_PATH_LIMIT and not {",", '"'} & set(str(inside)):
            return inside
        digest = hashlib.sha256(os.fsencode(self.path.resolve())).hexdigest()[:16]
        return Path("/tmp") / f"ringwheel-{os.geteuid()}-{digest}"  # noqa: S108 - made 0700, and refused if not ours

    @property
    def socket(self) -> Path:
        """The socket itself."""
        return self.sockets / _SOCKET_NAME

    def dsn(self, database: str) -> str:
        """The asyncpg DSN of a database of this server."""
        return f"postgresql://ringwheel@/{database}?host={quote(str(self.sockets), safe='')}&port={PORT}"

    def data_major(self) -> int | None:
        """Major version of the PostgreSQL that wrote `pgdata`; None when there is none yet."""
        try:
            return int((self.pgdata / "PG_VERSION").read_text().strip())
        except FileNotFoundError:
            return None

    def pgdata_owner(self) -> int | None:
        """The uid that `pgdata` belongs to; None when there is none yet."""
        return self.pgdata.stat().st_uid if self.pgdata.exists() else None

    def prepare(self) -> None:
        """Make the folder, or see that it is ours."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_owner()
            if not os.access(self.path, os.W_OK | os.X_OK):
                raise PermissionError(f"no right to write to {self.path}")
        except OSError as error:
            raise Misconfigured(
                f"The data folder {self.path} can't be used: {error}. Choose another folder."
            ) from error

    def _check_owner(self) -> None:
        owner = self.path.stat().st_uid
        if owner != os.geteuid():
            raise Misconfigured(
                f"The data folder {self.path} belongs to {_name(owner)}, but ringwheel runs as {_name(os.geteuid())}. "
                "Start it as the owner of the folder, or choose another folder."
            )

    def prepare_sockets(self, account: Account) -> None:
        """Make the folder of the socket, closed to all but `account`; refuse one that somebody else has put there."""
        owner = os.geteuid() if account.user is None else account.user
        folder = self.sockets
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if account.user is not None:
                self.path.chmod(0o711)  # the account has to pass through, not to read
                os.chown(folder, account.user, account.group or account.user, follow_symlinks=False)
            found = folder.lstat()
        except OSError as error:
            raise Misconfigured(f"The socket folder {folder} can't be used: {error}.") from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or stat.S_IMODE(found.st_mode) & 0o077:
            raise Misconfigured(
                f"The socket folder {folder} is not a folder with mode 0700 of {_name(owner)}; remove it."
            )

    def try_share(self) -> int | None:
        """Take the users' lock; its descriptor, or None while a server is stopping."""
        return _try_lock(self.lock, fcntl.LOCK_SH)

    def try_keep(self) -> int | None:
        """Take the keeper's lock, to hand it to a new keeper; its descriptor, or None while there is a keeper."""
        return _try_lock(self.keeper_lock, fcntl.LOCK_EX)

    def kept(self) -> bool:
        """Tell whether there is a keeper."""
        descriptor = self.try_keep()
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None

    def leave(self, descriptor: int) -> bool:
        """Give the users' lock back; True when that was the last use, so that the server stops now."""
        try:
            return self._was_last(descriptor)
        finally:
            os.close(descriptor)

    def used(self) -> bool:
        """Tell whether somebody seems to use it. True now and then, too, while two look at the same moment."""
        descriptor = _open(self.lock)
        try:
            return not self._was_last(descriptor)
        finally:
            os.close(descriptor)

    def _was_last(self, descriptor: int) -> bool:
        # Trading shared for exclusive fails when there are other users, or when the keeper was quicker. The two differ
        # in that a shared lock can still be had beside other users, but not beside the keeper's exclusive one.
        if _lock(descriptor, fcntl.LOCK_EX):
            return True
        return not _lock(descriptor, fcntl.LOCK_SH)

    def last_words(self, lines: int = 12) -> str:
        """The end of the log, to explain an error."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                tail = file.read().decode(errors="replace").splitlines()
        except OSError:
            return "(no log)"
        return "\n".join(tail[-lines:])


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Misconfigured(f"The lock {path} can't be opened: {error}.") from error


def _try_lock(path: Path, kind: int) -> int | None:
    descriptor = _open(path)
    if _lock(descriptor, kind):
        return descriptor
    os.close(descriptor)
    return None


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _name(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
