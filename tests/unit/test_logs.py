"""Protects what a person reads in a run's log: a fault that a user can mend once, a bug with its traceback."""

import logging
import os
import sys

import pytest
from rich.console import Console

from clepdg.errors import ClepError, ConfigError
from clepdg.redaction import scrub_logs
from clepdg_flows.run.prefect_logging import log_outcomes, once, survive_broken_pipe


@pytest.fixture
def logger(monkeypatch):
    monkeypatch.setattr(logging, "_logRecordFactory", logging.LogRecord)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    scrub_logs()
    made = logging.getLogger("tests.of.flows.logs")
    made.addFilter(once)
    yield made
    made.removeFilter(once)


def ended(logger, error: Exception) -> None:
    """Log an error in a flow as Prefect does."""
    try:
        raise error
    except Exception as caught:
        logger.exception("Encountered exception during execution: %r", caught)
        logger.error(f"Finished in state Failed('Flow run encountered an exception: {caught}')")
        logger.error("Engine execution exited with unexpected exception", exc_info=True)


def test_a_fault_is_logged_once_and_plain(logger, caplog):
    ended(logger, ConfigError("There is no such stage.", got="train"))
    assert [record.getMessage() for record in caplog.records] == [
        "There is no such stage.\n  got: train",
        "Finished in state Failed",
    ]
    assert "Traceback" not in caplog.text


def test_a_bug_keeps_its_traceback(logger, caplog):
    ended(logger, ValueError("100% wrong"))
    assert len(caplog.records) == 3
    assert "Traceback" in caplog.text and "100% wrong" in caplog.text


def test_other_messages_pass_as_they_are(logger, caplog):
    caplog.set_level(logging.INFO)
    logger.info("clep/supervised.c0: %s", "new")
    logger.warning("%s", ClepError("a warning"))
    assert [record.getMessage() for record in caplog.records] == ["clep/supervised.c0: new", "a warning"]


def test_a_run_goes_on_when_nobody_reads_its_log(monkeypatch):
    monkeypatch.setattr(Console, "on_broken_pipe", Console.on_broken_pipe)  # put back afterwards
    survive_broken_pipe()
    reader, writer = os.pipe()
    with open(writer, "w", buffering=1) as file:
        console = Console(file=file)
        os.close(reader)
        console.print("clep/supervised.c0: new")
        console.print("acpt/supervised.c0: new")
        assert console.quiet


def test_stages_that_ended_well_have_no_line_of_prefects_each():
    def kept(name, message):
        return once(logging.LogRecord(name, logging.INFO, "", 0, message, (), None))

    assert not kept("prefect.task_runs", "Finished in state Reused('same settings and inputs', type=COMPLETED)")
    assert not kept("prefect.task_runs", "Finished in state Completed('new', type=COMPLETED)")
    assert kept("prefect.task_runs", "Finished in state Failed('no')")
    assert kept("prefect.flow_runs", "Finished in state Completed()")


def test_what_is_reused_is_counted_in_one_line(caplog):
    stages = {f"clep/{n}": {"outcome": "Reused"} for n in range(200)} | {"report/report": {"outcome": "Completed"}}
    with caplog.at_level(logging.INFO, "clepdg.run"):
        log_outcomes(stages)
    assert [record.getMessage() for record in caplog.records] == ["1 stages computed, 200 reused (clep 200)"]
