"""The utterances that a fold learns from and is tested on, as data frames."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from clepdg.emotions import LabelSet, label_of, labels
from clepdg.hashing import digest_lines

if TYPE_CHECKING:
    import pandas as pd


def label_utterances(utterances: "pd.DataFrame", label_set: LabelSet, splits: tuple[str, ...]) -> "pd.DataFrame":
    """Select the utterances of some splits that have a label of a label set.

    Args:
        utterances: with columns split and emotion (canonical, or None), as an index lists them.

    Returns:
        The same columns, with `label` and `label_index` (int, in the order of the label set).
    """
    mapping, order = label_of(label_set), {name: n for n, name in enumerate(labels(label_set))}
    table = utterances[utterances.split.isin(splits)]
    table = table.assign(label=table.emotion.map(mapping))
    table = table[table.label.notna()]
    return table.assign(label_index=table.label.map(order).astype(int)).reset_index(drop=True)


def join_audio(utterances: "pd.DataFrame", offsets: "pd.DataFrame") -> "pd.DataFrame":
    """Join a corpus's train and validation utterances with their audio.

    Args:
        utterances: of the corpus's index.
        offsets: of the corpus's shards, one row an utterance.
    """
    places = offsets.drop(columns=["split", "raw_label", "sample_rate", "num_samples"])
    return utterances[utterances.split != "test"].merge(places, on="utterance_id", validate="one_to_one")


def copies_of_sources(targets: "pd.DataFrame", sources: "pd.DataFrame") -> set[str]:
    """Return the target utterances whose audio the sources learn from.

    By id: copies in the sources' train or validation part count.

    They are dropped from the target alone: a target never decides what its sources are.

    Args:
        targets: offsets of the targets' shards.
        sources: offsets of the sources' shards.
    """
    learnt = sources.pcm_sha256[sources.split != "test"]
    return set(targets.utterance_id[targets.pcm_sha256.isin(learnt)])


def centring_utterances(
    utterances: "pd.DataFrame", copies: Collection[str] = (), split: str = "test"
) -> "pd.DataFrame":
    """Select the utterances of a part that centre a target, whatever labels.

    Args:
        copies: ids of utterances that the fold has learnt from; they are left out.
    """
    chosen = (utterances.split == split) & ~utterances.utterance_id.isin(copies)
    return utterances[chosen].sort_values("utterance_id")


def digest_part(utterances: "pd.DataFrame", split: str) -> str:
    """Return the digest of one part, with its labels.

    Results with equal ones can be compared utterance by utterance.
    """
    part = utterances[utterances.split == split]
    return digest_lines(part[["utterance_id", "sha256", "label"]].to_numpy().tolist())
