"""Receive and compute stages in a worker process."""

import contextlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import replace
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from clepdg.callbacks import Reporting
from clepdg.errors import ClepError
from clepdg.processes import exit_with_parent
from clepdg.redaction import clean_error, scrub, scrub_logs
from clepdg_tasks.engine.usage import compute_measured

if TYPE_CHECKING:
    from clepdg_tasks.engine.node import Computed


def serve(jobs: Connection, messages: Connection, output: Connection) -> None:
    """Compute one stage after another until the parent closes `jobs`.

    Args:
        jobs: receives pairs of a stage's function and its Work.
        messages: sends "started", metrics, progress and log records, and last the outcome of each stage.
        output: takes the place of stdout and stderr.
    """
    exit_with_parent()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # several workers on one CPU: spinning threads take it away
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    sender = MessageSender(messages)
    logging.getLogger().handlers = [QueueHandler(sender)]  # type: ignore[arg-type]
    logging.getLogger("clepdg").setLevel(logging.INFO)
    scrub_logs()
    while True:
        try:
            function, work = jobs.recv()
        except (EOFError, OSError):
            return
        reporting = Reporting(log_metrics=sender.log_metrics, progress=sender.progress)
        outcome: Computed | BaseException
        try:
            sender.send("started")
            outcome = compute_measured(function, replace(work, reporting=reporting))
        except Exception as error:
            outcome = picklable(error)
        sys.stdout.flush()
        sys.stderr.flush()
        with contextlib.suppress(BrokenPipeError):
            sender.send("outcome", outcome)


class MessageSender:
    """Sends messages to the parent from any thread.

    It can be pickled for a child process, which then sends to the same parent.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[type["MessageSender"], tuple[Connection]]:
        return MessageSender, (self.connection,)

    def send(self, *message: Any) -> None:
        """Send one message."""
        with self.lock:
            self.connection.send(message)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Send the metrics of a step."""
        self.send("log_metrics", dict(metrics), step)

    def progress(self, done: int, total: int) -> None:
        """Send a stage's progress."""
        self.send("progress", done, total)

    def put_nowait(self, record: logging.LogRecord) -> None:
        """Send a log record; QueueHandler calls this as the method of a queue."""
        self.send("log", record)


def picklable(error: BaseException) -> BaseException:
    """Return the error, or a copy of its text where it can't be pickled.

    Pickle drops the traceback, so an error of the program carries it as a note.
    """
    if isinstance(error, Exception) and not isinstance(error, ClepError):
        error = clean_error(error)  # the parent does not know which values this process filled in
    text = scrub("".join(traceback.format_exception(error)))
    if not isinstance(error, ClepError):
        error.add_note(text)
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        return RuntimeError(text)
    return error
