"""Apply the heads of a fold to the audio embeddings of its targets.

Shapes: U utterances, V test utterances, D joint embedding, N labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clepdg.errors import ClepError
from clepdg.evaluation.predictions import probability_columns
from clepdg.method.audio_embeddings import AudioEmbeddings, select
from clepdg.method.heads import Head

if TYPE_CHECKING:
    import pandas as pd

COPIED = ["utterance_id", "corpus", "speaker", "cluster", "split"]


@dataclass(frozen=True, kw_only=True)
class FoldHead:
    """One head of a fold: of one row of the results table and one seed.

    Attributes:
        model: whose audio embeddings it is applied to.
        centred_on_target: the mean of the target's test audio replaces the head's own.
    """

    row: str
    seed: str
    model: str
    head: Head
    centred_on_target: bool = False


def predict(
    heads: Sequence[FoldHead],
    utterances: "pd.DataFrame",
    embeddings: Mapping[str, Sequence[AudioEmbeddings]],
    *,
    fold: str,
    condition: str,
    test_audio: "pd.DataFrame | None" = None,
) -> "pd.DataFrame":
    """Predict the labels of utterances (U) in one condition.

    With every head whose model has embeddings.

    Args:
        utterances: with columns utterance_id, corpus, speaker, cluster, split and label.
        embeddings: model -> its embeddings of the targets in this condition.
        test_audio: utterance_id and corpus of the test audio (V) that heads centred on the target take their mean of.

    Returns:
        One line per head and utterance, as clepdg.evaluation.predictions describes, with texts as categories.

    Raises:
        ClepError: a target has no test audio to be centred on.
    """
    import pandas as pd

    applied = [head for head in heads if head.model in embeddings]
    embedded = {model: select(found, utterances.utterance_id.tolist()) for model, found in embeddings.items()}
    found, inputs = [], dict[tuple[Any, ...], Tensor]()
    for each in applied:
        x, head = embedded[each.model], each.head
        if each.centred_on_target:
            if test_audio is None:
                raise ClepError("There is no test audio to centre a target on.", got=each.row)
            test = select(embeddings[each.model], test_audio.utterance_id.tolist())
            x = centre_on_targets(x, utterances.corpus.to_numpy(), test, test_audio.corpus.to_numpy())
            head = replace(head, mean=head.mean.new_zeros(head.mean.shape))
        of = (each.model, each.centred_on_target, head.cosine, head.mean.numpy().tobytes())
        if of not in inputs:
            inputs[of] = head.inputs(x)
        found.append(head.probabilities(x, inputs[of]))
    if not applied:
        return pd.DataFrame()
    probabilities, labels = np.concatenate(found), applied[0].head.labels  # (heads * U, N)

    def texts(names: Sequence[str], codes: NDArray[Any]) -> Any:
        """Return texts whose categories are sorted."""
        kept = sorted(set(names))
        place = np.array([kept.index(name) for name in names], np.min_scalar_type(-len(kept)))
        return pd.Categorical.from_codes(place[codes], pd.Index(kept))

    def of_utterance(name: str) -> Any:
        own = pd.Categorical(utterances[name])
        return pd.Categorical.from_codes(np.tile(own.codes, len(applied)), dtype=own.dtype)

    def of_head(names: Sequence[str]) -> Any:
        return texts(names, np.repeat(np.arange(len(applied)), len(utterances)))

    true = np.array([labels.index(label) for label in utterances.label])
    return pd.DataFrame(
        {
            **{name: of_utterance(name) for name in COPIED},
            "true": texts(labels, np.tile(true, len(applied))),
            "fold": of_head([fold] * len(applied)),
            "row": of_head([each.row for each in applied]),
            "seed": of_head([each.seed for each in applied]),
            "condition": of_head([condition] * len(applied)),
            "predicted": texts(labels, probabilities.argmax(axis=1)),
            **{name: probabilities[:, n].copy() for n, name in enumerate(probability_columns(labels))},
        },
        copy=False,
    )


def centre_on_targets(
    x: NDArray[np.float32], corpora: NDArray[Any], test: NDArray[np.float32], test_corpora: NDArray[Any]
) -> NDArray[np.float32]:
    """Subtract the mean of each corpus's test audio from x (U, D).

    Transductive, without labels; the test audio is (V, D).

    Args:
        corpora: of each utterance (U,).
        test_corpora: of each test utterance (V,).

    Raises:
        ClepError: a target has no test audio.
    """
    x = x.copy()
    for corpus in sorted(set(corpora)):
        if corpus not in test_corpora:
            raise ClepError("There is no test audio to centre a target on.", got=corpus)
        x[corpora == corpus] -= test[test_corpora == corpus].mean(axis=0)
    return x
