"""Compute stages in worker processes.

One worker serves each device where there are several; another starts the ranks of a training. The thread that waits for
a worker passes its metrics, progress and log records to the functions that a stage in this process would call; printed
lines go to the log. A worker dies with its parent, kill -9 included.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Final

from clepdg.callbacks import Reporting
from clepdg.errors import ClepError
from clepdg.store.documents import Documents
from clepdg_tasks.engine.worker_main import serve

if TYPE_CHECKING:
    from clepdg_tasks.engine.node import Computed, Work

SPAWN: Final = multiprocessing.get_context("spawn")  # a forked child would inherit threads' locks and a GPU's state
START_SECONDS: Final = 600.0  # limit for starting Python and importing the stage, which are slow on a busy machine
GRACE_SECONDS: Final = 5.0  # between SIGTERM and SIGKILL
POLL_SECONDS: Final = 0.2
STOPPED: Final = "The run was stopped."
RESUME: Final = "run the same command again: it continues from the last checkpoint"

log = logging.getLogger("clepdg.worker")
log.setLevel(logging.INFO)


class WorkerProcess:
    """Worker process, started with its first stage, again after a crash."""

    def __init__(self) -> None:
        self._closed = threading.Event()
        self._process: SpawnProcess | None = None

    @property
    def closed(self) -> bool:
        """Return whether this worker was stopped for good."""
        return self._closed.is_set()

    def close(self) -> None:
        """Stop for good, from any thread.

        A running stage fails within seconds, and later ones are refused.
        """
        self._closed.set()

    def compute(
        self, function: "Callable[[Work], Computed]", work: "Work", *, patience: float | None = None
    ) -> "Computed":
        """Compute a stage in the worker and return what its function returns.

        Args:
            function: a module's function, since it is pickled by name.
            patience: seconds without a message, counted from the worker's first one, after which it is ended as
                hanging; None: no limit.

        Raises:
            ClepError: the worker was killed, hangs, or was stopped.
            Exception: the error that the function raised.
        """
        try:
            if self.closed:
                raise stopped_error()
            self._start()
            self._tail.clear()
            # a bucket's documents hold its client, which can't be sent; a folder's can
            pins = work.pins if type(work.pins) is Documents else None
            self._jobs.send((function, replace(work, reporting=Reporting(), pins=pins)))
            outcome = self._wait_for_outcome(work.reporting, patience)
        except BaseException:
            self.end()
            raise
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def end(self) -> None:
        """End the process: SIGTERM, wait, then SIGKILL."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        process.join(GRACE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        for connection in (self._jobs, self._messages, self._output):
            connection.close()

    def _start(self) -> None:
        if self._process is not None:
            if self._process.is_alive():
                return
            self.end()
        jobs, self._jobs = SPAWN.Pipe(duplex=False)
        self._messages, messages = SPAWN.Pipe(duplex=False)
        self._output, output = SPAWN.Pipe(duplex=False)
        self._tail, self._unfinished = deque[str](maxlen=8), b""
        process = SPAWN.Process(target=serve, args=(jobs, messages, output), name="clep-dg-worker")
        process.start()
        self._process = process
        for theirs in (jobs, messages, output):
            theirs.close()

    def _wait_for_outcome(self, reporting: Reporting, patience: float | None) -> "Computed | BaseException":
        """Pass on the worker's messages until it sends its outcome."""
        assert self._process is not None
        last, silence = time.monotonic(), None if patience is None else max(patience, START_SECONDS)
        while True:
            ready = wait([self._messages, self._output, self._process.sentinel], POLL_SECONDS)
            if self.closed:
                raise stopped_error()
            if self._output in ready:
                self._log_output()
            if self._messages in ready:
                last, silence = time.monotonic(), patience
                try:
                    kind, *content = self._messages.recv()
                except (EOFError, OSError):
                    raise self._exit_error() from None
                if kind == "outcome":
                    while self._output.poll() and self._log_output():
                        pass
                    outcome: Computed | BaseException = content[0]
                    return outcome
                if kind == "log":
                    log.handle(content[0])
                elif kind != "started":
                    getattr(reporting, kind)(*content)
            elif self._process.sentinel in ready:
                raise self._exit_error()
            elif silence is not None and time.monotonic() - last > silence:
                raise ClepError(
                    "The training process hangs and was ended.",
                    got=f"no message for {silence:.0f} s",
                    expected="a message within training_seconds",
                    do=f"{RESUME}; or raise training_seconds",
                )

    def _log_output(self) -> bool:
        """Log new lines of the worker's output; return whether there were bytes."""
        data = os.read(self._output.fileno(), 1 << 16)
        *lines, self._unfinished = (self._unfinished + data).replace(b"\r", b"\n").split(b"\n")
        for line in (raw.decode(errors="replace").rstrip() for raw in lines):
            if line:
                self._tail.append(line)
                log.info("%s", line)
        return bool(data)

    def _exit_error(self) -> ClepError:
        """Return the error for a worker that ended without an outcome."""
        assert self._process is not None
        self._process.join(GRACE_SECONDS)
        while self._output.poll() and self._log_output():
            pass
        code = self._process.exitcode or 0
        printed = "\n".join(self._tail) or None
        if code < 0:
            return killed_error(-code, printed)
        return ClepError(f"The training process ended without a result (exit code {code}).", got=printed)


def stopped_error() -> ClepError:
    """Return the error of a stage whose run was stopped."""
    return ClepError(STOPPED, do="run the same command again: it continues from here")


def killed_error(signal_number: int, printed: str | None = None) -> ClepError:
    """Return the error of a training that a signal killed.

    Args:
        printed: the last lines of its output.
    """
    return ClepError(
        f"The training process was killed (signal {signal_number}).",
        got=printed,
        do=RESUME + (" (was memory short?)" if signal_number == signal.SIGKILL else ""),
    )
