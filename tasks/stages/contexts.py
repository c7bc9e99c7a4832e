"""Whether the contexts of a fold's rows look like what corruptions do to its audio: a table beside its predictions."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from clepdg.audio.corruptions import CLEAN, parse
from clepdg.prompts import CONTEXT_OF
from tasks.engine.node import Work

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

FILE = "acoustics.parquet"


def look(work: Work) -> "pd.DataFrame":
    """Return one line per seed and row: figures of `clepdg.acoustics`, for the model that reads the contexts.

    A row of a variant of CLEP stands for the hand-written contexts as that variant reads them, not for its own.

    Columns: fold, row, seed, share (of the squared moves of audio in the top directions of the contexts' moves),
    random_share and random_high (mean and 95th percentile over random subspaces), and, where contexts are in words,
    mean_rank, contexts, p, ranks (corruption -> rank of the context that names it, as JSON).
    """
    import json

    import numpy as np
    import pandas as pd

    from clepdg.evaluation import context_geometry
    from clepdg.method import text_embeddings

    @lru_cache(maxsize=1)
    def moved(model: str) -> "tuple[dict[str, NDArray[Any]], NDArray[Any], tuple[float, float]]":
        moves = _audio_moves(work, model)
        every = np.concatenate(list(moves.values()))
        return moves, every, context_geometry.random_share(every)

    models: dict[str, str] = work.config["looked_at"]
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(models, key=lambda name: (models[name], name)):  # one model after another
        row, seed = name.split("/")
        moves, every, (mean, high) = moved(models[name])
        text = text_embeddings.load_text_embeddings(work.inputs[f"text/{name}"])
        contexts = text.moves.numpy().astype(np.float64).reshape(-1, len(text.labels), every.shape[1])  # (K, N, D)
        line: dict[str, Any] = {"fold": work.config["fold"], "row": row, "seed": seed}
        line |= {"share": context_geometry.subspace_share(every, contexts), "random_share": mean, "random_high": high}
        if row not in context_geometry.AS_VECTORS:
            names = context_geometry.rank_names(moves, contexts, work.config["contexts_in_words"], CONTEXT_OF)
            if names:
                line |= {"mean_rank": names.mean_rank, "contexts": names.contexts, "p": names.p}
                line |= {"ranks": json.dumps(names.ranks, sort_keys=True)}
        found[name] = line
    return pd.DataFrame([found[name] for name in sorted(found)])


def _audio_moves(work: Work, model: str) -> dict[str, "NDArray[Any]"]:
    """Return kind of corruption -> a(noisy) - a(clean) (U, D) of the targets' test parts, over its SNRs."""
    import numpy as np

    from clepdg.method import audio_embeddings

    moves: dict[str, list[Any]] = {}
    for condition in work.config["conditions"]:
        for name in sorted(work.inputs):
            if name.startswith(f"audio/{model}/") and name.endswith(f"/{condition}"):
                heard = audio_embeddings.load_audio_embeddings(work.inputs[name])
                clean = audio_embeddings.load_audio_embeddings(work.inputs[f"{name.rsplit('/', 1)[0]}/{CLEAN}"])
                before = audio_embeddings.select([clean], heard.utterance_ids)
                moves.setdefault(parse(condition).family, []).append(heard.embeddings.astype(np.float64) - before)
    return {family: np.concatenate(parts) for family, parts in moves.items()}
