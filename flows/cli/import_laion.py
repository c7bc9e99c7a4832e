"""The command clep-dg import-laion."""

import argparse
import os
import shlex
from pathlib import Path

from clepdg_flows.cli.parser import Commands, add_command
from clepdg_tasks.host.settings import load_settings


def add_import_command(commands: Commands) -> None:
    """Add the command."""
    laion = add_command(
        commands,
        "import-laion",
        import_laion_command,
        "convert a LAION checkpoint (.pt) to a folder for --backbone",
        "clep-dg import-laion 630k-audioset-best.pt models/laion",
    )
    laion.add_argument("checkpoint", type=Path, metavar="FILE.pt")
    laion.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    laion.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="roberta-base's tokenizer (default: the hub's)")


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

    load_settings()  # refuses misspelt ones, as every command does
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
