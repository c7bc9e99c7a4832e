"""The command clep-dg run."""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clepdg.errors import ClepError, ConfigError
from clepdg_flows.cli.options import add_run_options, read_arguments
from clepdg_flows.cli.parser import Commands, Terminated, add_command, add_json_option, complain, print_json
from clepdg_flows.cli.terminal import Ended, print_result, show
from clepdg_tasks.engine import run_history
from clepdg_tasks.engine.pinned import PIN_ONE
from clepdg_tasks.host.processes import set_environment
from clepdg_tasks.host.settings import load_settings

if TYPE_CHECKING:
    from clepdg_flows.run.display import Display
    from clepdg_flows.run.plan import Plan

DRAIN_SECONDS = 10.0  # longest wait for a server to accept the last events


def add_run_command(commands: Commands) -> None:
    """Add the command."""
    run = add_command(
        commands,
        "run",
        run_command,
        "compute a configuration's stages, from the sources to the report",
        "clep-dg run --preset demo",
    )
    add_run_options(run)
    run.add_argument(
        "--refresh", action="store_true", help="repeat the pinned run (clep-dg pin); asks its sources for changes first"
    )
    run.add_argument(
        "--fan-out", action="store_true", help="send corpora and folds to the workers of pool clep-dg-folds"
    )
    run.add_argument(
        "--table",
        choices=("short", "full"),
        default="short",
        help="short: the verdict and main methods (default); full: all tables",
    )
    add_json_option(run)


@contextmanager
def _sigterm_like_ctrl_c() -> Iterator[None]:
    def terminated(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_command(options: argparse.Namespace) -> None:
    """Run the flow and print its table, or its result in JSON."""
    if not options.json:
        _run(options)
        return
    with redirect_stdout(sys.stderr):
        result = _run(options)
    print_json(result)


def _run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the flow, print its table and return its result."""
    started = time.monotonic()
    settings = load_settings()
    set_environment(settings)
    arguments = read_arguments(options)
    from clepdg_flows.run.plan import check, make_plan

    if options.refresh:  # the flow asks the sources before it checks them
        from clepdg_flows.run import refresh

        pinned = refresh.pinned_run(arguments, settings)
        if pinned is None:
            raise ConfigError(
                "Nothing is pinned on this machine: a refresh has nothing to run.", do=f"pin it: {PIN_ONE}"
            )
        plan = make_plan(pinned)
    else:
        plan = make_plan(arguments)
        check(plan, settings)
    print("Starting Prefect and the first stages.", flush=True)
    from clepdg_flows.run.display import Display
    from clepdg_tasks.admin.prefect_server import prefect_for_one_run

    ended: Ended = []
    with _sigterm_like_ctrl_c(), Display() as display, prefect_for_one_run(settings, display.say) as address:
        os.environ["PREFECT_API_URL"] = address  # Prefect reads its settings once, when it is imported
        parameters = run_history.parameters(arguments) | {"refresh": options.refresh, "fan_out": options.fan_out}
        result = run_flow(address, parameters, plan, ended, display)
    seconds = time.monotonic() - started
    report = print_result(result, ended, arguments, settings, seconds, full=options.table == "full")
    return {**result, "seconds": round(seconds, 3), "report": report}


def run_flow(
    address: str, parameters: dict[str, Any], plan: "Plan", ended: Ended, display: "Display"
) -> dict[str, Any]:
    """Run the flow in this process, and flush its logs and events.

    Without its server a run continues, since its outputs are in the store, but Prefect can't record its end. The
    process then exits at once: Prefect would retry for minutes.

    Args:
        ended: receives the nodes that ended, with their outcomes.
        display: that is open.
    """
    from prefect.events.worker import EventsWorker
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.logging.handlers import APILogHandler

    from clepdg_flows.clep_dg import clep_dg
    from clepdg_flows.run.display import SHOW
    from clepdg_flows.run.plan import CHECKED
    from clepdg_tasks.admin.prefect_access import check_admitted
    from clepdg_tasks.host.preflight import unreachable

    SHOW.set(show(ended, display, len(plan.nodes)))
    handed_on = CHECKED.set(plan)
    logging.raiseExceptions = False  # a log that fails prints no traceback
    try:
        result: dict[str, Any] = clep_dg(**parameters)
        return result
    except Exception as error:
        parts = urlsplit(address)
        refused = isinstance(error, PrefectHTTPStatusError)  # for example, its disk is full
        if isinstance(error, PrefectHTTPStatusError):
            check_admitted(error.response)
        if refused or unreachable(parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)):
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, ClepError):
                cause = cause.__context__
            said = f"{cause}\n" if cause else ""
            what = f"refused: {str(error).splitlines()[0]}" if refused else "went away"
            gone = f"Prefect's server ({address}) {what}. What was computed is in the store: the same command continues"
            display.stop()
            sys.stdout.flush()
            os._exit(complain(f"{said}{gone} from here, and ends in seconds if all of it was."))
        raise
    finally:
        CHECKED.reset(handed_on)
        APILogHandler().flush()
        EventsWorker.drain_all(timeout=DRAIN_SECONDS)
