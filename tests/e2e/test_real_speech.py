"""Protects the main job on real speech: RAVDESS, TESS and EmoDB from their archives to predictions that beat chance.

Scores are held to one bar only: CLEP zero-shot and the ACPT text classifier are above chance on the supervised fold's
test utterances of the three corpora pooled, by a by-utterance interval that ignores speakers. The speech lies in
../shared/corpora beside the checkout; without it these tests are skipped.
"""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import CORPORA

ARCHIVES = {
    "ravdess": CORPORA / "ravdess_actors_01-06.zip",
    "tess": CORPORA / "tess_36_words.zip",
    "emodb": CORPORA / "emodb_resampled_5_speakers.zip",
}
pytestmark = pytest.mark.skipif(
    not all(path.exists() for path in ARCHIVES.values()), reason=f"the real corpora are not in {CORPORA}"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("real")


def clep_dg(home: Path, *argv: str, timeout: float = 1500) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    import os

    environment = {**os.environ, "CLEPDG_HOME": str(home), "CLEPDG_DEVICE": "cpu"}
    command = [str(Path(sys.executable).with_name("clep-dg")), *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)


RUN = (
    "run",
    *("--preset", "open", "--backbone", "micro", "--corpora", ",".join(ARCHIVES), "--folds", "supervised"),
    *(part for corpus, path in ARCHIVES.items() for part in ("--source", f"{corpus}={path}")),
)


@pytest.fixture(scope="module")
def ran(home) -> subprocess.CompletedProcess[str]:
    result = clep_dg(home, *RUN, "--allow-partial")
    assert result.returncode == 0, result.stderr
    return result


def folder(home: Path, node_id: str) -> Path:
    newest = max((home / "store" / "runs").glob("*.json"), key=lambda p: p.stat().st_mtime_ns)
    key = json.loads(newest.read_text())["stages"][node_id]["key"]
    return home / "store" / node_id.partition("/")[0] / key


def test_incomplete_corpora_are_refused_unless_allowed(home):
    result = clep_dg(home, *RUN, "--until", "index")
    assert result.returncode == 2
    assert "utterances: 360, not 1440" in result.stderr
    assert "usual rate in Hz: 22050, not 16000" in result.stderr
    assert "--allow-partial" in result.stderr
    assert "Traceback" not in result.stderr


def test_clep_and_acpt_are_above_chance(home, ran):
    cells = pd.read_parquet(folder(home, "evaluate/supervised") / "cells.parquet").set_index(["target", "row"])
    for row in ("clep-zero-shot", "text-acpt"):
        cell = cells.loc["pooled", row]
        assert "ignores speakers" in cell.interval
        assert cell.chance == 0.25
        assert cell.low > cell.chance, f"{row}: UAR {cell.uar:.3f} [{cell.low:.3f}, {cell.high:.3f}]"
    assert "log-mel" in cells.loc["pooled"].index  # the floor stands beside them
    assert cells.loc["pooled", "majority"].uar == pytest.approx(0.25)


def test_every_number_comes_from_the_predictions(home, ran):
    from sklearn.metrics import accuracy_score, balanced_accuracy_score

    where = folder(home, "evaluate/supervised")
    predictions = pd.read_parquet(where / "predictions.parquet")
    cells = pd.read_parquet(where / "cells.parquet")
    assert set(predictions.split) == {"test"}
    for cell in cells[cells.target == "pooled"].itertuples():
        mine = predictions[predictions.row == cell.row]
        assert balanced_accuracy_score(mine.true, mine.predicted) == pytest.approx(cell.uar)
        assert accuracy_score(mine.true, mine.predicted) == pytest.approx(cell.war)


def test_speakers_and_faults_of_the_real_archives(home, ran):
    from clepdg.dataset.tables import read_utterances

    tables = {corpus: read_utterances(folder(home, f"index/{corpus}")) for corpus in ARCHIVES}
    assert {corpus: len(table) for corpus, table in tables.items()} == {"ravdess": 360, "tess": 503, "emodb": 243}
    for corpus in ("ravdess", "emodb"):
        speakers = tables[corpus].groupby("split").speaker.agg(set)
        assert not speakers["train"] & speakers["test"]
        assert not speakers["validation"] & (speakers["test"] | speakers["train"])
    texts = tables["tess"][tables["tess"].split != "test"].groupby("split").text.agg(set)
    assert not texts["train"] & texts["validation"]
    notes = tables["tess"].explode("notes").set_index("notes").utterance_id
    assert "tess/OA_bite_neutral" in str(notes.get("misnamed"))
    assert "tess/OAF_food_fear" in str(notes.get("odd rate"))
    assert (tables["ravdess"].explode("notes").notes == "stereo").sum() == 3


def test_the_same_command_again_computes_nothing(home, ran):
    result = clep_dg(home, *RUN, "--allow-partial")
    assert "stages up to date" in result.stdout
    assert "0 of" not in clep_dg(home, "status").stdout


def test_predict_hears_a_real_voice(home, ran):
    tree = folder(home, "source/ravdess") / "tree"
    files = sorted(tree.rglob("03-01-05-02-*.wav"))[:2]
    result = clep_dg(home, "predict", *map(str, files))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.strip().splitlines()
    assert len(lines) == 2
    assert all(line.split()[1] in ("angry", "happy", "neutral", "sad") for line in lines)
