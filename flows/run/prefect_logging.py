"""What Prefect logs of an error that a user can mend: its message, once; its traceback would only hide it.

And a run goes on where nobody reads its log any more.
"""

import logging
import os
from typing import Final

from rich.console import Console

from clepdg.errors import ClepError

RUNS: Final = ("prefect.flow_runs", "prefect.task_runs")
AGAIN: Final = "Engine execution exited"  # how Prefect begins to log for a second time what ended a flow
ENDED: Final = "Finished in state Failed"  # and it says the error again as the state's message, which the page shows


def once(record: logging.LogRecord) -> bool:
    """Log a ClepError as its message alone, and once; other errors are logged as they are."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, ClepError):
        if record.getMessage().startswith(AGAIN):
            return False
        record.msg, record.args, record.exc_info = str(error), (), None
    elif record.getMessage().startswith(ENDED):
        record.msg, record.args = ENDED, ()
    return True


def log_errors_once() -> None:
    """Have Prefect's loggers of flow and task runs log a ClepError once."""
    for name in RUNS:
        logging.getLogger(name).addFilter(once)  # the same filter is added but once


def outlive_reader() -> None:
    """Let a run go on without its worker, which reads what it prints: rich would end the process at a broken pipe."""
    Console.on_broken_pipe = _fall_silent  # type: ignore[assignment]


def _fall_silent(console: Console) -> None:
    console.quiet = True
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), console.file.fileno())  # what is buffered is to go somewhere
