"""Protects what a run prints: short, its table and where all is, and what is incomplete or stopped."""

import subprocess
import textwrap
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clepdg.corpora.cards import load_card
from clepdg.hashing import write_json
from clepdg.report.summary import LINES
from clepdg.store.record import Record
from clepdg_flows.cli.terminal import _an_utterance, print_result, show
from clepdg_flows.run.display import Display
from clepdg_flows.run.progress import named
from clepdg_tasks.engine.run_history import Arguments
from clepdg_tasks.host.settings import load_settings

CARD = load_card("emodb")
WHOLE: dict[str, Any] = {
    "found": {"utterances": 535, "speakers": 10, "raw_labels": CARD.expected.emotions},
    "sample_rate": 16000,
    "utterances": 535,
    "quarantined": 0,
    "published": {"listed": 0, "altered": 0},
    "notes": {},
    "alterations": {},
}
FEWER = {**WHOLE, "utterances": 357, "quarantined": 3}

METHOD = {"title": "a method", "figures": [".100 [.100, .200]"] * 2, "best": False, "place": 0}
SUMMARY: dict[str, Any] = {
    "warnings": [], "sentences": [], "header": "UAR [95%]", "columns": ["left out", "supervised"], "methods": [METHOD]
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path / "var"))


def record(figures: dict[str, Any], key: str = "0" * 64) -> Record:
    return Record(
        stage="index", name="emodb", key=key, version=1, config={}, inputs={}, digests={}, figures=figures, files={},
        seconds=1.0, versions={},
    )  # fmt: skip


def test_the_line_of_stage_index_counts_what_is_kept_and_what_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = SimpleNamespace(record=record(FEWER), reused=False, reason="new", seconds=1.0)
    show([], Display(), 1).done([(SimpleNamespace(stage="index", name="emodb"), outcome)])
    assert "new; 357 of 535 utterances, 3 quarantined" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_a_stages_line_leaves_names_the_columns_that_the_terminal_has(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    outcome = SimpleNamespace(record=record({**WHOLE, "utterances": 120}), reused=False, reason="new", seconds=1.0)
    display = Display()
    show([], display, 1).done([(SimpleNamespace(stage="index", name="synthetic-1"), outcome)])
    show([], display, 1).done([(SimpleNamespace(stage="shard", name="leave-out-synthetic-1.c0"), outcome)])
    outcome.reason = "; ".join(f"input audio/synthetic-{number} changed" for number in range(5))
    show([], display, 1).done([(SimpleNamespace(stage="classifier", name="leave-out-synthetic-1.c0"), outcome)])
    index, shard, classifier = capsys.readouterr().out.splitlines()
    assert len(shard) <= columns and all(len(line) <= columns or columns < 100 for line in (index, classifier))
    assert "  input audio/synth" in classifier and classifier.endswith("…")


def test_a_stage_that_the_user_stopped_did_not_fail(capsys: pytest.CaptureFixture[str]) -> None:
    failed = show([], Display(), 2).failed
    failed(SimpleNamespace(stage="clep", name="supervised.c0"), "The run was stopped.\nDo: again")
    failed(SimpleNamespace(stage="clep", name="supervised.c0"), "A file is gone.")
    stopped, gone = capsys.readouterr().out.splitlines()
    assert stopped.split() == ["clep", "supervised.c0", "stopped"] and gone.endswith("FAILED  A file is gone.")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["emodb"], "emodb"),
        (["synthetic-1", "synthetic-2"], "synthetic-* (2)"),
        (["backbone.emodb", "untrained.emodb"], "emodb (2)"),
        (["leave-out-emodb.c0.tess", "leave-out-emodb.c0.emodb"], "leave-out-emodb.c0.* (2)"),
        (["emodb", "tess"], "emodb, tess (2)"),
        (["emodb", "crema-d", "ravdess", "savee", "tess"], "emodb, crema-d, … (5)"),
        (["crema-d", "cafe"], "crema-d, cafe (2)"),
    ],
)
def test_names_in_short_say_what_they_are_of(names: list[str], told: str) -> None:
    assert named(names) == told
    assert named(names, "supervised") == (f"supervised ({len(names)})" if len(names) > 1 else told)


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        (WHOLE, ""),
        (FEWER, "357 of 535 utterances, 3 quarantined"),
        ({**WHOLE, "published": {"listed": 9, "altered": 4}}, "535 of 535 utterances, 0 quarantined, altered files"),
        (
            {**WHOLE, "notes": {"stereo": 2, "clipped": 1}, "alterations": {"of one length, 2 s": 535}},
            "535 of 535 utterances, 0 quarantined, notes on 3, 535 of one length, 2 s",
        ),
    ],
)
def test_a_run_ends_by_naming_where_the_faults_of_a_corpus_lie(
    figures: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings()
    store = settings.open_store()
    store.partial("index", "0" * 64)
    store.commit(record(figures))
    result = {"computed": 1, "reused": 0, "notes": [], "stages": {"index/emodb": "0" * 64, "shard/emodb": None}}
    node = SimpleNamespace(stage="index", fold=None, tags={})
    ended: Any = [(node, SimpleNamespace(record=record(figures)))]
    print_result(result, ended, Arguments(preset="open"), settings, 1.0)
    said = capsys.readouterr().out
    assert "1 stage computed, 0 reused" in said
    place = store.address("index", "0" * 64)
    assert (
        (told in said and f"see quarantine.parquet and quality.png in {place}" in said) if told else "emodb" not in said
    )


def test_the_short_end_has_warnings_in_yellow_and_says_nothing_of_corpora_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    settings = load_settings()
    store = settings.open_store()
    folder = store.partial("report", "0" * 64)
    dots = "." * 54
    own = {
        "warnings": [f"Parts of corpora: emodb {dots} (9 of 10)"],
        "sentences": [f"a much longer verdict {dots} in two lines"],
    }
    write_json(folder / "summary.json", {**SUMMARY, **own})
    report = store.commit(replace(record({}), stage="report", name="report"))
    ended: Any = [
        (SimpleNamespace(stage="index", fold=None, tags={}), SimpleNamespace(record=record(FEWER))),
        (SimpleNamespace(stage="report", fold=None, tags={}), SimpleNamespace(record=report)),
    ]
    print_result({"computed": 0, "reused": 2, "notes": []}, ended, Arguments(preset="open"), settings, 1.0)
    said = capsys.readouterr().out
    yellow, plain = "\x1b[33m", "\x1b[0m"
    assert f"{yellow}! Parts of corpora: emodb {dots}{plain}\n{yellow}  (9 of 10){plain}\n" in said
    assert f"\n- a much longer verdict {dots}\n  in two lines\n" in said and "quarantine" not in said


@pytest.mark.parametrize("columns", [80, 120])
def test_a_run_ends_with_at_most_30_lines_and_colours_only_a_terminal(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    store = settings.open_store()
    folder = store.partial("report", "0" * 64)
    many = [{**METHOD, "place": place} for place in range(LINES)]
    write_json(folder / "summary.json", {**SUMMARY, "warnings": ["a warning " * 12] * 5, "methods": many})
    (folder / "report.html").write_text("a page")
    report = store.commit(replace(record({}), stage="report", name="report"))
    (settings.home / "report.html").write_text("a page")
    result = {"computed": 0, "reused": 214, "notes": ["a note " * 30] * 9, "stages": {}}
    node = SimpleNamespace(stage="report", fold=None, tags={})
    ended: Any = [(node, SimpleNamespace(record=report))]
    print_result(result, ended, Arguments(preset="demo"), settings, 1.0)
    said = capsys.readouterr().out
    assert "214 stages up to date" in said and "report   var/report.html\n" in said
    assert sum(max(1, -(-len(line) // columns)) for line in said.splitlines()) <= 30
    assert "\x1b" not in said


@pytest.mark.parametrize("earlier", [True, False])
def test_a_part_of_a_run_says_that_it_made_no_report_and_how_to_make_it(
    earlier: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    settings.open_store()
    if earlier:
        (settings.home / "report.html").write_text("a page")
    arguments = Arguments(preset="demo", until="shard", overrides={"clep.epochs": 2})
    print_result({"computed": 0, "reused": 22, "notes": []}, [], arguments, settings, 1.0)
    *_, report, command = capsys.readouterr().out.splitlines()
    assert report.startswith("report   none: --until shard ends before it.")
    assert ("var/report.html is of an earlier run" in report) == earlier
    assert command.startswith("next     ") and command.endswith("clep-dg run --preset demo --set clep.epochs=2")


def test_notes_below_all_tables_wrap_between_words_and_tables_stay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    settings = load_settings()
    folder = settings.open_store().partial("report", "0" * 64)
    row, note = "a method  " + ".123  " * 15, "some words that explain " * 12
    (folder / "table.txt").write_text(f"{row}\na: collapsed\n\n{note}\nCredit: not testable.\n")
    write_json(
        folder / "summary.json",
        SUMMARY | {"warnings": ["Synthetic speech."], "sentences": ["The best is a method."]},
    )
    report = settings.open_store().commit(replace(record({}), stage="report", name="report"))
    ended: Any = [(SimpleNamespace(stage="report", fold=None, tags={}), SimpleNamespace(record=report))]
    result = {"computed": 1, "reused": 0, "notes": []}
    print_result(result, ended, Arguments(preset="demo"), settings, 1.0, full=True)
    said = capsys.readouterr().out
    places = [said.index(each) for each in ("! Synthetic speech.", "- The best is a method.", row.rstrip())]
    assert places == sorted(places)
    assert f"\n{row.rstrip()}" in said and "\na: collapsed\n\n" in said
    assert f"{textwrap.fill(note, 70)}\nCredit: not testable.\n" in said


@pytest.mark.parametrize("name", ["03-01-01.wav", "two words.wav"])
def test_the_next_command_names_audio_that_a_shell_finds(name: str) -> None:
    store = load_settings().open_store()
    folder = store.partial("source", "1a" * 32)
    (folder / "tree").mkdir()
    (folder / "tree" / name).write_bytes(b"audio")
    write_json(folder / "root.json", {"root": "tree"})
    made = store.commit(replace(record({}), stage="source", key="1a" * 32))
    ended: Any = [(SimpleNamespace(stage="source"), SimpleNamespace(record=made))]
    words = _an_utterance(ended, store)
    assert subprocess.run(["sh", "-c", f"cat {words}"], capture_output=True, check=True).stdout == b"audio"
    assert " " in name or len(words) < len(str(folder / "tree" / name))
