"""Protects the report: the figures of the cells, their marks beside them, escaped text, the same bytes each time."""

import base64
import csv
import html.parser
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clepdg.errors import ConfigError
from clepdg.evaluation import cells as evaluate
from clepdg.report import conditions
from clepdg.report.downloads import LARGEST, embed
from clepdg.report.report import table, write_report
from clepdg.report.tables import figure

LABELS = ("angry", "happy", "neutral")
ROWS = {"majority": "majority", "text-acpt": "text classifier <ACPT> & $K$ contexts", "probe": "probe | ceiling"}
FACTS = {
    "caption": "No pretraining: <script>alert(1)</script>",
    "preset": "demo",
    "labels": list(LABELS),
    "corpora": {
        "ravdess": {"licence": "CC0 & free", "part of the corpus": "whole"},
        "synthetic-1": {"citation": "Doe <2020>", "part of the corpus": "3 of 120 utterances"},
    },
}


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    lines = []
    for name, speakers in (("alpha", 24), ("beta", 3)):
        for fold in ("supervised", f"leave-out-{name}"):
            for row in ROWS if fold == "supervised" else list(ROWS)[:2]:  # the ceiling stands in one fold only
                for number in range(75):
                    emotion = LABELS[number % 3]
                    label = "neutral" if row == "majority" else str(rng.choice([emotion, emotion, *LABELS]))
                    lines.append(
                        {
                            "utterance_id": f"{name}/{number}",
                            "corpus": name,
                            "speaker": f"{name}/{number // 3 % speakers}",
                            "split": "train" if fold != "supervised" and number >= 72 else "test",
                            "fold": fold,
                            "row": row,
                            "condition": "clean",
                            "seed": "c0.l0",
                            "true": emotion,
                            "predicted": label,
                            **{f"p_{own}": 0.8 if label == own else 0.1 for own in LABELS},
                        }
                    )
    predictions = pd.DataFrame(lines)
    return predictions[(predictions["fold"] != "supervised") | ~predictions["utterance_id"].str.contains("7[2-4]$")]


@pytest.fixture(scope="module")
def cells(predictions: pd.DataFrame) -> pd.DataFrame:
    units = {"alpha": "speaker", "beta": "official"}
    return evaluate.cells(predictions, LABELS, confidence=0.95, split_units=units)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cells: pd.DataFrame, predictions: pd.DataFrame) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, cells, predictions, FACTS, ROWS)
    return folder


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.6128, ".613"),
        (1.0, "1.000"),
        (0.9996, "1.000"),
        (0.0, ".000"),
        (-0.0124, "-.012"),
        (-0.0001, ".000"),
        (10.05, "10.050"),
    ]
    + [(float("nan"), "–"), (None, "–")],
)
def test_figures_have_three_decimals_and_no_leading_zero(value: float | None, shown: str) -> None:
    assert figure(value) == shown


def line_of(text: str, section: str, row: str) -> str:
    """Return the line of a row below the line of a section."""
    return next(line for line in text.split(f"\n{section}\n")[1].splitlines() if line.startswith(f"  {row}"))


def test_the_table_shows_each_cells_own_figures(cells: pd.DataFrame) -> None:
    text = table(cells, ROWS)
    for cell in cells.to_dict("records"):
        section = f"supervised: {cell['target']}" if cell["fold"] == "supervised" else cell["fold"]
        line = line_of(text, section, ROWS[cell["row"]][:12])
        interval = f"[{figure(cell['low'])}, {figure(cell['high'])}]"
        test = f"{figure(cell['uar_test'])} (72)" if cell["fold"] != "supervised" else ""
        for shown in (figure(cell["uar"]), interval, figure(cell["war"]), test, str(cell["n"]), ".333"):
            assert shown in line


def test_the_table_is_aligned_ordered_and_at_most_120_wide(cells: pd.DataFrame) -> None:
    rows = {
        row: title + " and a title much longer than any terminal has room for, really" * 2
        for row, title in ROWS.items()
    }
    lines = table(cells, rows).splitlines()
    assert max(map(len, lines)) <= 120
    whole = [line for line in lines if line.startswith("  ")]
    figures = [line.index("]") for line in whole if "]" in line]
    assert len(set(figures)) == 1
    assert [line.split()[0] for line in whole[1:4]] == ["majority", "text", "probe"]


def test_marks_are_footnotes_and_what_is_said_of_every_cell_is_said_once(cells: pd.DataFrame) -> None:
    text = table(cells, ROWS)
    assert text.count("conditional on one CLEP") == 1 and "\nall: conditional on one CLEP" in text
    notes = dict(line.split(": ", 1) for line in text.splitlines() if line[1:3] == ": ")
    letter = {note: name for name, note in notes.items()}
    collapsed = line_of(text, "supervised: beta", "majority").split("  ")[-1].split()
    assert letter["collapsed"] in collapsed and letter["3 speakers: no test"] in collapsed
    acpt = line_of(text, "supervised: alpha", "text").split("  ")[-1].split()
    assert [notes[name] for name in acpt] == ["interval: t over speakers"]


def test_targets_choose_what_is_shown(cells: pd.DataFrame) -> None:
    text = table(cells, ROWS, targets=["pooled"])
    assert "supervised: pooled" in text and "alpha" not in text


def test_an_unknown_target_or_a_row_without_a_title_is_refused(cells: pd.DataFrame) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        table(cells, ROWS, targets=["nowhere"])
    with pytest.raises(ConfigError, match="probe"):
        table(cells, {row: title for row, title in ROWS.items() if row != "probe"})


class Page(html.parser.HTMLParser):
    """Collects what a page says and whether its elements close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]
        if tag not in ("meta", "br", "input", "img", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def test_the_page_is_whole_self_contained_and_says_its_text_literally(folder: Path, cells: pd.DataFrame) -> None:
    page = Page((folder / "report.html").read_text())
    assert page.open == []
    beside = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert page.links and all(link.startswith(("#", "data:")) or link in beside for link in page.links)
    for said in (
        f"{FACTS['caption']}.",
        ROWS["text-acpt"],
        ROWS["probe"],
        "CC0 & free",
        "Doe <2020>",
        "angry, happy, neutral",
    ):
        assert said in page.said
    shown = [figure(uar) for uar in cells["uar"]]
    assert set(shown) <= set(page.said)
    assert "beta/2" in "".join(page.said) and "n 24" in page.said  # the listing by speaker


def test_a_page_that_was_copied_alone_still_has_its_small_tables(folder: Path, tmp_path: Path) -> None:
    page = (folder / "report.html").read_text()
    for name in ("results.csv", "headline.csv", "results.tex", "results.md"):
        (found,) = re.findall(rf'href="data:text/[a-z]+;base64,([^"]+)" download="{name}"', page)
        assert base64.b64decode(found) == (folder / name).read_bytes()
    assert 'href="predictions.parquet" download' in page and "a copy of\nthe page alone lacks them" in page
    shutil.copytree(folder, tmp_path / "large")
    (tmp_path / "large" / "results.csv").write_bytes(b"x" * (LARGEST + 1))
    link = '<a href="results.csv" download>'
    assert embed(link, tmp_path / "large") == link != embed(link, folder)


def test_the_csv_holds_every_cell_unrounded(folder: Path, cells: pd.DataFrame) -> None:
    with (folder / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["uar"]) for line in lines] == cells["uar"].tolist()
    assert [json.loads(line["confusion"]) for line in lines] == cells["confusion"].tolist()
    assert [json.loads(line["recalls"]) for line in lines] == cells["recalls"].tolist()
    assert [line["marks"].split("; ") for line in lines] == cells["marks"].tolist()


def test_markdown_escapes_what_would_break_its_tables(folder: Path) -> None:
    text = (folder / "results.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert "<script>" not in text and "probe \\| ceiling" in text


def test_markdown_has_one_legend_for_all_its_tables(folder: Path) -> None:
    text, notes = (folder / "results.md").read_text().split("## Notes\n")
    found = re.findall(r"^- (\w+): (.+)$", notes, re.MULTILINE)
    assert len(found) == len({letter for letter, _ in found}) == len({said for _, said in found}) > 2
    used = {letter for line in text.splitlines() if line.startswith("| ") for letter in line.split("|")[-2].split()}
    assert used - {"notes"} <= {letter for letter, _ in found}


def test_the_same_input_gives_the_same_bytes_also_from_parquet(
    folder: Path, tmp_path: Path, cells: pd.DataFrame, predictions: pd.DataFrame
) -> None:
    cells.to_parquet(tmp_path / "cells.parquet")
    predictions.to_parquet(tmp_path / "predictions.parquet")
    again = [pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("cells", "predictions")]
    write_report(tmp_path / "again", *again, FACTS, ROWS)
    for name in ("report.html", "results.csv", "results.md"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


@pytest.fixture(scope="module")
def noisy(predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions of the test parts in noise as well; the noise takes the rows' answers at random."""
    test = predictions[predictions["split"] == "test"]
    heard = [predictions]
    for number, condition in enumerate(("white-20dB", "white-0dB", "hum-10dB", "room-long")):
        wrong = np.random.default_rng(number).random(len(test)) < 0.1 * (number + 1)
        heard.append(test.assign(condition=condition, predicted=test["predicted"].where(~wrong, "angry")))
    return pd.concat(heard, ignore_index=True)


def test_conditions_have_a_table_and_a_picture_of_their_own_and_the_main_tables_stay_clean(
    tmp_path: Path, noisy: pd.DataFrame, cells: pd.DataFrame
) -> None:
    units = {"alpha": "speaker", "beta": "official"}
    every = evaluate.cells(noisy, LABELS, confidence=0.95, split_units=units)
    assert table(every, ROWS) == table(cells, ROWS)
    found = {title: (header, lines) for title, header, lines in conditions.table(every, ROWS)}
    assert set(found) == {"supervised: pooled", "leave-out-alpha", "leave-out-beta"}
    header, lines = found["supervised: pooled"]
    assert header == ["clean", "hum", "white", "noise", "room-long", "mean over families", "[low, high]"]
    probe = every[(every["target"] == "pooled") & (every["row"] == "probe")].set_index("condition")
    own, clean = probe["uar"], probe.loc["clean"]
    white = own[["white-20dB", "white-0dB"]].mean()
    noise = own[["white-20dB", "white-0dB", "hum-10dB"]].mean()
    families = (noise + own["room-long"]) / 2
    assert clean["low_corrupted"] < families < clean["high_corrupted"]
    shown = (own["clean"], own["hum-10dB"], white, noise, own["room-long"], families)
    interval = f"[{figure(clean['low_corrupted'])}, {figure(clean['high_corrupted'])}]"
    assert lines[-1] == [ROWS["probe"], *map(figure, shown), interval]
    write_report(tmp_path, every, noisy, FACTS, ROWS)
    page = Page((tmp_path / "report.html").read_text())
    assert page.open == [] and "Robustness" in page.said
    assert "## In noise, in rooms, over lines: leave-out-beta" in (tmp_path / "results.md").read_text()


def test_pairs_have_a_part_of_their_own(tmp_path: Path, cells: pd.DataFrame, predictions: pd.DataFrame) -> None:
    pair = cells[cells["fold"] == "leave-out-alpha"].assign(fold="from-beta-to-alpha")
    write_report(tmp_path, pd.concat([cells, pair]), predictions, FACTS, ROWS)
    written = (tmp_path / "results.md").read_text()
    _, after = written.split("## From one corpus to another")
    assert "### from-beta-to-alpha" in after and "leave-out" not in after
    assert "### leave-out-alpha" in written


def test_without_conditions_there_is_no_such_part(folder: Path, cells: pd.DataFrame) -> None:
    assert "All audio was clean" in (folder / "report.html").read_text()
    assert "In noise" not in (folder / "results.md").read_text()
    assert conditions.table(cells, ROWS) == []


def test_a_cell_without_utterances_is_a_dash_not_a_crash(tmp_path: Path, predictions: pd.DataFrame) -> None:
    train = predictions[predictions["fold"] == "leave-out-beta"].assign(split="train")
    cells = evaluate.cells(train, LABELS, confidence=0.95, split_units={"beta": "speaker"}, test_only=ROWS)
    write_report(tmp_path, cells, train, {}, ROWS)
    assert line_of(table(cells, ROWS), "leave-out-beta", "majority").split() == "majority – [–, –] – 0 –".split()
