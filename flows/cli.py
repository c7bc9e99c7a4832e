"""The command line: clep-dg run | status | fetch | import-laion | predict | compare | promote | verify | gc."""

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clepdg.errors import ClepError, ConfigError
from clepdg.presets import PRESETS
from flows.care import add_care_commands
from flows.options import add_corpora_options, add_run_options, given_sources, read_arguments
from flows.terminal import print_result, show
from tasks import runs
from tasks.preflight import check_tracking
from tasks.settings import Settings, load_settings

DRAIN_SECONDS = 10.0  # patience with a server that is to take the last events


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; a fault that a user can mend ends with one message and exit code 2."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except ClepError as error:
        sys.exit(_complain(str(error)))
    except KeyboardInterrupt as stop:
        code = 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
        sys.exit(_complain("stopped; the same command goes on from here", code))
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a run as Ctrl-C does."""


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
    print(f"clep-dg: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clep-dg", description="Domain-generalizing speech emotion recognition.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="bring a configuration's stages up to date, from the sources to the report")
    run.set_defaults(command=run_command)
    add_run_options(run)
    run.add_argument("--refresh", action="store_true", help="the last whole run again, after asking its sources")
    run.add_argument("--fan-out", action="store_true", help="corpora and folds by the workers of pool clep-dg-folds")
    status = commands.add_parser("status", help="say what is up to date, what is stale and why; runs nothing")
    status.set_defaults(command=status_command)
    add_run_options(status)
    fetch = commands.add_parser("fetch", help="bring corpora into a folder, for a machine without a network")
    fetch.set_defaults(command=fetch_command)
    fetch.add_argument("folder", type=Path, metavar="FOLDER")
    add_corpora_options(fetch)
    laion = commands.add_parser("import-laion", help="turn LAION's checkpoint (.pt) into a folder for --backbone")
    laion.set_defaults(command=import_laion_command)
    laion.add_argument("checkpoint", type=Path, metavar="FILE.pt")
    laion.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    laion.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="roberta-base's tokenizer (default: the hub's)")
    predict = commands.add_parser("predict", help="print emotion and probabilities of audio files")
    predict.set_defaults(command=predict_command)
    predict.add_argument("files", nargs="+", type=Path, metavar="FILE")
    predict.add_argument("--preset", default="open", help="demo: the classifier of the demo (default: open)")
    predict.add_argument("--version", help="number or alias of a registered version (default: champion)")
    compare = commands.add_parser("compare", help="registered classifiers side by side, and what changed")
    compare.set_defaults(command=compare_command)
    compare.add_argument("versions", nargs="*", type=int, metavar="VERSION", help="two, the second against the first")
    compare.add_argument("--preset", default="open", help="demo: the demo's (default: open)")
    promote = commands.add_parser("promote", help="make a registered classifier the champion")
    promote.set_defaults(command=promote_command)
    promote.add_argument("version", type=int)
    promote.add_argument("--why", required=True, help="kept with the version")
    promote.add_argument("--preset", default="open", help="demo: the demo's (default: open)")
    add_care_commands(commands)
    return parser


def set_environment(settings: Settings) -> None:
    """Let Prefect keep its state below var/ and leave the terminal to us, unless the user set it up otherwise."""
    from tasks.services import environment

    for name, value in {**environment(settings), "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}.items():
        os.environ.setdefault(name, value)


def run_command(options: argparse.Namespace) -> None:
    """Run the flow and print its table."""
    started = time.monotonic()
    settings = load_settings()
    set_environment(settings)
    arguments = read_arguments(options)
    from flows.checks import check, configure

    configure(arguments)
    if options.refresh:  # the flow asks the sources before it checks them
        from flows import refresh

        if refresh.last_run(arguments, settings.open_store()) is None:
            print(refresh.nothing(arguments.preset)["notes"][0])
            return
    else:
        check(arguments, settings)
    from tasks.services import prefect_for_one_run

    with _sigterm_like_ctrl_c(), prefect_for_one_run(settings) as address:
        os.environ["PREFECT_API_URL"] = address  # before Prefect is imported: it reads its settings once
        result = run_flow(
            address, {**runs.parameters(arguments), "refresh": options.refresh, "fan_out": options.fan_out}
        )
    print_result(result, arguments, settings, time.monotonic() - started)


def run_flow(address: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Run the flow in this process; hand what it logged and emitted to the server while that is still there.

    Without its server a run goes on, since the store has what it computes, but its end can't be reported; the process
    then ends at once, where Prefect would try for minutes to send what nobody takes.
    """
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogHandler

    from flows.clep_dg import clep_dg
    from flows.one_run import SHOW
    from tasks.preflight import unreachable

    SHOW.set(show())
    try:
        result: dict[str, Any] = clep_dg(**parameters)
        return result
    except Exception as error:
        parts = urlsplit(address)
        if unreachable(parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)):
            said = f"{error}\n" if isinstance(error, ClepError) else ""
            gone = (
                f"Prefect's server ({address}) went away. What was computed is in the store: the same command goes on"
            )
            sys.stdout.flush()
            os._exit(_complain(f"{said}{gone} from here, and ends in seconds if all of it was."))
        raise
    finally:
        APILogHandler().flush()
        EventsWorker.drain_all(timeout=DRAIN_SECONDS)


def status_command(options: argparse.Namespace) -> None:
    """Print what is up to date, what is stale and why, without running anything."""
    from clepdg import upstream
    from clepdg.cards import load_card
    from clepdg.store import Record, plain
    from flows.checks import plan
    from tasks.stages import decide

    store = load_settings().open_store()
    asked = any(v for name, v in vars(options).items() if name != "command")
    arguments = read_arguments(options) if asked else runs.last_arguments(store)
    if arguments is None:
        print("Nothing has been run here yet. Start with: clep-dg run --preset demo")
        return
    config, nodes = plan(arguments)
    last, records, stale = runs.last_keys(store, plain(config)), dict[str, Record](), 0
    for node in nodes:
        decision = decide(node, records, store, last, frozenset(arguments.redo if asked else ()))
        reason = decision.reason
        if decision.record is None:
            stale += 1
        elif refusal := _refusal(node, decision.record, store.address(node.stage, decision.record.key)):
            stale, reason = stale + 1, refusal
        else:
            records[node.id], reason = decision.record, "up to date"
        print(f"{node.stage:17s} {node.name:44s} {reason}")
    print(f"\npreset {arguments.preset}: {len(nodes) - stale} of {len(nodes)} stages are up to date.")
    for corpus in config.corpora:
        if corpus not in arguments.sources:
            for change in upstream.changes(load_card(corpus), store.documents):
                print(change)


def _refusal(node: Any, record: Any, place: str) -> str:
    """Return in one line why a run would refuse what stands, or "" where it would not."""
    try:
        node.accept(record, place)
    except ClepError as error:
        return f"refused: {' '.join(str(error).split())}"
    return ""


def fetch_command(options: argparse.Namespace) -> None:
    """Bring corpora into a folder, and print how another machine takes them."""
    from flows.fetch import fetch

    folder = options.folder.expanduser().absolute()
    corpora = options.corpora or PRESETS["open"]().corpora
    there = fetch(corpora, given_sources(options), folder, load_settings())
    if there:
        print(f"Already there: {', '.join(there)}.")
    print(f"All are in {folder}, with their checksums (<corpus>.sha256). On the other machine:")
    print("clep-dg run " + " ".join(f"--source {corpus}={shlex.quote(str(folder / corpus))}" for corpus in corpora))


def import_laion_command(options: argparse.Namespace) -> None:
    """Turn LAION's checkpoint into a model folder, and print how a run takes it."""
    from clepdg import laion
    from tasks.training import quiet_transformers

    quiet_transformers()
    out = options.out.expanduser()
    clap = laion.import_checkpoint(options.checkpoint.expanduser(), out, options.tokenizer)
    name, _ = laion.HTSAT[clap.model.config.audio_config.patch_embeds_hidden_size]
    millions = sum(p.numel() for p in clap.model.parameters()) / 1e6
    print(f"{out}: {name}, {millions:.0f} million parameters. Start from it with:")
    print(f"clep-dg run --backbone {shlex.quote(str(out))}")


def compare_command(options: argparse.Namespace) -> None:
    """Print the registered classifiers side by side."""
    settings = _registry_settings(options.preset)
    from tasks.compare import compare

    print(compare(settings, options.preset, options.versions))


def promote_command(options: argparse.Namespace) -> None:
    """Make a registered classifier the champion."""
    settings = _registry_settings(options.preset)
    from tasks.compare import promote

    print(promote(settings, options.preset, options.version, options.why))


def _registry_settings(preset: str) -> Settings:
    settings = load_settings()
    set_environment(settings)
    if preset not in PRESETS:
        raise ConfigError("There is no such preset.", got=preset, expected=tuple(PRESETS))
    check_tracking(settings)
    return settings


def predict_command(options: argparse.Namespace) -> None:
    """Print emotion and probabilities of audio files with the registered classifier."""
    settings = _registry_settings(options.preset)
    check_audio(options.files)
    from tasks.registry import load_classifier
    from tasks.training import quiet_transformers

    quiet_transformers()
    model = load_classifier(settings, options.preset, options.version)
    table = model.predict([{"path": str(path.absolute())} for path in options.files])
    names = [name for name in table.columns if name != "emotion"]
    width = max(len(str(path)) for path in options.files)
    for path, (_, row) in zip(options.files, table.iterrows(), strict=True):
        shares = "  ".join(f"{name} {row[name]:.3f}" for name in names)
        print(f"{str(path):{width}s}  {row['emotion']:10s}  {shares}")


def check_audio(files: Sequence[Path]) -> None:
    """Raise one error that names every file that can't be heard.

    Raises:
        ClepError: a file is missing, is not audio, is empty, too short or silent, or holds samples that are not finite.
    """
    import numpy as np

    from clepdg.audio import decode, to_mono
    from clepdg.config import IndexConfig
    from clepdg.errors import IndexingError

    faults, usable = [], IndexConfig()
    for path in files:
        try:
            samples, rate = decode(path)
        except IndexingError as error:
            faults.append(f"{path}: {'no such file' if not path.exists() else error}")
            continue
        if not len(samples):
            faults.append(f"{path}: empty")
        elif not np.isfinite(samples).all():
            faults.append(f"{path}: samples that are not finite")
        elif len(samples) < usable.min_seconds * rate:
            faults.append(f"{path}: shorter than {usable.min_seconds} s")
        elif np.sqrt(np.mean(np.square(to_mono(samples), dtype=np.float64))) < usable.silence_rms:
            faults.append(f"{path}: silent")
    if faults:
        raise IndexingError("Some files can't be used.\n- " + "\n- ".join(faults))


if __name__ == "__main__":
    main()
