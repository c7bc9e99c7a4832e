"""Read from a run's outputs what the report's last sections show."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clepdg.config.folds import LEAVE_OUT, PAIR, kind
from clepdg.config.rows import MAIN
from clepdg.emotions import label_of
from clepdg_tasks.engine.node import Work

if TYPE_CHECKING:
    import pandas as pd

    from clepdg.report.section import Section
    from clepdg.report.sections.curves import Course
    from clepdg.report.sections.data import Corpus
    from clepdg.report.sections.embedding_map import Map

ACPT = "acpt"  # the contexts whose training is drawn


def sections(
    work: Work, predictions: "pd.DataFrame", names: Mapping[str, tuple[str, ...]], label_sets: Mapping[str, Any]
) -> "list[Section]":
    """Return the page's sections beside the results.

    Errors to listen to, what the model learnt, data, how to reproduce.

    Args:
        predictions: of all folds.
        names: fold -> its labels.
        label_sets: fold -> its label set, as the evaluation's configuration has it.
    """
    import pandas as pd

    from clepdg.dataset import tables
    from clepdg.report.sections.data import data
    from clepdg.report.sections.learnt import learnt
    from clepdg.report.sections.listen import listen
    from clepdg.report.sections.reproduce import reproduce

    rows, cards = work.config["rows"], work.config["cards"]
    indexes = {corpus: tables.read_utterances(work.inputs[f"index/{corpus}"]) for corpus in work.config["corpora"]}
    every = pd.concat(indexes.values(), ignore_index=True)
    texts = {name: text for name, text in zip(every.utterance_id, every.transcript, strict=True) if text}
    corpora = {corpus: _corpus(work, corpus, own) for corpus, own in indexes.items()}
    of_contexts: dict[str, list[Mapping[str, float]]] = {}
    nearest: dict[str, Counter[str]] = {}
    for name, record in work.records.items():
        if record.stage == "acpt":
            own = work.refs[name].tags["contexts"]
            of_contexts.setdefault(own, []).append(record.figures)
            nearest.setdefault(own, Counter()).update(_nearest(work.inputs[name]))
    maps = [found for fold in names if (found := _map(work, fold, names[fold], label_sets[fold], indexes))]
    shown = [
        listen(predictions, names, rows, cards, texts, _reader(work)),
        learnt([*_clep_courses(work)], [*_acpt_courses(work)], maps, of_contexts, nearest, predictions, names, rows),
        data(corpora),
        reproduce(
            work.config["reproduction"]["command"],
            work.config["reproduction"]["settings"],
            {ref.id: work.records[name].digests["content"] for name, ref in work.refs.items()},
            partial=[corpus for corpus, own in corpora.items() if own.differences],
        ),
    ]
    return [section for section in shown if section is not None]


def _reader(work: Work) -> Any:
    """Return a function that reads an utterance of a corpus."""
    from clepdg.dataset import shards

    @cache
    def places(corpus: str) -> "pd.DataFrame":
        return shards.read_offsets(work.inputs[f"shard/{corpus}"]).set_index("utterance_id")

    def read(corpus: str, utterance_id: str) -> Any:
        place: Any = places(corpus).loc[utterance_id]
        return shards.read_waveform(work.inputs[f"shard/{corpus}"], place.tar, int(place.offset), int(place.bytes))

    return read


def _corpus(work: Work, corpus: str, utterances: "pd.DataFrame") -> "Corpus":
    """Return what the section of data shows of a corpus."""
    from clepdg.corpora.cards import load_card
    from clepdg.dataset import quality, tables
    from clepdg.dataset.validate import copy_differences
    from clepdg.report.sections.data import Corpus

    folder, figures = work.inputs[f"index/{corpus}"], work.records[f"index/{corpus}"].figures
    card = load_card(corpus)
    fold = work.records.get(f"evaluate/{LEAVE_OUT}{corpus}")
    return Corpus(
        card=work.config["cards"][corpus],
        utterances=utterances,
        faults=quality.faults(tables.read_quarantine(folder), figures),
        differences=copy_differences(figures, card),
        unit=card.split.unit,
        picture=(folder / quality.PICTURE).read_bytes(),
        copies=fold.figures["copies"] if fold else None,
    )


def _clep_courses(work: Work) -> "Iterator[Course]":
    """Yield the course of every fold's CLEP; of variants none."""
    from clepdg.report.sections.curves import Course
    from clepdg.report.sections.learnt import UAR

    for name, ref in work.refs.items():
        record = work.records[name]
        if record.stage != "clep" or ref.tags.get("variant", MAIN) != MAIN or kind(ref.tags["fold"]) == PAIR:
            continue
        uars = record.figures.get("validation_uar", [])
        epochs = {**_curve(work.inputs[name], record.config.get("clep", {}).get("steps_per_epoch", 1), "loss")}
        yield Course(
            fold=ref.tags["fold"],
            seed=ref.tags.get("seed", ""),
            metrics={**epochs, UAR: [(number + 1, score) for number, score in enumerate(uars)]},
            best=record.figures.get("best_epoch"),
        )


def _acpt_courses(work: Work) -> "Iterator[Course]":
    """Yield the course of ACPT in every fold, by its first CLEP variant."""
    from clepdg.report.sections.curves import Course

    for name, ref in work.refs.items():
        tags, record = ref.tags, work.records[name]
        main = tags.get("variant", MAIN) == MAIN and tags.get("contexts") == ACPT
        if record.stage != "acpt" or not main or kind(tags["fold"]) == PAIR:
            continue
        config = record.config["acpt"]
        per_epoch = (
            -(-config["contexts"] // config["batch_size"]) if config["method"] == "joint" else config["contexts"]
        )
        yield Course(
            fold=tags["fold"],
            seed=tags.get("seed", ""),
            metrics=_curve(work.inputs[name], per_epoch, "content_loss", "diversity_loss"),
        )


def _nearest(folder: Path) -> list[str]:
    """Return the hand-written context that is nearest to each context."""
    from clepdg.method.acpt import NEAREST
    from clepdg.store.readers import read_facts

    return [caption for caption, _ in read_facts(folder / NEAREST, list)]


def _curve(folder: Path, steps: int, *metrics: str) -> dict[str, Sequence[tuple[float, float]]]:
    """Return the course of a training; {} of one that recorded none.

    Args:
        steps: of an epoch.
    """
    from clepdg.store.readers import read_facts
    from clepdg.training.curve import CURVE

    if not (folder / CURVE).exists():
        return {}
    found = read_facts(folder / CURVE, dict)
    return {
        name: [(round(done / max(steps, 1), 3), value) for done, value in found[name]]
        for name in metrics
        if name in found
    }


def _map(
    work: Work, fold: str, names: tuple[str, ...], label_set: Any, indexes: "Mapping[str, pd.DataFrame]"
) -> "Map | None":
    """Return the map of a fold's embeddings; None where the run has none."""
    import numpy as np

    from clepdg.method.audio_embeddings import load_audio_embeddings
    from clepdg.method.classifier import class_means, source_mean
    from clepdg.method.text_embeddings import load_text_embeddings
    from clepdg.report.sections.embedding_map import CONTEXT, SOURCE, TARGET, TEXT, Cloud, embedding_map

    sources, mapping = work.config["sources"][fold], label_of(label_set)
    clouds, learnt = list[Cloud](), list[Cloud]()
    for ref, folder in work.select("audio_embeddings", fold=fold):
        corpus = ref.tags["corpus"]
        index = indexes[corpus].set_index("utterance_id")
        own = load_audio_embeddings(folder)
        rows = index.loc[[*own.utterance_ids]]
        labels = np.array([mapping.get(emotion or "") for emotion in rows.emotion], dtype=object)
        labelled = np.array([label is not None for label in labels], dtype=bool)
        seen = labelled & (rows.split != "test").to_numpy() if corpus in sources else labelled
        cloud_kind = SOURCE if corpus in sources else TARGET
        if seen.any():
            clouds.append(
                Cloud(kind=cloud_kind, corpus=corpus, embeddings=own.embeddings[seen], labels=[*labels[seen]])
            )
        if cloud_kind == SOURCE and seen.any():
            learnt.append(clouds[-1])
    if not learnt:
        return None
    audio_mean = source_mean(
        np.concatenate([cloud.embeddings for cloud in learnt]),
        np.array([names.index(label) for cloud in learnt for label in cloud.labels]),
        [cloud.corpus for cloud in learnt for _ in cloud.labels],
    )
    text_mean = np.zeros_like(audio_mean)
    for _, folder in work.select("text_embeddings", fold=fold):
        text = load_text_embeddings(folder)
        text_mean = class_means(text.embeddings, text.label_index, len(text.labels)).mean(dim=0).numpy()
        for of, chosen in ((TEXT, text.context_index < 0), (CONTEXT, text.context_index >= 0)):
            if chosen.any():
                words = [text.labels[number] for number in text.label_index[chosen].tolist()]
                clouds.append(Cloud(kind=of, corpus="", embeddings=text.embeddings[chosen].numpy(), labels=words))
    return embedding_map(fold, names, clouds, audio_mean, text_mean)
