"""When a training is saved and when it stops: by a clock, and in no key, since resuming changes no byte."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often a training is saved, and how long it may run.

    Attributes:
        checkpoint_seconds: between two checkpoints; 0: one after every step.
        limit_seconds: after so long a training is saved and fails, to be gone on with later; None: no limit.
        clock: seconds that never jump.
    """

    checkpoint_seconds: float = 60.0
    limit_seconds: float | None = None
    clock: Callable[[], float] = time.monotonic


USUAL: Final = Pace()
