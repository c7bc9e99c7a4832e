"""Processes that end with the one that started them."""

import ctypes
import signal
import sys


def die_with_parent(by: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel to end this process when its parent dies, kill -9 included (Linux alone knows how)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, by)  # 1 = PR_SET_PDEATHSIG
