"""Which KeyboardInterrupt is somebody's Ctrl-C, and which one a handler raised by itself.

A worker that deals with SIGINT itself never sees the former. Where it does not (`run(signals=False)`, Windows), Ctrl-C
may be raised in whatever runs just then, a handler for example, and has to end the program all the same.
"""

import asyncio
import signal
import threading
from traceback import walk_tb


def is_ctrl_c(error: BaseException) -> bool:
    """Whether a signal raised it, in this thread; where nothing tells the two apart, it did."""
    if not isinstance(error, KeyboardInterrupt) or threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        return True  # it is written in C, and leaves no trace
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_code.co_filename == asyncio.runners.__file__
