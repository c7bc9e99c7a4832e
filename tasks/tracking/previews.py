"""Log what MLflow's pages show: pictures, a table of predictions, and the headline on the run's own page."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from clepdg.config.conditions import CLEAN
from clepdg.config.folds import SUPERVISED
from clepdg.config.rows import MAIN_ROW
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_tasks.engine.run_history import split_id
from clepdg_tasks.tracking.marker import MARKER
from clepdg_tasks.tracking.run_data import SORTED, log_points

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

SHOWN: Final = ("log-mel", "clep-zero-shot", MAIN_ROW)  # the floor and two methods, as the report's words compare them
MOST: Final = 5000  # utterances of the table; all are in predictions.parquet
MEANS: Final = {"left-out targets, clean": "left_out_uar", "supervised corpora, clean": "supervised_uar"}


def log_files(client: "MlflowClient", run_id: str, record: Record, store: Store) -> None:
    """Log the files of an index, an evaluation or a report, and previews."""
    if record.stage not in ("index", "evaluate", "report"):
        return
    folder = store.local(record.stage, record.key)
    for path in sorted(folder.iterdir()):
        if path.name not in ("stage.json", MARKER):
            client.log_artifact(run_id, str(path))
    if record.stage == "evaluate":
        _log_evaluation(client, run_id, folder)


def _log_evaluation(client: "MlflowClient", run_id: str, folder: Path) -> None:
    """Log a fold's confusion as a picture and its clean predictions as a CSV.

    The CSV has a line for each utterance: its emotion, then what each method predicts with its first seed.
    """
    from clepdg.evaluation.predictions import COLUMNS
    from clepdg.store.readers import read_frame

    table = read_frame(folder / "predictions.parquet", COLUMNS)
    table = table[table.condition == CLEAN].astype(dict.fromkeys(COLUMNS, "str"))  # not categories
    rows = list(dict.fromkeys(table.row))
    if not rows:
        return
    table = table[table.seed == table.groupby("row").seed.transform("first")]
    wide = table.pivot(index=["utterance_id", "corpus", "speaker", "split", "true"], columns="row", values="predicted")
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "predictions.csv"
        wide[rows].reset_index()[["utterance_id", "true", *rows, "corpus", "speaker", "split"]].head(MOST).to_csv(
            path, index=False, lineterminator="\n"
        )
        client.log_artifact(run_id, str(path))
    for row in [row for row in SHOWN if row in rows] or rows[:1]:
        client.log_figure(run_id, confusion(table[table.row == row], row), f"confusion-{row}.png")


def confusion(table: "pd.DataFrame", title: str) -> Any:
    """Draw how often each emotion was taken for which, as shares of its row."""
    import numpy as np
    from matplotlib.figure import Figure

    labels = sorted({*table.true, *table.predicted})
    place = {label: n for n, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)))
    np.add.at(counts, (table.true.map(place), table.predicted.map(place)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="true", title=f"{title}, n = {len(table)}")
    for (true, predicted), share in np.ndenumerate(shares):
        axes.text(predicted, true, f"{share:.2f}", ha="center", va="center", color="white" if share > 0.5 else "black")
    return figure


def log_summary(client: "MlflowClient", run_id: str, store: Store, stages: Mapping[str, Mapping[str, Any]]) -> None:
    """Log a run's headline: mean UARs as metrics, its report and pictures.

    Args:
        stages: node id -> facts of this run, its key among them.
    """
    records = {node_id: _record(store, node_id, facts.get("key")) for node_id, facts in stages.items()}
    folds = {
        record.name: record.figures.get("headline", {})
        for node_id, record in records.items()
        if record is not None and split_id(node_id)[0] == "evaluate"
    }
    if not folds:
        return
    points = {**_single(folds), **_means(store, records.get("report/report"))}
    log_points(client, run_id, [(name, value, 0) for name, value in sorted(points.items())])
    client.log_figure(run_id, uar_by_fold(folds), "uar-by-fold.png")
    if report := records.get("report/report"):
        folder = store.local(report.stage, report.key)
        client.log_artifact(run_id, str(folder / "report.html"))
        for path in sorted(folder.glob("charts/*.png")):
            client.log_artifact(run_id, str(path), "charts")


def _record(store: Store, node_id: str, key: str | None) -> Record | None:
    stage, _ = split_id(node_id)
    if stage not in ("evaluate", "report") or not key:
        return None
    found = store.lookup(stage, key)
    return found if isinstance(found, Record) else None


def _single(folds: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """Return the figures of fold supervised and of a single left-out corpus."""
    left_out = [fold for fold in folds if fold != SUPERVISED]
    chosen = {"supervised": SUPERVISED, **({"left_out": left_out[0]} if len(left_out) == 1 else {})}
    return {
        f"{where}_{SORTED.get(name, name)}/{row}": float(figures[name])
        for where, fold in chosen.items()
        for row, figures in folds.get(fold, {}).items()
        for name in ("uar", "low", "high")
        if name in figures
    }


def _means(store: Store, report: Record | None) -> dict[str, float]:
    """Return the report's means over targets, unrounded."""
    if report is None or "headline.csv" not in report.files:
        return {}
    import pandas as pd

    table = pd.read_csv(store.local(report.stage, report.key) / "headline.csv")
    found = {}
    for line in table.to_dict(orient="records"):
        where = MEANS.get(str(line["where"]).partition(" ")[2])
        for name, suffix in (("uar", ""), ("low", "_low"), ("high", "_high")):
            if where and line[name] == line[name]:
                found[f"{where}{suffix}/{line['row']}"] = float(line[name])
    return found


def uar_by_fold(folds: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Any:
    """Draw UAR by fold, with intervals over speakers."""
    from matplotlib.figure import Figure

    rows = [row for row in SHOWN if any(row in figures for figures in folds.values())]
    rows = rows or list(next(iter(folds.values())))[:3]
    figure = Figure(figsize=(2.5 + 1.3 * len(folds), 4), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        for n, figures in enumerate(folds.values()):
            if "uar" in (own := figures.get(row, {})):
                x, uar = n + (place - (len(rows) - 1) / 2) * 0.8 / len(rows), own["uar"]
                axes.bar(x, uar, width=0.75 / len(rows), color=f"C{place}", label=row if n == 0 else None)
                if {"low", "high"} <= {*own}:
                    axes.plot([x, x], [own["low"], own["high"]], color="black", linewidth=1)
    axes.set_xticks(range(len(folds)), [name.removeprefix("leave-out-") for name in folds], rotation=20, ha="right")
    axes.set(ylabel="UAR", ylim=(0, 1), title="UAR by fold: supervised, or the corpus left out")
    figure.legend(loc="outside lower center", ncols=len(rows))
    return figure
