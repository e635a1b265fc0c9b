import json

import pytest
from rich.console import Console

from bench.report import Options, Pairs, Row, as_json, number, percentile, show


def pairs(*both: tuple[float, float]) -> Pairs:
    made = Pairs("figure", "ms")
    for ours, floor in both:
        made.ours.append(ours)
        made.floor.append(floor)
    return made


def test_the_ratio_is_of_pairs_measured_together() -> None:
    assert pairs((1, 2), (100, 200), (6, 3)).ratio() == 0.5


@pytest.mark.parametrize(("goal", "ok"), [(0.5, True), (0.51, False)])
def test_at_least(goal: float, ok: bool) -> None:
    row = pairs((1, 2), (5, 10), (2, 4)).at_least(goal)
    assert (row.ours, row.floor, row.ratio, row.ok) == (2, 4, 0.5, ok)


@pytest.mark.parametrize(("allowance", "ok"), [(5, True), (4.9, False)])
def test_above_floor(allowance: float, ok: bool) -> None:
    assert pairs((6, 1), (15, 10), (9, 4)).above_floor(allowance).ok is ok


def test_a_plain_row_has_no_goal() -> None:
    assert pairs((1, 2)).plain() == Row("figure", 1, "ms", 2, 0.5)


def test_percentiles_are_nearest_rank() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (0, 50, 99, 99.5, 100)] == [1, 50, 99, 100, 100]
    assert percentile([7.0], 99) == 7


def test_numbers_are_short() -> None:
    assert [number(value) for value in (None, 0.12345, 12.345, 123_456.7)] == ["", "0.123", "12.3", "123,457"]


def test_smoke_is_one_small_round() -> None:
    assert (Options(5).iterations, Options(5).size(100, 1)) == (5, 100)
    assert (Options(5, smoke=True).iterations, Options(5, smoke=True).size(100, 1)) == (1, 1)


def test_a_table_and_json() -> None:
    rows = [Row("kept", 2, "ms", 1, 2.0, "<= floor + 5", True), Row("missed", 2, "ms", ok=False), Row("told", 3, "x")]
    console = Console(width=120)
    with console.capture() as caught:
        show(rows, console)
    lines = caught.get().splitlines()
    assert [line.split()[0] for line in lines] == ["what", "kept", "missed", "told"]
    assert lines[1].split()[-1] == "ok"
    assert lines[2].split()[-1] == "missed"
    assert json.loads(as_json(rows))[0]["goal"] == "<= floor + 5"
