"""What the gateway stands on: one `Gateway` an application, reached by `request.app[GATEWAY]`.

The runtime is seen through the small protocols below, so that handlers are tested with hand-written doubles and no
handler can reach further into the node than it says here.
"""

from asyncio import Event, Future
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry

from actors.core.codec import SpecCodec
from actors.core.draft import Draft, Receipt
from actors.core.events import Change, Command, Outcome, Verdict
from actors.core.keys import Scope
from actors.core.lease import Extension, Report
from actors.core.live import Live
from actors.core.queue import QueueBook
from actors.core.reach import Reach
from actors.core.task import State, Task
from actors.ports.cluster import ClusterStore
from actors.ports.queues import QueueStore
from actors.ports.reader import Reader, TaskRow
from actors.pulling import Room as Workers
from actors.pulling import Speaker
from gateway.admission import Admission
from gateway.patience import Patience
from gateway.quota import Quota
from gateway.room import Room
from gateway.turn import Turn

if TYPE_CHECKING:
    from gateway.crew import Crew
    from gateway.hub import Hub
    from gateway.keyring import Keyring

DEFAULT_TENANT = "default"


class ClockPort(Protocol):
    """The primary's clock."""

    def now_ms(self) -> int:
        """Integer milliseconds since 1970; never goes back, never ahead of the primary."""
        ...


class IntakePort(Protocol):
    """Group commit of accepted tasks."""

    async def submit(self, drafts: Sequence[Draft]) -> list[Receipt | Exception]:
        """One answer a draft, in order, after COMMIT. Raises Overloaded or Unavailable for all of them."""
        ...

    def submit_one(self, draft: Draft) -> "Future[Receipt]":
        """The same for one: its receipt, or what it was refused for. Raises Overloaded or Unavailable."""
        ...


class QueueStatsPort(Protocol):
    """Counters of one queue, or of all those that have none of their own."""

    @property
    def tenant(self) -> str | None:
        """Whose queue it is."""
        ...

    @property
    def name(self) -> str | None:
        """None: the others."""
        ...

    @property
    def attempts(self) -> Mapping[Verdict, int]:
        """Ended attempts, by verdict."""
        ...

    @property
    def lateness_counts(self) -> Sequence[int]:
        """First attempts per bucket (not cumulative), one more than there are bounds."""
        ...

    @property
    def lateness_sum_ms(self) -> int:
        """Sum of all lateness."""
        ...


class StatsPort(Protocol):
    """Plain counters of a node since its start; read by the metrics, raised by `+= n` on the hot path."""

    @property
    def accepted(self) -> int:
        """Tasks committed as new."""
        ...

    @property
    def replayed(self) -> int:
        """Requests answered with the task that their idempotency key already had."""
        ...

    @property
    def attempts(self) -> Mapping[Verdict, int]:
        """Ended attempts, by verdict."""
        ...

    @property
    def finished(self) -> Mapping[State, int]:
        """Tasks that reached a terminal state, by that state."""
        ...

    @property
    def probe_finds(self) -> int:
        """Overdue rows that memory did not know: 0 in a healthy cluster."""
        ...

    @property
    def stale_writes(self) -> int:
        """Records that the ledger refused: old fence or other revision."""
        ...

    @property
    def held(self) -> int:
        """Tasks that were held because nobody knows how their attempt ended."""
        ...

    @property
    def lapsed(self) -> int:
        """Leases of workers that ran out."""
        ...

    @property
    def stale_outcomes(self) -> int:
        """Attempts whose end came under an old fence."""
        ...

    @property
    def rejoins(self) -> int:
        """How often this process was declared dead and came back under a new boot."""
        ...

    @property
    def epoch_changes(self) -> int:
        """Shards that came to this node."""
        ...

    @property
    def moves(self) -> int:
        """Shards that it gave to others."""
        ...

    @property
    def shard_failures(self) -> int:
        """Shards whose own code failed."""
        ...

    @property
    def queues(self) -> Sequence[QueueStatsPort]:
        """Attempts by queue, a bounded number."""
        ...

    @property
    def lateness_bounds_ms(self) -> Sequence[int]:
        """Upper bounds of the lateness buckets, rising; the last bucket has none."""
        ...

    @property
    def lateness_counts(self) -> Sequence[int]:
        """First attempts per bucket (not cumulative), one more than there are bounds."""
        ...

    @property
    def lateness_sum_ms(self) -> int:
        """Sum of all lateness."""
        ...


class HandoverPort(Protocol):
    """What the node gives to others."""

    @property
    def forwarding(self) -> int:
        """Attempts that run here although their shard has moved, or whose end its owner has not recorded yet."""
        ...


class MembershipPort(Protocol):
    """The node's place in the cluster, as of its last heartbeat."""

    @property
    def boot(self) -> str:
        """The name of this process start."""
        ...

    @property
    def timeline(self) -> int:
        """The database's: a fence begins with it."""
        ...

    @property
    def margin_ms(self) -> float:
        """How long it may go on firing without another heartbeat."""
        ...

    @property
    def take_overs(self) -> int:
        """How often it took shards of the dead over."""
        ...

    @property
    def take_overs_ms(self) -> int:
        """From their last signs of life, in sum."""
        ...

    @property
    def orphaned(self) -> int:
        """Shards without a living owner."""
        ...

    def still_ms(self, boot: str) -> int | None:
        """How long this boot's counter has stood still, as seen from here; None: it was not seen."""
        ...


class CensusPort(Protocol):
    """What memories claim to hold, and have."""

    @property
    def shards(self) -> int:
        """How many are here."""
        ...

    async def of(self, mine: str, boots: Collection[str], before_us: int) -> dict[str, list[Reach] | None]:
        """The reaches of these nodes, of which `mine` is this one; None: it did not answer in time."""
        ...


class PullingPort(Protocol):
    """Takes tasks for the workers of this node, and carries what they say to whoever owns the task."""

    workers: Workers | None
    """Who they are."""

    @property
    def full(self) -> bool:
        """Too many reports wait for their words: take no more of them."""
        ...

    def want(self, queues: Iterable[int]) -> None:
        """Workers are here that take tasks of these queues, and of no others."""
        ...

    def look(self, queue: int) -> None:
        """There may be room: take soon."""
        ...

    def report(self, speaker: Speaker, tenant: str, reports: Sequence[Report]) -> None:
        """Attempts ended; `speaker` hears one word of each."""
        ...

    def extend(self, speaker: Speaker, tenant: str, extensions: Sequence[Extension]) -> None:
        """Attempts go on; `speaker` hears what came of most."""
        ...

    def forget(self, speaker: Speaker) -> None:
        """It does not wait for what came of its extensions any more."""
        ...


class NodePort(Protocol):
    """The node, as the API sees it."""

    @property
    def name(self) -> str:
        """The node's name in the ring."""
        ...

    @property
    def ready(self) -> bool:
        """It owns what it should own and reaches the database."""
        ...

    @property
    def stats(self) -> StatsPort:
        """Its counters."""
        ...

    @property
    def membership(self) -> MembershipPort:
        """Its place in the cluster."""
        ...

    @property
    def handover(self) -> HandoverPort:
        """Gives its shards away."""
        ...

    @property
    def census(self) -> CensusPort:
        """Asks it and the others what they hold."""
        ...

    @property
    def pulling(self) -> PullingPort:
        """For workers."""
        ...

    def advance(self, by_ms: int) -> None:
        """Set its clock forward, for users' tests."""
        ...

    async def ask(self, command: Command) -> Change | None:
        """Carry a command out, wherever its shard lives; None: it was so already.

        Raises Unknown, Conflict, or Unavailable (no owner within 2 s).
        """
        ...

    async def look(self, ids: Sequence[str]) -> dict[str, Live]:
        """What owners know of these tasks; nothing of those whose owner can't be reached in time."""
        ...

    def fence_of(self, task: Task | TaskRow | Live) -> str:
        """The fence of the task's current attempt, or of the one that a row has a claim of."""
        ...


class DispatchPort(Protocol):
    """The node, as those see it who carry due tasks out."""

    def serve(self, pull: Callable[[], None] | None) -> None:
        """Call `pull` when `take` may give something, what comes due in the call that finds it; None: nobody takes."""
        ...

    def take(self, limit: int) -> list[Task]:
        """At most `limit` due webhook tasks, marked RUNNING, attempt counted, payload present; [] = none now."""
        ...

    def may_fire(self) -> bool:
        """The lease is valid at this moment."""
        ...

    def ended(self, outcomes: list[Outcome]) -> None:
        """These attempts ended."""
        ...

    def fence_of(self, task: Task) -> str:
        """The fence of the task's current attempt."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits of the API."""

    payload_bytes: int = 256 * 1024
    body_bytes: int = 1024 * 1024
    """One task a request, and every command."""
    batch_bytes: int = 16 * 1024 * 1024
    batch_items: int = 10_000
    page_items: int = 1_000
    """Most tasks a list call answers."""


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who makes a request, as far as its key says."""

    tenant: str
    scopes: frozenset[Scope]
    prefix: str | None
    """Names the key; None: there was none, and none was needed."""


@dataclass(slots=True)
class Gateway:
    """Everything a handler may use."""

    node: NodePort
    intake: IntakePort
    reader: Reader
    cluster: ClusterStore
    queues: QueueBook
    queue_store: QueueStore
    codec: SpecCodec
    hub: "Hub"
    crew: "Crew"
    """Workers that are attached here."""
    keyring: "Keyring"
    clock: ClockPort
    settings: Settings = Settings()
    admission: Admission = field(default_factory=Admission)
    quota: Quota = field(default_factory=Quota)
    patience: Patience = field(default_factory=Patience)
    room: Room = field(default_factory=Room)
    turn: Turn = field(default_factory=Turn)
    """Around what one read of another node's link brings."""
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    """What `/metrics` shows."""
    movable_clock: bool = False
    """Users' tests may set the clock forward (`clock_api.py`)."""
    leaving: Event = field(default_factory=Event)
    """Set when this node begins to go away: workers should go elsewhere."""
    draining: bool = False
    """Going away: readiness says so, and no new task is taken."""


GATEWAY: web.AppKey[Gateway] = web.AppKey("gateway", Gateway)


CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
"""Set on every request that came past a guard (`auth.py`)."""


def tenant_of(request: web.BaseRequest) -> str:
    """Whose request this is. KeyError: its route has no guard, which is a bug."""
    return request[CALLER].tenant
