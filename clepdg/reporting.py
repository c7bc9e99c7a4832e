"""How metrics and progress leave the library: as calls, so that it knows no tracker and no screen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


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
