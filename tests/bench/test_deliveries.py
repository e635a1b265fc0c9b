from pathlib import Path

from bench.deliveries import Deliveries
from bench.journal import Journal, Line, read


def got(at_ms: float, task_id: str = "t", attempt: int = 1) -> Line:
    return Line(at_ms, "got", task_id, f"{task_id}{attempt}", attempt, f"1.1.{attempt}", "ok", 2.0)


def then(at_ms: float, what: str, task_id: str = "t", attempt: int = 1) -> Line:
    return Line(at_ms, what, task_id, f"{task_id}{attempt}", attempt)


def test_a_journal_is_read_as_far_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    assert read(path) == []
    journal = Journal(path)
    journal.write(got(1.0))
    journal.write(then(2.0, "said"))
    with path.open("ab") as file:
        file.write(b'{"at_ms":3,"wh')
    assert read(path) == [got(1.0), then(2.0, "said")]


def test_a_delivery_is_held_until_its_result_is_sent_or_it_is_over() -> None:
    found = Deliveries(
        {
            "a": [got(10), got(20, "u"), then(30, "said"), then(40, "over", "u")],
            "b": [got(10, "v")],
        }
    )
    assert [each.id for each in found.held(25, ["a"])] == ["t", "u"]
    assert [each.id for each in found.held(35, ["a"])] == ["u"]
    assert found.held(45, ["a"]) == []
    assert [each.id for each in found.held(45, ["a", "b"])] == ["v"]


def test_what_was_held_comes_again_after_a_while() -> None:
    journals = {
        "a": [got(0), got(0, "u"), got(0, "v"), got(0, "w"), then(50, "said", "w")],
        "b": [got(1_100, attempt=2), got(90, "u", 2), got(2_000, "w", 2)],
    }
    assert Deliveries(journals).again_s(100, ["a"]) == [(1.0, 2.0)], "u came before, v never, w was not held"


def test_late_is_what_was_sent_when_another_one_had_it() -> None:
    journals = {
        "a": [got(0), then(500, "said"), then(510, "refused")],
        "b": [got(400, attempt=2), then(450, "said", attempt=2), then(460, "recorded", attempt=2)],
    }
    found = Deliveries(journals)
    assert (len(found.late("refused")), len(found.late("recorded"))) == (1, 0)
    journals["a"] = [got(0), then(100, "said"), then(500, "again"), then(510, "recorded")]
    assert Deliveries(journals).late("refused") == []
    assert Deliveries(journals).late("recorded") == [
        "a had ok t 1.1.1 at 0, said 100, again 500 ms after that, when b had ok t 1.1.2 at 400, said 50"
    ]
    journals["a"] = [got(0), then(410, "said"), then(510, "recorded")]
    assert Deliveries(journals).late("recorded") == [], "clocks are not told apart so far"


def test_deliveries_are_calls_in_order() -> None:
    found = Deliveries({"a": [got(20, attempt=2), then(30, "recorded", attempt=2)], "b": [got(10)]})
    calls = found.calls()["t"]
    assert [(call.arrived_ms, call.fence, call.attempt) for call in calls] == [(10, "1.1.1", 1), (20, "1.1.2", 2)]


def test_where_a_link_went() -> None:
    found = Deliveries({"a": [Line(10, "link", port=1), Line(20, "cut", port=1), Line(30, "link", port=2)]})
    assert [found.port("a", at_ms) for at_ms in (5, 10, 19, 25, 31)] == [0, 1, 1, 0, 2]


def test_lines_are_counted() -> None:
    found = Deliveries({"a": [Line(1, "above", count=3), got(2)], "b": [got(2, "u"), Line(3, "above", count=1)]})
    assert (found.above, found.lines["got"], found.lines["error"]) == (4, 2, 0)
