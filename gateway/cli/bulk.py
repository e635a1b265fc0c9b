"""Many tasks from a file of JSON lines: batches one after the other, with progress.

Promises: a refused line hurts no other, and is named by its number; the file is read as it is sent, never as a whole,
and no more of a line than the service would take.
With a key the batches carry `<key>/<number>`: the same file again makes no task twice, so what was interrupted can be
started again, and a batch whose outcome is unknown is repeated by itself.
"""

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from gateway.cli.api import NDJSON, Api
from gateway.cli.exits import Exit, Refused, Unreachable, printable, words_of
from gateway.cli.show import show_json
from gateway.cli.streams import Unwritable, note, say

BATCH_LINES = 1_000
BATCH_BYTES = 4 * 1024 * 1024
"""A batch ends before the line that passes it; a longer line is a batch of its own."""
LINE_BYTES = 16 * 1024 * 1024
"""What the service takes in one request: a longer line is refused here."""
TRIES = 8
MOST_WORDS = 20
"""Refused lines that are explained; the rest is counted."""

Line = tuple[int, bytes]
TOO_LONG = {"title": "Too large", "detail": f"the line is longer than {LINE_BYTES} bytes"}


def lines_of(file: IO[bytes]) -> Iterator[bytes | None]:
    """Its lines; None stands for one that is too long."""
    while line := file.readline(LINE_BYTES + 1):
        whole = len(line) <= LINE_BYTES or line.endswith(b"\n")
        yield line if whole else None
        while not (whole or line.endswith(b"\n")) and line:
            line = file.readline(LINE_BYTES)


def batches(lines: Iterable[bytes | None], refuse: Callable[[int], None]) -> Iterator[list[Line]]:
    """Numbered lines that are not empty, cut the same way each time; tells `refuse` the numbers of those too long."""
    batch: list[Line] = []
    size = 0
    for number, line in enumerate(lines, 1):
        if line is None:
            refuse(number)
            continue
        text = line.strip()
        if batch and (len(batch) == BATCH_LINES or size + len(text) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        if text:
            batch.append((number, text))
            size += len(text) + 1
    if batch:
        yield batch


class Bulk:
    """One file on its way to the service."""

    def __init__(self, api: Api, key: str | None, as_json: bool) -> None:
        self._api = api
        self._key = key
        self._as_json = as_json
        self.accepted = 0
        self.refused = 0

    async def submit(self, lines: IO[bytes]) -> Exit:
        """Submit every line. Raises Refused or Unreachable when a whole batch is not taken."""
        progress = Progress(
            TextColumn("submitting"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        with progress:
            bar = progress.add_task("", total=None)
            try:
                for number, batch in enumerate(batches(lines_of(lines), self._too_long)):
                    await self._submit(number, batch)
                    progress.update(bar, completed=self.accepted + self.refused)
            except (Refused, Unreachable):
                try:
                    self._finish(progress, bar)
                except Unwritable as error:
                    note(str(error))  # why it ended counts for more, and carries the exit code
                raise
            self._finish(progress, bar)
        return Exit.FAILED if self.refused else Exit.OK

    def _finish(self, progress: Progress, bar: TaskID) -> None:
        progress.update(bar, total=self.accepted + self.refused)
        counts = f"{self.accepted} accepted, {self.refused} refused"
        try:
            if self._as_json:
                show_json({"accepted": self.accepted, "refused": self.refused})
            else:
                say(counts)
        except Unwritable as error:
            raise Unwritable(f"{counts}, but {error}") from error

    async def _submit(self, number: int, batch: list[Line]) -> None:
        body = b"\n".join(text for _, text in batch)
        key = None if self._key is None else f"{self._key}/{number}"
        for result, (line, _) in zip(await self._insist(body, key), batch, strict=True):
            if "id" in result:
                self.accepted += 1
            else:
                self._explain(line, result["problem"])

    async def _insist(self, body: bytes, key: str | None) -> list[dict[str, Any]]:
        """The results of a batch; tried again where that can't make a task twice."""
        for left in reversed(range(TRIES)):
            try:
                answer = await self._api.post("/v1/tasks:batch", body, media=NDJSON, key=key)
            except (Refused, Unreachable) as error:
                pause_s = _pause_s(error, key is not None)
                if pause_s is None or left == 0:
                    raise
                await asyncio.sleep(pause_s)
            else:
                results: list[dict[str, Any]] = answer["results"]
                return results
        raise AssertionError("the last try answers or raises")

    def _too_long(self, line: int) -> None:
        self._explain(line, TOO_LONG)

    def _explain(self, line: int, problem: dict[str, Any]) -> None:
        self.refused += 1
        if self.refused <= MOST_WORDS:
            fields = ", ".join(error["pointer"] for error in problem.get("errors", []) if error.get("pointer"))
            place = f"line {line} ({fields})" if fields else f"line {line}"
            note(f"{place}: {printable(words_of(problem))}")
        elif self.refused == MOST_WORDS + 1:
            note("more refused lines are only counted")


def _pause_s(error: Refused | Unreachable, keyed: bool) -> float | None:
    """How long to wait before the same batch is sent again; None: it must not be."""
    if isinstance(error, Unreachable):
        return 1.0 if keyed else None
    again = error.status == 429 or (error.status == 503 and keyed)
    return error.retry_after_s if again else None
