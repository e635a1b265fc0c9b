"""Account: as whom PostgreSQL runs. It refuses to run as root, and ringwheel is often root in a container.

An ordinary user runs it as himself. Root runs it in a user namespace of one user, in which root's own files belong to
"nobody": no account is made, no file changes hands, no mode is opened. Where the kernel refuses that, it runs as an
existing system user, who then owns `pgdata` and the socket folder.
"""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from actors.core.errors import Misconfigured

_NAMESPACE = ("unshare", "--user", "--map-user=65534", "--map-group=65534")
_SYSTEM_USERS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """How to run a program of PostgreSQL: words before its command line, and the user to become (None: stay)."""

    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None


def choose(program: Path, owner: int | None) -> Account:
    """An account that can run `program`; `owner` is the uid that `pgdata` belongs to (None: not made yet).

    Raises Misconfigured when root has none to drop to.
    """
    if os.geteuid() != 0:
        return Account()
    if owner in (None, 0) and _runs((*_NAMESPACE, str(program), "--version"), Account()):
        return Account(prefix=_NAMESPACE)
    for name in _SYSTEM_USERS:
        account = _of(name)
        if account and owner in (None, account.user) and _runs((str(program), "--version"), account):
            return account
    raise Misconfigured(
        "PostgreSQL does not run as root, and neither a user namespace (unshare --user) nor a system user "
        f"({', '.join(_SYSTEM_USERS)}) that may run {program} is at hand. Start ringwheel as an ordinary user, or name "
        "a PostgreSQL server of your own with --database-url or RINGWHEEL_DATABASE_URL."
    )


def _of(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(user=entry.pw_uid, group=entry.pw_gid)


def _runs(command: tuple[str, ...], account: Account) -> bool:
    groups = None if account.user is None else ()
    try:
        done = subprocess.run(  # noqa: S603 - our own words, no shell
            command, user=account.user, group=account.group, extra_groups=groups, capture_output=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
