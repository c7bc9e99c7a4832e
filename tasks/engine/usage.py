"""Measure what computing a stage takes: seconds of CPU, memory of a GPU."""

import resource
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clepdg_tasks.engine.node import Computed, Work

_lock = threading.Lock()
_alone: dict[int, bool] = {}  # stages that this process computes now -> whether none was computed beside it


def compute_measured(function: "Callable[[Work], Computed]", work: "Work") -> "Computed":
    """Compute a stage here; return its result with what it took.

    Seconds of CPU are those of this process and of its children that ended. They are unknown where the process computed
    another stage at the same time.
    """
    key = id(work)
    with _lock:
        _alone.update(dict.fromkeys(_alone, False))
        _alone[key] = not _alone
    try:
        before = _cpu_seconds()
        _reset_peak(work.device)
        computed = function(work)
        seconds, peak = _cpu_seconds() - before, _peak_bytes(work.device)
    finally:
        with _lock:
            alone = _alone.pop(key)
    return replace(computed, cpu_seconds=round(seconds, 3) if alone else None, peak_bytes=peak)


def _cpu_seconds() -> float:
    """Return seconds in user and system mode, of ended children too."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _reset_peak(device: str) -> None:
    if device.startswith("cuda") and "torch" in sys.modules:
        import torch

        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.reset_peak_memory_stats(device)


def _peak_bytes(device: str) -> int | None:
    """Return the most memory that tensors took on a GPU; None: no GPU."""
    if device.startswith("cuda") and "torch" in sys.modules:
        import torch

        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            return int(torch.cuda.max_memory_allocated(device))
    return None
