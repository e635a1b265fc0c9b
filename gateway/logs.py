"""Log lines of a server, and what else it says on standard output.

On a terminal lines are made for people, elsewhere each is a JSON object. What libraries log (aiohttp, asyncio) comes
the same way, from warnings on.

Promises: saying something never raises. A line that can't be written (a full disk, a collector that died, a closed
output) is lost and counted; later lines carry `lines_lost`, how many there were so far.
Refuses to buffer: a line that was lost is not tried again, and nothing is left to fail when the process ends.
"""

import io
import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog


class Output:
    """Whole lines, straight to a file descriptor; None: there is none."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = descriptor
        self.lost = 0
        """Lines that could not be written, or not be made."""
        self._torn = False

    def say(self, text: str) -> None:
        """Write one line or several."""
        data = f"{text}\n".encode(errors="backslashreplace")
        try:
            self._write(b"\n" + data if self._torn else data)
        except OSError:
            self.lost += 1

    def _write(self, data: bytes) -> None:
        if self.descriptor is None:
            raise OSError("the output is closed")
        while data:
            data = data[os.write(self.descriptor, data) :]
            # On a disk that fills up the line ends here: the next one must not be taken for its rest.
            self._torn = bool(data)

    # What structlog calls, by the level of the line.
    debug = info = warning = error = critical = exception = log = msg = fatal = failure = say


output = Output()
"""Of this process; closed until `set_up`."""


class _Library(logging.Handler):
    """Hands what libraries log to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            log = structlog.get_logger(record.name)
            log.log(record.levelno, record.getMessage(), exc_info=record.exc_info)
        except Exception:  # noqa: BLE001 - a line that can't be made is as lost as one that can't be written
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        output.lost += 1


_library = _Library(logging.WARNING)


def set_up() -> None:
    """Make this process log like this; again, to follow a standard output that is another one."""
    stream: TextIO | None = sys.stdout  # None when it was closed before the process began
    output.descriptor = _descriptor(stream)
    people = stream is not None and stream.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.dev.set_exc_info,
            _count_lost,
            *(_for_people() if people else _for_programs()),
        ],
        logger_factory=lambda *_: output,
    )
    logging.raiseExceptions = False
    logging.getLogger().addHandler(_library)  # once, however often this is called


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except io.UnsupportedOperation:
        return None


def _for_people() -> list[Any]:
    return [structlog.processors.TimeStamper("%Y-%m-%d %H:%M:%S", utc=False), structlog.dev.ConsoleRenderer()]


def _for_programs() -> list[Any]:
    return [
        structlog.processors.TimeStamper("iso"),
        structlog.processors.format_exc_info,
        _in_order,
        structlog.processors.JSONRenderer(),
    ]


def _count_lost(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if output.lost:
        event["lines_lost"] = output.lost
    return event


def _in_order(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What people look for first comes first, also where nothing but their eyes reads it."""
    return {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event} | dict(event)
