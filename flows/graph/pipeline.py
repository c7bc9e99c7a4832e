"""The graph of a run: its stages in order, with the settings they read and the outputs they depend on.

    source -> index -> shard --+
                               +-> clep -> acpt -> text_embeddings -> classifier -> evaluate -> report
    backbone ------------------+--> audio_embeddings ------------------^

Corpus by corpus down to the shards; then fold by fold, for every seed; then one report. A node lists in `config` and
`inputs` exactly what its key is made of, so that what is not there can't change its result.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import product

from clepdg.config import conditions as condition_names
from clepdg.config import folds as fold_plans
from clepdg.config.folds import PAIR, Fold, kind
from clepdg.config.rows import BACKBONE, ENCODER, FULL_BAND, IN_WORDS, Row, rows
from clepdg.config.schema import Config
from clepdg.corpora.cards import load_card, published
from clepdg.dataset import emobox
from clepdg.download import source as origin
from clepdg.errors import SourceError, unknown_name
from clepdg.hashing import digest
from clepdg.store.record import Record
from clepdg_flows.graph.audio import audio_embeddings, environments, features, is_evaluated
from clepdg_flows.graph.evaluation import compared_backbone
from clepdg_flows.graph.fold import fold_nodes
from clepdg_flows.graph.models import (
    BACKBONES,
    backbone,
    backbone_by_fold,
    backbone_model,
    encoder,
    is_dual,
    shared_models,
)
from clepdg_flows.graph.nodes import text_embeddings
from clepdg_flows.graph.recorded import RECORDED
from clepdg_flows.graph.refs import shard_name
from clepdg_flows.graph.report import report
from clepdg_tasks.engine.node import DATA_STAGES, STAGES, Node, Ref
from clepdg_tasks.stages import data


def graph(
    config: Config,
    sources: Mapping[str, str],
    *,
    folds: tuple[str, ...] | None = None,
    until: str | None = None,
    allow_partial: bool = False,
    allow_pickle_weights: bool = False,
    states: Mapping[str, str] | None = None,
) -> list[Node]:
    """Return the nodes of a run, each after what it depends on.

    Args:
        sources: corpus -> the user's own source (folder, archive or address).
        folds: names of the folds wanted; None: all of the configuration's protocols.
        until: the last stage wanted.
        allow_partial: accept a corpus that is not complete by its card.
        allow_pickle_weights: read pickled weights whose bytes no pin names.
        states: corpus -> digest of its source's state, where it is known already.

    Raises:
        ConfigError: an unknown corpus, fold, row or stage.
        SourceError: sources can't be had, all of them in one error.
    """
    if until is not None and until not in STAGES:
        raise unknown_name("stage", until, STAGES, "docs/reference.md#stages")
    chosen = [] if until in DATA_STAGES else fold_plans.folds(config.corpora, config.protocols, folds)
    wanted = rows(config.rows, config.encoder.name, dual=is_dual(config))
    nodes = _sources(config, sources, states or {})
    nodes += [index(config, corpus) for corpus in config.corpora]
    nodes += [shard(config, corpus) for corpus in config.corpora]
    if any(row.model == FULL_BAND for row in wanted.values()):
        nodes += [shard(config, corpus, full_band=True) for corpus in config.corpora]
    nodes = [_accepting(node, allow_partial, config) for node in nodes]
    if is_dual(config) or not backbone_by_fold(config):
        nodes.append(backbone(config, allow_pickle_weights=allow_pickle_weights))
    if ENCODER in wanted:
        nodes.append(encoder(config, allow_pickle_weights=allow_pickle_weights))
    nodes += shared(config, chosen, wanted)
    for fold in chosen:
        nodes += fold_nodes(config, fold, wanted)
    read = {ref.id for node in nodes for ref in node.inputs.values()}
    nodes = [node for node in nodes if node.stage != "features" or node.id in read]
    learnt = [node.ref for node in nodes if node.stage in ("clep", "acpt")]
    models = [node.ref for node in nodes if learnt and node.stage == "backbone" and node.name != ENCODER] + learnt
    nodes.append(report(config, chosen, wanted, models, [node.id for node in nodes]))
    last = STAGES.index(until) if until else len(STAGES)
    needed = set[str]()  # dual-context's heads need stage features, which is a later one
    for node in reversed(nodes):
        if STAGES.index(node.stage) <= last or node.id in needed:
            needed |= {node.id, *(ref.id for ref in node.inputs.values())}
    chosen_nodes = (node for node in nodes if node.id in needed)
    return [replace(node, recorded=RECORDED.get(node.stage, {})) for node in chosen_nodes]


def _sources(config: Config, sources: Mapping[str, str], states: Mapping[str, str]) -> list[Node]:
    """Return the nodes of all sources, or raise all their faults."""
    nodes, faults = list[Node](), list[SourceError]()
    for corpus in config.corpora:
        try:
            nodes.append(source(config, corpus, sources, states))
        except SourceError as error:
            faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise SourceError(f"{len(faults)} sources can't be had.", children=faults)
    return nodes


def source(config: Config, corpus: str, sources: Mapping[str, str], states: Mapping[str, str]) -> Node:
    """Return the node of a corpus's files."""
    card, given = load_card(corpus), sources.get(corpus)
    if card.acoustics:  # synthetic
        return Node(
            stage="source",
            name=corpus,
            compute=data.compute_synthetic,
            config={
                "corpus": corpus,
                "synthetic": config.synthetic,
                "grammar": card.grammar,
                "acoustics": card.acoustics,
                "sample_rate": card.expected.sample_rate,
            },
            tags={"corpus": corpus},
        )
    return Node(
        stage="source",
        name=corpus,
        compute=data.compute_source,
        config={"corpus": corpus, "given": given},
        state={"source": states.get(corpus) or digest(origin.identify(card, given))},
        tags={"corpus": corpus},
    )


def index(config: Config, corpus: str) -> Node:
    """Return the node of a corpus's utterance table."""
    card = asdict(load_card(corpus))
    read = ("name", "grammar", "language", "labels", "split", "exclude")
    fold = card["split"].pop("emobox")
    sums = published(load_card(corpus))
    return Node(
        stage="index",
        name=corpus,
        compute=data.compute_index,
        config={
            "card": {name: card[name] for name in read},
            "index": config.index,
            **({"published": digest(sums)} if sums else {}),
        },
        state={"emobox": digest(emobox.read_fold(emobox.folder_of(corpus, fold)))} if fold else {},
        inputs={"source": Ref("source", corpus)},
        tags={"corpus": corpus},
    )


def shard(config: Config, corpus: str, *, full_band: bool = False) -> Node:
    """Return the node of a corpus's audio, as FLAC in tar files.

    It depends on the index's audio facts alone, not on its label map.
    """
    return Node(
        stage="shard",
        name=shard_name(corpus, full_band=full_band),
        compute=data.compute_shard,
        config={"shard": replace(config.shard, band_limit_hz=None) if full_band else config.shard},
        inputs={"index": Ref("index", corpus, "audio")},
        uses={"source": Ref("source", corpus)},
        tags={"corpus": corpus},
    )


def _accepting(node: Node, allow_partial: bool, config: Config) -> Node:
    """Return a node that checks an index against its card on every run."""
    if node.stage != "index":
        return node

    def accept(record: Record, place: str) -> None:
        from clepdg.corpora import synthetic
        from clepdg.dataset import validate

        card = load_card(node.tags["corpus"])
        card = synthetic.with_size(card, config.synthetic) if card.acoustics else card
        validate.check(record.figures, card, allow_partial=allow_partial, place=place)

    return replace(node, accept=accept)


def shared(config: Config, chosen: list[Fold], wanted: Mapping[str, Row]) -> list[Node]:
    """Return the text and audio embeddings of the models that folds share."""
    own = shared_models(config)
    nodes = [
        text_embeddings(config, fold, backbone_model(config, row.model, fold), row, None)
        for fold, row in product(chosen, wanted.values())
        if row.model in BACKBONES and row.model in own and row.head == "prompts"
    ]
    for fold in chosen:
        if BACKBONE in own and (model := compared_backbone(config, fold, wanted)):
            nodes.append(text_embeddings(config, fold, model, wanted[IN_WORDS], None))
    conditions = [None, *(c for c in condition_names.conditions(config.evaluate.conditions) if not c.uses_babble)]
    targets = {corpus for fold in chosen if kind(fold.name) != PAIR for corpus in fold.targets}
    used = {row.model for row in wanted.values()}
    if is_dual(config):
        nodes += [environments(config, corpus) for corpus in config.corpora]
        nodes += [
            features(config, corpus, condition)
            for condition, corpus in product(conditions, config.corpora)
            if condition is None or corpus in targets
        ]
    nodes += [
        audio_embeddings(config, model, corpus, condition)
        for condition, corpus in product(conditions, config.corpora)  # models share what a condition corrupts
        for name, model in own.items()
        if name in used and (condition is None or (corpus in targets and is_evaluated(model, condition)))
    ]
    return list({node.id: node for node in nodes}.values())
