"""The stages of a run, in order: what each one reads of the configuration, and what it depends on.

    source -> index -> shard --+
                               +-> clep -> acpt -> text_embeddings -> classifier -> evaluate -> report
    backbone ------------------+--> audio_embeddings ------------------^

Corpus by corpus down to the shards; then fold by fold, for every seed; then one report. A node lists in `config` and
`inputs` exactly what its key is made of, so that what is not there can't change its result.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from clepdg import prompts, sources
from clepdg.cards import load_card
from clepdg.config import Config
from clepdg.emotions import EMOTIONS
from clepdg.errors import ConfigError
from clepdg.protocols import SUPERVISED, Fold, Row, folds, rows
from clepdg.store import Record, digest
from flows.captions import facts, title
from tasks import data, evaluation, training
from tasks.stages import DATA_STAGES, STAGES, Node

LOG_MEL = "log-mel"
BACKBONE = "backbone"
CLEAN = "clean"


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
    chosen = [] if until in DATA_STAGES else folds(config.corpora, config.protocols, only_folds)
    wanted = rows(config.rows)
    nodes = [make(config, corpus, given) for make in (source, index, shard) for corpus in config.corpora]
    nodes = [_accepting(node, allow_partial, config) for node in nodes]
    nodes.append(backbone(config))
    nodes += shared(config, wanted)
    for fold in chosen:
        nodes += fold_nodes(config, fold, wanted)
    nodes.append(report(config, chosen, wanted))
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
    name = config.backbone.name
    folder = Path(name).expanduser()
    state: dict[str, str] = {}
    settings: dict[str, Any] = {"name": name, "revision": config.backbone.revision, "seed": 0}
    if name == "micro":
        settings |= {"seed": config.backbone.seed, "words": prompts.vocabulary()}
    elif folder.is_dir():
        settings["name"] = str(folder.absolute())
        listing = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir() if p.is_file())
        state = {"folder": digest(listing)}
    return Node(stage="backbone", name=BACKBONE, compute=training.compute_backbone, config=settings, state=state)


def shared(config: Config, wanted: Mapping[str, Row]) -> Iterator[Node]:
    """What no fold changes: text and audio embeddings of the backbone, and the log-mel statistics."""
    models = {row.model for row in wanted.values()}
    if "backbone" in models:
        yield text_embeddings(config, BACKBONE, f"backbone/{BACKBONE}", "none", None)
    for model in (LOG_MEL, BACKBONE):
        if model in models:
            for corpus in config.corpora:
                yield audio_embeddings(config, model, f"backbone/{BACKBONE}" if model == BACKBONE else None, corpus)


def fold_nodes(config: Config, fold: Fold, wanted: Mapping[str, Row]) -> Iterator[Node]:
    """Everything of one fold, from CLEP to its evaluation."""
    heads: list[tuple[str, str, str]] = []  # row, seed, model
    for row_name, row in wanted.items():
        if row.model != "clep":
            text = f"text_embeddings/{BACKBONE}.none" if row.head == "prompts" else None
            heads.append((row_name, "-", LOG_MEL if row.model == LOG_MEL else BACKBONE))
            yield classifier(config, fold, row_name, row, heads[-1][2], "-", 0, text)
    clep_rows = {name: row for name, row in wanted.items() if row.model == "clep"}
    for clep_seed in config.clep_seeds if clep_rows else ():
        model = f"{fold.name}.c{clep_seed}"
        yield clep(config, fold, clep_seed)
        for corpus in sorted({*fold.sources, *fold.targets}, key=config.corpora.index):
            yield audio_embeddings(config, model, f"clep/{model}", corpus)
        for contexts in _contexts(clep_rows, ("none", "hand-written")):
            yield text_embeddings(config, model, f"clep/{model}", contexts, None)
        for later in config.later_seeds:
            for contexts in _contexts(clep_rows, ("random", "acpt")):
                yield acpt(config, fold, model, contexts, later)
                yield text_embeddings(config, model, f"clep/{model}", contexts, later)
        for row_name, row in clep_rows.items():
            for later_seed in config.later_seeds if row.head == "text" else (None,):
                seed = f"c{clep_seed}" + (f".l{later_seed}" if later_seed is not None else "")
                learnt = row.contexts in ("random", "acpt")
                text = f"text_embeddings/{model}.{row.contexts}" + (f".l{later_seed}" if learnt else "")
                text_or_none = None if row.head == "logistic" else text
                heads.append((row_name, seed, model))
                yield classifier(config, fold, row_name, row, model, seed, later_seed or 0, text_or_none)
    yield evaluate(config, fold, wanted, heads)


def _contexts(wanted: Mapping[str, Row], kinds: tuple[str, ...]) -> list[str]:
    used = {row.contexts for row in wanted.values() if row.head in ("text", "prompts")}
    return [kind for kind in kinds if kind in used]


def fold_emotions(fold: Fold) -> tuple[str, ...]:
    """Return the canonical emotions that the cards of a fold's sources name: never from target files."""
    named = {emotion for corpus in fold.sources for emotion in load_card(corpus).emotions}
    return tuple(emotion for emotion in EMOTIONS if emotion in named)


def clep(config: Config, fold: Fold, seed: int) -> Node:
    """CLEP of a fold: reads train and validation of the sources, and nothing of a target that is left out."""
    return Node(
        stage="clep",
        name=f"{fold.name}.c{seed}",
        compute=training.compute_clep,
        config={"clep": config.clep, "compute": config.compute, "emotions": fold_emotions(fold), "seed": seed},
        inputs={
            "backbone": f"backbone/{BACKBONE}",
            **{f"shard/{corpus}": f"shard/{corpus}#learning" for corpus in fold.sources},
            **{f"index/{corpus}": f"index/{corpus}#learning" for corpus in fold.sources},
        },
    )


def acpt(config: Config, fold: Fold, model: str, contexts: str, seed: int) -> Node:
    """Context vectors of a fold's CLEP: learnt, or the same random start without training."""
    settings = config.acpt if contexts == "acpt" else replace(config.acpt, method="random")
    return Node(
        stage="acpt",
        name=f"{model}.{contexts}.l{seed}",
        compute=training.compute_acpt,
        config={"acpt": settings, "compute": config.compute, "emotions": fold_emotions(fold), "seed": seed},
        inputs={"clep": f"clep/{model}"},
    )


def text_embeddings(config: Config, model: str, model_id: str, contexts: str, seed: int | None) -> Node:
    """The label set's words, embedded by a model with one kind of contexts."""
    name = f"{model}.{contexts}" + (f".l{seed}" if seed is not None else "")
    learnt = {"acpt": f"acpt/{name}"} if seed is not None else {}
    return Node(
        stage="text_embeddings",
        name=name,
        compute=training.compute_text_embeddings,
        config={
            "label_set": config.text.label_set,
            "content_templates": config.text.content_templates,
            "joint_template": config.text.joint_template,
            "contexts": config.text.handwritten_contexts if contexts == "hand-written" else (),
            "compute": config.compute,
        },
        inputs={"model": model_id, **learnt},
    )


def audio_embeddings(config: Config, model: str, model_id: str | None, corpus: str) -> Node:
    """Every utterance of a corpus, embedded by a model: shared by all rows, and by all folds with that model."""
    return Node(
        stage="audio_embeddings",
        name=f"{model}.{corpus}",
        compute=training.compute_audio_embeddings,
        config={"condition": CLEAN, "compute": config.compute, **({} if model_id else {"model": LOG_MEL})},
        inputs={"shard": f"shard/{corpus}", **({"model": model_id} if model_id else {})},
    )


def classifier(
    config: Config, fold: Fold, name: str, row: Row, model: str, seed_name: str, seed: int, text: str | None
) -> Node:
    """The head of one row: sees the sources' train and validation parts alone."""
    settings: dict[str, Any] = {"head": row.head, "label_set": config.text.label_set}
    if row.head in ("prompts", "text"):
        centring = config.classifier.centring if row.centring else "none"
        steps = config.classifier.steps if row.head == "text" else 0
        settings |= {"classifier": replace(config.classifier, centring=centring, steps=steps), "seed": seed}
    return Node(
        stage="classifier",
        name=f"{fold.name}.{name}.{seed_name}",
        compute=training.compute_classifier,
        config=settings,
        inputs={
            **({"text": text} if text else {}),
            **{f"audio/{corpus}": f"audio_embeddings/{model}.{corpus}" for corpus in fold.sources},
            **{f"index/{corpus}": f"index/{corpus}#learning" for corpus in fold.sources},
        },
    )


def evaluate(config: Config, fold: Fold, wanted: Mapping[str, Row], heads: list[tuple[str, str, str]]) -> Node:
    """All rows of a fold on its targets."""
    models = sorted({model for _, _, model in heads})
    transductive = config.classifier.centring == "target"
    return Node(
        stage="evaluate",
        name=fold.name,
        compute=evaluation.compute_evaluate,
        config={
            "fold": fold.name,
            "test_only": fold.name == SUPERVISED,
            "label_set": config.text.label_set,
            "evaluate": config.evaluate,
            "split_units": {corpus: load_card(corpus).split.unit for corpus in fold.targets},
            "heads": [
                {
                    "row": row,
                    "seed": seed,
                    "model": model,
                    "centring": "target" if transductive and wanted[row].centring else "none",
                }
                for row, seed, model in heads
            ],
        },
        inputs={
            **{f"classifier/{row}.{seed}": f"classifier/{fold.name}.{row}.{seed}" for row, seed, _ in heads},
            **{f"audio/{m}/{corpus}": f"audio_embeddings/{m}.{corpus}" for m in models for corpus in fold.targets},
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


def report(config: Config, chosen: list[Fold], wanted: Mapping[str, Row]) -> Node:
    """The tables over all folds."""
    return Node(
        stage="report",
        name="report",
        compute=evaluation.compute_report,
        config={
            "folds": [fold.name for fold in chosen],
            "corpora": config.corpora,
            "rows": {name: title(config, row) for name, row in wanted.items()},
            "facts": facts(config),
            "synthetic_utterances": config.synthetic.utterances,
            "expected": {corpus: load_card(corpus).expected for corpus in config.corpora},
        },
        inputs={
            **{f"evaluate/{fold.name}": f"evaluate/{fold.name}" for fold in chosen},
            **{f"index/{corpus}": f"index/{corpus}" for corpus in config.corpora},
        },
    )
