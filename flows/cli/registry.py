"""The commands clep-dg compare, promote and export, on registered classifiers."""

import argparse
import math
import os
from pathlib import Path

from clepdg.config.presets import PRESETS
from clepdg.errors import ConfigError, unknown_name
from clepdg_flows.cli.parser import Commands, add_command, number
from clepdg_tasks.host.preflight import check_tracking
from clepdg_tasks.host.processes import set_environment
from clepdg_tasks.host.settings import Settings, load_settings


def add_registry_commands(commands: Commands) -> None:
    """Add the three commands."""
    compare = add_command(
        commands,
        "compare",
        compare_command,
        "compare registered classifiers, and list what changed",
        "clep-dg compare 1 champion --preset demo",
    )
    compare.add_argument(
        "versions",
        nargs="*",
        type=_version,
        metavar="VERSION",
        help="one, against the champion; or two, the second against the first; numbers, or champion",
    )
    compare.add_argument("--fold", help="list versions of this fold only")
    compare.add_argument("--method", help="list versions of this row of the results table only, such as text-none")
    compare.add_argument("--preset", default="open", help="demo: the demo's (default: open)")
    promote = add_command(
        commands,
        "promote",
        promote_command,
        "make a registered classifier the champion",
        'clep-dg promote 1 --why "needs no contexts" --preset demo',
    )
    promote.add_argument("version", type=number(int, 1, math.inf, "a version's number, see clep-dg compare"))
    promote.add_argument("--why", required=True, help="kept with the version")
    promote.add_argument("--preset", default="open", help="demo: the demo's (default: open)")
    export = add_command(
        commands,
        "export",
        export_command,
        "write a registered classifier as a folder with a model card",
        "clep-dg export champion my-model --preset demo",
    )
    export.add_argument("version", metavar="VERSION", help="number or alias, such as champion")
    export.add_argument("folder", type=Path, metavar="FOLDER", help="a new or empty folder")
    export.add_argument("--push", metavar="USER/NAME", help="upload it to a private repository of the Hugging Face hub")
    export.add_argument("--preset", default="open", help="demo: the demo's (default: open)")


def compare_command(options: argparse.Namespace) -> None:
    """Print the registered classifiers side by side."""
    if len(options.versions) > 2 or len({*options.versions}) < len(options.versions):
        raise ConfigError("Two versions can be compared.", got=options.versions, expected="none, one or two others")
    settings = registry_settings(options.preset)
    from clepdg_tasks.tracking.compare import compare

    print(compare(settings, options.preset, options.versions, fold=options.fold, method=options.method))


def _version(text: str) -> str:
    if not (text.isdecimal() and int(text) or text == "champion"):
        raise argparse.ArgumentTypeError("a version's number, or champion")
    return text


def promote_command(options: argparse.Namespace) -> None:
    """Make a registered classifier the champion."""
    if not options.why.strip():
        raise ConfigError("A champion needs a reason, which is stored with it.", where="--why", expected="a text")
    settings = registry_settings(options.preset)
    from clepdg_tasks.tracking.champion import promote

    print(promote(settings, options.preset, options.version, options.why))


def export_command(options: argparse.Namespace) -> None:
    """Write a registered classifier as a folder with a model card."""
    from clepdg_tasks.tracking.hub.export import check_export, export

    check_export(options.folder, options.push)
    settings = registry_settings(options.preset)
    print(export(settings, options.preset, options.version, options.folder, options.push))


def registry_settings(preset: str) -> Settings:
    """Return the settings, after checks of the preset and the tracker.

    Quietens transformers, which is imported later.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    settings = load_settings()
    set_environment(settings)
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS, "docs/reference.md#options")
    check_tracking(settings)
    return settings
