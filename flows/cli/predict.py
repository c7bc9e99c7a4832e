"""The command clep-dg predict: emotions of audio files."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from clepdg_flows.cli.registry import registry_settings


def add_predict_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    predict = commands.add_parser("predict", help="print emotion and probabilities of audio files")
    predict.set_defaults(command=predict_command)
    predict.add_argument("files", nargs="+", type=Path, metavar="FILE")
    predict.add_argument("--preset", default="open", help="demo: the classifier of the demo (default: open)")
    predict.add_argument("--version", help="number or alias of a registered version (default: champion)")


def predict_command(options: argparse.Namespace) -> None:
    """Print emotions and probabilities by the registered classifier."""
    settings = registry_settings(options.preset)
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


def check_audio(files: Sequence[Path]) -> None:
    """Raise one error that names every unusable file.

    Raises:
        ClepError: some can't be used, by the rules of the index.
    """
    from clepdg.audio.inspection import read_audio, read_usable

    for _ in read_usable(((str(path), path) for path in files), read_audio):
        pass
