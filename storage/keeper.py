"""Keeper: the small detached parent process of an embedded PostgreSQL server.

It makes the database cluster if there is none, starts PostgreSQL, starts it again when it dies, and stops it when
nobody uses the data folder any more. Who uses the folder holds a shared flock; the keeper waits for the exclusive one,
and the kernel gives it the moment the last user is gone, by whatever death. No process id is ever trusted for that.

- It is started with the keeper's lock already held and inherits it: there is never a second keeper of a folder.
- It has a session of its own: Ctrl-C in a terminal reaches the service, not the database below it.
- It ends only by the lock; other signals than SIGKILL do not move it. After SIGKILL the next keeper stops the
  server that was left behind, then starts its own.
- It runs as a bare script (`python -I -S keeper.py ORDERS`), needs the standard library alone, and little of that.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, NamedTuple

LOG_BYTES = 4 << 20
"""Size at which the log is set aside; one older one is kept."""
STEADY_S = 5.0
"""A server that lived this long was well: its restart is not delayed."""
BACK_OFF_S = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 5.0)
"""Wait before the n-th start in a row that did not last; the last one repeats."""
REFUSALS = 5
"""A server that never was well and refused to start this often in a row will not start by itself."""
FAST_STOP_S = 60
"""Time for the checkpoint of a fast shutdown; then an immediate one, which is as safe but needs recovery."""


class Orders(NamedTuple):
    """All that a keeper needs to know; travels as JSON on its command line."""

    data: str
    """Folder of `pgdata`, of the users' lock and of the log."""
    sockets: str
    binaries: str
    major: int
    config: str
    """Folder of postgresql.conf and pg_hba.conf."""
    port: int
    keeper_lock: int
    """Descriptor of the keeper's lock, held and inherited."""
    prefix: list[str]
    user: int | None
    group: int | None


class Log:
    """What the keeper and its children say, bounded in size."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open()

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def write(self, chunk: bytes) -> None:
        """Append; on a full disk the words are lost, the database must not be."""
        with contextlib.suppress(OSError):
            if self._size >= LOG_BYTES:
                os.replace(self._path, self._path + ".1")
                self.close()
                self._open()
            self._size += os.write(self._descriptor, chunk)

    def say(self, text: str) -> None:
        """A line of the keeper's own."""
        now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self.write(f"{now} [{os.getpid()}] KEEPER:  {text}\n".encode())

    def copy(self, source: IO[bytes]) -> None:
        """Append all that comes out of a pipe until its last writer has ended."""
        while chunk := os.read(source.fileno(), 65536):
            self.write(chunk)

    def take_output(self) -> None:
        """Let the keeper's own last words, a traceback, go here too."""
        os.dup2(self._descriptor, 1)
        os.dup2(self._descriptor, 2)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class Keeper:
    """One server, from its making to its end."""

    def __init__(self, orders: Orders, log: Log) -> None:
        self._orders = orders
        self._log = log
        self._pgdata = os.path.join(orders.data, "pgdata")
        self._socket = os.path.join(orders.sockets, f".s.PGSQL.{orders.port}")
        self._gate = threading.Lock()
        self._deserted = threading.Event()
        self._server: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Keep the server until nobody is left; the exit status, not 0 when the server can't be made or started."""
        threading.Thread(target=self._await_desertion, daemon=True).start()
        if not os.path.exists(self._pgdata) and not self._create():
            return 1
        status = self._supervise()
        with contextlib.suppress(OSError):
            os.rmdir(self._orders.sockets)  # it may lie outside of the data folder
        return status

    def stop_leftover(self) -> None:
        """Stop a server whose keeper was killed; it is known by its socket, not by a process id in a file."""
        if self._answers():
            self._log.say("a server without a keeper was found; stopping it")
            self._run("pg_ctl", "-D", self._pgdata, "-m", "fast", "-t", str(FAST_STOP_S), "-w", "stop")

    def _await_desertion(self) -> None:
        descriptor = os.open(os.path.join(self._orders.data, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # held until the end: newcomers wait for the next server
        with self._gate:
            self._deserted.set()
            server = self._server
        if server is None:
            return
        server.send_signal(signal.SIGINT)
        try:
            server.wait(FAST_STOP_S)
        except subprocess.TimeoutExpired:
            self._log.say(f"the fast shutdown did not end within {FAST_STOP_S} s; immediate shutdown")
            server.send_signal(signal.SIGQUIT)

    def _create(self) -> bool:
        """Make the cluster beside its place and move it there when it is whole."""
        self._remove_unfinished()
        fresh = f"{self._pgdata}.new-{os.getpid()}"
        os.mkdir(fresh, 0o700)
        if self._orders.user is not None:
            os.chown(fresh, self._orders.user, self._orders.group or self._orders.user)
        made = self._run(
            *("initdb", "-D", fresh, "--username=ringwheel", "--encoding=UTF8", "--locale=C", "--data-checksums"),
            *("--auth-local=trust", "--auth-host=scram-sha-256", "--no-instructions"),
            *(("--sync-method=syncfs",) if self._orders.major >= 17 and _syncfs_is_safe() else ()),
        )
        if not made:
            return False
        os.rename(fresh, self._pgdata)
        _sync(self._orders.data)
        return True

    def _remove_unfinished(self) -> None:
        for name in os.listdir(self._orders.data):
            if name.startswith("pgdata.new-"):
                import shutil

                shutil.rmtree(os.path.join(self._orders.data, name), ignore_errors=True)

    def _supervise(self) -> int:
        short_lives = refusals = 0
        steady = False
        while (server := self._start()) is not None:
            born = time.monotonic()
            assert server.stderr is not None
            self._log.copy(server.stderr)
            status = server.wait()
            if self._deserted.is_set():
                break
            lived = time.monotonic() - born >= STEADY_S
            steady |= lived
            short_lives = 0 if lived else short_lives + 1
            refusals = refusals + 1 if status > 0 else 0
            if refusals >= REFUSALS and not steady:
                self._log.say("the server does not start; giving up")
                return 1
            delay_s = BACK_OFF_S[min(short_lives, len(BACK_OFF_S) - 1)]
            self._log.say(f"the server ended with status {status}; starting it again in {delay_s} s")
            self._deserted.wait(delay_s)
        return 0

    def _start(self) -> "subprocess.Popen[bytes] | None":
        """Start the server; None when nobody is left to start it for."""
        self._clear_remains()
        command = self._command(
            *("postgres", "-D", self._pgdata, "-k", self._orders.sockets, "-p", str(self._orders.port)),
            *("-c", f"config_file={os.path.join(self._orders.config, 'postgresql.conf')}"),
            *("-c", f"hba_file={os.path.join(self._orders.config, 'pg_hba.conf')}"),
            # After a crash all files are synced first: one by one it takes most of the recovery.
            *(("-c", "recovery_init_sync_method=syncfs") if _syncfs_is_safe() else ()),
        )
        with self._gate:
            if self._deserted.is_set():
                return None
            self._server = self._open(command, subprocess.PIPE)
            return self._server

    def _clear_remains(self) -> None:
        """Remove the files that a killed server left.

        They name a process id, and once that number belongs to somebody else PostgreSQL would refuse to start. A
        server that lives is still safe: it answers on its socket, or works in `pgdata`; and backends that outlive their
        parent hold a shared memory segment, which PostgreSQL checks by itself.
        """
        if self._answers():
            return
        remains = [self._socket, self._socket + ".lock"]
        pid_file = os.path.join(self._pgdata, "postmaster.pid")
        if not self._works_here(pid_file):
            remains.append(pid_file)
        for path in remains:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _works_here(self, pid_file: str) -> bool:
        """Tell whether the process that the file names works in `pgdata` (without /proc: no)."""
        try:
            with open(pid_file, encoding="utf-8") as file:
                pid = int(file.readline())
            return os.path.samefile(f"/proc/{pid}/cwd", self._pgdata)
        except (OSError, ValueError):
            return False

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(self._socket)
            except OSError:
                return False
        return True

    def _run(self, *arguments: str) -> bool:
        done = self._open(self._command(*arguments), subprocess.PIPE)
        assert done.stderr is not None
        self._log.copy(done.stderr)
        status = done.wait()
        if status:
            self._log.say(f"{arguments[0]} ended with status {status}")
        return status == 0

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [*self._orders.prefix, os.path.join(self._orders.binaries, program), *arguments]

    def _open(self, command: list[str], output: int) -> "subprocess.Popen[bytes]":
        orders = self._orders
        groups = None if orders.user is None else ()
        return subprocess.Popen(  # noqa: S603 - our own words, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            env=_environment(),
            user=orders.user,
            group=orders.group,
            extra_groups=groups,
        )


def _environment() -> dict[str, str]:
    """What finds programs and libraries, no more: PG* would change the server, and secrets are not its business."""
    passed = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "HOME") if name in os.environ}
    return {**passed, "LC_ALL": "C", "TZ": "UTC"}


def _syncfs_is_safe() -> bool:
    """Tell whether syncing a whole file system reports its errors: on Linux, from 5.8 on (syncfs(2))."""
    if sys.platform != "linux":
        return False
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor.split("-")[0].rstrip("+"))) >= (5, 8)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ignore_signals() -> None:
    # Handlers that do nothing rather than SIG_IGN, which PostgreSQL would inherit.
    nothing: Callable[[int, object], None] = lambda number, frame: None  # noqa: E731
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, nothing)


def _detach(keeper_lock: int) -> None:
    """Leave the process that the starter waits for; the keeper goes on as nobody's child."""
    if os.fork():
        os._exit(0)
    _ignore_signals()
    os.ftruncate(keeper_lock, 0)
    os.pwrite(keeper_lock, f"{os.getpid()}\n".encode(), 0)


def main() -> int:
    """Keep one server, as ordered on the command line."""
    orders = Orders(**json.loads(sys.argv[1]))
    os.set_inheritable(orders.keeper_lock, False)  # noqa: FBT003 - the signature is the library's
    os.chdir("/")
    log = Log(os.path.join(orders.data, "postgres.log"))
    keeper = Keeper(orders, log)
    keeper.stop_leftover()
    _detach(orders.keeper_lock)
    log.take_output()
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main())
