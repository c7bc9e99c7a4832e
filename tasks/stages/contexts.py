"""Compare a fold's contexts with corruptions: a table of the evaluation."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from clepdg.config.conditions import CLEAN
from clepdg_tasks.engine.node import Work

if TYPE_CHECKING:
    import pandas as pd

    from clepdg.method.fold.compare_contexts import AudioMoves

FILE = "acoustics.parquet"


def contexts_table(work: Work, test: set[str]) -> "pd.DataFrame":
    """Compare contexts and corruptions for every row and seed.

    In the model that reads the contexts.

    A row of a variant of CLEP stands for the hand-written contexts as that variant reads them, not for its own.

    Args:
        test: ids of the targets' test utterances, whose audio is compared in every fold.

    Returns:
        One line per seed and row: fold, row, seed, and the figures of `compare_contexts`.
    """
    import pandas as pd

    from clepdg.config.rows import AS_VECTORS
    from clepdg.method.fold.compare_contexts import compare_contexts
    from clepdg.method.text_embeddings import load_text_embeddings

    moves = lru_cache(maxsize=1)(lambda model: _audio_moves(work, model, test))
    texts = list(enumerate(work.select("text_embeddings")))
    found: dict[int, dict[str, Any]] = {}
    for place, (ref, folder) in sorted(texts, key=lambda text: text[1][0].tags["model"]):  # one model after another
        row, seed, model = (ref.tags[name] for name in ("row", "seed", "model"))
        words = None if row in AS_VECTORS else work.config["contexts_in_words"]
        found[place] = {"fold": work.config["fold"], "row": row, "seed": seed}
        found[place] |= compare_contexts(moves(model), load_text_embeddings(folder), words)
    return pd.DataFrame([found[place] for place, _ in texts])


def _audio_moves(work: Work, model: str, test: set[str]) -> "AudioMoves":
    """Read a model's embeddings of the targets, noisy and clean."""
    from clepdg.method.audio_embeddings import load_audio_embeddings
    from clepdg.method.fold.compare_contexts import AudioMoves

    pairs = []
    for condition in work.config["conditions"]:
        for ref, noisy in work.select("audio_embeddings", model=model, condition=condition):
            [(_, clean)] = work.select("audio_embeddings", **{**ref.tags, "condition": CLEAN})
            pairs.append((condition, load_audio_embeddings(noisy).only(test), load_audio_embeddings(clean)))
    return AudioMoves(pairs)
