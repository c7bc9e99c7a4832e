"""The last stage: the report over all folds, and what it says beside the cells."""

import json
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clepdg.emotions import labels
from tasks.engine.node import Computed, Work
from tasks.stages import contexts

CREDIT = "ACPT's credit"  # as the report calls it
CONTEXTS = "what models read of contexts"
DIAGNOSTICS = "what contexts are like"
LEARNT = "UAR with learnt contexts minus UAR with random ones"

if TYPE_CHECKING:
    import pandas as pd


def compute_report(work: Work) -> Computed:
    """Write report.html, results.csv and results.md over all folds."""
    import pandas as pd

    from clepdg.dataset import quality
    from clepdg.evaluation.cells import CELL
    from clepdg.evaluation.predictions import COLUMNS, coded
    from clepdg.hashing import digest_file
    from clepdg.report import report
    from clepdg.report.tables import headline
    from clepdg.store.readers import read_frame

    folders = [work.inputs[f"evaluate/{fold}"] for fold in work.config["folds"]]
    cells = pd.concat([read_frame(folder / "cells.parquet", CELL) for folder in folders], ignore_index=True)
    predictions = coded(pd.concat([read_frame(f / "predictions.parquet", COLUMNS) for f in folders], ignore_index=True))
    facts = {
        **work.config["facts"],
        **_credit(work, predictions),
        **_against_random(work, predictions),
        **_looks(folders, work.config["never_heard"]),
        **_context_effects(work),
        **_contexts(work),
        "corpora": {corpus: _corpus_facts(work, corpus) for corpus in work.config["corpora"]},
    }
    partial = [name for name, found in facts["corpora"].items() if found["differs from the whole corpus"] != "no"]
    if partial:
        facts["caption"] += f" Not the whole corpora, or altered ones (see the table): {', '.join(partial)}."
    pictures = {corpus: work.inputs[f"index/{corpus}"] / quality.PICTURE for corpus in work.config["corpora"]}
    report.write_report(work.folder, cells, predictions, facts, work.config["rows"], pictures)
    table = report.table(headline(cells), work.config["rows"])
    told = textwrap.fill(f"{CREDIT}: {facts[CREDIT]}.", 118)
    (work.folder / "table.txt").write_text(f"{table}\n\n{textwrap.fill(facts['caption'], 118)}\n{told}\n")
    return Computed(digests={"content": digest_file(work.folder / "results.csv")}, figures={"cells": len(cells)})


def _credit(work: Work, predictions: "pd.DataFrame") -> dict[str, str]:
    """Return what the credit rule says, as facts of the report."""
    from clepdg.evaluation import credit

    record = work.records[f"evaluate/{work.config['folds'][0]}"]
    said = credit.verdict(predictions, labels(record.config["label_set"]), work.config["corpora"])
    untestable = work.config["untestable"]
    verdict = f"not testable: {untestable}" if untestable else f"{said.says}: {said.why}"
    return {CREDIT: verdict, **{f"{CREDIT}, {part}": line for part, line in said.parts().items()}}


def _against_random(work: Work, predictions: "pd.DataFrame") -> dict[str, dict[str, dict[str, str]]]:
    """Return whether learnt contexts do better than random ones, fold by fold, as facts."""
    from clepdg.evaluation import learnt_vs_random
    from clepdg.report.tables import INTERVALS

    record = work.records[f"evaluate/{work.config['folds'][0]}"]
    config = record.config["evaluate"]
    found = learnt_vs_random.against_random(
        predictions,
        labels(record.config["label_set"]),
        resamples=config["resamples"],
        confidence=config["confidence"],
    )
    lines = {
        fold: {
            **{part: f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]" for part, d in parts.items()},
            "interval": INTERVALS[parts["clean"].method].removeprefix("interval: "),
        }
        for fold, parts in found.items()
    }
    return {LEARNT: lines} if lines else {}


def _looks(folders: list[Path], never_heard: Collection[str]) -> dict[str, dict[str, dict[str, str]]]:
    """Return the report's table on contexts and acoustics: fold and contexts -> what was found, a mean over seeds."""
    import pandas as pd

    from clepdg.store.readers import read_frame

    tables = [table for folder in folders if not (table := read_frame(folder / contexts.FILE, ())).empty]
    if not tables:
        return {}
    lines: dict[str, dict[str, str]] = {}
    for (fold, row), own in pd.concat(tables).groupby(["fold", "row"], sort=False):
        found = {
            "share of audio's moves": f"{own.share.mean():.3f}",
            "random directions, 95 % below": f"{own.random_share.mean():.3f}, {own.random_high.mean():.3f}",
        }
        if "p" in own and own.p.notna().any():
            first = own.dropna(subset="p").iloc[0]
            found |= {
                "mean rank of the context that names it": f"{own.mean_rank.mean():.1f} of {first.contexts:.0f}",
                "p, names dealt at random (median over seeds)": f"{own.p.median():.4f}",
                "ranks (first seed)": ", ".join(
                    f"{name} {rank}{' (never taught)' * (name in never_heard)}"
                    for name, rank in json.loads(first.ranks).items()
                ),
            }
        lines[f"{fold}: {_contexts_of(str(row))}"] = found
    return {"do contexts look like acoustics?": lines}


def _contexts_of(row: str) -> str:
    """Return what a row's line in that table is about: its contexts, or those in words as its CLEP reads them."""
    from clepdg.config.rows import ROWS
    from clepdg.evaluation import context_geometry

    if row in context_geometry.AS_VECTORS:
        return ROWS[row].title.removeprefix("text classifier, ")
    if row == context_geometry.BEFORE:
        return "hand-written contexts, before CLEP"
    clep = ROWS[row].title.removeprefix("ACPT, ").removesuffix(", no contexts")
    return "hand-written contexts" + ("" if row == context_geometry.IN_WORDS else f", {clep}")


def _context_effects(work: Work) -> dict[str, dict[str, dict[str, str]]]:
    """Return how much the backbone and every CLEP read of contexts, means over folds and seeds, as facts."""
    always = ("context_shift", "context_variance_share", "context_effective_rank")
    taught = ("environment_accuracy_heard", "environment_accuracy_left_out")  # of a backbone that was taught them
    found: dict[str, list[Mapping[str, float]]] = {}
    for name, record in work.records.items():
        if name.startswith(("backbone/", "clep/")):
            variant = " ".join(name.split(".")[1:-1])
            model = "backbone" if name.startswith("backbone/") else f"CLEP {variant}".strip()
            own = (*always, *(figure for figure in taught if figure in record.figures))
            found.setdefault(model, []).append({figure: record.figures[figure] for figure in own})
    return _means(CONTEXTS, found)


def _contexts(work: Work) -> dict[str, dict[str, dict[str, str]]]:
    """Return what ACPT's contexts and their rivals through the same code are like, means over folds and seeds."""
    found: dict[str, list[Mapping[str, float]]] = {}
    for name, record in work.records.items():
        if name.startswith("acpt/"):
            found.setdefault(name.split(".")[-2], []).append(record.figures)
    return _means(DIAGNOSTICS, found)


def _means(title: str, found: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, dict[str, str]]]:
    rows = {
        name: {figure: f"{sum(each[figure] for each in all_) / len(all_):.3f}" for figure in all_[0]}
        for name, all_ in sorted(found.items())
    }
    return {title: rows} if rows else {}


def _copies(work: Work, corpus: str) -> dict[str, object]:
    """Return how many utterances were left out of a leave-out fold's target, where the run has that fold."""
    record = work.records.get(f"evaluate/leave-out-{corpus}")
    return {"left out of its fold: copies of source audio": record.figures["copies"]} if record else {}


def _corpus_facts(work: Work, corpus: str) -> dict[str, object]:
    from clepdg.corpora.cards import load_card
    from clepdg.dataset.validate import copy_differences

    card, figures = load_card(corpus), work.records[f"index/{corpus}"].figures
    return {
        "title": card.title,
        "utterances": figures["utterances"],
        "speakers": figures["speakers"],
        "hours": round(figures["seconds"] / 3600, 2),
        "quarantined": figures["quarantined"],
        "noted": "; ".join(f"{count} {note}" for note, count in figures["notes"].items()) or "nothing",
        **_copies(work, corpus),
        "differs from the whole corpus": "; ".join(copy_differences(figures, card)) or "no",
        "licence": card.licence,
        "citation": card.citation,
        "split by": card.split.unit,
    }
