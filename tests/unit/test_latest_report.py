"""Protects the report under its short path: it works from there, says what the run did, and no run breaks it."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from clepdg.report.sections.reproduce import END, RUN
from clepdg.store.opening import open_store
from clepdg_flows.run.latest_report import publish, run_facts
from clepdg_tasks.engine import run_history
from clepdg_tasks.engine.run_history import Arguments

LINKS = '<a href="results.csv"></a><a href="charts/a.svg"></a><a href="#results.csv"></a><a href="gone.csv"></a>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "output"
    (made / "charts").mkdir(parents=True)
    for name in ("results.csv", "charts/a.svg", "stage.json", "mlflow.json"):
        (made / name).write_text(name)
    (made / "report.html").write_text(f"<p>ä</p>{LINKS}{RUN}{{}}{END}", encoding="utf-8")
    return made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "a home").mkdir()
    return tmp_path / "a home"


def test_the_page_and_its_files_are_found_from_the_home_folder(folder: Path, home: Path) -> None:
    publish(folder, home, {"run": "r1"})
    page = (home / "report.html").read_text(encoding="utf-8")
    assert 'href="report/results.csv"' in page and 'href="report/charts/a.svg"' in page
    assert 'href="#results.csv"' in page and 'href="gone.csv"' in page
    assert json.loads(page.split(RUN)[1].split(END)[0]) == {"run": "r1"}
    held = {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}
    assert held - {"report.lock"} == {"report.html", "report/results.csv", "report/charts/a.svg"}


def test_a_newer_report_replaces_all_of_the_one_before(folder: Path, home: Path) -> None:
    publish(folder, home, {"run": "r1"})
    (folder / "results.csv").write_text("newer")
    (folder / "charts/a.svg").unlink()
    publish(folder, home, {"run": "r2"})
    assert (home / "report/results.csv").read_text() == "newer"
    assert not (home / "report/charts/a.svg").exists()
    assert '"r2"' in (home / "report.html").read_text(encoding="utf-8")


def test_what_can_not_be_copied_leaves_the_older_page_and_is_said(
    folder: Path, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(folder, home, {"run": "r1"})
    before = (home / "report.html").read_bytes()
    (folder / "report.html").unlink()
    with caplog.at_level(logging.WARNING, "clepdg"):
        publish(folder, home, {"run": "r2"})
    assert (home / "report.html").read_bytes() == before
    assert "can't be copied" in caplog.text


def test_a_run_says_its_command_times_and_what_was_computed_and_why(tmp_path: Path) -> None:
    arguments = Arguments(preset="demo", sources={"tess": "https://me:hunter2@host/tess.zip"})
    run = run_history.start(open_store(str(tmp_path / "store")), arguments, {})
    new: dict[str, Any] = {"outcome": "Completed", "reason": "new"}
    run.stages = {"clep/a": new, "clep/b": new, "clep/c": {"outcome": "Reused", "reason": "same"}}
    facts = run_facts(run, 0.0)
    assert facts["command"].startswith("clep-dg run --preset demo --source tess=")
    assert "hunter2" not in json.dumps(facts)
    assert facts["stages"] == {"clep": {"computed": 2, "reused": 1, "why": {"new": 2}}}
    assert facts["started"] == "1970-01-01 00:00:00 UTC" and facts["seconds"] > 0 and facts["cpu_seconds"] > 0
    assert facts["run"] == run.path.stem
