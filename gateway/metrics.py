"""`/metrics`: the node's plain counters in Prometheus' text format.

The hot path only adds to integers; names, labels and text are made when somebody asks, in a thread.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from gateway.context import GATEWAY, NodePort, QueueStatsPort, StatsPort
from gateway.crew import Crew

LAG_PERIOD_S = 0.1


class LoopLag:
    """How late the event loop comes to what is due; the worst of the time since it was last read."""

    def __init__(self) -> None:
        self._worst_s = 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_PERIOD_S
            await asyncio.sleep(LAG_PERIOD_S)
            self._worst_s = max(self._worst_s, loop.time() - due)

    def take_s(self) -> float:
        """The worst since the last call, in seconds."""
        worst_s, self._worst_s = self._worst_s, 0.0
        return worst_s


class NodeCollector(Collector):
    """Reads the counters of a node and of its workers when they are asked for."""

    def __init__(self, node: NodePort, crew: Crew, lag: LoopLag) -> None:
        self._node = node
        self._crew = crew
        self._lag = lag

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time: registering must not read."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        stats = self._node.stats
        yield _counter("accepted_tasks", "Tasks committed as new", stats.accepted)
        yield _counter("replayed_requests", "Requests answered from their idempotency key", stats.replayed)
        yield _labelled(
            "attempts",
            "Ended attempts",
            "outcome",
            {verdict.name.lower(): count for verdict, count in stats.attempts.items()},
        )
        yield _labelled(
            "finished_tasks",
            "Tasks that ended",
            "state",
            {state.value: count for state, count in stats.finished.items()},
        )
        yield _counter("probe_finds", "Overdue rows that memory did not know", stats.probe_finds)
        yield _counter("stale_writes", "Records refused for their fence or revision", stats.stale_writes)
        yield _counter("held_tasks", "Tasks held since nobody knows how their attempt ended", stats.held)
        yield _counter("lapsed_leases", "Leases of workers that ran out", stats.lapsed)
        yield _counter("stale_outcomes", "Attempts that ended under an old fence", stats.stale_outcomes)
        yield _counter("rejoins", "Times that this node was declared dead and came back", stats.rejoins)
        yield _counter("epoch_changes", "Shards that came", stats.epoch_changes)
        yield _counter("moved_shards", "Shards given to other nodes", stats.moves)
        yield _counter("failed_shards", "Shards whose own code failed", stats.shard_failures)
        yield GaugeMetricFamily(
            "ringwheel_forwarding_attempts", "Attempts whose shard has moved", self._node.handover.forwarding
        )
        yield GaugeMetricFamily("ringwheel_workers", "Workers that take tasks from this node", len(self._crew))
        yield GaugeMetricFamily("ringwheel_leases", "Leases of workers that are linked to this node", self._crew.leases)
        yield from self._ownership()
        yield _lateness(stats)
        yield _queue_attempts(stats.queues)
        yield _queue_lateness(stats)
        yield GaugeMetricFamily("ringwheel_ready", "1 while the node is ready", float(self._node.ready))
        yield GaugeMetricFamily(
            "ringwheel_loop_lag_seconds", "Worst delay of the event loop since the last scrape", self._lag.take_s()
        )

    def _ownership(self) -> Iterator[Metric]:
        member, shards = self._node.membership, self._node.census.shards
        margin_s = member.margin_ms / 1000
        yield GaugeMetricFamily("ringwheel_lease_margin_seconds", "How long the node may still fire", margin_s)
        yield SummaryMetricFamily(
            "ringwheel_take_over_seconds",
            "From the last sign of life of a dead node to when its shards were taken over here",
            count_value=member.take_overs,
            sum_value=member.take_overs_ms / 1000,
        )
        yield GaugeMetricFamily("ringwheel_owned_shards", "Shards that the node owns", shards)
        yield GaugeMetricFamily(
            "ringwheel_orphan_shards", "Shards without a living owner, as seen here", member.orphaned
        )


class CountCollector(Collector):
    """One counter of something that the node does not know of."""

    def __init__(self, name: str, words: str, count: Callable[[], int]) -> None:
        self._name = name
        self._words = words
        self._count = count

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time: registering must not read."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The counter as it is now."""
        yield _counter(self._name, self._words, self._count())


async def metrics(request: web.Request) -> web.StreamResponse:
    """`GET /metrics`."""
    text = await asyncio.to_thread(_render, request.app[GATEWAY].registry)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


def _render(registry: CollectorRegistry) -> bytes:
    return generate_latest(registry)


def _counter(name: str, words: str, value: int) -> Metric:
    return CounterMetricFamily(f"ringwheel_{name}", words, value)


def _labelled(name: str, words: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"ringwheel_{name}", words, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def _lateness(stats: StatsPort) -> Metric:
    return HistogramMetricFamily(
        "ringwheel_lateness_seconds",
        "How late first attempts started",
        _buckets(stats.lateness_bounds_ms, stats.lateness_counts),
        stats.lateness_sum_ms / 1000,
    )


def _queue_attempts(queues: Sequence[QueueStatsPort]) -> Metric:
    family = CounterMetricFamily(
        "ringwheel_queue_attempts", "Ended attempts by queue", labels=("tenant", "queue", "outcome")
    )
    for queue in queues:
        for verdict, count in queue.attempts.items():
            family.add_metric((*_names(queue), verdict.name.lower()), count)
    return family


def _queue_lateness(stats: StatsPort) -> Metric:
    family = HistogramMetricFamily(
        "ringwheel_queue_lateness_seconds", "How late first attempts started, by queue", labels=("tenant", "queue")
    )
    for queue in stats.queues:
        buckets = _buckets(stats.lateness_bounds_ms, queue.lateness_counts)
        family.add_metric(_names(queue), buckets, queue.lateness_sum_ms / 1000)
    return family


def _names(queue: QueueStatsPort) -> tuple[str, str]:
    """Tenant and queue; empty, which no name is, for the others."""
    return queue.tenant or "", queue.name or ""


def _buckets(bounds_ms: Sequence[int], counts: Sequence[int]) -> list[tuple[str, float]]:
    buckets, total = [], 0
    for bound_ms, count in zip([*bounds_ms, None], counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound_ms is None else str(bound_ms / 1000), float(total)))
    return buckets
