"""What a worker has on its desk: tasks whose leases it holds, results on their way, room for more.

No sockets and no handlers here: the link brings tasks and takes results away, runners do the work in between.
"""

import asyncio
import logging
from collections.abc import Iterable

from ringwheel.context import Context
from ringwheel.frames import MOST_LEASES, Delivery, LastWord, Lease, Refused, Result
from ringwheel.heartbeat import Heartbeat
from ringwheel.lag import Lag
from ringwheel.outbox import Outbox
from ringwheel.outcome import in_place_of

AGAIN_S = 0.5
"""After so long a result is said again of which the service could not say whether it was recorded."""
log = logging.getLogger("ringwheel.worker")


class Desk:
    """One worker's tasks."""

    def __init__(
        self,
        queue: str,
        concurrency: int,
        held: dict[str, Context],
        ended: dict[str, Context],
        heartbeat: Heartbeat,
        lag: Lag,
    ) -> None:
        self.queue = queue
        self.outbox = Outbox()
        self.news = self.outbox.news
        """Set when there is something to say to the service."""
        self.held = held
        self._ended = ended
        """Whose results are not recorded yet."""
        self.outstanding = 0
        """Credits that were granted and not yet used."""
        self.stopping = False
        self.idle = asyncio.Event()
        """Set when nothing is held while the worker stops."""
        self._concurrency = concurrency
        self._heartbeat = heartbeat
        self._lag = lag

    @property
    def leases(self) -> list[Lease]:
        """All that this worker may still say a result of."""
        return [Lease(one.id, one.task.lease) for one in self.held.values()] + self.outbox.leases

    def grant(self) -> int:
        """How many more tasks may come, which counts as granted; 0 while enough may come anyway: few frames do."""
        room = min(self._concurrency, MOST_LEASES - len(self.outbox)) - len(self.held) - self.outstanding
        if room <= 0 or self.stopping or self.outstanding > self._concurrency // 2:
            return 0
        self.outstanding += room
        return room

    def take(self, tasks: Iterable[Delivery]) -> list[Context]:
        """Tasks that came; answers those that can begin. The others follow once their leases are known to be alive."""
        unread_s = self._lag.unread_s()
        taken = []
        for task in tasks:
            if task.id in self.held:
                self.cancel(task.id, "another attempt of it began")
            doubtful = unread_s > task.lease_seconds / 3
            context = self.held[task.id] = Context(task, self._heartbeat.extend, doubtful=doubtful)
            self._heartbeat.watch(task.lease_seconds)
            taken.append(context)
        self.outstanding -= len(taken)
        sure = [context for context in taken if not context.doubtful]
        if len(sure) < len(taken):
            self._heartbeat.nudge()
        return sure

    def doubtful(self) -> list[Context]:
        """Tasks that have not begun, for their leases may be over."""
        return [context for context in self.held.values() if context.doubtful]

    def end(self, context: Context, result: Result) -> None:
        """Its handler has ended; the result counts for nothing when the attempt was over before."""
        if context.over:
            return
        self._ended[context.id] = self.held.pop(context.id)
        self.outbox.put(result)
        self._look()

    def cancel(self, task_id: str, why: str, lease: str | None = None) -> None:
        """An attempt is over for this worker (that under `lease`, if given): its handler is to stop."""
        context = self.held.get(task_id)
        if context is None or lease not in (None, context.task.lease):
            return
        log.warning("stopping task %s, attempt %d: %s", task_id, context.attempt, why)
        del self.held[task_id]
        context.give_up()
        context.interrupt()
        self.news.set()
        self._look()

    def give_back(self, context: Context, result: Result) -> None:
        """The worker ends before the task does."""
        self.end(context, result)
        context.give_up()

    def recorded(self, task_ids: Iterable[str]) -> None:
        """Their results are on record, or never will be."""
        self.outbox.recorded(task_ids)
        for task_id in task_ids:
            self._ended.pop(task_id, None)

    def refused(self, refused: Refused) -> None:
        """A result was not recorded. It is said again if that may help, or replaced by one that is; or it is over."""
        result = self.outbox.find(refused.id, refused.lease)
        if result is None:
            return
        if refused.status >= 500 or refused.status == 429:
            asyncio.get_running_loop().call_later(AGAIN_S, self.outbox.say_again, result)
            return
        if refused.status in (404, 409):
            log.warning("the result of task %s was refused: %s", refused.id, refused.words)
            self.recorded((result.id,))
        else:
            self.replace(result, refused.words)

    def replace(self, result: Result, why: str) -> None:
        """It is not acceptable as it is: say instead, once, that the attempt failed, or its lease would run out."""
        log.error("the result of task %s was refused: %s", result.id, why)
        if isinstance(result, LastWord):
            self.recorded((result.id,))
        else:
            self.outbox.put(in_place_of(result, why))

    def _look(self) -> None:
        if self.stopping and not self.held:
            self.idle.set()
