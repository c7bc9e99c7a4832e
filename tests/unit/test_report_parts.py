"""Protects parts of the report: its verdict in words, its glossary, its notes, and the files beside it."""

import re
from pathlib import Path

import pandas as pd
import pytest

from clepdg.config.folds import LEAVE_OUT, SUPERVISED
from clepdg.evaluation.cells import cells
from clepdg.report.charts import styles
from clepdg.report.glossary import GLOSSARY, LINKED, anchor, linked
from clepdg.report.grid import Column, Value, columns, shown_columns
from clepdg.report.latex import escape, latex
from clepdg.report.sections.results import overview
from clepdg.report.sections.verdict import sentences, trained
from clepdg.report.tables import Footnotes, group
from tests.unit.test_credit import LABELS
from tests.unit.test_headline import ROWS, compute, table

METHOD = Path(__file__).parents[2] / "docs" / "method.md"
TITLES = {"log-mel": "floor", "text-random": "random contexts", "text-acpt": "ACPT", "clep-probe": "probe"}
NONE = pd.DataFrame(columns=["fold", "condition", "part", "row"])


def column(uars: dict[str, float], kind: str = LEAVE_OUT, targets: int = 3, **differences: tuple) -> Column:
    values = {row: Value(uar=(uar, uar - 0.1, uar + 0.1), **differences) for row, uar in uars.items()}
    return Column(name="mean" if targets > 1 else "tess", kind=kind, targets=targets, chance=0.25, values=values)


def test_the_verdict_names_the_best_method_chance_supervised_the_floor_and_what_acpt_adds() -> None:
    uars = {"log-mel": 0.4, "text-random": 0.5, "text-acpt": 0.52, "clep-probe": 0.6}
    lead = column(uars, minus_floor=(0.2, 0.1, 0.3), minus_random=(0.02, -0.1, 0.14))
    grid = [lead, column({"clep-probe": 0.8}, SUPERVISED)]
    said = [each.replace("\u00a0", " ") for each in sentences(grid, NONE, TITLES, {"ACPT's credit": "credited: why"})]
    assert said == [
        "On 3 corpora that were left out, the best method is “probe”: mean UAR .600 [.500, .700]"
        " (supervised .800, chance .250).",
        "It is ahead of the floor (.400) by .200, interval [+.100, +.300].",
        "The classifier with ACPT's contexts (.520) is ahead of that with random contexts (.500) by .020, interval"
        " [-.100, +.140], which includes 0: other corpora may turn it round. The credit rule says: credited.",
    ]


@pytest.mark.parametrize(("acpt", "said"), [(0.5, "is level with"), (0.4, "is behind"), (0.6, "is ahead of")])
def test_one_target_has_a_verdict_that_claims_nothing_of_others(acpt: float, said: str) -> None:
    grid = [column({"log-mel": 0.4, "text-random": 0.5, "text-acpt": acpt}, targets=1)]
    *_, last = sentences(grid, NONE, TITLES, {})
    assert said in last and "a single target says nothing about other corpora" in last


def test_what_was_trained_on_what_is_a_line() -> None:
    facts = {"corpora": {"tess": {}, "emodb": {}, "ravdess": {}}}
    assert (
        trained([column({}, targets=1)], facts) == "tess is evaluated whole, after training on emodb and ravdess alone."
    )
    assert "Supervised: test parts" in trained([column({}, SUPERVISED)], facts)


def test_the_glossary_has_the_words_of_the_documents_and_its_links_exist() -> None:
    lines = METHOD.read_text().split("## Glossary")[1].replace("`", "").splitlines()
    assert {f"| {word} | {meaning} |" for word, meaning in GLOSSARY.items()} <= set(lines)
    assert set(LINKED) <= set(GLOSSARY) and len({anchor(word) for word in GLOSSARY}) == len(GLOSSARY)
    assert linked("<b> collapsed") == '&lt;b&gt; <a class="term" href="#term-collapsed">collapsed</a>'


def test_a_remark_has_one_letter_wherever_it_stands_and_a_column_says_it_once() -> None:
    found = table(0.4)
    own = found[found.row.isin(ROWS)]
    of_cells = cells(own, LABELS, confidence=0.95, split_units={f"t{n}": "speaker" for n in range(3)})
    groups, means = group(of_cells, ROWS), compute(own)
    grid, notes = columns(of_cells, groups, means), Footnotes.of(groups)
    first = overview(grid, of_cells, ROWS, notes, list(ROWS))
    again = overview(grid, of_cells, ROWS, notes, list(ROWS))
    assert first == again
    assert [column["title"] for column in first["columns"]] == [
        "method",
        "mean of 3",
        "− floor",
        "− random",
        "t0",
        "t1",
        "t2",
    ]
    best = [[line["title"] for line in first["lines"] if line["cells"][n].get("best")] for n in (0, 3, 4, 5)]
    assert all(len(each) == 1 for each in best)
    assert [line["cells"][0]["text"] for line in first["lines"]] == [
        f"{means.means('left-out targets')[row]['uar']:.3f}".lstrip("0") for row in ROWS
    ]


def test_the_latex_table_has_intervals_the_best_in_bold_and_no_bare_special_letter() -> None:
    grid = shown_columns([column({"log-mel": 0.4, "clep-probe": 0.6}), column({"clep-probe": 0.8}, SUPERVISED)])
    text = latex(grid, {"log-mel": "floor: 50% & more_of {it}", "clep-probe": "probe"}, ["clep-probe", None], "95%")
    assert r"floor: 50\% \& more\_of \{it\} & .400 &  \\" in text
    assert r"probe & \textbf{.600} & .800 \\" in text and r"{\scriptsize[.500, .700]}" in text
    assert r"\multicolumn{1}{c}{left out} & \multicolumn{1}{c}{supervised}" in text
    assert escape("a\\b^c") == r"a\textbackslash{}b\textasciicircum{}c"
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {2}


def test_methods_differ_in_more_than_colour() -> None:
    found = styles([f"row-{n}" for n in range(18)])
    looks = [(style.colour, style.line) for style in found.values()]
    assert len(set(looks)) == len(looks) == 19
    assert len({style.shape for row, style in found.items() if row in [f"row-{n}" for n in range(6)]}) == 6
