"""`ringwheel-worker module:app`: runs the worker that a module holds.

Exit codes: 0 stopped by a signal, 1 the service refuses the key, 2 wrong usage, or there is no such worker.
"""

import argparse
import asyncio
import logging
import os
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from ringwheel.client import Client
from ringwheel.errors import RingwheelError
from ringwheel.frames import MOST_LEASES
from ringwheel.shift import THREADS
from ringwheel.worker import NO_HANDLER, Worker

LEVELS = "debug", "info", "warning", "error"
LEAVE_S = 0.5
"""How long threads of handlers may take to end after their tasks were given back."""


class Missing(Exception):
    """There is no such worker."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=asked.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name, value in (("RINGWHEEL_URL", asked.url), ("RINGWHEEL_KEY", asked.key)):
        if value is not None:
            os.environ[name] = value  # for clients of the module's own, too
    try:
        Client()  # before the module's own, whose refusal would be a traceback
    except ValueError as error:
        parser.error(str(error))
    try:
        worker = load(asked.app)
    except Missing as error:
        parser.error(str(error))
    if not worker.handlers:
        parser.error(NO_HANDLER)
    worker.client.transport.point(asked.url or None, asked.key or None)
    worker.concurrency = asked.concurrency or worker.concurrency
    try:
        asyncio.run(worker.run())
    except RingwheelError as error:
        sys.exit(f"error: {error}")
    _leave()


def load(where: str) -> Worker:
    """The worker at `module:name`, or the only one of `module`. Raises Missing, and whatever the module raises."""
    path, _, name = where.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        module = import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise  # the module is there, and misses another
        raise Missing(f"there is no module {path!r} here ({os.getcwd()}) or among the installed packages") from error
    except (ValueError, TypeError) as error:
        if path and not path.startswith("."):
            raise
        raise Missing(f"expected module:app, not {where!r}") from error
    return _worker_of(module, name)


def _worker_of(module: ModuleType, name: str) -> Worker:
    workers = {key: value for key, value in vars(module).items() if isinstance(value, Worker)}
    there = f"its workers are: {', '.join(workers)}" if workers else "it has no Worker"
    if not name:
        if len(workers) != 1:
            raise Missing(f"say which worker of {module.__name__!r}, as {module.__name__}:app; {there}")
        return next(iter(workers.values()))
    found = vars(module).get(name)
    if not isinstance(found, Worker):
        what = "is no Worker" if name in vars(module) else "is not there"
        raise Missing(f"{name!r} {what} in module {module.__name__!r}; {there}")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("ringwheel-worker", description="Run a worker of ringwheel.")
    parser.add_argument("app", metavar="module:app", help="where the Worker is; a module that has only one is enough")
    parser.add_argument("--url", help="of the service, several with commas  [RINGWHEEL_URL]")
    parser.add_argument("--key", help="API key; better in the environment, where others can't see it  [RINGWHEEL_KEY]")
    parser.add_argument("--concurrency", type=_count, metavar="N", help="tasks at a time, instead of the worker's own")
    parser.add_argument("--log-level", choices=LEVELS, default="info", help="default: %(default)s")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST_LEASES:
        raise argparse.ArgumentTypeError(f"from 1 to {MOST_LEASES}")
    return number


def _leave() -> None:
    """Threads can't be ended: one that goes on with a task that was given back must not keep the process."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(THREADS)]
    for thread in threads:
        thread.join(LEAVE_S / len(threads))
    if any(thread.is_alive() for thread in threads):
        logging.getLogger("ringwheel.worker").warning("leaving while a handler still runs in a thread")
        logging.shutdown()
        os._exit(0)
