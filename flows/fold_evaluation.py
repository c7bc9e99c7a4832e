"""The evaluation of a fold, as a node: all rows on its targets, and what their contexts are held against."""

from collections.abc import Iterator, Mapping
from itertools import product

from clepdg import acoustics, cards
from clepdg.config import Config
from clepdg.corruptions import CLEAN
from clepdg.protocols import BACKBONE, SUPERVISED, Fold, Row
from clepdg.variants import MAIN
from flows.fold_stages import Head, audio_name, conditions_of, hears, new_label, talkers, text_name
from flows.models import backbone_name
from tasks import evaluation
from tasks.stages import Node


def looked_at_before(config: Config, fold: Fold, wanted: Mapping[str, Row]) -> str | None:
    """Return the backbone whose contexts in words are looked at beside CLEP's, where it hears corruptions at all."""
    of_backbone = any(row.model == BACKBONE for row in wanted.values())
    looked_at = conditions_of(config, fold) and acoustics.IN_WORDS in wanted and of_backbone
    return backbone_name(config, fold) if looked_at else None


def looked_at_in_variants(
    config: Config, fold: Fold, wanted: Mapping[str, Row], heads: list[Head]
) -> Iterator[tuple[str, str]]:
    """Yield row, CLEP's seed and model of the variants of CLEP whose contexts in words are looked at beside CLEP's."""
    if conditions_of(config, fold) and acoustics.IN_WORDS in wanted:
        models = {head.model: head for head in heads if wanted[head.row].variant != MAIN}
        for model, head in models.items():
            yield f"{head.row}/{head.seed.partition('.')[0]}", model


def evaluate(
    config: Config, fold: Fold, wanted: Mapping[str, Row], heads: list[Head], nodes: Mapping[str, Node]
) -> Node:
    """All rows of a fold on its targets; with corruptions, whether their contexts look like what those do to audio."""
    conditions = conditions_of(config, fold)
    looked_at = {
        f"{h.row}/{h.seed}": (h.model, nodes[f"classifier/{fold.name}.{h.row}.{h.seed}"].inputs["text"])
        for h in heads
        if conditions and h.row in (acoustics.IN_WORDS, *acoustics.AS_VECTORS)
    }
    others = dict(looked_at_in_variants(config, fold, wanted, heads))
    if before := looked_at_before(config, fold, wanted):
        others[f"{acoustics.BEFORE}/-"] = before
    for name, model in others.items():
        looked_at[name] = (model, f"text_embeddings/{text_name(model, wanted[acoustics.IN_WORDS], None)}")
    models = sorted({head.model for head in heads})
    chosen = {head.row: wanted[head.row] for head in heads}
    centring = {
        name: row.classifier_config(config.classifier).centring if row.head in ("prompts", "text") else "none"
        for name, row in chosen.items()
    }
    added = {name: new_label(config, row) for name, row in chosen.items()}
    return Node(
        stage="evaluate",
        name=fold.name,
        compute=evaluation.compute_evaluate,
        config={
            "fold": fold.name,
            "test_only": fold.name == SUPERVISED,
            "label_set": config.text.label_set,
            "evaluate": config.evaluate,
            "conditions": [heard.name for heard in conditions],
            "split_units": {
                corpus: cards.load_card(corpus).split.unit for corpus in dict.fromkeys((*fold.targets, *fold.sources))
            },
            "heads": [
                {**head._asdict(), "centring": "target" if centring[head.row] == "target" else "none"} for head in heads
            ],
            "new_labels": {name: label for name, label in added.items() if label},
            "contexts_in_words": config.text.handwritten_contexts if looked_at else (),
            "looked_at": {name: model for name, (model, _) in looked_at.items()},
            "ceilings": [name for name, row in chosen.items() if row.ceiling],
        },
        inputs={
            **{f"classifier/{h.row}.{h.seed}": f"classifier/{fold.name}.{h.row}.{h.seed}" for h in heads},
            **{
                f"audio/{m}/{corpus}/{heard.name if heard else CLEAN}": "audio_embeddings/"
                + audio_name(m, corpus, heard, talkers(fold, heard) if heard else None)
                for m, corpus, heard in product(models, fold.targets, (None, *conditions))
                if hears(m, heard)
            },
            **{f"text/{name}": text for name, (_, text) in looked_at.items()},
            **{f"index/{corpus}": f"index/{corpus}" for corpus in fold.targets},
            **_shards(fold),
        },
    )


def _shards(fold: Fold) -> dict[str, str]:
    """Return what tells whether a target that is left out holds audio of its sources."""
    if fold.name == SUPERVISED:
        return {}
    return {
        **{f"shard/{corpus}": f"shard/{corpus}" for corpus in fold.targets},
        **{f"learnt/{corpus}": f"shard/{corpus}#learning" for corpus in fold.sources},
    }
