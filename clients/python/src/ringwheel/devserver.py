"""A real service for tests: `ringwheel dev` on a free port, with a database and a data folder of its own.

Promises: it answers once `start` has returned; nothing of it is left once `stop` has, nor, a moment later, when this
process was killed. It needs the command `ringwheel`:
on PATH, beside this Python, or named by RINGWHEEL_COMMAND (which may be several words).
"""

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec

from ringwheel.draft import plain
from ringwheel.errors import RingwheelError, problem_of

START_S = 60.0
STOP_S = 30.0
CALL_S = 30.0
KEPT_LINES = 40
_READY = re.compile(r"ready at\s+(https?://\S+)")


class _Advanced(msgspec.Struct):
    time: datetime


class DevServer:
    """One server, as a context manager or by `start` and `stop`."""

    def __init__(self) -> None:
        self.url = ""
        """Where it is, once it has started."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._told = threading.Event()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Return when it is ready. Raises RingwheelError: there is no such command, or it ended."""
        self._folder = tempfile.TemporaryDirectory(prefix="ringwheel-")
        words = [*_command(), "dev", "--port", "0", "--data", self._folder.name, "--no-demo", "--attached", "--scratch"]
        self._process = subprocess.Popen(  # noqa: S603 - a command of the user's own
            words,
            stdin=subprocess.PIPE,  # its end, which comes with that of this process, ends the server
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests: they end it in good order
        )
        assert self._process.stdout is not None
        self._listener = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)
        self._listener.start()
        self._told.wait(START_S)
        if not self.url:
            raise RingwheelError(f"{' '.join(words)} did not start:\n{''.join(self._lines)}")

    def stop(self) -> None:
        """End it, and remove what it kept."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._listener is not None:
            self._listener.join(STOP_S)
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
        if self._folder is not None:
            self._folder.cleanup()
        self._process = self._listener = self._folder = None
        self.url = ""

    async def advance(self, seconds: float) -> datetime:
        """Let so much time pass at once: what is due by then is due now. Answers the service's time.

        Raises Problem: the service refuses, and says why.
        """
        return await asyncio.to_thread(self.advance_now, seconds)

    def advance_now(self, seconds: float) -> datetime:
        """The same without `await`."""
        body = msgspec.json.encode({"by": plain(seconds, "advance(seconds)")})
        request = Request(f"{self.url}/v1/clock:advance", body, {"Content-Type": "application/json"})  # noqa: S310
        try:
            with urlopen(request, timeout=CALL_S) as answer:  # noqa: S310 - a server of our own
                return msgspec.json.decode(answer.read(), type=_Advanced).time
        except HTTPError as error:
            with error:
                raise problem_of(error.code, error.read()) from None

    def _listen(self, output: IO[str]) -> None:
        for line in output:
            self._lines.append(line)
            ready = _READY.search(line)
            if ready and not self.url:
                self.url = ready[1]
                self._told.set()
        self._told.set()


def _command() -> list[str]:
    given = os.environ.get("RINGWHEEL_COMMAND")
    if given:
        return shlex.split(given)
    beside = Path(sys.executable).with_name("ringwheel")
    found = shutil.which("ringwheel") or (str(beside) if beside.exists() else None)
    if found is None:
        raise RingwheelError("there is no command `ringwheel`: install the service, or name it by RINGWHEEL_COMMAND")
    return [found]
