"""Read the inputs of stages."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from clepdg_tasks.engine.node import Work

if TYPE_CHECKING:
    import pandas as pd

    from clepdg.models.clap import Clap


def quiet_transformers() -> None:
    """Turn off the progress bars and warnings of transformers."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def open_clap(folder: Path, work: Work) -> "Clap":
    """Load a CLAP or a dual backbone onto the stage's device."""
    from clepdg.models.folder import load_model

    quiet_transformers()
    return load_model(folder, device=work.device)


def set_threads(work: Work) -> None:
    """Set the number of torch's threads to the configuration's."""
    import torch

    torch.set_num_threads(work.config["compute"].threads)


def folders_of(work: Work, stage: str, part: str | None = None) -> list[Path]:
    """Return the folders of a stage among the inputs."""
    return [folder for _, folder in work.select(stage, part)]


def read_utterances(folders: Iterable[Path]) -> "pd.DataFrame":
    """Read the utterances of several indexes as one table."""
    import pandas as pd

    from clepdg.dataset import tables

    return pd.concat([tables.read_utterances(folder) for folder in folders], ignore_index=True)


def read_offsets(folders: Iterable[Path]) -> "pd.DataFrame":
    """Read the offsets of several corpora's shards as one table."""
    import pandas as pd

    from clepdg.dataset import shards

    return pd.concat([shards.read_offsets(folder) for folder in folders])


def learning_utterances(work: Work) -> "pd.DataFrame":
    """Read the sources' train and validation utterances with their audio."""
    import pandas as pd

    from clepdg.dataset import shards, tables
    from clepdg.evaluation.utterances import join_audio

    parts = []
    for ref, folder in work.select("shard", "learning"):
        [(_, index)] = work.select("index", "learning", corpus=ref.tags["corpus"])
        utterances = tables.read_utterances(index)
        parts.append(join_audio(utterances, shards.read_offsets(folder)).assign(folder=str(folder)))
    return pd.concat(parts, ignore_index=True)
