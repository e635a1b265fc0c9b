from actors.core.events import Verdict
from actors.core.queue import Queue
from actors.core.task import TERMINAL
from actors.stats import LATENESS_BOUNDS_MS, NAMED_QUEUES, Stats
from tests.support.builders import make_outcome, make_task


def test_a_lateness_is_counted_in_the_bucket_whose_bound_it_does_not_exceed() -> None:
    stats = Stats()
    for lateness_ms in (0, 1, 2, 3, 3_600_000, 3_600_001):
        stats.of(Queue(1, "default", "emails")).late(lateness_ms)
    assert stats.lateness_counts[:3] == [2, 1, 1]
    assert stats.lateness_counts[-2:] == [1, 1]
    assert len(stats.lateness_counts) == len(LATENESS_BOUNDS_MS) + 1
    assert stats.lateness_sum_ms == 7_200_007


def test_counts_start_at_zero_and_name_everything() -> None:
    stats = Stats()
    assert set(stats.attempts) == set(Verdict)
    assert set(stats.finished) == TERMINAL
    assert stats.probe_finds == stats.stale_outcomes == stats.stale_writes == 0


def test_the_first_queues_have_a_name_and_all_others_share_one_place() -> None:
    stats = Stats()
    queues = [Queue(n, "default", f"q{n}") for n in range(NAMED_QUEUES + 3)]
    for queue in queues * 2:
        outcome = make_outcome(make_task(1, queue), Verdict.FAILED)
        outcome.attempt = 1
        stats.ended(outcome)
    *named, others = stats.queues
    assert [(queue.tenant, queue.name) for queue in named] == [("default", f"q{n}") for n in range(NAMED_QUEUES)]
    assert (others.tenant, others.name) == (None, None)
    assert [queue.attempts[Verdict.FAILED] for queue in stats.queues] == [2] * NAMED_QUEUES + [6]
    assert stats.attempts[Verdict.FAILED] == sum(stats.lateness_counts) == 2 * len(queues)


def test_lateness_is_that_of_first_attempts_that_were_sent() -> None:
    stats = Stats()
    task = make_task(1, Queue(1, "default", "emails"))
    for attempt, verdict in ((1, Verdict.UNSENT), (1, Verdict.SUCCEEDED), (2, Verdict.SUCCEEDED)):
        outcome = make_outcome(task, verdict)
        outcome.attempt = attempt
        outcome.started_ms = task.schedule_ms + 7
        stats.ended(outcome)
    assert (sum(stats.lateness_counts), stats.lateness_sum_ms) == (1, 7)
    assert sum(stats.attempts.values()) == 3


def test_what_shards_count_shows() -> None:
    stats = Stats()
    stats.tally.found += 2
    stats.tally.stale += 3
    stats.refuse(4)
    assert (stats.probe_finds, stats.stale_outcomes, stats.stale_writes) == (2, 3, 4)
