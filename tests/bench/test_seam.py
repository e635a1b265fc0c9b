import subprocess
import sys
from pathlib import Path
from time import time

from bench.seam import set_offset

ASK = """
import sys, time
from pathlib import Path
from bench.seam import shift
shift(Path(sys.argv[1]))
for _ in sys.stdin:
    print(time.time(), time.time_ns() / 1e9, flush=True)
"""


def test_a_clock_is_as_wrong_as_the_file_says_at_any_time(tmp_path: Path) -> None:
    path = tmp_path / "clock"
    set_offset(path, 0.0)
    with subprocess.Popen(
        [sys.executable, "-c", ASK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for offset_s in (0.0, 3_600.0, -3_600.0):
            set_offset(path, offset_s)
            child.stdin.write("\n")
            shown = [float(word) for word in child.stdout.readline().split()]
            assert all(abs(each - time() - offset_s) < 5 for each in shown), offset_s
        child.stdin.close()
