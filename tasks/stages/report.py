"""The last stage: the report over all folds."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from clepdg.config.folds import LEAVE_OUT
from clepdg.emotions import label_of, labels
from clepdg_tasks.engine.node import Computed, Work
from clepdg_tasks.stages.contexts import FILE
from clepdg_tasks.stages.report_sections import sections


def compute_report(work: Work) -> Computed:
    """Write report.html, results.csv, results.md and table.txt over all folds."""
    import pandas as pd

    from clepdg.evaluation import targets
    from clepdg.evaluation.cells import CELL, rows_on_test_part
    from clepdg.evaluation.predictions import COLUMNS, coded
    from clepdg.hashing import digest_file, write_json
    from clepdg.report import facts as of
    from clepdg.report import report
    from clepdg.report.headline import headline
    from clepdg.report.sections.limits import incomplete
    from clepdg.report.summary import SUMMARY, summary
    from clepdg.report.tables import headline_cells
    from clepdg.store.readers import read_frame

    folders = [work.inputs[f"evaluate/{fold}"] for fold in work.config["folds"]]
    cells = pd.concat([read_frame(folder / "cells.parquet", CELL) for folder in folders], ignore_index=True)
    predictions = coded(pd.concat([read_frame(f / "predictions.parquet", COLUMNS) for f in folders], ignore_index=True))
    settings = {fold: work.records[f"evaluate/{fold}"].config for fold in work.config["folds"]}
    names = {fold: labels(own["label_set"]) for fold, own in settings.items()}
    confidence = next(iter(settings.values()))["evaluate"]["confidence"]
    test_only = rows_on_test_part(cells)
    of_fold = {fold: predictions[predictions["fold"] == fold] for fold in sorted(names)}
    left_out = [each for fold, own in of_fold.items() for each in targets.left_out(own, names[fold], test_only)]
    supervised = [each for fold, own in of_fold.items() for each in targets.supervised(own, names[fold])]
    means = headline(left_out, supervised, work.config["rows"], confidence=confidence)
    sets = {corpus: _label_set(settings, corpus) for corpus in work.config["corpora"]}
    corpora = {corpus: _corpus_facts(work, corpus, label_of(own)) for corpus, own in sets.items()}
    facts = {
        **work.config["facts"],
        **of.credit_facts(left_out, work.config["corpora"], work.config["untestable"]),
        **of.learnt_facts(predictions, names, confidence=confidence, test_only=test_only),
        **of.acoustics_facts([read_frame(folder / FILE, ()) for folder in folders], work.config["never_heard"]),
        **of.model_facts(_model_figures(work)),
        **of.diagnostics_facts(
            (work.refs[name].tags["contexts"], record.figures)
            for name, record in work.records.items()
            if record.stage == "acpt"
        ),
        "corpora": corpora,
    }
    facts["caption"] = " ".join([facts["caption"], *incomplete(corpora)]).strip()
    more = sections(work, predictions, names, {fold: own["label_set"] for fold, own in settings.items()})
    report.write_report(work.folder, cells, predictions, facts, work.config["rows"], headline=means, sections=more)
    table = report.table(headline_cells(cells), work.config["rows"])
    notes = (facts["caption"], f"{of.CREDIT}: {facts[of.CREDIT]}.")
    (work.folder / "table.txt").write_text("\n".join([report.headline_table(means), "", table, "", *notes]) + "\n")
    write_json(work.folder / SUMMARY, summary(cells, work.config["rows"], means, facts, confidence=confidence))
    return Computed(digests={"content": digest_file(work.folder / "results.csv")}, figures={"cells": len(cells)})


def _model_figures(work: Work) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Yield (model, figures) of the backbone and of every CLEP."""
    for name, record in work.records.items():
        if record.stage == "backbone":
            yield "backbone", record.figures
        elif record.stage == "clep":
            yield f"CLEP {work.refs[name].tags.get('variant', '')}".strip(), record.figures


def _label_set(settings: Mapping[str, Mapping[str, Any]], corpus: str) -> Any:
    """Return the label set that a corpus is evaluated with."""
    fold = f"{LEAVE_OUT}{corpus}"
    return settings[fold if fold in settings else next(iter(settings))]["label_set"]


def _corpus_facts(work: Work, corpus: str, evaluated: Collection[str]) -> dict[str, Any]:
    from clepdg.corpora.cards import load_card
    from clepdg.dataset.validate import copy_differences
    from clepdg.report.facts import corpus_facts

    card, figures = load_card(corpus), work.records[f"index/{corpus}"].figures
    fold = work.records.get(f"evaluate/{LEAVE_OUT}{corpus}")
    copies = fold.figures["copies"] if fold else None
    return corpus_facts(card, figures, copy_differences(figures, card), copies, evaluated)
