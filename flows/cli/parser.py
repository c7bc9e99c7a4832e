"""The parser of the command line: commands with examples, typos with the nearest name, JSON for programs."""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NoReturn, TypeAlias

from clepdg.errors import ConfigError, unknown_name
from clepdg.redaction import scrub

Commands: TypeAlias = "argparse._SubParsersAction[Any]"
# Faults in argparse's words -> in ours; groups `got` and `expected` are those of the error.
FAULTS: Final = {
    r"argument (?P<where>\S+): expected (?P<expected>.+)": "{where} needs a value.",
    r"argument (?P<where>\S+): ignored explicit argument '(?P<got>.*)'": "{where} takes no value.",
    r"the following arguments are required: (?P<expected>.+)": "An argument is missing.",
    r"ambiguous option: (?P<got>\S+) could match (?P<expected>.+)": "An option is short for several.",
}


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does."""


class Parser(argparse.ArgumentParser):
    """Parser whose faults are a ConfigError, with the nearest valid name."""

    def error(self, message: str) -> NoReturn:
        """Raise a fault that argparse found.

        Raises:
            ConfigError: always.
        """
        do = f"{self.prog} --help shows how it is called"
        for pattern, what in FAULTS.items():
            if found := re.fullmatch(pattern, message):
                fields: dict[str, Any] = {name: value for name, value in found.groupdict().items() if name != "where"}
                raise ConfigError(what.format(**found.groupdict()), **fields, do=do)
        raise ConfigError(f"{message[0].upper()}{message[1:]}.", do=do)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse the options of this parser.

        Raises:
            ConfigError: one is unknown, or argparse finds another fault.
        """
        found, extra = super().parse_known_args(args, namespace)
        if extra:
            dashed = [word.partition("=")[0] for word in extra if word.startswith("-")]
            if not dashed:
                self.error(f"nothing is expected after the options: {' '.join(extra)}")
            known = [option for action in self._actions for option in action.option_strings]
            raise unknown_name("option", dashed, known, f"{self.prog} --help")
        return found, extra

    def _get_value(self, action: argparse.Action, text: str) -> Any:
        """Convert an option's text.

        An ArgumentTypeError of its type says what is expected.

        Raises:
            ConfigError: it is no value of the option.
        """
        try:
            return super()._get_value(action, text)
        except argparse.ArgumentError as error:
            name = "/".join(action.option_strings) or str(action.metavar or action.dest)
            do = f"{self.prog} --help shows how it is called"
            raise ConfigError(f"{name} can't have this value.", got=text, expected=error.__context__, do=do) from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            kind = "command" if isinstance(action, argparse._SubParsersAction) else str(action.metavar or action.dest)
            raise unknown_name(kind, value, map(str, action.choices), f"{self.prog} --help")


class Version(argparse.Action):
    """Option that prints the version of clep-dg."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Print the version, and exit."""
        from importlib.metadata import version

        print(f"clep-dg {version('clep-dg')}")
        parser.exit()


def make_parser(adders: Iterable[Callable[[Commands], None]]) -> Parser:
    """Return the parser of all commands, each added by one of the functions."""
    parser = Parser(
        prog="clep-dg",
        description="Domain-generalizing speech emotion recognition.",
        epilog="Example: clep-dg run --preset demo\nclep-dg COMMAND --help shows a command's options and an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND")  # not required: an unknown option is reported first
    for add in adders:
        add(commands)
    return parser


def add_command(
    commands: Commands, name: str, command: Callable[[argparse.Namespace], None], what: str, example: str
) -> argparse.ArgumentParser:
    """Add a command, with an example in its help.

    Args:
        command: called with the parsed options.
        what: what it does, for the list of commands.
        example: a whole line, "clep-dg ...".
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"Example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command)
    return parser


def number(kind: type[int] | type[float], low: float, high: float, words: str) -> Callable[[str], Any]:
    """Return the type of an option that is a number within limits, in words."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(words)
        return value

    return read


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --json; docs/reference.md says what it prints."""
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")


def print_json(value: Any) -> None:
    """Print a value as one JSON document, without secrets."""
    print(scrub(json.dumps(value, indent=1, ensure_ascii=False, default=str)))


def complain(message: str, code: int = 2) -> int:
    """Print a message for the user on stderr; return the exit code."""
    print(scrub(f"clep-dg: {message}"), file=sys.stderr)
    return code
