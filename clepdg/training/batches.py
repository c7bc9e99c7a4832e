"""Load batches ahead of their use."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TypeVar

Batch = TypeVar("Batch")


def prefetch(pool: Executor, load: Callable[[int], Batch], steps: int) -> Callable[[int], Batch]:
    """Return a loader that loads the next step's batch in the pool."""
    waiting: dict[int, Future[Batch]] = {}

    def ready(step: int) -> Batch:
        batch = waiting.pop(step, None) or pool.submit(load, step)
        if step + 1 < steps:
            waiting[step + 1] = pool.submit(load, step + 1)
        return batch.result()

    return ready
