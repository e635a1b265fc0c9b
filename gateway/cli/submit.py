"""`submit`: one task from options, or many from a file of JSON lines."""

import sys
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import click
from click.core import ParameterSource

from gateway.cli.exits import Exit, carry_out
from gateway.cli.options import TEXT, client_options, duration_of, labels_of
from gateway.cli.streams import Unwritable

MAX_KEY_CHARS = 255
ALONE = ("target", "payload", "delay", "at", "queue", "label", "wait")
"""What describes one task, and so does not go with --ndjson."""


def _payload(_ctx: click.Context, _param: click.Parameter, value: str | None) -> bytes | None:
    """JSON as it came: text, the content of @file, or standard input (-)."""
    import orjson

    if value is None:
        return None
    try:
        if value == "-":
            data = _standard_input().read()
        else:
            data = Path(value[1:]).read_bytes() if value.startswith("@") else value.encode()
        orjson.loads(data)
    except (OSError, UnicodeError) as error:
        raise click.BadParameter(str(error)) from error
    except orjson.JSONDecodeError as error:
        raise click.BadParameter(f"not JSON: {error}") from error
    return data


def _standard_input() -> BinaryIO:
    """Raises OSError when there is none."""
    stream: TextIO | None = sys.stdin  # None when it was closed before the process began
    if stream is None:
        raise OSError("standard input is closed")
    return stream.buffer


class _File(click.File):
    """A file, or standard input if there is one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "-" and not sys.stdin:
            self.fail("standard input is closed", param, ctx)
        return super().convert(value, param, ctx)


def _target(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.BadParameter("is empty; leave it out for a task that waits for a worker")
    return value


def _key(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """It travels as a header."""
    if value is not None and not (value.isascii() and value.isprintable() and 1 <= len(value) <= MAX_KEY_CHARS):
        raise click.BadParameter(f"expected 1 to {MAX_KEY_CHARS} printable ASCII characters")
    return value


@click.command()
@click.argument("target", metavar="[TARGET]", required=False, type=TEXT, callback=_target)
@click.option("--payload", callback=_payload, metavar="JSON|@FILE|-", help="What the task carries.")
@click.option(
    "--delay", type=TEXT, callback=duration_of, metavar="DURATION", help='When: seconds, or text like "1h30m".'
)
@click.option("--at", type=TEXT, metavar="TIME", help="When: an RFC 3339 time like 2027-01-31T09:00:00Z.")
@click.option("--queue", type=TEXT, help="Queue; made on first use.  [default: default]")
@click.option(
    "--idempotency-key",
    "key",
    type=TEXT,
    callback=_key,
    help="Idempotency key: the same key and task again answer the task that is there.",
)
@click.option("--label", type=TEXT, multiple=True, callback=labels_of, metavar="NAME=VALUE", help="May be repeated.")
@click.option("--wait", is_flag=True, help="Follow it until it ends; exit code 1 unless it succeeded.")
@click.option(
    "--ndjson",
    type=_File("rb"),
    metavar="FILE|-",
    help="Submit each line, a task as JSON, in batches; with --idempotency-key it is safe to submit the file again.",
)
@client_options
@click.pass_context
def submit_command(
    ctx: click.Context,
    target: str | None,
    payload: bytes | None,
    delay: float | str | None,
    at: str | None,
    queue: str | None,
    key: str | None,
    label: dict[str, str],
    wait: bool,
    ndjson: Any,
    url: str,
    as_json: bool,
) -> None:
    """Submit a task that calls TARGET, a URL; without one it waits for a worker."""
    if ndjson is not None:
        given = [name for name in ALONE if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT]
        if given:
            raise click.UsageError(f"--ndjson does not go with {', '.join(given)}: write it into the lines")
        carry_out(_submit_lines(url, ndjson, key, as_json), as_json)
        return
    if delay is not None and at is not None:
        raise click.UsageError("--delay or --at, not both")
    task: dict[str, Any] = {"http": {"url": target}} if target is not None else {}
    task |= {"queue": queue} if queue is not None else {}
    task |= {"labels": label} if label else {}
    task |= {"schedule_time": at} if at is not None else {}
    task |= {"delay": delay} if delay is not None else {}
    carry_out(_submit(url, task, payload, key, wait, as_json), as_json)


async def _submit(
    url: str, task: dict[str, Any], payload: bytes | None, key: str | None, wait: bool, as_json: bool
) -> Exit:
    import orjson

    from gateway.cli.api import connected
    from gateway.cli.show import show_json, show_task
    from gateway.cli.watch import watch_to_end

    if payload is not None:
        task |= {"payload": orjson.Fragment(payload)}
    async with connected(url) as api:
        accepted = await api.post("/v1/tasks", orjson.dumps(task), key=key)
        try:
            (show_json if as_json else show_task)(accepted)
        except Unwritable as error:
            raise Unwritable(f"task {accepted['id']} was accepted, but {error}") from error
        return await watch_to_end(api, [{"id": accepted["id"]}], as_json) if wait else Exit.OK


async def _submit_lines(url: str, lines: Any, key: str | None, as_json: bool) -> Exit:
    from gateway.cli.api import connected
    from gateway.cli.bulk import Bulk

    async with connected(url) as api:
        return await Bulk(api, key, as_json).submit(lines)
