"""Node of a fold's evaluation: all heads on the targets, and which contexts to compare with audio."""

from collections.abc import Iterator, Mapping
from itertools import product

from clepdg.audio.corruptions import CLEAN
from clepdg.config.folds import SUPERVISED, Fold
from clepdg.config.rows import BACKBONE, MAIN, Row
from clepdg.config.schema import Config
from clepdg.corpora import cards
from clepdg.evaluation import context_geometry
from clepdg_flows.graph.models import Model, backbone_model
from clepdg_flows.graph.nodes import Head, audio_name, conditions_of, is_evaluated, new_label, text_name
from clepdg_tasks.engine.node import Node
from clepdg_tasks.stages import evaluate as evaluation


def compared_backbone(config: Config, fold: Fold, wanted: Mapping[str, Row]) -> Model | None:
    """Return the backbone whose contexts in words are compared with audio.

    None where contexts are not compared: without corruptions, or without rows that use the backbone and such contexts.
    """
    of_backbone = any(row.model == BACKBONE for row in wanted.values())
    compared = conditions_of(config, fold) and context_geometry.IN_WORDS in wanted and of_backbone
    return backbone_model(config, BACKBONE, fold) if compared else None


def compared_variants(
    config: Config, fold: Fold, wanted: Mapping[str, Row], heads: list[Head], models: Mapping[str, Model]
) -> Iterator[tuple[str, Model]]:
    """Yield "row/seed" and CLEP variant whose contexts in words are compared."""
    if conditions_of(config, fold) and context_geometry.IN_WORDS in wanted:
        last = {head.model: head for head in heads if wanted[head.row].variant != MAIN}
        for name, head in last.items():
            yield f"{head.row}/{models[name].seed}", models[name]


def evaluate(
    config: Config,
    fold: Fold,
    wanted: Mapping[str, Row],
    heads: list[Head],
    models: Mapping[str, Model],
    nodes: Mapping[str, Node],
) -> Node:
    """Return the node that evaluates a fold's heads on its targets.

    With corruptions it also compares their contexts with audio.

    Args:
        wanted: row -> its settings.
        models: name -> model of the heads.
        nodes: node id -> node of the fold.
    """
    conditions = conditions_of(config, fold)
    compared = {
        f"{h.row}/{h.seed}": (h.model, nodes[f"classifier/{fold.name}.{h.row}.{h.seed}"].inputs["text"])
        for h in heads
        if conditions and h.row in (context_geometry.IN_WORDS, *context_geometry.AS_VECTORS)
    }
    others = dict(compared_variants(config, fold, wanted, heads, models))
    if before := compared_backbone(config, fold, wanted):
        others[f"{context_geometry.BEFORE}/-"] = before
    for name, model in others.items():
        text = text_name(model, wanted[context_geometry.IN_WORDS], None)
        compared[name] = (model.name, f"text_embeddings/{text}")
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
            "conditions": [condition.name for condition in conditions],
            "split_units": {
                corpus: cards.load_card(corpus).split.unit for corpus in dict.fromkeys((*fold.targets, *fold.sources))
            },
            "heads": [
                {**head._asdict(), "centring": "target" if centring[head.row] == "target" else "none"} for head in heads
            ],
            "new_labels": {name: label for name, label in added.items() if label},
            "contexts_in_words": config.text.handwritten_contexts if compared else (),
            "looked_at": {name: model for name, (model, _) in compared.items()},
            "ceilings": [name for name, row in chosen.items() if row.ceiling],
        },
        inputs={
            **{f"classifier/{h.row}.{h.seed}": f"classifier/{fold.name}.{h.row}.{h.seed}" for h in heads},
            **{
                f"audio/{name}/{corpus}/{condition.name if condition else CLEAN}": "audio_embeddings/"
                + audio_name(models[name], corpus, condition, fold)
                for name, corpus, condition in product(sorted(models), fold.targets, (None, *conditions))
                if is_evaluated(models[name], condition)
            },
            **{f"text/{name}": text for name, (_, text) in compared.items()},
            **{f"index/{corpus}": f"index/{corpus}" for corpus in fold.targets},
            **_shards(fold),
        },
        tags={"fold": fold.name},
    )


def _shards(fold: Fold) -> dict[str, str]:
    """Return the inputs that show copies of source audio in a target."""
    if fold.name == SUPERVISED:
        return {}
    return {
        **{f"shard/{corpus}": f"shard/{corpus}" for corpus in fold.targets},
        **{f"learnt/{corpus}": f"shard/{corpus}#learning" for corpus in fold.sources},
    }
