"""Protects a run's end on a terminal: short, warnings first, the figures of the report, the best method marked."""

import json
import re
from typing import Any

import pandas as pd
import pytest

from clepdg.config.rows import ROWS
from clepdg.report.headline import Headline
from clepdg.report.summary import LEAST, LINES, NARROW, WIDE, WIDTH, lay_out, summary

NAMES = {name: row.title for name, row in ROWS.items()}
WHOLE: dict[str, Any] = {"part of the corpus": "whole", "altered": "no"}
PART = {**WHOLE, "part of the corpus": "24 of 100 utterances, 2 of 10 speakers"}


def cell(fold: str, target: str, row: str, uar: float, **own: Any) -> dict[str, Any]:
    whole = {"fold": fold, "target": target, "row": row, "condition": "clean", "part": "all", "uar": uar, "n": 24}
    bounds = {"low": uar - 0.1, "high": uar + 0.1, "chance": 0.25, "marks": ["conditional on one CLEP"]}
    bounds |= {"interval": "over speakers", "clep_seeds": 1}
    return {**whole, **bounds, **own}


def cells(*folds: str, rows: tuple[str, ...] = tuple(NAMES)) -> pd.DataFrame:
    targets = {fold: ["pooled", "tess"] if fold == "supervised" else [fold.rpartition("-")[2]] for fold in folds}
    found = [
        cell(fold, target, row, 0.3 + 0.01 * place + 0.001 * number)
        for number, (fold, own) in enumerate(targets.items())
        for target in own
        for place, row in enumerate(rows)
    ]
    return pd.DataFrame(found).assign(speakers=2)


def means(where: str, rows: tuple[str, ...] = tuple(NAMES)) -> list[dict[str, Any]]:
    line = {"where": f"{where}, clean", "low": 0.1, "high": 1.0, "targets": int(where[0])}
    return [{**line, "row": row, "uar": 0.5 + 0.01 * place} for place, row in enumerate(rows)]


def summarised(
    of: pd.DataFrame, headline: Headline | None = None, corpora: dict[str, Any] | None = None
) -> dict[str, Any]:
    own = summary(of, NAMES, headline or Headline(), {"corpora": corpora or {}}, confidence=0.95)
    assert json.loads(json.dumps(own)) == own
    return own


def written(of: pd.DataFrame, headline: Headline | None = None, corpora: dict[str, Any] | None = None) -> list[str]:
    lines = lay_out(summarised(of, headline, corpora))
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= WIDTH
    return lines


def test_means_over_targets_stand_beside_those_of_fold_supervised() -> None:
    headline = Headline(records=[*means("5 left-out targets"), *means("2 supervised corpora")])
    lines = written(cells("supervised", "leave-out-tess", "leave-out-emodb"), headline, {"tess": PART, "emodb": PART})
    assert lines[0] == "! Parts of corpora: tess (24 of 100 utterances, 2 of 10 speakers), emodb (24 of"
    assert lines[1] == "  100 utterances, 2 of 10 speakers)."
    assert lines[2].startswith("! Intervals are conditional on one CLEP")
    assert lines[4].startswith("- On 5 left-out corpora, the best method without the target's own data is")
    header = next(line for line in lines if line.startswith("UAR [95%], chance .250"))
    assert header.endswith("5 left-out corpora  2 supervised corpora")
    place = list(NAMES).index("text-acpt")
    ours = next(line for line in lines if "ACPT contexts  " in line)
    figure = f".{round(1000 * (0.5 + 0.01 * place))} [.100, 1.000]"
    assert ours.count(figure) == 2


def test_the_best_of_all_methods_is_shown_and_marked_and_the_others_are_counted() -> None:
    rows = ("log-mel", "clep-zero-shot", "text-noise", "text-acpt", "target-probe", "text-vocabulary")
    found = cells("leave-out-tess", rows=rows)
    found.loc[found.row == "text-noise", "uar"] = 0.9
    found.loc[found.row == "target-probe", "uar"] = 0.99  # learnt from the target: no rival
    lines = written(found)
    assert [line for line in lines if line.startswith("* ")] == [
        next(line for line in lines if "noise for contexts  " in line),
        "* best; 1 more with --table full",
    ]
    assert not any("ceiling" in line for line in lines)


@pytest.mark.parametrize(
    ("folds", "titles"),
    [
        (("leave-out-tess",), "without tess"),
        (("supervised",), "supervised"),
        (("supervised", "leave-out-tess"), "without tess            supervised"),
        (("from-tess-to-emodb", "from-emodb-to-tess", "from-a-to-b"), "from tess to emodb    from emodb to tess"),
    ],
)
def test_runs_of_other_folds_have_a_table_too(folds: tuple[str, ...], titles: str) -> None:
    header = next(line for line in written(cells(*folds)) if line.startswith("UAR"))
    assert re.search(rf"\.250 +{titles}$", header)


def test_much_to_warn_of_leaves_room_for_the_verdict_and_for_the_methods_that_it_names() -> None:
    part = {
        name: {**PART, "altered": "9 files of one length, 2 s", "quarantined": 3} for name in ("tess", "emodb", "savee")
    }
    headline = Headline(records=[*means("3 left-out targets"), *means("2 supervised corpora")])
    lines = written(cells("supervised", "leave-out-tess"), headline, {"synthetic-1": WHOLE, **part})
    assert [line[:5] for line in lines[:5]] == ["! Syn", "! Par", "! Alt", "! Lef", "! Int"] and lines[5] == ""
    assert sum(line.startswith("- ") for line in lines) >= 2
    fair = [row for row in ROWS if not ROWS[row].ceiling and not ROWS[row].target_standardised]
    named = [NAMES[row] for row in (fair[-1], fair[-2], "log-mel", "text-acpt")]
    for title in named:
        assert any(line[2:20] == title[:18] for line in lines), title


def test_synthetic_speech_is_said_before_anything_else() -> None:
    lines = written(cells("supervised"), corpora={"synthetic-1": WHOLE})
    assert lines[0] == "! Synthetic speech: the figures say nothing about real emotional speech."
    assert not any("whole" in line for line in lines)


def test_a_row_that_one_fold_lacks_leaves_its_place_empty() -> None:
    found = cells("supervised", "leave-out-tess", rows=("log-mel", "text-acpt"))
    found = found[(found.fold != "supervised") | (found.row != "text-acpt")]
    ours = next(line for line in written(found) if "ACPT contexts  " in line)
    assert len(re.findall(r"\[", ours)) == 1


@pytest.mark.parametrize("width", [20, NARROW, 70, 100, 120, 200])
@pytest.mark.parametrize("folds", [("supervised", "leave-out-tess", "leave-out-emodb"), ("leave-out-tess",)])
def test_a_terminal_of_another_width_gets_the_same_words_and_figures(folds: tuple[str, ...], width: int) -> None:
    headline = Headline(records=[*means("5 left-out targets"), *means("2 supervised corpora")] * (len(folds) > 1))
    lines = written(cells(*folds), headline, {"tess": PART, "emodb": PART})
    found = lay_out(summarised(cells(*folds), headline, {"tess": PART, "emodb": PART}), width)
    assert max(map(len, found)) <= min(max(width, NARROW), WIDE)
    table, before = (next(n for n, line in enumerate(each) if line.startswith("UAR")) for each in (found, lines))
    assert " ".join(found[:table]).split() == " ".join(lines[:before]).split()
    both = min(lines[before].count("corpora"), 2 if width >= WIDTH else 1)
    assert found[table].count("corpora") == both
    ours, before_it = (
        re.findall(r"\S+ \[.*?\]", next(line for line in each if "ACPT contexts  " in line)) for each in (found, lines)
    )
    assert ours == before_it[: 2 if width >= WIDTH else 1]
    assert sum(line.startswith("* ") for line in found[table:]) == 2  # the best, and what the mark means
    shown = len(found) - table - 2
    more, most = (int(re.search(r"; (\d+) more", each[-1])[1]) for each in (found, lines))  # type: ignore[index]
    assert LEAST - 1 <= shown and shown + more == len(lines) - before - 2 + most
    if width >= WIDTH + 20:
        assert not any("…" in line for line in found[table:])


def test_the_words_on_the_other_methods_are_the_callers() -> None:
    own = summarised(cells("supervised"))
    assert lay_out(own, more="in the report")[-1] == lay_out(own)[-1].replace("with --table full", "in the report")
