"""Logging under Prefect: log a user's error once, no secret ever, and survive a closed output."""

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.console import Console

from clepdg.errors import ClepError
from clepdg.redaction import clean_error, scrub_logs
from clepdg_tasks.engine.node import Node, Outcome
from clepdg_tasks.engine.run_history import split_id

log = logging.getLogger("clepdg.run")
log.setLevel(logging.INFO)  # as Prefect's own lines on stages; the other loggers begin with warnings

TASKS: Final = "prefect.task_runs"
RUNS: Final = ("prefect.flow_runs", TASKS)
AGAIN: Final = "Engine execution exited"  # Prefect logs the error that ended a flow a second time
ENDED_WELL: Final = ("Finished in state Reused(", "Finished in state Completed(")  # of 200 stages: a run says it in few
ENDED: Final = "Finished in state Failed"  # Prefect repeats the error as the state's message, which the page shows


def once(record: logging.LogRecord) -> bool:
    """Keep a log record, with a ClepError as its message alone and once.

    Prefect's line on each task that ended well is dropped: `log_outcomes` says it of all reused stages at once.
    """
    if record.name == TASKS and record.getMessage().startswith(ENDED_WELL):
        return False
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


def log_computed(node: Node, outcome: Outcome) -> None:
    """Log that a stage was computed, why, and its wall seconds."""
    log.info("%s %s: %.1f s; %s", node.stage, node.name, outcome.seconds, outcome.reason)


def log_outcomes(stages: Mapping[str, Mapping[str, Any]]) -> None:
    """Log how many stages were reused, by kind, and how many computed.

    Args:
        stages: node id -> facts, as in a run's file.
    """
    reused = Counter(split_id(node_id)[0] for node_id, facts in stages.items() if facts["outcome"] == "Reused")
    computed = sum(facts["outcome"] == "Completed" for facts in stages.values())
    kinds = f" ({', '.join(f'{stage} {count}' for stage, count in reused.items())})" if reused else ""
    log.info("%d stages computed, %d reused%s", computed, reused.total(), kinds)


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
