"""Protects the commands against a store that a stranger wrote: one sentence or another stage, never a traceback."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from clepdg.hashing import plain
from clepdg.store.record import MARKER, Record
from clepdg.store.store import Store
from clepdg_flows.cli.main import main
from clepdg_flows.run.plan import make_plan
from clepdg_tasks.engine.node import decide
from clepdg_tasks.engine.run_history import Arguments
from clepdg_tasks.host.settings import load_settings
from clepdg_tasks.tracking.marker import read_marker, write_marker

FIGURES = {
    "utterances": 1, "quarantined": 0, "excluded": 0, "speakers": 1, "pointers": 0, "crossing": [], "unmatched": [],
    "absent": [], "reasons": [], "splits": {"train": 1, "validation": 1, "test": 1}, "notes": {}, "alterations": {},
    "found": {"utterances": 1, "speakers": 1, "raw_labels": {}}, "published": {"listed": 0, "altered": 0},
    "seconds": 1.0, "sample_rate": 16000,
}  # fmt: skip
DIGESTS = {"content": "d", "audio": "a", "learning": "l"}
DEEP: Any = 1
for _ in range(500):
    DEEP = {"a": DEEP}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path / "var"))
    return load_settings().open_store()


def plant(store: Store, **changes: Any) -> Path:
    """Write an index at its right place, on a source at its own; return its stage.json."""
    records: dict[str, Record] = {}
    for node in make_plan(Arguments(preset="demo", corpora=("synthetic-1", "synthetic-2"))).nodes:
        decision = decide(node, records, store, dict)
        if node.stage in ("source", "index") and decision.key and node.name == "synthetic-1":
            wrong = changes if node.stage == "index" else {}
            facts = dict(stage=node.stage, name=node.name, key=decision.key, version=1, config=plain(node.config),
                         inputs={}, digests=DIGESTS, figures=FIGURES, files={}, seconds=1.0, format=1)  # fmt: skip
            path = store.root / node.stage / decision.key / MARKER
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(facts | wrong))
            records[node.id] = Record(**(facts | {"figures": {}}))
    return path


def plant_files(path: Path, files: dict[str, list[Any]]) -> None:
    facts = dict(stage="index", name="n", key=path.parent.name, version=1, config={}, inputs={}, digests=DIGESTS,
                 figures=FIGURES, files=files, seconds=1.0, format=1)  # fmt: skip
    path.write_text(json.dumps(facts))


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command, which may fail by a sentence alone."""
    try:
        main(words)
    except SystemExit as stopped:
        assert stopped.code in (0, 1, 2)
    caught = capsys.readouterr()
    assert "Traceback" not in caught.out + caught.err
    return caught.out + caught.err


STATUS = ["status", "--preset", "demo", "--corpora", "synthetic-1,synthetic-2"]


def index_line(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("index") and "synthetic-1" in line)


def test_an_index_as_it_should_be_is_up_to_date_or_refused_by_its_card(store, capsys):
    plant(store)
    assert "lacks" not in index_line(said(STATUS, capsys)) and "unreadable" not in index_line(said(STATUS, capsys))


@pytest.mark.parametrize(
    "changes",
    [
        *({"digests": {name: "d" for name in DIGESTS if name != lacking}} for lacking in DIGESTS),
        *({"figures": {name: value for name, value in FIGURES.items() if name != lacking}} for lacking in FIGURES),
        *({"figures": FIGURES | {name: "text"}} for name in FIGURES if name != "sample_rate"),
        {"figures": FIGURES | {"found": {"utterances": 1}}},
        {"figures": FIGURES | {"splits": {"train": "1", "validation": 1, "test": 1}}},
        {"config": DEEP},
        {"figures": DEEP},
        {"name": ["n"]},
        {"seconds": "1"},
    ],
)
def test_an_index_that_is_none_is_stale_and_no_traceback(store, capsys, changes):
    plant(store, **changes)
    line = index_line(said(STATUS, capsys))
    assert "lacks" in line or "unreadable" in line


def test_every_command_on_a_hostile_store(store, capsys):
    path = plant(store)
    for number, content in enumerate(("[" * 99_999, "{}", "null", json.dumps({"stages": {"clep/x": {"key": "a/b"}}}))):
        for name in (f"runs/{number}.json", f"pins/{number}.json"):
            (store.root / name).parent.mkdir(exist_ok=True)
            (store.root / name).write_text(content)
    for data in (b"", b"[" * 99_999, b"\xff", json.dumps({"format": 1}).encode()):
        path.write_bytes(data)
        assert "unreadable" in index_line(said(STATUS, capsys))
        assert path.parent.name[:16] in said(["verify", "--dry-run"], capsys)
    path.write_bytes(b"{}")
    plant_files(path, {"a\x1b[2J": [1, "0" * 64]})
    text = said(["verify", "--dry-run"], capsys)
    assert "file missing: a\\x1b[2J" in text and "\x1b" not in text
    path.unlink()
    os.mkfifo(path)
    for words in (STATUS, ["verify", "--dry-run"], ["gc", "--dry-run"]):
        assert said(words, capsys)


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({}, True),
        ({"model": "m", "version": 3}, True),
        ({"model": "m", "version": "3"}, True),
        *(({"model": "m", "version": version}, False) for version in ("x", None, [], -1, "٣")),
        *(({name: value}, False) for name in ("tracking", "run_id", "experiment") for value in (None, 5, [])),
        ({"version": 3}, False),
        ({"model": "m"}, False),
    ],
)
def test_markers_of_registered_outputs(store, changes, right):
    record = Record(stage="clep", name="n", key="k", version=1, config={}, inputs={}, digests=DIGESTS, figures={},
                    files={}, seconds=1.0)  # fmt: skip
    marker = {"tracking": "t", "run_id": "r", "experiment": "1", **changes}
    write_marker(store, record, marker)
    assert read_marker(store, record) == (marker if right else None)
