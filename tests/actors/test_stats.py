from actors.core.events import Verdict
from actors.core.task import TERMINAL
from actors.stats import LATENESS_BOUNDS_MS, Stats


def test_a_lateness_is_counted_in_the_bucket_whose_bound_it_does_not_exceed() -> None:
    stats = Stats()
    for lateness_ms in (0, 1, 2, 3, 3_600_000, 3_600_001):
        stats.late(lateness_ms)
    assert stats.lateness_counts[:3] == [2, 1, 1]
    assert stats.lateness_counts[-2:] == [1, 1]
    assert len(stats.lateness_counts) == len(LATENESS_BOUNDS_MS) + 1
    assert stats.lateness_sum_ms == 7_200_007


def test_counts_start_at_zero_and_name_everything() -> None:
    stats = Stats()
    assert set(stats.attempts) == set(Verdict)
    assert set(stats.finished) == TERMINAL
    assert stats.probe_finds == stats.stale_outcomes == stats.stale_writes == 0


def test_what_shards_count_shows() -> None:
    stats = Stats()
    stats.tally.found += 2
    stats.tally.stale += 3
    stats.refuse(4)
    assert (stats.probe_finds, stats.stale_outcomes, stats.stale_writes) == (2, 3, 4)
