"""Node of the report over all folds: its tables, and what its sections show of sources, models and settings."""

from collections.abc import Iterable, Iterator, Mapping

from clepdg.config.folds import PAIR, Fold, kind
from clepdg.config.rows import MAIN, MAIN_ROW, Row
from clepdg.config.schema import Config
from clepdg.corpora.cards import load_card
from clepdg_flows.graph.models import Model, backbone_by_fold, of_corpora
from clepdg_flows.graph.nodes import CLEP, clep_model
from clepdg_flows.graph.refs import audio_ref, text_ref
from clepdg_flows.graph.reproduce import reproduction
from clepdg_flows.graph.titles import facts, title, untestable
from clepdg_tasks.engine.node import Node, Ref
from clepdg_tasks.stages import report as reporting

SHOWN = ("title", "licence", "licence_allows_sharing", "language", "citation", "homepage", "faults", "expected")
MAPS = 8  # folds whose embeddings are drawn


def report(
    config: Config,
    chosen: list[Fold],
    wanted: Mapping[str, Row],
    models: list[Ref],
    nodes: Iterable[str],
) -> Node:
    """Return the node of the report over all folds.

    Args:
        models: the backbones, and every CLEP and its contexts.
        nodes: ids of the nodes that the graph has.
    """
    cards = {corpus: load_card(corpus) for corpus in config.corpora}
    known = {*nodes}
    drawn = [ref for fold in mapped(chosen) for ref in _embeddings(config, fold, wanted) if ref.id in known]
    targets = {corpus for fold in chosen for corpus in fold.targets}
    heard = [corpus for corpus in config.corpora if corpus in targets and cards[corpus].licence_allows_sharing]
    return Node(
        stage="report",
        name="report",
        compute=reporting.compute_report,
        config={
            "folds": [fold.name for fold in chosen],
            "sources": {fold.name: fold.sources for fold in chosen},
            "corpora": config.corpora,
            "rows": {name: title(config, row) for name, row in wanted.items()},
            "facts": facts(config),
            "untestable": untestable(config),
            "never_heard": config.pretrain.left_out if backbone_by_fold(config) else (),
            "cards": {corpus: {name: getattr(card, name) for name in SHOWN} for corpus, card in cards.items()},
            "reproduction": reproduction(config, tuple(fold.name for fold in chosen)),
        },
        inputs={
            **{f"evaluate/{fold.name}": Ref("evaluate", fold.name) for fold in chosen},
            **of_corpora("index", config.corpora),
            **of_corpora("shard", heard),
            **{ref.id: ref for ref in models},
            **{f"map/{ref.id}": ref for ref in drawn},
        },
    )


def mapped(chosen: Iterable[Fold]) -> list[Fold]:
    """Return the folds whose embeddings are drawn: no pairs, and not too many."""
    return [fold for fold in chosen if kind(fold.name) != PAIR][:MAPS]


def _embeddings(config: Config, fold: Fold, wanted: Mapping[str, Row]) -> Iterator[Ref]:
    """Yield a fold's audio and text embeddings by its first CLEP."""
    model: Model = clep_model(fold, MAIN, config.clep_seeds[0])
    for corpus in dict.fromkeys((*fold.sources, *fold.targets)):
        yield _tagged(audio_ref(model, corpus), fold=fold.name, corpus=corpus)
    texts = [row for name, row in wanted.items() if (row.model, row.variant, row.head) == (CLEP, MAIN, "text")]
    row = wanted.get(MAIN_ROW) or next(iter(texts), None)
    if row:
        yield _tagged(text_ref(model, row, config.later_seeds[0]), fold=fold.name)


def _tagged(ref: Ref, **tags: str) -> Ref:
    return Ref(ref.stage, ref.name, tags=tags)
