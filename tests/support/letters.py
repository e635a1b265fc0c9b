"""Letters opened by the standard library's parser, which shares nothing with what wrote them."""

from dataclasses import dataclass
from http.client import parse_headers
from io import BytesIO

from actors.core.task import Task
from gateway.webhook import Plan, Sign
from tests.support.dispatch import NOW_MS


@dataclass(frozen=True)
class Opened:
    """A request as its receiver reads it."""

    line: str
    fields: list[tuple[str, str]]
    body: bytes

    def named(self, name: str) -> list[str]:
        """The values of a header, in their order."""
        return [value for found, value in self.fields if found.lower() == name]


def unsigned(tenant: str, message_id: str, timestamp: str, body: bytes | None) -> str | None:
    """Of a tenant without secrets."""
    return None


def opened(task: Task, plan: Plan | None = None, *, fence: str = "fence", sign: Sign = unsigned) -> Opened:
    """What the attempt of `task` sends."""
    return read((plan or Plan(task.spec)).letter(task, fence, NOW_MS, sign).data)


def read(data: bytes) -> Opened:
    """One request, of which nothing is left over."""
    file = BytesIO(data)
    line = file.readline().decode()
    assert line.endswith("\r\n")
    head = parse_headers(file)
    assert not head.defects
    body = file.read()
    assert len(body) == int(head.get("content-length", "0"))
    return Opened(line[:-2], head.items(), body)
