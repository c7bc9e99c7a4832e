"""The stages of one fold, from CLEP to its evaluation: what its rows need, each once."""

from collections.abc import Iterator, Mapping
from itertools import product

from clepdg import acoustics
from clepdg.config import Config
from clepdg.protocols import SUPERVISED, Fold, Row
from clepdg.variants import CONTEXTS
from flows.fold_evaluation import evaluate, looked_at_before, looked_at_in_variants
from flows.fold_stages import (
    CLEP,
    Head,
    acpt,
    audio_embeddings,
    classifier,
    clep,
    clep_name,
    conditions_of,
    hears,
    talkers,
    text_embeddings,
)
from flows.models import backbone, backbone_by_fold, backbone_name, shared_models
from tasks.stages import STAGES, Node


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
        words = text_embeddings(config, model, model_id, wanted[acoustics.IN_WORDS], None)
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
