"""Load batches ahead of their use, in threads.

Threads do: decoding, resampling, Fourier transforms and random numbers release Python's lock, nearly all that a batch
costs. They share what was read, end with the process, and have no start of seconds.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Generic, TypeVar

from clepdg.training import distributed

Item = TypeVar("Item")
Batch = TypeVar("Batch")
AHEAD: Final = 4  # batches, at least
MOST_THREADS: Final = 16


def loader_threads() -> int:
    """Return this rank's number of loading threads: its share of the cores."""
    return max(1, min(MOST_THREADS, (os.cpu_count() or 1) // distributed.world_size()))


class Prefetch(Generic[Batch]):
    """Loads the batches of the next steps while a step computes.

    A batch may depend on its step alone: then it is the same for any number of threads, and after a resumption.

    Args:
        load: loads the batch of a step, in any thread.
        steps: number of steps.
        threads: None: this rank's share of the cores.
    """

    def __init__(self, load: Callable[[int], Batch], steps: int, threads: int | None = None) -> None:
        self.load, self.steps = load, steps
        self.threads = threads or loader_threads()
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="clep-dg-loader")
        self._waiting: dict[int, Future[Batch]] = {}

    def __call__(self, step: int) -> Batch:
        """Return a step's batch, and start to load those that follow."""
        for next_step in range(step, min(step + 1 + max(AHEAD, self.threads), self.steps)):
            if next_step not in self._waiting:
                self._waiting[next_step] = self._pool.submit(self.load, next_step)
        return self._waiting.pop(step).result()

    def __enter__(self) -> "Prefetch[Batch]":
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Load no further batch, and wait for those in work."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def map_ahead(function: Callable[[Item], Batch], items: Iterable[Item], threads: int | None = None) -> Iterator[Batch]:
    """Yield function(item) in order, computed ahead in threads.

    At most four results a thread wait, whatever the number of items.

    Args:
        threads: None: this rank's share of the cores.
    """
    threads = threads or loader_threads()
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="clep-dg-loader") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
