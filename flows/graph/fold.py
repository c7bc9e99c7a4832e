"""The stages of one fold, from CLEP to its evaluation: what its rows need, each once."""

from collections.abc import Iterator, Mapping
from itertools import product

from clepdg.audio.corruptions import CLEAN
from clepdg.config.folds import SUPERVISED, Fold
from clepdg.config.rows import BACKBONE, CONTEXTS, MAIN, Row
from clepdg.config.schema import Config
from clepdg.corpora import cards
from clepdg.evaluation import context_geometry
from flows.graph.models import backbone, backbone_by_fold, backbone_name, shared_models
from flows.graph.nodes import (
    CLEP,
    Head,
    acpt,
    audio_embeddings,
    audio_name,
    classifier,
    clep,
    clep_name,
    conditions_of,
    hears,
    new_label,
    talkers,
    text_embeddings,
    text_name,
)
from tasks.engine.node import STAGES, Node
from tasks.stages import evaluate as evaluation


def looked_at_before(config: Config, fold: Fold, wanted: Mapping[str, Row]) -> str | None:
    """Return the backbone whose contexts in words are looked at beside CLEP's, where it hears corruptions at all."""
    of_backbone = any(row.model == BACKBONE for row in wanted.values())
    looked_at = conditions_of(config, fold) and context_geometry.IN_WORDS in wanted and of_backbone
    return backbone_name(config, fold) if looked_at else None


def looked_at_in_variants(
    config: Config, fold: Fold, wanted: Mapping[str, Row], heads: list[Head]
) -> Iterator[tuple[str, str]]:
    """Yield row, CLEP's seed and model of the variants of CLEP whose contexts in words are looked at beside CLEP's."""
    if conditions_of(config, fold) and context_geometry.IN_WORDS in wanted:
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
        if conditions and h.row in (context_geometry.IN_WORDS, *context_geometry.AS_VECTORS)
    }
    others = dict(looked_at_in_variants(config, fold, wanted, heads))
    if before := looked_at_before(config, fold, wanted):
        others[f"{context_geometry.BEFORE}/-"] = before
    for name, model in others.items():
        looked_at[name] = (model, f"text_embeddings/{text_name(model, wanted[context_geometry.IN_WORDS], None)}")
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


def fold_nodes(config: Config, fold: Fold, wanted: Mapping[str, Row]) -> Iterator[Node]:
    """Everything of one fold, from CLEP to its evaluation: what several rows need stands once."""
    heads: list[Head] = []
    nodes: dict[str, Node] = {}
    ids: dict[str, str | None] = {}  # model -> its node; None of statistics
    shared = shared_models(config)
    if backbone_by_fold(config):
        yield backbone(config, fold)
    for name, row in wanted.items():
        if row.ceiling and fold.name == SUPERVISED:  # it would be the probe that learns from all corpora
            continue
        of_clep = row.model == CLEP
        for clep_seed, later in product(config.clep_seeds if of_clep else (0,), _later_seeds(config, row)):
            own = row.model if row.model in shared else f"{fold.name}.{row.model}"
            model = clep_name(fold, row.variant, clep_seed) if of_clep else own
            ids[model] = f"clep/{model}" if of_clep else shared.get(model, f"backbone/{backbone_name(config, fold)}")
            heads.append(Head(name, _seed_name(clep_seed if of_clep else None, later), model))
            made = [*_clep_nodes(config, fold, row, clep_seed, later)] if of_clep else []
            if own not in shared and not of_clep:
                made += _backbone_nodes(config, fold, row, own, f"backbone/{backbone_name(config, fold)}")
            made.append(classifier(config, fold, row, heads[-1], later))
            nodes |= {node.id: node for node in made if node.id not in nodes}
    of_words = {model: f"clep/{model}" for _, model in looked_at_in_variants(config, fold, wanted, heads)}
    before = looked_at_before(config, fold, wanted)
    if before and before not in shared:
        of_words[before] = f"backbone/{before}"
    for model, model_id in of_words.items():
        words = text_embeddings(config, model, model_id, wanted[context_geometry.IN_WORDS], None)
        nodes[words.id] = words
    for heard in conditions_of(config, fold):
        for model in sorted({head.model for head in heads}):
            if hears(model, heard) and (model not in shared or talkers(fold, heard)):
                for corpus in fold.targets:
                    node = audio_embeddings(config, model, ids[model], corpus, heard, talkers(fold, heard))
                    nodes[node.id] = node
    yield from sorted(nodes.values(), key=lambda node: STAGES.index(node.stage))
    yield evaluate(config, fold, wanted, heads, nodes)


def _later_seeds(config: Config, row: Row) -> tuple[int | None, ...]:
    return config.later_seeds if row.model == CLEP and row.head == "text" else (None,)


def _seed_name(clep_seed: int | None, later: int | None) -> str:
    return "-" if clep_seed is None else f"c{clep_seed}" + ("" if later is None else f".l{later}")


def _backbone_nodes(config: Config, fold: Fold, row: Row, model: str, model_id: str) -> Iterator[Node]:
    """What a row of a fold's own backbone needs before its classifier."""
    for corpus in sorted({*fold.sources, *fold.targets}, key=config.corpora.index):
        yield audio_embeddings(config, model, model_id, corpus)
    if row.head == "prompts":
        yield text_embeddings(config, model, model_id, row, None)


def _clep_nodes(config: Config, fold: Fold, row: Row, clep_seed: int, later: int | None) -> Iterator[Node]:
    """What a row of CLEP needs before its classifier."""
    model = clep_name(fold, row.variant, clep_seed)
    yield from clep(config, fold, row.variant, clep_seed)
    for corpus in sorted({*fold.sources, *fold.targets}, key=config.corpora.index):
        yield audio_embeddings(config, model, f"clep/{model}", corpus)
    if row.head in ("text", "prompts"):
        made_by = CONTEXTS[row.contexts].acpt
        if made_by is not None and later is not None:
            yield acpt(config, fold, row.variant, model, made_by, later)
        yield text_embeddings(config, model, f"clep/{model}", row, later)
