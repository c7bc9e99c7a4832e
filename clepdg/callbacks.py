"""How metrics and progress leave the library: as calls, so that it knows no tracker and no screen."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

Progress = Callable[[int, int], None]  # (bytes done, bytes in all or 0 where unknown) of the step under way


@dataclass(frozen=True, kw_only=True)
class Checkpointing:
    """How often a training is saved, and how long it may run.

    Attributes:
        checkpoint_seconds: between two checkpoints; 0: one after every step.
        limit_seconds: after so long a training is saved and fails, to be gone on with later; None: no limit.
        clock: seconds that never jump.
    """

    checkpoint_seconds: float = 60.0
    limit_seconds: float | None = None
    clock: Callable[[], float] = time.monotonic


DEFAULT_CHECKPOINTING: Final = Checkpointing()


class LogMetrics(Protocol):
    """How metrics leave the library."""

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics at a step."""


def no_metrics(metrics: Mapping[str, float], step: int) -> None:
    """Drop metrics."""


def no_progress(done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """Where metrics and progress of a stage go."""

    log_metrics: LogMetrics = no_metrics
    progress: Callable[[int, int], None] = no_progress
