"""Port: the way from node to node.

Guarantees: what arrives came from the boot that it names, was meant for the boot that takes it, and arrives once.
Nothing else: a message may be lost with its link. So nothing that must not be lost goes this way alone, and whoever
asks learns in time that no answer will come.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

from actors.core.events import Answer, Command
from actors.core.live import Live
from actors.core.reach import Reach
from actors.core.task import Task
from actors.ports.leases import Peer
from actors.ports.lending import Borrower, Lender


class Links(Protocol):
    """One node's links to the others."""

    def see(self, boot: str, secret: bytes, peers: Sequence[Peer]) -> None:
        """My own boot, the cluster's secret and every living node, as of the last heartbeat."""
        ...

    def is_gone(self, boot: str) -> bool:
        """Whether the link to this boot has ended, and at its address nobody listens, or somebody else does."""
        ...

    def hint(self, boot: str, tasks: Sequence[Task], at_ms: int, epochs: dict[int, int]) -> None:
        """Tell the owner of tasks that were committed at `at_ms`, and of the epochs that were known of their shards
        before that (`Submitted`). Never waits; lost when the link is down or full.
        """
        ...

    def given(self, boot: str) -> None:
        """Tell a node that I gave it shards. Never waits; when this is lost, its next beat shows them."""
        ...

    async def ask(self, boot: str, command: Command) -> Answer | None:
        """The owner's answer to a command; None: nothing was done, for it is not the owner, or can't be reached.

        Raises Unavailable: the outcome is not known; Overloaded. Has no time limit of its own.
        """
        ...

    async def look(self, boot: str, ids: Sequence[str]) -> list[Live]:
        """What the owner knows of these tasks; nothing when it can't be reached. Has no time limit of its own."""
        ...

    async def measure(self, boot: str, before_us: int) -> list[Reach] | None:
        """What that node's memory claims to hold, and has; None: it can't be reached. Has no time limit of its own."""
        ...


class LinkedNode(Protocol):
    """What a node does for others."""

    @property
    def lending(self) -> Lender:
        """For their workers."""
        ...

    @property
    def pulling(self) -> Borrower:
        """For mine: what others tell of their tasks."""
        ...

    def take_hint(self, tasks: list[Task], at_ms: int, epochs: dict[int, int]) -> None:
        """What `hint` says; tasks that are not mine are passed over."""
        ...

    def beat_soon(self) -> None:
        """The database has news: another node gave me shards, or is gone."""
        ...

    async def learn_queues(self, numbers: Collection[int]) -> None:
        """Read these queues, which others have made. Raises Unavailable."""
        ...

    async def answer(self, command: Command) -> Answer | None:
        """Carry out a command on a task of mine; None: it is not mine."""
        ...

    def show(self, ids: Sequence[str]) -> list[Live]:
        """What I know of these tasks."""
        ...

    async def measure(self, before_us: int) -> list[Reach]:
        """What my memory claims to hold, and what it has of the tasks that were accepted up to `before_us`."""
        ...
