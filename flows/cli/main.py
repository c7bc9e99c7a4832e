"""The command line clep-dg: its commands, and how they end."""

import gc
import os
import signal
import sys
from collections.abc import Sequence

from clepdg.errors import ClepError
from clepdg.redaction import scrub_logs
from clepdg_flows.cli.deploy import add_deploy_commands
from clepdg_flows.cli.fetch import add_fetch_command
from clepdg_flows.cli.import_laion import add_import_command
from clepdg_flows.cli.maintenance import add_maintenance_commands
from clepdg_flows.cli.parser import Parser, Terminated, complain, make_parser
from clepdg_flows.cli.pin import add_pin_command
from clepdg_flows.cli.predict import add_predict_command
from clepdg_flows.cli.registry import add_registry_commands
from clepdg_flows.cli.run import add_run_command
from clepdg_flows.cli.serve import add_serve_command
from clepdg_flows.cli.status import add_status_command

ADD = (  # in the order of the help
    add_run_command,
    add_status_command,
    add_fetch_command,
    add_import_command,
    add_predict_command,
    add_serve_command,
    add_registry_commands,
    add_maintenance_commands,
    add_deploy_commands,
    add_pin_command,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; a user's error ends with one message and exit code 2."""
    scrub_logs()
    gc.set_threshold(50_000, 20, 20)  # to search the imported modules for garbage is a tenth of a short command
    try:
        parser = _parser()
        if "_ARGCOMPLETE" in os.environ:  # the shell asks for completions
            _complete(parser)
        arguments = parser.parse_args(argv)
        if "command" not in arguments:
            parser.error("a command is missing")
        arguments.command(arguments)
    except ClepError as error:
        sys.exit(complain(str(error)))
    except KeyboardInterrupt as stop:
        code = 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
        sys.exit(complain("stopped; the same command continues from here", code))
    except BrokenPipeError:  # the reader of the output is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complete(parser: Parser) -> None:
    """Answer a shell's request for completions, and exit."""
    import argcomplete

    from clepdg.config.presets import PRESETS
    from clepdg.corpora.cards import corpus_names
    from clepdg_tasks.engine.node import STAGES

    names = {"--preset": PRESETS, "--until": STAGES, "--redo": STAGES, "--corpora": corpus_names()}
    (commands,) = (action.choices.values() for action in parser._actions if isinstance(action.choices, dict))
    for action in (action for command in commands for action in command._actions):
        for option in {*action.option_strings} & {*names}:
            setattr(action, "completer", lambda chosen=tuple(names[option]), **_: chosen)  # noqa: B010 (argparse has none)
    argcomplete.autocomplete(parser)


def _parser() -> Parser:
    return make_parser(ADD)


if __name__ == "__main__":
    main()
