"""Hands (`bench/hand.py`) by name, each with a journal of its own for every start.

Promises: whatever state they were left in, all of them are ended with the stack that they were entered in.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench.journal import Line, read
from bench.processes import Child, end, process


class Hands:
    """Their processes. `folder`: where journals are kept; `ports`: where the nodes listen, dead ones included."""

    def __init__(self, folder: Path, ports: Callable[[], Sequence[int]], stack: AsyncExitStack) -> None:
        self._folder = folder
        self._ports = ports
        self._stack = stack
        self._starts: dict[str, int] = {}
        self._complaints: list[str] = []
        self.children: dict[str, Child] = {}
        stack.callback(self.end)

    async def start(self, name: str, queue: str, credits_: int, first: int) -> None:
        """Start one, or start it again, at the node with this number. It has said hello then, and been answered."""
        if name in self.children:
            self._complaints += self.children[name].complaints
        self._starts[name] = self._starts.get(name, 0) + 1
        ports = self._ports()
        turn = first % len(ports)
        words = [name, queue, str(credits_), str(self._journal(self.full_name(name)))]
        self.children[name] = await self._stack.enter_async_context(
            process("-m", "bench.hand", *words, *map(str, [*ports[turn:], *ports[:turn]]))
        )

    def full_name(self, name: str) -> str:
        """Of the process that has this name now."""
        return f"{name}-{self._starts[name]}"

    def signal(self, name: str, number: int) -> None:
        """Send it a signal."""
        os.kill(self.children[name].pid, number)

    def end(self) -> None:
        """Let all of them end at the same time; a process that is stopped can't."""
        end(self.children.values())

    def check(self, names: Sequence[str]) -> None:
        """Raises Failed when one of these has ended."""
        for name in names:
            self.children[name].check()

    @property
    def complaints(self) -> list[str]:
        """Errors that they logged."""
        return [*self._complaints, *(line for child in self.children.values() for line in child.complaints)]

    def journals(self) -> dict[str, Sequence[Line]]:
        """What all processes wrote so far, by full name."""
        return {
            f"{name}-{start}": read(self._journal(f"{name}-{start}"))
            for name, starts in self._starts.items()
            for start in range(1, starts + 1)
        }

    def _journal(self, full_name: str) -> Path:
        return self._folder / f"{full_name}.jsonl"
