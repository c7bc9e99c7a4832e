"""Node of a fold's evaluation: all heads on the targets, and which contexts to compare with audio."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

from clepdg.config.folds import SUPERVISED, Fold
from clepdg.config.label_sets import of_targets
from clepdg.config.rows import AS_VECTORS, BACKBONE, BEFORE, IN_WORDS, MAIN, Row
from clepdg.config.schema import Config
from clepdg.corpora import cards
from clepdg_flows.graph.audio import conditions_of, is_evaluated
from clepdg_flows.graph.models import Model, backbone_model, of_corpora
from clepdg_flows.graph.nodes import new_label
from clepdg_flows.graph.refs import Head, audio_ref, head_ref, text_ref
from clepdg_tasks.engine.node import Node, Ref
from clepdg_tasks.stages import evaluate as evaluation


def compared_backbone(config: Config, fold: Fold, wanted: Mapping[str, Row]) -> Model | None:
    """Return the backbone whose contexts in words are compared with audio.

    None where contexts are not compared: without corruptions, or without rows that use the backbone and such contexts.
    """
    of_backbone = any(row.model == BACKBONE for row in wanted.values())
    compared = conditions_of(config, fold) and IN_WORDS in wanted and of_backbone
    return backbone_model(config, BACKBONE, fold) if compared else None


def compared_variants(
    config: Config, fold: Fold, wanted: Mapping[str, Row], heads: list[Head], models: Mapping[str, Model]
) -> Iterator[tuple[str, Model]]:
    """Yield row and CLEP variant whose contexts in words are compared."""
    if conditions_of(config, fold) and IN_WORDS in wanted:
        last = {head.model: head for head in heads if wanted[head.row].variant != MAIN}
        for name, head in last.items():
            yield head.row, models[name]


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
    compared = [
        _compared(h.row, h.seed, h.model, nodes[head_ref(fold, h).id].inputs["text"])
        for h in heads
        if conditions and h.row in (IN_WORDS, *AS_VECTORS)
    ]
    others = list(compared_variants(config, fold, wanted, heads, models))
    if before := compared_backbone(config, fold, wanted):
        others.append((BEFORE, before))
    compared += [
        _compared(row, model.seed or "-", model.name, text_ref(model, wanted[IN_WORDS], None)) for row, model in others
    ]
    audios = [
        audio_ref(models[name], corpus, condition, fold)
        for name, corpus, condition in product(sorted(models), fold.targets, (None, *conditions))
        if is_evaluated(models[name], condition)
    ]
    chosen = {head.row: wanted[head.row] for head in heads}
    centring = {
        name: row.classifier_config(config.classifier).centring if row.head in ("prompts", "text") else "none"
        for name, row in chosen.items()
    }
    added = {name: new_label(config, fold, row) for name, row in chosen.items()}
    return Node(
        stage="evaluate",
        name=fold.name,
        compute=evaluation.compute_evaluate,
        config={
            "fold": fold.name,
            "test_only": fold.name == SUPERVISED,
            "label_set": of_targets(config.text.label_set, fold.targets),
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
            "looked_at": {f"{text.tags['row']}/{text.tags['seed']}": text.tags["model"] for text in compared},
            "ceilings": [name for name, row in chosen.items() if row.ceiling],
            "transductive": [
                name for name, row in chosen.items() if row.target_standardised or centring[name] == "target"
            ],
        },
        inputs={
            **{f"classifier/{h.row}.{h.seed}": head_ref(fold, h) for h in heads},
            **{"/".join(("audio", *audio.tags.values())): audio for audio in audios},
            **{f"text/{text.tags['row']}/{text.tags['seed']}": text for text in compared},
            **of_corpora("index", fold.targets),
            **_shards(fold),
        },
        tags={"fold": fold.name},
    )


def _compared(row: str, seed: str, model: str, text: Ref) -> Ref:
    """Return the reference to text that is compared with a model's audio."""
    return replace(text, tags={"row": row, "seed": seed, "model": model})


def _shards(fold: Fold) -> dict[str, Ref]:
    """Return the inputs that show copies of source audio in a target."""
    if fold.name == SUPERVISED:
        return {}
    return {
        **of_corpora("shard", fold.targets),
        **of_corpora("shard", fold.sources, "learning", "learnt"),
    }
