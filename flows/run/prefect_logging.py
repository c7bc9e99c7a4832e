"""Logging under Prefect: log a user's error once, no secret ever, and survive a closed output."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Final

from rich.console import Console

from clepdg.errors import ClepError
from clepdg.redaction import clean_error, scrub_logs

RUNS: Final = ("prefect.flow_runs", "prefect.task_runs")
AGAIN: Final = "Engine execution exited"  # Prefect logs the error that ended a flow a second time
ENDED: Final = "Finished in state Failed"  # Prefect repeats the error as the state's message, which the page shows


def once(record: logging.LogRecord) -> bool:
    """Keep a log record, with a ClepError as its message alone and once."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, ClepError):
        if record.getMessage().startswith(AGAIN):
            return False
        record.msg, record.args, record.exc_info, record.exc_text = str(error), (), None, None
    elif record.getMessage().startswith(ENDED):
        record.msg, record.args = ENDED, ()
    return True


def log_errors_once() -> None:
    """Have Prefect log a ClepError once, and all loggers no secret."""
    scrub_logs()
    for name in RUNS:
        logging.getLogger(name).addFilter(once)  # adding it again has no effect


@contextlib.contextmanager
def without_secrets() -> Iterator[None]:
    """Raise an error that holds a secret as its text without it.

    Prefect stores the message of what a flow or a task raises. A ClepError holds none.
    """
    try:
        yield
    except ClepError:
        raise
    except Exception as error:
        clean = clean_error(error)
        if clean is error:
            raise
        raise clean from None


def survive_broken_pipe() -> None:
    """Continue a run when its output is closed; rich would end the process."""
    Console.on_broken_pipe = _fall_silent  # type: ignore[assignment]


def _fall_silent(console: Console) -> None:
    console.quiet = True
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), console.file.fileno())  # buffered output needs a valid file
