"""The timing wheel against heapq, on the service's own `Task` objects, in batches of 1,000.

What is measured: inserting all entries; then firing them all while the hand moves on by 1 to 5 ms a step, cascades and
`next_expiration` included; the longest of those steps, in CPU time: its median over the iterations, and the worst,
which on a shared machine holds what the host did as well. A heap does less than a wheel has to (it can't cancel), yet
it is what one would take instead. Heap and wheel alternate, and which of them goes first.

`shards` is the everyday case: what 256 shards wait for (`Timers`: a wheel with a short list before it), each given 16
entries every 80 ms, due within 3 s, each visited every 5 ms if its next expiry has come; the figure is the whole life
of an entry, insert, visits and fire.

The garbage collector is set as in the service (freeze after load, thresholds 50,000/20/100).
"""

import argparse
import gc
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from heapq import heappop, heappush
from statistics import median
from time import perf_counter, thread_time

from rich.console import Console

from actors.core.queue import Queue
from actors.core.spec import HttpTarget, Spec
from actors.core.task import Task
from actors.core.timers import Timers
from actors.core.wheel import Wheel
from bench.report import Options, Pairs, Row, as_json, progress, show

T0_MS = 1_800_000_000_123
BATCH = 1_000
LONGEST_MS = 5.0
SPREADS = (("60 s", 60_000), ("1 h", 3_600_000))

SHARDS = 256
SHARD_BATCH = 16
ROUND_MS = 80
VISIT_MS = 5
SHARD_SPREAD_MS = 3_000

Item = tuple[int, int, Task]


def make_tasks(count: int, due_ms: Callable[[], int]) -> list[Task]:
    """Tasks as an owner has them in memory, out of the collector's way."""
    queue = Queue(1, "bench", "wheel")
    spec = Spec(http=HttpTarget("http://127.0.0.1/"))
    tasks = [
        Task(f"{number:036x}", 0, queue, due := due_ms(), due, number, spec, wake_ms=due) for number in range(count)
    ]
    gc.collect()
    gc.freeze()
    return tasks


def hand_steps(spread_ms: int) -> list[int]:
    """The same walk of the hand for both sides: 1 to 5 ms a step, to the end of the spread."""
    choice = random.Random(2)
    steps, now = [], T0_MS
    while now <= T0_MS + spread_ms:
        now += choice.randint(1, 5)
        steps.append(now)
    return steps


def heap_rates(tasks: list[Task], steps: list[int]) -> tuple[float, float]:
    """Entries a second that a heap takes in, and gives out."""
    heap: list[Item] = []
    began = perf_counter()
    for start in range(0, len(tasks), BATCH):
        for number, task in enumerate(tasks[start : start + BATCH], start):
            heappush(heap, (task.wake_ms, number, task))
    filled = perf_counter()
    for now in steps:
        while heap and heap[0][0] <= now:
            heappop(heap)
    ended = perf_counter()
    assert not heap
    return len(tasks) / (filled - began), len(tasks) / (ended - filled)


def wheel_rates(tasks: list[Task], steps: list[int]) -> tuple[float, float]:
    """Entries a second that a wheel takes in, and gives out."""
    wheel: Wheel[Task] = Wheel(T0_MS)
    began = perf_counter()
    for start in range(0, len(tasks), BATCH):
        wheel.insert_many(tasks[start : start + BATCH])
    filled = perf_counter()
    for now in steps:
        while (due := wheel.next_expiration()) is not None and due <= now:
            wheel.advance(now)
    ended = perf_counter()
    assert not len(wheel)
    return len(tasks) / (filled - began), len(tasks) / (ended - filled)


def longest_step_ms(tasks: list[Task], steps: list[int]) -> float:
    """CPU time of the longest call to `advance`: a pass of its own, since the measuring costs."""
    wheel: Wheel[Task] = Wheel(T0_MS)
    for start in range(0, len(tasks), BATCH):
        wheel.insert_many(tasks[start : start + BATCH])
    longest = 0.0
    for now in steps:
        while (due := wheel.next_expiration()) is not None and due <= now:
            began = thread_time()
            wheel.advance(now)
            longest = max(longest, thread_time() - began)
    return longest * 1e3


def heap_life_us(rounds: list[list[list[Task]]]) -> float:
    """Microseconds per entry in one heap per shard."""
    heaps: list[list[Item]] = [[] for _ in range(SHARDS)]
    count = 0
    began = perf_counter()
    for turn in range(len(rounds) + SHARD_SPREAD_MS // ROUND_MS + 1):
        now = T0_MS + turn * ROUND_MS
        for heap, tasks in zip(heaps, rounds[turn] if turn < len(rounds) else [[]] * SHARDS, strict=True):
            for task in tasks:
                count += 1
                heappush(heap, (task.wake_ms, count, task))
            for visit in range(now, now + ROUND_MS, VISIT_MS):
                while heap and heap[0][0] <= visit:
                    heappop(heap)
    ended = perf_counter()
    return (ended - began) / count * 1e6


def wheel_life_us(rounds: list[list[list[Task]]]) -> float:
    """Microseconds per entry in one wheel per shard."""
    wheels: list[Timers[Task]] = [Timers(T0_MS) for _ in range(SHARDS)]
    fired = 0
    began = perf_counter()
    for turn in range(len(rounds) + SHARD_SPREAD_MS // ROUND_MS + 1):
        now = T0_MS + turn * ROUND_MS
        for wheel, tasks in zip(wheels, rounds[turn] if turn < len(rounds) else [[]] * SHARDS, strict=True):
            wheel.insert_many(tasks)
            due = wheel.next_expiration()
            for visit in range(now, now + ROUND_MS, VISIT_MS):
                if due is not None and due <= visit:
                    fired += len(wheel.advance(visit))
                    due = wheel.next_expiration()
    ended = perf_counter()
    assert fired == len(rounds) * SHARDS * SHARD_BATCH
    return (ended - began) / fired * 1e6


def run(options: Options, entries: int | None = None) -> list[Row]:
    """Measures all of it; `entries` in the wheel, 1 M by default."""
    count = entries or options.size(1_000_000, 20_000)
    thresholds = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        with options.steps("wheel", (1 + len(SPREADS)) * options.iterations) as steps:
            rows = []
            for name, spread_ms in SPREADS:
                steps.begin(name)
                rows += _spread(options, steps.done, count, name, spread_ms)
            steps.begin("shards")
            rows += _shards(options, steps.done)
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
    return rows


def _spread(options: Options, done: Callable[[], None], count: int, name: str, spread_ms: int) -> list[Row]:
    choice = random.Random(1)
    tasks = make_tasks(count, lambda: T0_MS + choice.randrange(spread_ms))
    walk = hand_steps(spread_ms)
    insert = Pairs(f"wheel insert, {count:,} over {name}", "entries/s")
    fire = Pairs(f"wheel fire, {count:,} over {name}", "entries/s")
    longest: list[float] = []

    def heap() -> None:
        pushed, popped = heap_rates(tasks, walk)
        insert.floor.append(pushed)
        fire.floor.append(popped)

    def wheel() -> None:
        inserted, fired = wheel_rates(tasks, walk)
        insert.ours.append(inserted)
        fire.ours.append(fired)

    for number in range(options.iterations):
        for side in (heap, wheel) if number % 2 == 0 else (wheel, heap):
            side()
        longest.append(longest_step_ms(tasks, walk))
        done()
    goal = f"<= {LONGEST_MS:g} ms"
    usual = Row(f"wheel longest step, {name}", median(longest), "ms", goal=goal, ok=median(longest) <= LONGEST_MS)
    worst = Row(f"wheel longest step, {name}, worst iteration", max(longest), "ms")
    return [insert.at_least(1), fire.at_least(3) if spread_ms == SPREADS[0][1] else fire.plain(), usual, worst]


def _shards(options: Options, done: Callable[[], None]) -> list[Row]:
    choice = random.Random(3)
    count = options.size(100, 3)
    pairs = Pairs(f"wheel life, {SHARDS} shards of {SHARD_BATCH} a batch", "us/entry")
    tasks = iter(make_tasks(count * SHARDS * SHARD_BATCH, lambda: choice.randrange(SHARD_SPREAD_MS)))
    rounds = [[[next(tasks) for _ in range(SHARD_BATCH)] for _ in range(SHARDS)] for _ in range(count)]
    for turn, shards in enumerate(rounds):
        for batch in shards:
            for task in batch:
                task.wake_ms += T0_MS + turn * ROUND_MS
    for number in range(options.iterations):
        sides = ((heap_life_us, pairs.floor), (wheel_life_us, pairs.ours))
        for measure, figures in sides if number % 2 == 0 else sides[::-1]:
            figures.append(measure(rounds))
        done()
    return [pairs.plain()]


def main(args: Sequence[str] | None = None) -> None:
    """Prints the table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.wheel", description=run.__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args(args)
    console = Console()
    bar: AbstractContextManager[object] = (bars := progress(Console(stderr=True)))
    with bar:
        rows = run(Options(wanted.iterations, progress=bars), wanted.entries)
    if wanted.json:
        console.print(as_json(rows), soft_wrap=True, highlight=False)
    else:
        show(rows, console)


if __name__ == "__main__":
    main()
