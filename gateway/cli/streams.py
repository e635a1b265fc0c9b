"""Standard output and standard error, as the commands write them.

Promises: what standard output does not take is an `Unwritable`; standard error that takes nothing is passed over in
silence, because there is no place left to say it. Neither leaves text behind that would fail again, with a traceback
and another exit code, when the process ends.
"""

import os
import sys
from typing import TextIO

import click


class Unwritable(Exception):
    """Standard output is closed, full or without a reader."""


class NoReader(Unwritable):
    """Whoever read standard output has seen enough, as `head` has: no failure, and nothing to tell."""


def say(text: str | bytes, *, nl: bool = True) -> None:
    """Write to standard output. Raises Unwritable."""
    stream: TextIO | None = sys.stdout  # None when it was closed before the process began
    if stream is None:
        raise Unwritable("standard output is closed")
    try:
        click.echo(text, nl=nl)
    except OSError as error:
        let_go(stream)
        kind = NoReader if isinstance(error, BrokenPipeError) else Unwritable
        raise kind(f"standard output can't be written: {error.strerror}") from error


def note(text: str) -> None:
    """Write a line to standard error."""
    try:
        click.echo(text, err=True)
    except OSError:
        let_go(sys.stderr)


def hold() -> None:
    """Keep the numbers of standard streams that are closed from the sockets and files that are opened later on."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one


def let_go(stream: TextIO) -> None:
    """From now on nothing arrives at the stream, not even what it still holds."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
