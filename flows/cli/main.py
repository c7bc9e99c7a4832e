"""The command line: clep-dg run | status | fetch | import-laion | predict | compare | promote | verify | gc."""

import argparse
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clepdg.config.presets import PRESETS
from clepdg.errors import ClepError, ConfigError
from clepdg.redaction import scrub, scrub_logs
from clepdg_flows.cli.maintenance import add_maintenance_commands
from clepdg_flows.cli.options import add_corpora_options, add_run_options, given_sources, read_arguments
from clepdg_flows.cli.predict import add_predict_command
from clepdg_flows.cli.registry import add_registry_commands
from clepdg_flows.cli.status import status_command
from clepdg_flows.cli.terminal import Ended, print_result, show
from clepdg_tasks.engine import run_history
from clepdg_tasks.host.processes import set_environment
from clepdg_tasks.host.settings import load_settings

if TYPE_CHECKING:
    from clepdg_flows.run.plan import Plan

DRAIN_SECONDS = 10.0  # longest wait for a server to accept the last events


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; a user's error ends with one message and exit code 2."""
    scrub_logs()
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except ClepError as error:
        sys.exit(_complain(str(error)))
    except KeyboardInterrupt as stop:
        code = 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
        sys.exit(_complain("stopped; the same command continues from here", code))
    except BrokenPipeError:  # the reader of the output is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does."""


@contextmanager
def _sigterm_like_ctrl_c() -> Iterator[None]:
    def terminated(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _complain(message: str, code: int = 2) -> int:
    print(scrub(f"clep-dg: {message}"), file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clep-dg", description="Domain-generalizing speech emotion recognition.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="compute a configuration's stages, from the sources to the report")
    run.set_defaults(command=run_command)
    add_run_options(run)
    run.add_argument(
        "--refresh", action="store_true", help="repeat the preset's last whole run; asks its sources for changes first"
    )
    run.add_argument(
        "--fan-out", action="store_true", help="send corpora and folds to the workers of pool clep-dg-folds"
    )
    status = commands.add_parser("status", help="list the stages that are up to date or stale, and why")
    status.set_defaults(command=status_command)
    add_run_options(status)
    fetch = commands.add_parser("fetch", help="download corpora into a folder, for a machine without a network")
    fetch.set_defaults(command=fetch_command)
    fetch.add_argument("folder", type=Path, metavar="FOLDER", nargs="?")
    fetch.add_argument("--check", action="store_true", help="compare the addresses with the cards; downloads nothing")
    add_corpora_options(fetch)
    laion = commands.add_parser("import-laion", help="convert a LAION checkpoint (.pt) to a folder for --backbone")
    laion.set_defaults(command=import_laion_command)
    laion.add_argument("checkpoint", type=Path, metavar="FILE.pt")
    laion.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    laion.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="roberta-base's tokenizer (default: the hub's)")
    add_predict_command(commands)
    add_registry_commands(commands)
    add_maintenance_commands(commands)
    return parser


def run_command(options: argparse.Namespace) -> None:
    """Run the flow and print its table."""
    started = time.monotonic()
    settings = load_settings()
    set_environment(settings)
    arguments = read_arguments(options)
    from clepdg_flows.run.plan import check, make_plan

    if options.refresh:  # the flow asks the sources before it checks them
        from clepdg_flows.run import refresh

        last = refresh.last_run(arguments, settings)
        plan = make_plan(last or arguments)
        if last is None:
            print(refresh.nothing_to_refresh(arguments.preset)["notes"][0])
            return
    else:
        plan = make_plan(arguments)
        check(plan, settings)
    print("Starting Prefect and the first stages.", flush=True)
    from clepdg_tasks.admin.prefect_server import prefect_for_one_run

    with _sigterm_like_ctrl_c(), prefect_for_one_run(settings, print) as address:
        os.environ["PREFECT_API_URL"] = address  # Prefect reads its settings once, when it is imported
        parameters = run_history.parameters(arguments) | {"refresh": options.refresh, "fan_out": options.fan_out}
        ended: Ended = []
        result = run_flow(address, parameters, plan, ended)
    print_result(result, ended, arguments, settings, time.monotonic() - started)


def run_flow(address: str, parameters: dict[str, Any], plan: "Plan", ended: Ended) -> dict[str, Any]:
    """Run the flow in this process, and flush its logs and events.

    Without its server a run continues, since its outputs are in the store, but Prefect can't record its end. The
    process then exits at once: Prefect would retry for minutes.

    Args:
        ended: receives the nodes that ended, with their outcomes.
    """
    from prefect.events.worker import EventsWorker
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.logging.handlers import APILogHandler

    from clepdg_flows.clep_dg import clep_dg
    from clepdg_flows.run.plan import CHECKED
    from clepdg_flows.run.run import SHOW
    from clepdg_tasks.admin.prefect_access import check_admitted
    from clepdg_tasks.host.preflight import unreachable

    SHOW.set(show(ended))
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
            sys.stdout.flush()
            os._exit(_complain(f"{said}{gone} from here, and ends in seconds if all of it was."))
        raise
    finally:
        CHECKED.reset(handed_on)
        APILogHandler().flush()
        EventsWorker.drain_all(timeout=DRAIN_SECONDS)


def fetch_command(options: argparse.Namespace) -> None:
    """Download corpora and print how to use them, or check their addresses."""
    from clepdg_flows.cli.fetch import check, fetch

    if options.check == bool(options.folder) or (options.check and options.source):
        do = "clep-dg fetch FOLDER, or clep-dg fetch --check without FOLDER and --source"
        raise ConfigError("clep-dg fetch takes a folder or --check.", do=do)
    if options.check:
        good = True
        for each in check(options.corpora, load_settings()):
            print(each.line, flush=True)
            good &= each.good
        sys.exit(0 if good else 1)
    folder = Path(os.path.expanduser(options.folder)).absolute()
    corpora = options.corpora or PRESETS["open"]().corpora
    there = fetch(corpora, given_sources(options), folder, load_settings())
    if there:
        print(f"Already there: {', '.join(there)}.")
    print(f"All are in {folder}, with their checksums (<corpus>.sha256). On the other machine:")
    print("clep-dg run " + " ".join(f"--source {corpus}={shlex.quote(str(folder / corpus))}" for corpus in corpora))


def _roberta_tokenizer() -> Path:
    """Return the folder of roberta-base's tokenizer, from the hub."""
    from clepdg.config.model_pins import ROBERTA, pinned_revision
    from clepdg.download import hub
    from clepdg.errors import BackboneError
    from clepdg.models.files import tokenizer_files

    try:
        return hub.fetch(ROBERTA, str(pinned_revision(ROBERTA)), tokenizer_files)
    except BackboneError as error:
        raise BackboneError(
            "The tokenizer can't be loaded; LAION's checkpoints hold none.",
            got=" ".join(str(error).split())[:300],
            expected="roberta-base's tokenizer",
            where=ROBERTA,
            do="give --tokenizer FOLDER, with roberta-base's tokenizer.json, or its vocab.json and merges.txt",
        ) from error


def import_laion_command(options: argparse.Namespace) -> None:
    """Convert a LAION checkpoint to a model folder; print how to use it."""
    from clepdg.models import laion
    from clepdg_tasks.stages.inputs import quiet_transformers

    quiet_transformers()
    out = Path(os.path.expanduser(options.out))
    checkpoint = Path(os.path.expanduser(options.checkpoint))
    laion.read_checkpoint(checkpoint)  # fails before a tokenizer is downloaded
    words = options.tokenizer or _roberta_tokenizer()
    clap = laion.import_checkpoint(checkpoint, out, words)
    name, _ = laion.HTSAT[clap.model.config.audio_config.patch_embeds_hidden_size]
    millions = sum(p.numel() for p in clap.model.parameters()) / 1e6
    print(f"{out}: {name}, {millions:.0f} million parameters. Start from it with:")
    print(f"clep-dg run --backbone {shlex.quote(str(out))}")


if __name__ == "__main__":
    main()
