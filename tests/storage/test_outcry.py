"""Few words about an outage, however many suffer from it."""

import pytest
from structlog.testing import capture_logs

from storage.outcry import AGAIN_S, QUIET_S, Outcry, place_of

REFUSED = "the database can't do this now: ConnectionRefusedError"


def test_an_outage_is_told_once_then_now_and_then_and_when_it_is_over() -> None:
    now_s = 0.0
    outcry = Outcry("postgresql://app:secret@db.example:6432/jobs", lambda: now_s)
    with capture_logs() as lines:
        outcry.works()
        for tenth in range(250):
            now_s = tenth / 10
            outcry.fails("heartbeats", REFUSED)
        for _ in range(60):
            now_s += 0.1
            outcry.works()
    assert [line["event"].partition(";")[0] for line in lines] == [
        "the database can't be used",
        "the database can't be used",
        "the database can't be used",
        "the database can be used again",
    ]
    assert {line["database"] for line in lines} == {"db.example:6432/jobs"}
    assert [line.get("left_out") for line in lines] == [None, 99, 99, 49]
    assert [line.get("for_s") for line in lines] == [None, AGAIN_S, 2 * AGAIN_S, 24.9]
    assert [line["log_level"] for line in lines] == ["warning"] * 3 + ["info"]
    assert "secret" not in str(lines)


def test_it_is_not_over_while_something_still_fails() -> None:
    now_s = 0.0
    outcry = Outcry("postgresql:///jobs", lambda: now_s)
    with capture_logs() as lines:
        for _ in range(8):
            outcry.fails("loading", REFUSED)
            now_s += QUIET_S / 2
            outcry.works()
        assert len(lines) == 1
        now_s += QUIET_S
        outcry.works()
        outcry.fails("loading", REFUSED)
    assert [line["log_level"] for line in lines] == ["warning", "info", "warning"]


@pytest.mark.parametrize(
    ("dsn", "place"),
    [
        ("postgresql://app:secret@db.example:6432/jobs", "db.example:6432/jobs"),
        ("postgresql://app:s%40cret@one:1,two:2/jobs?sslmode=disable", "one:1,two:2/jobs"),
        ("postgresql://app@/jobs?host=/run/postgresql&port=5433&password=secret", "/run/postgresql:5433/jobs"),
        ("postgresql://[::1]:5432/jobs", "[::1]:5432/jobs"),
        ("postgresql:///jobs", "localhost/jobs"),
        ("postgresql://", "localhost/"),
        ("postgresql://app:sec/ret@db.example/jobs", "?"),
        ("postgresql://app:sec?ret@db.example/jobs", "?"),
        ("postgresql://app:sec#ret@db.example/jobs", "?"),
        ("postgresql://app:secret@[db/jobs", "?"),
    ],
)
def test_a_dsn_is_named_without_its_secrets(dsn: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPORT", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)
    assert place_of(dsn) == place
