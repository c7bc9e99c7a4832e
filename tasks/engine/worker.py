"""Stages in a child process: one for each device where there are several, and where a training starts ranks of its own.

What a child reports - metrics, progress, log records - reaches the very functions that a stage in this process would
call, in the thread that waits for it; what it prints goes to the log. It dies with its parent, kill -9 included.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any, Final

from clepdg.callbacks import Reporting
from clepdg.errors import ClepError
from clepdg.store.documents import Documents
from tasks.host.liveness import die_with_parent

if TYPE_CHECKING:
    from tasks.engine.node import Computed, Work

SPAWN: Final = multiprocessing.get_context("spawn")  # a forked child would inherit threads' locks and a GPU's state
GRACE_SECONDS: Final = 5.0  # between asking a child to end and killing it
POLL_SECONDS: Final = 0.2

log = logging.getLogger("clepdg.child")
log.setLevel(logging.INFO)


class Child:
    """A process that computes stages for this one; started when it is first needed, and again after it died."""

    def __init__(self) -> None:
        self._closed = threading.Event()
        self._process: SpawnProcess | None = None

    @property
    def closed(self) -> bool:
        """Whether this child was stopped for good."""
        return self._closed.is_set()

    def close(self) -> None:
        """Stop for good, from any thread: what is being computed fails within seconds, and nothing more is."""
        self._closed.set()

    def compute(
        self, function: "Callable[[Work], Computed]", work: "Work", *, patience: float | None = None
    ) -> "Computed":
        """Compute a stage in the child and return what its function returns.

        Args:
            function: of a module, since it goes to the child by its name.
            patience: seconds of silence after which the child hangs; None: it may be silent for ever.

        Raises:
            ClepError: the child was killed, hangs, or was stopped; or what the function raised, as any of its errors.
        """
        try:
            if self.closed:
                raise stopped()
            self._start()
            self._tail.clear()
            # a bucket's documents hold its client, which can't be sent; a folder's can
            pins = work.pins if type(work.pins) is Documents else None
            self._jobs.send((function, replace(work, reporting=Reporting(), pins=pins)))
            outcome = self._listen(work.reporting, patience)
        except BaseException:
            self.end()
            raise
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def end(self) -> None:
        """End the process: ask, wait, then kill."""
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
        process = SPAWN.Process(target=_serve, args=(jobs, messages, output, os.getpid()), name="clep-dg-child")
        process.start()
        self._process = process
        for ours in (jobs, messages, output):
            ours.close()

    def _listen(self, reporting: Reporting, patience: float | None) -> "Computed | BaseException":
        assert self._process is not None
        heard = time.monotonic()
        while True:
            ready = wait([self._messages, self._output, self._process.sentinel], POLL_SECONDS)
            if self.closed:
                raise stopped()
            if self._output in ready:
                self._relay()
            if self._messages in ready:
                heard = time.monotonic()
                try:
                    kind, *content = self._messages.recv()
                except (EOFError, OSError):
                    raise self._died() from None
                if kind == "outcome":
                    while self._output.poll() and self._relay():
                        pass
                    outcome: Computed | BaseException = content[0]
                    return outcome
                if kind == "log":
                    log.handle(content[0])
                else:
                    getattr(reporting, kind)(*content)
            elif self._process.sentinel in ready:
                raise self._died()
            elif patience is not None and time.monotonic() - heard > patience:
                raise ClepError(
                    "The training process hangs and was ended.",
                    got=f"nothing heard for {patience:.0f} s",
                    expected="a sign of life within training_seconds",
                    do="run the same command again: it goes on from its last checkpoint; or raise training_seconds",
                )

    def _relay(self) -> bool:
        """Give what the child printed to the log, line by line; return whether there was anything."""
        data = os.read(self._output.fileno(), 1 << 16)
        *lines, self._unfinished = (self._unfinished + data).replace(b"\r", b"\n").split(b"\n")
        for line in (raw.decode(errors="replace").rstrip() for raw in lines):
            if line:
                self._tail.append(line)
                log.info("%s", line)
        return bool(data)

    def _died(self) -> ClepError:
        """Return the error that says how the child ended."""
        assert self._process is not None
        self._process.join(GRACE_SECONDS)
        while self._output.poll() and self._relay():
            pass
        code = self._process.exitcode or 0
        said = "\n".join(self._tail) or None
        if code < 0:
            return killed(-code, said)
        return ClepError(f"The training process ended without a result (exit code {code}).", got=said)


def stopped() -> ClepError:
    """Return the error of a stage whose run was stopped."""
    return ClepError("The run was stopped.", do="run the same command again: it goes on from here")


def killed(signal_number: int, said: str | None = None) -> ClepError:
    """Return the error that says that a training was killed."""
    return ClepError(
        f"The training process was killed (signal {signal_number}).",
        got=said,
        do="run the same command again: it goes on from its last checkpoint"
        + (" (was memory short?)" if signal_number == signal.SIGKILL else ""),
    )


def portable(error: BaseException) -> BaseException:
    """Return an error as another process can read it: with its traceback as a note, since that stays behind."""
    text = "".join(traceback.format_exception(error))
    if not isinstance(error, ClepError):
        error.add_note(text)
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        return RuntimeError(text)
    return error


class Speaker:
    """A child's way to its parent: whole messages, from any of its threads; it can be handed to a child of its own."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[type["Speaker"], tuple[Connection]]:
        return Speaker, (self.connection,)

    def say(self, *message: Any) -> None:
        """Send one message."""
        with self.lock:
            self.connection.send(message)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Send metrics."""
        self.say("log_metrics", dict(metrics), step)

    def progress(self, done: int, total: int) -> None:
        """Send how far it is."""
        self.say("progress", done, total)

    def put_nowait(self, record: logging.LogRecord) -> None:
        """Send a log record: to QueueHandler this is a queue."""
        self.say("log", record)


def leave_with(parent: int) -> None:
    """Let this process die with its parent, at once: whatever it writes is whole or not there."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # it died before it could be asked for
        os.kill(os.getpid(), signal.SIGKILL)


def _serve(jobs: Connection, messages: Connection, output: Connection, parent: int) -> None:
    """Compute one stage after another until the parent wants no more."""
    leave_with(parent)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # several children on one CPU: threads that spin take it away
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its children
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    speaker = Speaker(messages)
    logging.getLogger().handlers = [QueueHandler(speaker)]  # type: ignore[arg-type]
    logging.getLogger("clepdg").setLevel(logging.INFO)
    while True:
        try:
            function, work = jobs.recv()
        except (EOFError, OSError):
            return
        reporting = Reporting(log_metrics=speaker.log_metrics, progress=speaker.progress)
        outcome: Computed | BaseException
        try:
            outcome = function(replace(work, reporting=reporting))
        except Exception as error:
            outcome = portable(error)
        sys.stdout.flush()
        sys.stderr.flush()
        with contextlib.suppress(BrokenPipeError):
            speaker.say("outcome", outcome)
