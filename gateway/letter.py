"""What is sent to a target: a whole request, ready to be written, and where it goes. Pure: no I/O."""

from yarl import URL

from actors.core.task import Task


class Address:
    """Where letters of one kind go: what the client has to know of a request without reading it."""

    __slots__ = ("head_only", "host", "origin")

    def __init__(self, url: URL, method: str) -> None:
        """Raises ValueError when `url` has no host, or none that can be read."""
        self.origin = url.origin()
        self.host = str(self.origin)
        """Scheme, name and port."""
        self.head_only = method == "HEAD"
        """Answers have no body, whatever their head says."""


class Letter:
    """A whole request, head and body, as it goes over the wire.

    `task` is whose attempt it is: once its shard is lost, it is no longer RUNNING, and the letter may not go out.
    """

    __slots__ = ("address", "data", "task")

    def __init__(self, address: Address, data: bytes, task: Task) -> None:
        self.address = address
        self.data = data
        self.task = task
