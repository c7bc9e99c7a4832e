"""Protects what MLflow's pages show first: names of runs, a card's first words, the columns beside an utterance."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from clepdg.evaluation.predictions import COLUMNS
from clepdg_tasks.engine.node import Computed, Node
from clepdg_tasks.tracking import previews
from clepdg_tasks.tracking.lineage import stage_run_name
from clepdg_tasks.tracking.model_cards import with_figures

FIGURES = {"uar": "0.917", "interval": "[0.854, 0.980]", "war": "0.920", "n": "120"}


@pytest.mark.parametrize(("name", "shown"), [("supervised.c0", "clep supervised.c0"), ("clep", "clep")])
def test_a_run_is_named_by_stage_and_part_once(name: str, shown: str) -> None:
    assert stage_run_name(Node(stage="clep", name=name, compute=lambda work: Computed(digests={}), config={})) == shown


@pytest.mark.parametrize("before", ["", "**UAR 0.100** [0.000, 0.200], WAR 0.1, on 9.\n\n", "UAR 0.100 [0, 1].\n\n"])
def test_a_card_begins_with_its_newest_figures_unformatted(before: str) -> None:
    card = with_figures(f"{before}A classifier.", FIGURES, "test utterances of a")
    assert card == "UAR 0.917 [0.854, 0.980], WAR 0.920, on 120 test utterances of a.\n\nA classifier."


class Client:
    """Keeps what is logged, in place of MLflow's client."""

    def __init__(self) -> None:
        self.table, self.pictures = pd.DataFrame(), {}

    def log_artifact(self, run_id: str, path: str) -> None:
        self.table = pd.read_csv(path)

    def log_figure(self, run_id: str, figure: Any, name: str) -> None:
        self.pictures[name] = figure


def test_predictions_show_the_truth_beside_each_method(tmp_path: Path) -> None:
    values: dict[str, Any] = {"utterance_id": ["a/1", "a/2"] * 2, "corpus": "a", "speaker": "a/x", "split": "test"}
    values |= {"true": ["sad", "happy"] * 2, "row": ["log-mel"] * 2 + ["text-acpt"] * 2, "predicted": ["sad"] * 4}
    empty = {"condition": "clean", "seed": "-"}
    table = pd.DataFrame({name: values.get(name, empty.get(name, 0.0)) for name in COLUMNS}, index=range(4))
    table.to_parquet(tmp_path / "predictions.parquet")
    client = Client()
    previews._log_evaluation(client, "run", tmp_path)  # type: ignore[arg-type]
    assert list(client.table) == ["utterance_id", "true", "log-mel", "text-acpt", "corpus", "speaker", "split"]
    assert set(client.pictures) == {"confusion-log-mel.png", "confusion-text-acpt.png"}


def test_the_legend_hides_no_bar() -> None:
    figure = previews.uar_by_fold({"supervised": {"log-mel": {"uar": 0.5}}, "leave-out-a": {"log-mel": {"uar": 0.4}}})
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert not legend.get_window_extent().overlaps(figure.axes[0].get_window_extent())
