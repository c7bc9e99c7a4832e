"""References to the outputs of a fold's stages; their names are made of tags.

"leave-out-tess.c0" (fold and CLEP's seed), "leave-out-tess.frozen-text.c0" (a variant of CLEP),
"leave-out-tess.c0.acpt.l0" (contexts and the later seed). Nothing reads them back: nodes and references have tags
beside their names.
"""

from typing import NamedTuple

from clepdg.config.conditions import CLEAN, Condition
from clepdg.config.folds import Fold
from clepdg.config.rows import CONTEXTS, Row
from clepdg_flows.graph.models import Model
from clepdg_tasks.engine.node import Ref


class Head(NamedTuple):
    """Head of a row for one pair of seeds, and the name of its audio model."""

    row: str
    seed: str
    model: str


def acpt_ref(model: Model, kind: str, seed: int | None) -> Ref:
    """Return the reference to a CLEP's contexts by a variant of ACPT."""
    return Ref("acpt", f"{model.name}.{kind}.l{seed}")


def text_ref(model: Model, row: Row, seed: int | None) -> Ref:
    """Return the reference to a row's text embeddings."""
    later = f".l{seed}" if CONTEXTS[row.contexts].acpt else ""
    return Ref("text_embeddings", f"{model.text_name}.{contexts_name(row)}{later}")


def contexts_name(row: Row) -> str:
    """Return the name of a row's contexts and prompts."""
    return row.contexts + ("-one-prompt" if row.one_prompt else "")


def shard_name(corpus: str, *, full_band: bool = False) -> str:
    """Return the name of a corpus's shards, band-limited or full-band."""
    return f"{corpus}.full-band" if full_band else corpus


def features_ref(corpus: str, condition: Condition | None = None, fold: Fold | None = None) -> Ref:
    """Return the reference to the pooled states of a corpus."""
    fold = talkers(fold, condition)
    parts = (fold.name if fold else "", corpus, condition.name if condition else "")
    return Ref("features", ".".join(part for part in parts if part), tags={"corpus": corpus})


def audio_ref(model: Model, corpus: str, condition: Condition | None = None, fold: Fold | None = None) -> Ref:
    """Return the reference to a corpus's audio embeddings."""
    fold = talkers(fold, condition)
    of_fold = f"{fold.name}." if fold and not model.fold else ""
    name = f"{of_fold}{model.name}.{corpus}" + (f".{condition.name}" if condition else "")
    tags = {"model": model.name, "corpus": corpus, "condition": condition.name if condition else CLEAN}
    return Ref("audio_embeddings", name, tags=tags)


def talkers(fold: Fold | None, condition: Condition | None) -> Fold | None:
    """Return the fold if a condition mixes in its sources' speech, else None."""
    return fold if condition and condition.uses_babble else None


def head_ref(fold: Fold, head: Head) -> Ref:
    """Return the reference to a head."""
    return Ref("classifier", f"{fold.name}.{head.row}.{head.seed}", tags={"row": head.row, "seed": head.seed})
