"""The commands clep-dg compare and promote, on registered classifiers."""

import argparse

from clepdg.config.presets import PRESETS
from clepdg.errors import ConfigError
from clepdg_tasks.host.preflight import check_tracking
from clepdg_tasks.host.processes import set_environment
from clepdg_tasks.host.settings import Settings, load_settings


def add_registry_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the two commands."""
    compare = commands.add_parser("compare", help="compare registered classifiers, and list what changed")
    compare.set_defaults(command=compare_command)
    compare.add_argument("versions", nargs="*", type=int, metavar="VERSION", help="two, the second against the first")
    compare.add_argument("--preset", default="open", help="demo: the demo's (default: open)")
    promote = commands.add_parser("promote", help="make a registered classifier the champion")
    promote.set_defaults(command=promote_command)
    promote.add_argument("version", type=int)
    promote.add_argument("--why", required=True, help="kept with the version")
    promote.add_argument("--preset", default="open", help="demo: the demo's (default: open)")


def compare_command(options: argparse.Namespace) -> None:
    """Print the registered classifiers side by side."""
    settings = registry_settings(options.preset)
    from clepdg_tasks.tracking.compare import compare

    print(compare(settings, options.preset, options.versions))


def promote_command(options: argparse.Namespace) -> None:
    """Make a registered classifier the champion."""
    settings = registry_settings(options.preset)
    from clepdg_tasks.tracking.champion import promote

    print(promote(settings, options.preset, options.version, options.why))


def registry_settings(preset: str) -> Settings:
    """Return the settings, after checks of the preset and the tracker."""
    settings = load_settings()
    set_environment(settings)
    if preset not in PRESETS:
        raise ConfigError("There is no such preset.", got=preset, expected=tuple(PRESETS))
    check_tracking(settings)
    return settings
