"""Cutting a file into batches."""

import io

import pytest

from gateway.cli import bulk
from gateway.cli.bulk import LINE_BYTES, batches, lines_of
from gateway.context import Settings


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "LINE_BYTES", 20)
    monkeypatch.setattr(bulk, "BATCH_BYTES", 10)
    monkeypatch.setattr(bulk, "BATCH_LINES", 3)


def cut(text: bytes) -> tuple[list[list[int]], list[int]]:
    """Numbers of the lines of each batch, and of those that were refused."""
    refused: list[int] = []
    found = list(batches(lines_of(io.BytesIO(text)), refused.append))
    assert all(len(line) <= bulk.LINE_BYTES for batch in found for _, line in batch)
    return [[number for number, _ in batch] for batch in found], refused


def test_a_line_is_no_longer_than_what_the_service_takes() -> None:
    assert Settings().batch_bytes == LINE_BYTES


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    ("text", "sent", "refused"),
    [
        (b"", [], []),
        (b"1\n\n2\n3\n4", [[1, 3, 4], [5]], []),
        (b"1\n" + b"x" * 20 + b"\n3\n", [[1], [2], [3]], []),
        (b"1\n" + b"x" * 21 + b"\n3\n", [[1, 3]], [2]),
        (b"1\n" + b"x" * 100 + b"\n3\n", [[1, 3]], [2]),
        (b"1\n" + b"x" * 100, [[1]], [2]),
        (b"x" * 20, [[1]], []),
        (b"x" * 21, [], [1]),
        (b"x" * 100 + b"\n" + b"y" * 41 + b"\n3", [[3]], [1, 2]),
        (b"12345\n12345\n3", [[1], [2, 3]], []),
    ],
)
def test_long_lines_hurt_no_other(text: bytes, sent: list[list[int]], refused: list[int]) -> None:
    assert cut(text) == (sent, refused)
