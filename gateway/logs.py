"""Log lines of a server, and what else it says on standard output.

On a terminal lines are made for people, elsewhere each is a JSON object. What libraries log (aiohttp, asyncio) comes
the same way, from warnings on.

What users send has no place in a log. So a line shows its own constant words and the fields in SHOWN; of any other
field its name alone, of an exception where it happened and what kind it is, of what libraries say their words and
numbers.

Promises: saying something never raises. A line that can't be written (a full disk, a collector that died, a closed
output) is lost and counted; later lines carry `lines_lost`, how many there were so far.
Refuses to buffer: a line that was lost is not tried again, and nothing is left to fail when the process ends.
"""

import io
import logging
import os
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from typing import Any, TextIO

import structlog

SHOWN = frozenset(
    {"timestamp", "level", "event", "exception", "lines_lost", "url", "node", "shard", "boot", "boots", "count", "id"}
    | {"partition", "log_id", "left_out", "queues", "data", "detail", "reason", "error"}
    | {"database", "purpose", "for_s", "grace_s"}
    | {"prefix", "tenant", "name", "scopes", "expires_ms", "revoked_ms", "bind"}
    | {"came", "went", "usable", "by", "queue", "done", "path"}
)
"""Fields whose values are the service's own (names, numbers, words for outages) or were chosen by administrators
(a `queue` is shown where one did something to it, see `audit.py`); nothing that came with another request."""
REDACTED = "[redacted]"
FRAMES = 30
"""Of a traceback, the innermost."""
CAUSES = 4
"""How deep causes, and errors in a group, are followed."""


class Output:
    """Whole lines, straight to a file descriptor; None: there is none."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = descriptor
        self.only_json = False
        """Nothing is meant for people, and nothing else than JSON is wanted."""
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
            log.log(record.levelno, _words(record), exc_info=record.exc_info)
        except Exception:  # noqa: BLE001 - a line that can't be made is as lost as one that can't be written
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        output.lost += 1


_library = _Library(logging.WARNING)


def set_up(*, errors: bool = False, only_json: bool = False) -> None:
    """Make this process log like this; again, to follow a standard output that is another one.

    `errors`: on standard error, because standard output carries something else. `only_json`: on terminals too.
    """
    stream: TextIO | None = sys.stderr if errors else sys.stdout  # None when it was closed before the process began
    output.descriptor = _descriptor(stream)
    output.only_json = only_json
    people = stream is not None and stream.isatty() and not only_json
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.dev.set_exc_info,
            _outline_error,
            _redact,
            _count_lost,
            *(_for_people() if people else _for_programs()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
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
        _in_order,
        structlog.processors.JSONRenderer(),
    ]


def _words(record: logging.LogRecord) -> str:
    """The first line of what a library says, with numbers in their places, and no text."""
    line = str(record.msg).partition("\n")[0]
    if not isinstance(record.args, tuple):
        return line
    return (
        line % tuple(arg if isinstance(arg, int | float) else REDACTED for arg in record.args) if record.args else line
    )


def _redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in event:
        if name not in SHOWN:
            event[name] = REDACTED
    return event


def _outline_error(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    given = event.pop("exc_info", None)
    error = (
        given if isinstance(given, BaseException) else (sys.exc_info() if given is True else given or (None,) * 3)[1]
    )
    if error is not None:
        event["exception"] = "\n".join(outline(error))
    return event


def outline(error: BaseException, depth: int = 0) -> Iterator[str]:
    """An error with its causes and members: kinds and places. What it says may hold what a user sent."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if depth < CAUSES and cause is not None:
        yield from outline(cause, depth + 1)
        yield "which led to:"
    yield from (text.rstrip("\n") for text in traceback.format_tb(error.__traceback__, -FRAMES))
    words = f": {os.strerror(error.errno)}" if isinstance(error, OSError) and isinstance(error.errno, int) else ""
    yield f"{type(error).__module__}.{type(error).__qualname__}{words}"
    if isinstance(error, BaseExceptionGroup) and depth < CAUSES:
        for member in error.exceptions[:CAUSES]:
            yield "with:"
            yield from outline(member, depth + 1)


def _count_lost(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if output.lost:
        event["lines_lost"] = output.lost
    return event


def _in_order(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What people look for first comes first, also where nothing but their eyes reads it."""
    return {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event} | dict(event)
