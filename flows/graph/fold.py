"""Nodes of one fold, from CLEP to its evaluation; what several rows need is computed once."""

from collections.abc import Iterator, Mapping
from itertools import product

from clepdg.config.folds import SUPERVISED, Fold
from clepdg.config.rows import CONTEXTS, IN_WORDS, Row
from clepdg.config.schema import Config
from clepdg_flows.graph.audio import audio_embeddings, conditions_of, features, is_evaluated
from clepdg_flows.graph.evaluation import compared_backbone, compared_variants, evaluate
from clepdg_flows.graph.models import Model, backbone, backbone_by_fold, backbone_model, is_dual
from clepdg_flows.graph.nodes import (
    CLEP,
    acpt,
    classifier,
    clep,
    clep_model,
    standardised,
    text_embeddings,
)
from clepdg_flows.graph.refs import Head
from clepdg_tasks.engine.node import STAGES, Node


def fold_nodes(config: Config, fold: Fold, wanted: Mapping[str, Row]) -> Iterator[Node]:
    """Yield the nodes of one fold, each once, in the order of the stages."""
    heads: list[Head] = []
    nodes: dict[str, Node] = {}
    models: dict[str, Model] = {}
    if backbone_by_fold(config):
        yield backbone(config, fold)
    for name, row in wanted.items():
        if row.ceiling and fold.name == SUPERVISED:  # it would be the probe that learns from all corpora
            continue
        for seed, later in product(config.clep_seeds if row.model == CLEP else (0,), _later_seeds(config, row)):
            of_clep = row.model == CLEP
            model = clep_model(fold, row.variant, seed) if of_clep else backbone_model(config, row.model, fold)
            heard = standardised(model) if row.target_standardised else model
            models[heard.name] = heard
            heads.append(Head(name, _seed_name(seed if of_clep else None, later), heard.name))
            made = [*clep(config, fold, row.variant, seed)] if of_clep and f"{CLEP}/{model.name}" not in nodes else []
            if model.fold:
                made += _embedding_nodes(config, fold, row, model, later)
            if row.target_standardised:
                made += [audio_embeddings(config, heard, corpus) for corpus in fold.targets]
            made.append(classifier(config, fold, row, heads[-1], model, later))
            nodes |= {node.id: node for node in made if node.id not in nodes}
    in_words = [model for _, model in compared_variants(config, fold, wanted, heads, models)]
    before = compared_backbone(config, fold, wanted)
    if before and before.fold:
        in_words.append(before)
    for model in in_words:
        words = text_embeddings(config, fold, model, wanted[IN_WORDS], None)
        nodes[words.id] = words
    for condition in conditions_of(config, fold):
        if is_dual(config) and condition.uses_babble:
            made_of_babble = [features(config, corpus, condition, fold) for corpus in fold.targets]
            nodes |= {node.id: node for node in made_of_babble}
        for _, model in sorted(models.items()):
            if is_evaluated(model, condition) and (model.fold or condition.uses_babble):
                for corpus in fold.targets:
                    node = audio_embeddings(config, model, corpus, condition, fold)
                    nodes[node.id] = node
    yield from sorted(nodes.values(), key=lambda node: STAGES.index(node.stage))
    yield evaluate(config, fold, wanted, heads, models, nodes)


def _later_seeds(config: Config, row: Row) -> tuple[int | None, ...]:
    return config.later_seeds if row.model == CLEP and row.head == "text" else (None,)


def _seed_name(clep_seed: int | None, later: int | None) -> str:
    return "-" if clep_seed is None else f"c{clep_seed}" + ("" if later is None else f".l{later}")


def _embedding_nodes(config: Config, fold: Fold, row: Row, model: Model, later: int | None) -> Iterator[Node]:
    """Yield the embeddings and contexts of a row with a fold's own model."""
    for corpus in sorted({*fold.sources, *fold.targets}, key=config.corpora.index):
        yield audio_embeddings(config, model, corpus)
    if row.head in ("text", "prompts"):
        made_by = CONTEXTS[row.contexts].acpt
        if made_by is not None and later is not None:
            yield acpt(config, fold, model, made_by, later)
        yield text_embeddings(config, fold, model, row, later)
