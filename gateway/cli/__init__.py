"""The command line, `ringwheel`: servers (`dev`, `serve`, `migrate`), API keys (`key`), a client (`submit`, `get`, ..),
and the cluster (`nodes`, `shards`, `ring`, `drain`).

Exit codes: 0 done, 1 failed, 2 wrong usage, settings or values (whoever refuses them), 3 not found, 4 conflict, 5 the
service can't be reached, 141 the reader of standard output has left.
Promises: `--help` costs little more than click itself; a command loads what it needs when it runs.
`NO_COLOR` and pipes are honoured; with `--json` standard output carries JSON and nothing else.
"""

import errno
import io
import sys
from importlib import import_module
from typing import Any

import click

COMMANDS = {
    "dev": "servers",
    "serve": "servers",
    "migrate": "servers",
    "secret": "secret",
    "key": "keys",
    "submit": "submit",
    "get": "tasks",
    "list": "tasks",
    "cancel": "tasks",
    "run": "tasks",
    "reschedule": "tasks",
    "redrive": "tasks",
    "queue": "queues",
    "watch": "watch",
    "nodes": "cluster",
    "shards": "cluster",
    "ring": "cluster",
    "drain": "cluster",
}
"""Command -> module of this package that holds it."""
NO_READER = 141
"""`Exit.NO_READER`, which is too heavy for `--help`."""
_OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT, errno.EFBIG)


class _Commands(click.Group):
    """Loads the module of a command when it is asked for."""

    def main(self, *args: Any, **options: Any) -> Any:
        alone = options.pop("standalone_mode", True)
        options["standalone_mode"] = False
        if not alone:
            return super().main(*args, **options)
        sys.exit(self._code(*args, **options))

    def _code(self, *args: Any, **options: Any) -> int:
        """The exit code, also when what click itself has to say (help, version, usage) can't be written."""
        from gateway.cli.streams import hold, let_go, note

        hold()
        stream = sys.stdout
        try:
            return super().main(*args, **options) or 0
        except click.ClickException as error:
            words = io.StringIO()
            error.show(words)
            note(words.getvalue().rstrip("\n"))
            return error.exit_code
        except click.Abort:
            note("Aborted!")
        except SystemExit:
            if sys.stdout is stream:
                raise
            return NO_READER  # click has put something in the stream's place because its reader has left
        except OSError as error:
            if error.filename is not None or error.errno not in _OUTPUT_ERRORS:
                raise
            let_go(sys.stdout)
            note(f"error: standard output can't be written: {error.strerror}")
        return 1

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"gateway.cli.{COMMANDS[cmd_name]}"), f"{cmd_name}_command")
        return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ringwheel", message="%(prog)s %(version)s")
def main() -> None:
    """Schedule tasks, durably and on time.

    Start with `ringwheel dev`, then, in another terminal, `ringwheel submit --help`.
    """
