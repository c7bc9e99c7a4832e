"""Protects the tables of a run's page in Prefect: short reasons, what was stale first."""

from pathlib import Path
from typing import Any

import pytest

from clepdg.store.opening import open_store
from clepdg_flows.run import prefect_page
from clepdg_tasks.engine import run_history
from clepdg_tasks.engine.run_history import Arguments


def test_a_long_reason_is_cut_and_the_page_says_where_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, dict[str, Any]] = {}
    for kind in ("table", "markdown"):
        monkeypatch.setattr(f"prefect.artifacts.create_{kind}_artifact", lambda key, **own: made.update({key: own}))
    monkeypatch.setattr(prefect_page, "results_page", lambda *_: "")
    run = run_history.start(open_store(str(tmp_path / "store")), Arguments(preset="demo"), {})
    run.stages = {
        "index/a": {"outcome": "Reused", "seconds": 0.1},
        "clep/a": {"outcome": "Completed", "reason": f"config cards None -> {'x' * 300}\nmore", "seconds": 1.0},
    }
    prefect_page.run_artifacts(run, {}, open_store(str(tmp_path / "store")), None)  # type: ignore[arg-type]
    stale, reused = made["decisions"]["table"]
    assert stale["why"] == f"config cards None -> {'x' * 78}…" and len(stale["why"]) == 100 and reused["why"] == ""
    assert f"runs/{run.path.name}" in made["decisions"]["description"]
