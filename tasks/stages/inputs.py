from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from clepdg.emotions import LABEL_SETS, labels
from tasks.engine.node import Work

if TYPE_CHECKING:
    import pandas as pd

    from clepdg.models.clap import Clap


def quiet_transformers() -> None:
    """Keep transformers' own progress bars out of ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def open_clap(folder: Path, work: Work) -> "Clap":
    """Load a stage's CLAP onto its device."""
    from clepdg.models.clap import load_clap

    quiet_transformers()
    return load_clap(folder, device=work.device)


def learning_utterances(work: Work) -> "pd.DataFrame":
    """Join index and offsets of the source corpora: the train and validation utterances and where their audio lies."""
    import pandas as pd

    from clepdg.dataset import shards, tables

    parts = []
    for name, folder in work.inputs.items():
        if not name.startswith("shard/"):
            continue
        corpus = name.removeprefix("shard/")
        utterances = tables.read_utterances(work.inputs[f"index/{corpus}"])
        offsets = shards.read_offsets(folder).drop(columns=["split", "raw_label", "sample_rate", "num_samples"])
        joined = utterances[utterances.split != "test"].merge(offsets, on="utterance_id", validate="one_to_one")
        parts.append(joined.assign(folder=str(folder)))
    return pd.concat(parts, ignore_index=True)


def set_threads(work: Work) -> None:
    """Let torch use as many threads as the configuration says."""
    import torch

    torch.set_num_threads(work.config["compute"].threads)


def labelled(index_folders: Iterable[Path], label_set: str, splits: tuple[str, ...]) -> "pd.DataFrame":
    """Return the utterances of some splits that have a label of the label set, with `label` and `label_index`."""
    import pandas as pd

    from clepdg.dataset import tables

    mapping, order = LABEL_SETS[label_set], {name: n for n, name in enumerate(labels(label_set))}
    table = pd.concat([tables.read_utterances(folder) for folder in index_folders], ignore_index=True)
    table = table[table.split.isin(splits)].assign(label=table.emotion.map(mapping))
    table = table[table.label.notna()]
    return table.assign(label_index=table.label.map(order).astype(int)).reset_index(drop=True)


def inputs_like(work: Work, prefix: str) -> list[Path]:
    """Return the input folders whose names start with a prefix."""
    return [folder for name, folder in sorted(work.inputs.items()) if name.startswith(prefix)]
