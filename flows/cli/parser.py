"""The parser of the command line: a command with its example, and what each ends with."""

import argparse
import sys
from collections.abc import Callable
from typing import TypeAlias

from clepdg.redaction import scrub

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does."""


def add_command(
    commands: Commands, name: str, command: Callable[[argparse.Namespace], None], what: str, example: str
) -> argparse.ArgumentParser:
    """Add a command, with an example in its help.

    Args:
        command: called with the parsed options.
        what: what it does, for the list of commands.
        example: a whole line, "clep-dg ...".
    """
    parser = commands.add_parser(
        name, help=what, description=f"{what[0].upper()}{what[1:]}.", epilog=f"Example: {example}"
    )
    parser.set_defaults(command=command)
    return parser


def complain(message: str, code: int = 2) -> int:
    """Print a message for the user on stderr; return the exit code."""
    print(scrub(f"clep-dg: {message}"), file=sys.stderr)
    return code
