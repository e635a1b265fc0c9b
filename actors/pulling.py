"""The workers' side of pulled tasks: they flow to where there is room, from this node's shards and from those of
others, and what workers say of them goes to whoever owns the task by then (ports/lending.py).

    room -> supply of some owners -> take, a share from each -> deliver
    an owner's last was taken -> the take stays there for what comes due next -> deliver, and room for more, ...
    report -> owner -> word;  no word, or an UNSURE one -> said again, to whoever is the owner by then

Promises: never takes more than there is room for: what is asked for and has not come is counted; half of it at most is
kept for takes that stay, so that others can be asked. Every report is answered, with UNSURE when nobody could say
within SAY_FOR_S; said again, it is recorded once. The pauses between grow, or an owner that is behind would be kept
there. Bound: what waits for a word is what workers have had under way, and REPORTS of others.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import takewhile
from typing import NamedTuple, Protocol

from actors.core.errors import Overloaded, Unavailable
from actors.core.ids import shard_of
from actors.core.lease import Extension, Kept, Key, Lent, Report, Said, Word
from actors.ports.lending import Lender, Lines

MOST = 1_000
"""Tasks that are taken at once: others have their turn in between."""
STAYING = 256
"""Takes that stay at their owners, of all queues."""
SAY_AGAIN_S = 1.0
"""So long a word is waited for before a report is said again, then twice as long, and so on."""
LOOK_S = 0.1
"""An owner that is unsure is asked again as soon, then half as often, and so on, but each SAY_AGAIN_S at least."""
SAY_FOR_S = 8.0
REPORTS = 100_000
"""That may wait for their words."""
_UNSURE = int(Said.UNSURE)  # on 3.11 a member of an enum costs ten times a global
MINE = ""
"""Stands for this node among the boots."""


class Room(Protocol):
    """The workers that are attached to this node."""

    def room(self, queue: int) -> int:
        """How many tasks of the queue its workers may be given now."""
        ...

    def deliver(self, queue: int, tasks: list[Lent]) -> None:
        """Tasks that were taken for them."""
        ...

    def revoke(self, leases: list[tuple[str, int]]) -> None:
        """These (id, attempt) were cancelled; some may be theirs."""
        ...


class Speaker(Protocol):
    """Who says something of leases."""

    def answer(self, words: list[Word]) -> None:
        """What came of its reports."""
        ...

    def keep(self, kept: list[Kept]) -> None:
        """What came of its extensions."""
        ...


class _Asked:
    """A take of an owner: how many may still come of it, and of those, how many after its first part."""

    __slots__ = ("count", "keep")

    def __init__(self, count: int, keep: int) -> None:
        self.count = count
        self.keep: int | None = keep
        """None: the first part has come."""


class _Saying(NamedTuple):
    """Reports that were said together."""

    speaker: Speaker
    tenant: str
    again_s: float
    """When what has no word by then is said again."""
    until_s: float
    pause_s: float = 2 * SAY_AGAIN_S
    """How long a word is waited for after that."""
    doubts: int = 0
    """How often its owner was unsure."""


class Pulling:
    """Takes tasks for the workers of one node. Implements actors.ports.lending.Taker and Borrower."""

    def __init__(
        self,
        mine: Lender,
        lines: Lines,
        *,
        shards: Callable[[], int],
        serves: Callable[[int], bool],
        holder: Callable[[int], str | None],
    ) -> None:
        """`serves`: whether a shard is here; `holder`: the other node that has it."""
        self._mine = mine
        self._lines = lines
        self._shards = shards
        self._serves = serves
        self._holder = holder
        self.workers: Room | None = None
        """Set before anything is wanted."""
        self._supply: dict[int, dict[str, None]] = defaultdict(dict)
        """Queue -> boots that have some of it, those that were asked longest ago first."""
        self._asked: dict[int, dict[str, _Asked]] = defaultdict(dict)
        """Queue -> boot -> the take that it was asked for, and that is not over."""
        self._staying = 0
        """Takes that stay, or may."""
        self._wanted: frozenset[int] = frozenset()
        self._looking: set[int] = set()
        self._takes: asyncio.Queue[tuple[str, int, int, int]] = asyncio.Queue()
        """Boot, queue, how many, and how many at most after the first part."""
        self._open: dict[Key, tuple[Report, _Saying]] = {}
        """Reports that have no word yet and were said once, in the order in which they are said again."""
        self._again: dict[Key, tuple[Report, _Saying]] = {}
        """Those that are to be said again another time."""
        self._extending: dict[Key, Speaker] = {}
        self._unanswered = asyncio.Event()

    async def run(self) -> None:
        """Take from other nodes, and say again what has no word, until cancelled."""
        self._mine.want(self, self._wanted)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._say_again())
            while True:
                group.create_task(self._take(*await self._takes.get()))

    # --- tasks come in

    def want(self, queues: Iterable[int]) -> None:
        """Workers are here that take tasks of these queues, and of no others."""
        wanted = frozenset(queues)
        if wanted != self._wanted:
            self._wanted = wanted
            for queue in self._supply.keys() - wanted:
                del self._supply[queue]
            self._mine.want(self, wanted)
            self._lines.want(wanted)

    def supply(self, queues: Collection[int]) -> None:
        """See ports.lending.Taker. It is taken in this turn of the loop: work may have been waited for."""
        for queue in self._note(MINE, queues):
            self._look(queue)

    def supplied(self, boot: str, queues: Collection[int]) -> None:
        """See ports.lending.Borrower."""
        for queue in self._note(boot, queues):
            self.look(queue)

    def _note(self, boot: str, queues: Collection[int]) -> list[int]:
        """There is some of these; answers those that are wanted."""
        wanted = [queue for queue in queues if queue in self._wanted]
        for queue in wanted:
            self._supply[queue][boot] = None
        return wanted

    def look(self, queue: int) -> None:
        """There may be room and supply: take soon."""
        if queue not in self._looking and self._supply.get(queue):
            self._looking.add(queue)
            asyncio.get_running_loop().call_soon(self._look, queue)

    def _look(self, queue: int) -> None:
        """Ask each owner that has some for its share of the room."""
        self._looking.discard(queue)
        if self.workers is None:
            return
        supply, asked = self._supply.get(queue, {}), self._asked[queue]
        room = self.workers.room(queue) - sum([take.count for take in asked.values()])
        boots = [boot for boot in supply if boot not in asked]
        for at, boot in enumerate(boots):
            share = min(-(-room // (len(boots) - at)), MOST)
            if share <= 0:
                break
            room -= share
            del supply[boot]  # what it tells from now on may come before the answer is read
            if boot == MINE:
                tasks, more = self._mine.take(self, queue, share)
                self._deliver(boot, queue, tasks, more=more)
            else:
                keep = share // 2 if self._staying < STAYING else 0
                asked[boot] = _Asked(share, keep)
                self._staying += keep > 0
                self._takes.put_nowait((boot, queue, share, keep))

    async def _take(self, boot: str, queue: int, limit: int, keep: int) -> None:
        tasks: list[Lent] = []
        more = False
        try:
            tasks, more = await self._lines.take(boot, queue, limit, keep, partial(self._take_part, boot, queue))
        except (Unavailable, Overloaded):
            pass  # it tells of its supply again when it is linked
        finally:
            del self._asked[queue][boot]
            self._staying -= keep > 0
        self._deliver(boot, queue, tasks, more=more)

    def _take_part(self, boot: str, queue: int, tasks: list[Lent]) -> int:
        """A part came of a take that stays; answers how many more may come of it."""
        assert self.workers is not None
        others = self._asked[queue]
        asked = others[boot]
        asked.count -= len(tasks)
        if asked.keep is not None:  # as its owner does (`parked.py`)
            asked.count, asked.keep = min(asked.count, asked.keep), None
        if tasks:
            self.workers.deliver(queue, tasks)
        room = self.workers.room(queue)
        share = min(room // 2 // len(others), MOST)
        more = max(min(share - asked.count, room - sum([take.count for take in others.values()])), 0)
        asked.count += more
        return more

    def _deliver(self, boot: str, queue: int, tasks: list[Lent], *, more: bool) -> None:
        assert self.workers is not None
        if more and queue in self._wanted:
            self._supply[queue][boot] = None  # its next turn comes after the others'
        if tasks:
            self.workers.deliver(queue, tasks)
        self.look(queue)

    def revoke(self, leases: list[tuple[str, int]]) -> None:
        """See ports.lending.Taker and Borrower."""
        if self.workers is not None:
            self.workers.revoke(leases)

    # --- words go out

    @property
    def full(self) -> bool:
        """Too many reports wait for their words: take no more of them."""
        return len(self._open) + len(self._again) >= REPORTS

    def report(self, speaker: Speaker, tenant: str, reports: Sequence[Report]) -> None:
        """Attempts ended; `speaker` hears one word of each, unless it says the same again before that.

        If somebody else says the same before that, the word is for that one, and `speaker` is unsure.
        """
        now_s = asyncio.get_running_loop().time()
        saying = _Saying(speaker, tenant, now_s + SAY_AGAIN_S, now_s + SAY_FOR_S)
        opened = self._open
        left: dict[Speaker, list[Word]] = defaultdict(list)
        for report in reports:
            key = report.id, report.epoch, report.attempt
            if (before := self._close(key)) is not None and before[1].speaker is not speaker:
                left[before[1].speaker].append(Word(*key, Said.UNSURE))
            opened[key] = report, saying
        self._unanswered.set()
        self._say(tenant, reports)
        for other, words in left.items():
            other.answer(words)

    def _close(self, key: Key) -> tuple[Report, _Saying] | None:
        if (found := self._open.pop(key, None)) is None and self._again:
            return self._again.pop(key, None)
        return found

    def _say(self, tenant: str, reports: Sequence[Report]) -> list[Report]:
        """Answers those that nobody is there to hear."""
        shards, serves = self._shards(), self._serves
        mine: list[Report] = []
        theirs: dict[str, list[Report]] = defaultdict(list)
        unsaid: list[Report] = []
        for report in reports:
            shard = int(report.id[32:], 16) * shards >> 16  # shard_of, without its call
            if serves(shard):
                mine.append(report)
            elif (boot := self._holder(shard)) is not None:
                theirs[boot].append(report)
            else:
                unsaid.append(report)
        if mine:
            self._mine.report(self, tenant, mine)
        for boot, some in theirs.items():
            if not self._lines.report(boot, tenant, some):
                unsaid += some
        return unsaid

    def answer(self, words: list[Word]) -> None:
        """See ports.lending.Taker and Borrower."""
        heard: dict[Speaker, list[Word]] = {}
        for word in words:
            key = word.id, word.epoch, word.attempt
            if word.said == _UNSURE:
                self._doubt(key)
            elif (closed := self._close(key)) is not None:
                speaker = closed[1].speaker
                if (some := heard.get(speaker)) is None:
                    heard[speaker] = [word]
                else:
                    some.append(word)
        for speaker, some in heard.items():
            speaker.answer(some)

    def _doubt(self, key: Key) -> None:
        """Its owner could not say: whoever owns it by then is told."""
        if (closed := self._close(key)) is not None:
            report, saying = closed
            pause_s = min(LOOK_S * 2**saying.doubts, SAY_AGAIN_S)
            again_s = asyncio.get_running_loop().time() + pause_s
            self._again[key] = report, saying._replace(again_s=again_s, doubts=saying.doubts + 1)

    async def _say_again(self) -> None:
        while True:
            await self._unanswered.wait()
            await asyncio.sleep(LOOK_S)
            now_s = asyncio.get_running_loop().time()
            again: dict[str, list[Report]] = defaultdict(list)
            late: dict[Speaker, list[Word]] = defaultdict(list)
            for key, (report, saying) in self._due(now_s):
                self._close(key)
                if saying.until_s <= now_s:
                    late[saying.speaker].append(Word(*key, Said.UNSURE))
                    continue
                again[saying.tenant].append(report)
                self._again[key] = report, saying._replace(again_s=now_s + saying.pause_s, pause_s=2 * saying.pause_s)
            for tenant, reports in again.items():
                for report in self._say(tenant, reports):
                    self._keep_trying(report, now_s)
            for speaker, words in late.items():
                speaker.answer(words)
            if not (self._open or self._again):
                self._unanswered.clear()

    def _due(self, now_s: float) -> list[tuple[Key, tuple[Report, _Saying]]]:
        """The reports that are said again now, or given up."""
        due = list(takewhile(lambda item: item[1][1].again_s <= now_s, self._open.items()))
        return due + [item for item in self._again.items() if min(item[1][1].again_s, item[1][1].until_s) <= now_s]

    def _keep_trying(self, report: Report, now_s: float) -> None:
        """Nobody was there to hear it, whom it could have kept from work."""
        key = report.id, report.epoch, report.attempt
        if key in self._again:
            saying = self._again[key][1]
            self._again[key] = report, saying._replace(again_s=now_s + SAY_AGAIN_S, pause_s=2 * SAY_AGAIN_S)

    # --- leases are extended

    def extend(self, speaker: Speaker, tenant: str, extensions: Sequence[Extension]) -> None:
        """Attempts go on. What can't be said now is answered UNSURE; of what gets lost, nothing is heard."""
        shards = self._shards()
        owners: dict[str | None, list[Extension]] = defaultdict(list)
        for said in extensions:
            self._extending[said.id, said.epoch, said.attempt] = speaker
            shard = shard_of(said.id, shards)
            owners[MINE if self._serves(shard) else self._holder(shard)].append(said)
        for boot, some in owners.items():
            if boot == MINE:
                self._mine.extend(self, tenant, some)
            elif boot is None or not self._lines.extend(boot, tenant, some):
                self.keep([Kept(said.id, said.epoch, said.attempt, Said.UNSURE) for said in some])

    def forget(self, speaker: Speaker) -> None:
        """It does not wait for what came of its extensions any more."""
        self._extending = {key: other for key, other in self._extending.items() if other is not speaker}

    def keep(self, kept: list[Kept]) -> None:
        """See ports.lending.Taker and Borrower."""
        heard: dict[Speaker, list[Kept]] = defaultdict(list)
        for each in kept:
            speaker = self._extending.pop((each.id, each.epoch, each.attempt), None)
            if speaker is not None:
                heard[speaker].append(each)
        for speaker, some in heard.items():
            speaker.keep(some)
