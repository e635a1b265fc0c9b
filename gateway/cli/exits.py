"""How a command ends: its exit code, and the words on standard error that explain it."""

import enum
import json
from collections.abc import Coroutine
from typing import Any

import click

from gateway.cli.streams import NoReader, Unwritable, note


class Exit(enum.IntEnum):
    """Exit codes; 2 is click's own for wrong usage, and ours for values that the service refuses."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNREACHABLE = 5
    NO_READER = 141
    """As a shell tells the end by SIGPIPE: what other programs come to whose reader has left."""


_BY_STATUS = {
    400: Exit.USAGE,
    404: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
    413: Exit.USAGE,
    422: Exit.USAGE,
    502: Exit.UNREACHABLE,
    503: Exit.UNREACHABLE,
}
_BY_TYPE = {"key-reused": Exit.CONFLICT}
"""Problems whose status says less than they do."""


class Refused(Exception):
    """The service answered with a problem (RFC 9457)."""

    def __init__(self, status: int, problem: dict[str, Any], retry_after_s: float = 1.0) -> None:
        super().__init__(problem.get("detail"))
        self.status = status
        self.problem = problem
        self.retry_after_s = retry_after_s

    @property
    def code(self) -> Exit:
        """The exit code that fits."""
        by_status = _BY_STATUS.get(self.status, Exit.FAILED)
        return _BY_TYPE.get(str(self.problem.get("type")), by_status)


class Unreachable(Exception):
    """No answer came: what was asked for may or may not have happened."""


def carry_out(work: Coroutine[Any, Any, Exit], as_json: bool) -> None:
    """Run a client command to its end, and end the process's command with its exit code."""
    import asyncio

    try:
        code = asyncio.run(work)
    except Refused as error:
        show_problem(error.problem, as_json)
        code = error.code
    except Unreachable as error:
        show_problem({"title": "The service can't be reached", "detail": str(error)}, as_json)
        code = Exit.UNREACHABLE
    except NoReader:
        code = Exit.NO_READER
    except Unwritable as error:
        show_problem({"title": "The answer can't be shown", "detail": str(error)}, as_json)
        code = Exit.FAILED
    click.get_current_context().exit(code)


def show_problem(problem: dict[str, Any], as_json: bool) -> None:
    """A problem on standard error: one line, and one for each field at fault."""
    if as_json:
        note(json.dumps(problem))
        return
    fields = [error for error in problem.get("errors", []) if error.get("pointer")]
    if any(error.get("detail") == problem.get("detail") for error in fields):
        problem = {"title": problem.get("title")}  # the rest is said of its field
    note(click.style("error: ", fg="red", bold=True) + printable(words_of(problem)))
    for error in fields:
        note(f"  {printable(error['pointer'])}: {printable(error.get('detail', ''))}")


def words_of(problem: dict[str, Any]) -> str:
    """A problem in one line."""
    return ": ".join(str(problem[name]) for name in ("title", "detail") if problem.get(name)) or "unknown"


def printable(text: object) -> str:
    """Text from elsewhere, without what could steer a terminal."""
    return "".join(char if char.isprintable() else "�" for char in str(text))
