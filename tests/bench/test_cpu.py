import os
import subprocess
import sys
from time import process_time

from bench.cpu import TICKS_HZ, Cores, family_s, machine_s, process_s, thread_s

WORK = "sum(range(5_000_000))"
TICK_S = 1 / TICKS_HZ


def test_a_family_includes_those_that_have_ended() -> None:
    before_s, machine_before_s = family_s(os.getpid()), machine_s()
    own_before_s = process_s(os.getpid())
    subprocess.run([sys.executable, "-c", WORK], check=True)
    used_s, own_s = family_s(os.getpid()) - before_s, process_s(os.getpid()) - own_before_s
    assert used_s >= own_s + 3 * TICK_S
    assert machine_s() - machine_before_s >= 3 * TICK_S


def test_a_family_includes_those_that_live() -> None:
    before_s = family_s(os.getpid())
    child = subprocess.Popen(
        [sys.executable, "-c", f"{WORK}; print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        child.stdout.readline()
        child_s = process_s(child.pid)
        assert child_s >= 3 * TICK_S
        # Whole ticks, but as floats: a difference of two may fall short by a rounding.
        assert family_s(os.getpid()) - before_s > child_s - TICK_S / 2
    finally:
        child.communicate(b"\n")


def test_a_thread_is_measured_finely() -> None:
    before_s, begin_s = thread_s(os.getpid()), process_time()
    while process_time() < begin_s + 0.002:
        pass
    assert thread_s(os.getpid()) > before_s


def test_cores_are_seconds_by_seconds() -> None:
    ticking = iter((1.0, 5.0))
    cores = Cores({"busy": process_time, "odd": lambda: next(ticking, 9.0)})
    cores.begin()
    begin_s = process_time()
    while process_time() < begin_s + 0.05:
        pass
    cores.end()
    assert 0 < cores.used["busy"] <= 1.05
    assert 0 < cores.used["odd"] <= 4 / 0.05
