"""The stages of a run, in order: what each one reads of the configuration, and what it depends on.

    source -> index -> shard --+
                               +-> clep -> acpt -> text_embeddings -> classifier -> evaluate -> report
    backbone ------------------+--> audio_embeddings ------------------^

Corpus by corpus down to the shards; then fold by fold, for every seed; then one report. A node lists in `config` and
`inputs` exactly what its key is made of, so that what is not there can't change its result.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

from clepdg import corruptions, prompts, sources
from clepdg.cards import load_card
from clepdg.config import Config
from clepdg.errors import ConfigError
from clepdg.protocols import ENCODER, Fold, Row, folds, rows
from clepdg.store import Record, digest
from flows.captions import facts, title, untestable
from flows.fold_graph import BACKBONE, SHARED, audio_embeddings, fold_nodes, text_embeddings
from tasks import data, evaluation, training
from tasks.stages import STAGES, Node


def graph(
    config: Config,
    given: Mapping[str, str],
    *,
    only_folds: tuple[str, ...] | None = None,
    until: str | None = None,
    allow_partial: bool = False,
) -> list[Node]:
    """Return the nodes of a run, each after what it depends on.

    Args:
        given: corpus -> the user's own source (folder, archive or address).
        only_folds: names of the folds wanted; None: all of the configuration's protocols.
        until: the last stage wanted.

    Raises:
        ConfigError: an unknown corpus, fold, row or stage.
        SourceError: a source can't be had.
    """
    if until is not None and until not in STAGES:
        raise ConfigError("There is no such stage.", got=until, expected=STAGES)
    chosen = folds(config.corpora, config.protocols, only_folds)
    wanted = rows(config.rows, config.encoder.name)
    nodes = [make(config, corpus, given) for make in (source, index, shard) for corpus in config.corpora]
    nodes = [_accepting(node, allow_partial, config) for node in nodes]
    nodes.append(backbone(config))
    if ENCODER in wanted:
        nodes.append(encoder(config))
    nodes += shared(config, chosen, wanted)
    for fold in chosen:
        nodes += [replace(node, fold=fold.name) for node in fold_nodes(config, fold, wanted)]
    models = [node.id for node in nodes if node.stage == "clep"]
    nodes.append(report(config, chosen, wanted, models))
    last = STAGES.index(until) if until else len(STAGES)
    return [node for node in nodes if STAGES.index(node.stage) <= last]


def source(config: Config, corpus: str, given: Mapping[str, str]) -> Node:
    """A corpus's files: generated, downloaded, extracted, or a folder that is listed."""
    card = load_card(corpus)
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
        )
    return Node(
        stage="source",
        name=corpus,
        compute=data.compute_source,
        config={"corpus": corpus, "given": given.get(corpus)},
        state={"source": digest(sources.state(card, given.get(corpus)))},
    )


def index(config: Config, corpus: str, given: Mapping[str, str]) -> Node:
    """The utterance table of a corpus."""
    card = asdict(load_card(corpus))
    read = ("name", "grammar", "language", "labels", "split", "exclude")
    return Node(
        stage="index",
        name=corpus,
        compute=data.compute_index,
        config={"card": {name: card[name] for name in read}, "index": config.index},
        inputs={"source": f"source/{corpus}"},
    )


def shard(config: Config, corpus: str, given: Mapping[str, str]) -> Node:
    """A corpus's audio as FLAC in tars: depends on the index's audio facts alone, not on its label map."""
    return Node(
        stage="shard",
        name=corpus,
        compute=data.compute_shard,
        config={"shard": config.shard},
        inputs={"index": f"index/{corpus}#audio"},
        uses={"source": f"source/{corpus}"},
    )


def _accepting(node: Node, allow_partial: bool, config: Config) -> Node:
    """Let the index's counts be held against the card on every run, reused or not."""
    if node.stage != "index":
        return node

    def accept(record: Record) -> None:
        from clepdg import index as indexing
        from clepdg.corpora import synthetic

        card = load_card(node.name)
        card = synthetic.sized(card, config.synthetic) if card.acoustics else card
        indexing.check(record.figures, card, allow_partial=allow_partial)

    return replace(node, accept=accept)


def backbone(config: Config) -> Node:
    """The CLAP to start from."""
    settings: dict[str, Any] = {"name": config.backbone.name, "revision": config.backbone.revision, "seed": 0}
    state: dict[str, str] = {}
    if config.backbone.name == "micro":
        settings |= {"seed": config.backbone.seed, "words": prompts.vocabulary()}
    else:
        settings["name"], state = _weights(config.backbone.name)
    return Node(stage="backbone", name=BACKBONE, compute=training.compute_backbone, config=settings, state=state)


def encoder(config: Config) -> Node:
    """The speech encoder that a row is a probe on."""
    name, state = _weights(str(config.encoder.name))
    settings = {"name": name, "revision": config.encoder.revision}
    return Node(stage="backbone", name=ENCODER, compute=training.compute_encoder, config=settings, state=state)


def _weights(name: str) -> tuple[str, dict[str, str]]:
    """Return where weights come from, and the state of that place where it is a folder."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return name, {}
    listing = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir() if p.is_file())
    return str(folder.absolute()), {"folder": digest(listing)}


def shared(config: Config, chosen: list[Fold], wanted: Mapping[str, Row]) -> Iterator[Node]:
    """What no fold changes: text and audio embeddings of the backbone, and all that is made without CLEP."""
    models = {row.model for row in wanted.values()}
    for row in wanted.values():
        if row.model == BACKBONE and row.head == "prompts":
            yield text_embeddings(config, BACKBONE, f"backbone/{BACKBONE}", row, None)
    heard = [None, *(c for c in corruptions.conditions(config.evaluate.conditions) if not c.of_babble)]
    targets = {corpus for fold in chosen for corpus in fold.targets}
    for model in [model for model in SHARED if model in models]:
        for condition, corpus in product(heard, config.corpora):
            if condition is None or corpus in targets:
                yield audio_embeddings(config, model, SHARED[model], corpus, condition)


def report(config: Config, chosen: list[Fold], wanted: Mapping[str, Row], models: list[str]) -> Node:
    """The tables over all folds, and how much the models of their rows read of contexts."""
    return Node(
        stage="report",
        name="report",
        compute=evaluation.compute_report,
        config={
            "folds": [fold.name for fold in chosen],
            "corpora": config.corpora,
            "rows": {name: title(config, row) for name, row in wanted.items()},
            "facts": facts(config),
            "untestable": untestable(config),
            "synthetic_utterances": config.synthetic.utterances,
            "expected": {corpus: load_card(corpus).expected for corpus in config.corpora},
        },
        inputs={
            **{f"evaluate/{fold.name}": f"evaluate/{fold.name}" for fold in chosen},
            **{f"index/{corpus}": f"index/{corpus}" for corpus in config.corpora},
            **{node_id: node_id for node_id in ((f"backbone/{BACKBONE}", *models) if models else ())},
        },
    )
