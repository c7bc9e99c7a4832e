"""The commands clep-dg predict, compare and promote, on registered classifiers."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from clepdg.config.presets import PRESETS
from clepdg.errors import ConfigError
from clepdg_tasks.host.preflight import check_tracking
from clepdg_tasks.host.processes import set_environment
from clepdg_tasks.host.settings import Settings, load_settings


def add_registry_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the three commands."""
    predict = commands.add_parser("predict", help="print emotion and probabilities of audio files")
    predict.set_defaults(command=predict_command)
    predict.add_argument("files", nargs="+", type=Path, metavar="FILE")
    predict.add_argument("--preset", default="open", help="demo: the classifier of the demo (default: open)")
    predict.add_argument("--version", help="number or alias of a registered version (default: champion)")
    compare = commands.add_parser("compare", help="compare registered classifiers, and list what changed")
    compare.set_defaults(command=compare_command)
    compare.add_argument("versions", nargs="*", type=int, metavar="VERSION", help="two, the second against the first")
    compare.add_argument("--preset", default="open", help="demo: the demo's (default: open)")
    promote = commands.add_parser("promote", help="make a registered classifier the champion")
    promote.set_defaults(command=promote_command)
    promote.add_argument("version", type=int)
    promote.add_argument("--why", required=True, help="kept with the version")
    promote.add_argument("--preset", default="open", help="demo: the demo's (default: open)")


def predict_command(options: argparse.Namespace) -> None:
    """Print emotions and probabilities by the registered classifier."""
    settings = _registry_settings(options.preset)
    check_audio(options.files)
    from clepdg_tasks.stages.inputs import quiet_transformers
    from clepdg_tasks.tracking.model_registry import load_classifier

    quiet_transformers()
    model = load_classifier(settings, options.preset, options.version)
    table = model.predict(options.files)
    names = [name for name in table.columns if name != "emotion"]
    width = max(len(str(path)) for path in options.files)
    for path, (_, row) in zip(options.files, table.iterrows(), strict=True):
        shares = "  ".join(f"{name} {row[name]:.3f}" for name in names)
        print(f"{str(path):{width}s}  {row['emotion']:10s}  {shares}")


def compare_command(options: argparse.Namespace) -> None:
    """Print the registered classifiers side by side."""
    settings = _registry_settings(options.preset)
    from clepdg_tasks.tracking.compare import compare

    print(compare(settings, options.preset, options.versions))


def promote_command(options: argparse.Namespace) -> None:
    """Make a registered classifier the champion."""
    settings = _registry_settings(options.preset)
    from clepdg_tasks.tracking.champion import promote

    print(promote(settings, options.preset, options.version, options.why))


def _registry_settings(preset: str) -> Settings:
    settings = load_settings()
    set_environment(settings)
    if preset not in PRESETS:
        raise ConfigError("There is no such preset.", got=preset, expected=tuple(PRESETS))
    check_tracking(settings)
    return settings


def check_audio(files: Sequence[Path]) -> None:
    """Raise one error that names every unusable file.

    Raises:
        ClepError: some can't be used, by the rules of the index.
    """
    from clepdg.audio.inspection import read_audio, read_usable

    for _ in read_usable(((str(path), path) for path in files), read_audio):
        pass
