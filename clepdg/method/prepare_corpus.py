"""Download, index and shard a corpus outside of a run, for a notebook."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clepdg.config.schema import IndexConfig, ShardConfig, SyntheticConfig
from clepdg.corpora import synthetic
from clepdg.corpora.cards import load_card
from clepdg.dataset import index, shard_writer, shards, validate
from clepdg.download import fetch
from clepdg.download import source as sources
from clepdg.errors import ConfigError
from clepdg.hashing import digest, plain
from clepdg.store.readers import read_facts

if TYPE_CHECKING:
    import pandas as pd

FIGURES: Final = "figures.json"  # of the index, which every call checks


def prepare_corpus(
    name: str, given: str | None, root: Path, *, allow_partial: bool, settings: Mapping[str, Any]
) -> "pd.DataFrame":
    """Return the utterances of a corpus and where their audio is.

    They are read from root if an earlier call left them there, and checked against the card all the same.

    Args:
        given: the user's own source; None: the card's addresses.
        root: gets a folder for this card, source and settings; it is complete or not there.
        settings: of SyntheticConfig, for a synthetic corpus.

    Raises:
        ClepError: there is no such corpus or setting, its source can't be had, or it is not what its card says.
    """
    card = load_card(name)
    if settings and not card.acoustics:
        expected = f"source, folder or allow_partial, since {name} is not synthetic"
        raise ConfigError("There is no such setting.", got=sorted(settings), expected=expected)
    generated = SyntheticConfig(**settings) if card.acoustics else None
    card = synthetic.with_size(card, generated) if generated else card
    state = plain(generated) if generated else sources.identify(card, given)
    place = root / f"{name}-{digest([state, plain(card), plain(IndexConfig()), plain(ShardConfig())])[:12]}"
    if place.is_dir():
        figures = read_facts(place / FIGURES, dict)
        validate.check(figures, card, allow_partial=allow_partial, place=str(place / "index"))
    else:
        partial = place.with_suffix(".partial")
        if generated:
            shutil.rmtree(partial, ignore_errors=True)
            synthetic.write(card, generated, partial / "source" / sources.TREE)
            sources.list_tree(partial / "source")
        else:
            fetch.fetch(card, given, partial / "source")
        files, tree = sources.read_files(partial / "source"), sources.root(partial / "source", given)
        sums = dict(zip(files.path, files.sha256, strict=True))
        utterances, quarantine, figures = index.build_index(tree, sums, card, IndexConfig())
        for part in ("index", "shard"):
            (partial / part).mkdir(exist_ok=True)
        index.write_index(partial / "index", utterances, quarantine)
        validate.check(figures, card, allow_partial=allow_partial, place=str(partial / "index"))
        (partial / FIGURES).write_text(json.dumps(plain(figures)))
        shard_writer.write_shards(partial / "shard", tree, utterances, ShardConfig())
        partial.rename(place)
    utterances = index.read_utterances(place / "index")
    offsets = shards.read_offsets(place / "shard").drop(columns=["split", "raw_label", "sample_rate", "num_samples"])
    return utterances.merge(offsets, on="utterance_id", validate="one_to_one").assign(folder=str(place / "shard"))
