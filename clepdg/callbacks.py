"""Callbacks of long computations: metrics, progress, checkpoint times."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

Progress = Callable[[int, int], None]  # (done, total; 0 where unknown) of the current step


@dataclass(frozen=True, kw_only=True)
class Checkpointing:
    """Checkpoint interval and time limit of a training.

    Attributes:
        checkpoint_seconds: time between two checkpoints; 0: after every step.
        limit_seconds: after this time, training saves a checkpoint and raises; None: no limit.
        clock: a monotonic clock in seconds.
    """

    checkpoint_seconds: float = 60.0
    limit_seconds: float | None = None
    clock: Callable[[], float] = time.monotonic


DEFAULT_CHECKPOINTING: Final = Checkpointing()


class LogMetrics(Protocol):
    """A function that records metrics."""

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics at a step."""


def no_metrics(metrics: Mapping[str, float], step: int) -> None:
    """Discard metrics."""


def no_progress(done: int, total: int) -> None:
    """Discard progress."""


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """The functions that receive a stage's metrics and progress."""

    log_metrics: LogMetrics = no_metrics
    progress: Progress = no_progress
