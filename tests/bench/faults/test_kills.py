from bench.faults.kills import _fired_ms


def test_a_successor_fires_under_a_later_epoch_and_after_the_kill() -> None:
    calls = [(1.0, 1), (2.0, 1), (3.0, 1), (4.0, 3), (5.0, 3)]
    assert _fired_ms(calls, 2.0, 1) == 4.0
    assert _fired_ms(calls, 4.5, 1) == 5.0
    assert _fired_ms(calls, 2.0, 3) is None
