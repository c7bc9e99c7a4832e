"""Stage evaluate: every row of a fold on its targets."""

from typing import TYPE_CHECKING

from clepdg.config.conditions import CLEAN
from clepdg.config.folds import SUPERVISED
from clepdg.config.rows import MAIN_ROW
from clepdg.config.schema import EvaluateConfig
from clepdg.emotions import labels
from clepdg_tasks.engine.node import Computed, Work
from clepdg_tasks.stages.contexts import FILE, contexts_table
from clepdg_tasks.stages.inputs import folders_of, read_offsets, read_utterances

if TYPE_CHECKING:
    import pandas as pd

    from clepdg.method.audio_embeddings import AudioEmbeddings
    from clepdg.method.fold.predict import FoldHead

SPLITS = ("train", "validation", "test")


def compute_evaluate(work: Work) -> Computed:
    """Apply every row's heads to the fold's targets.

    Writes predictions.parquet, cells.parquet and the table of contexts; of fold supervised also validation.parquet,
    by which a champion is chosen and which no report shows.
    """
    from clepdg.evaluation import fold_results
    from clepdg.evaluation.utterances import digest_part, label_utterances

    label_set = work.config["label_set"]
    every = read_utterances(folders_of(work, "index"))
    table = label_utterances(every, label_set, ("test",) if work.config["test_only"] else SPLITS)
    table, copies = table.sort_values("utterance_id", ignore_index=True), _copies_of_sources(work)
    found = table.utterance_id.isin(copies)
    table = table[~found].reset_index(drop=True)
    predictions = _predict(work, table, every, copies)
    fold_results.write_predictions(predictions, work.folder / "predictions.parquet")
    config: EvaluateConfig = work.config["evaluate"]
    cells = fold_results.result_cells(
        predictions,
        labels(label_set),
        confidence=config.confidence,
        split_units=work.config["split_units"],
        new_labels=work.config["new_labels"],
        ceilings=work.config["ceilings"],
        transductive=work.config["transductive"],
    )
    cells.to_parquet(work.folder / "cells.parquet", index=False)
    contexts_table(work, set(every.utterance_id[every.split == "test"])).to_parquet(work.folder / FILE, index=False)
    digests = {"content": fold_results.digest_results(predictions, cells), "test": digest_part(table, "test")}
    validation, uars = _validate(work, every) if work.config["test_only"] else ({}, {})
    return Computed(
        digests=digests | validation,
        figures={
            "headline": fold_results.headline_figures(cells),
            "validation_uar": uars,
            "utterances": len(table),
            "copies": int(found.sum()),
        },
    )


def _validate(work: Work, every: "pd.DataFrame") -> tuple[dict[str, str], dict[str, float]]:
    """Predict the validation part with the heads that may be champion.

    Returns:
        The digest of that part, and each seed's mean UAR over corpora; nothing where the run has no such row.
    """
    from clepdg.evaluation import fold_results
    from clepdg.evaluation.metrics import uar_weights
    from clepdg.evaluation.utterances import centring_utterances, digest_part, label_utterances
    from clepdg.method.fold.predict import predict

    heads, part = [head for head in _heads(work) if head.row == MAIN_ROW], "validation"
    if not heads:
        return {}, {}
    table = label_utterances(every, work.config["label_set"], (part,)).sort_values("utterance_id", ignore_index=True)
    centring = centring_utterances(every, split=part)
    found = predict(heads, table, _embeddings(work, CLEAN), fold=SUPERVISED, condition=CLEAN, test_audio=centring)
    fold_results.write_predictions(found, work.folder / "validation.parquet")
    uars = {
        str(seed): float(uar_weights(own.corpus.to_numpy(), own.true.to_numpy()) @ (own.true == own.predicted))
        for seed, own in found.groupby("seed")
    }
    return {part: digest_part(table, part)}, uars


def _copies_of_sources(work: Work) -> set[str]:
    """Return the target utterances whose audio a source holds too."""
    from clepdg.evaluation.utterances import copies_of_sources

    targets, sources = folders_of(work, "shard"), folders_of(work, "shard", "learning")
    return copies_of_sources(read_offsets(targets), read_offsets(sources)) if sources else set()


def _predict(work: Work, table: "pd.DataFrame", every: "pd.DataFrame", copies: set[str]) -> "pd.DataFrame":
    """Predict the utterances with every row's heads in each condition.

    Args:
        table: the targets' labelled utterances.
        every: all of the targets' utterances, whatever their labels.
    """
    from clepdg.evaluation.blocks import join
    from clepdg.evaluation.utterances import centring_utterances
    from clepdg.method.fold.predict import predict

    heads, fold, test_audio = _heads(work), work.config["fold"], centring_utterances(every, copies)
    parts = [
        predict(heads, table, _embeddings(work, condition), fold=fold, condition=condition, test_audio=test_audio)
        for condition in (CLEAN, *work.config["conditions"])
    ]
    return join([part for part in parts if len(part)])


def _heads(work: Work) -> "list[FoldHead]":
    """Read the heads of all rows and seeds."""
    from clepdg.method.fold.predict import FoldHead
    from clepdg.method.heads import load_head

    return [
        FoldHead(
            row=each["row"],
            seed=each["seed"],
            model=each["model"],
            head=load_head(work.inputs[f"classifier/{each['row']}.{each['seed']}"]),
            centred_on_target=each["centring"] == "target",
        )
        for each in work.config["heads"]
    ]


def _embeddings(work: Work, condition: str) -> "dict[str, list[AudioEmbeddings]]":
    """Read the targets' embeddings in a condition, by model."""
    from clepdg.method.audio_embeddings import load_audio_embeddings

    found: dict[str, list[AudioEmbeddings]] = {}
    for ref, folder in work.select("audio_embeddings", condition=condition):
        found.setdefault(ref.tags["model"], []).append(load_audio_embeddings(folder))
    return found
