"""Protects parts of the report: its verdict in words, its glossary, its notes, and the files beside it."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from clepdg.config.folds import LEAVE_OUT, SUPERVISED
from clepdg.corpora.cards import load_card
from clepdg.evaluation.cells import cells, speaker_uars
from clepdg.report.charts import styles
from clepdg.report.facts import corpus_facts
from clepdg.report.glossary import GLOSSARY, LINKED, anchor, linked
from clepdg.report.grid import Column, Value, columns, shown_columns
from clepdg.report.headline import Headline
from clepdg.report.latex import escape, latex
from clepdg.report.report import heading
from clepdg.report.sections.limits import incomplete, warnings
from clepdg.report.sections.results import first_rows, overview, results
from clepdg.report.sections.verdict import sentences, trained, verdict
from clepdg.report.sections.was_run import was_run
from clepdg.report.tables import Footnotes, figure, group
from tests.unit.test_credit import LABELS
from tests.unit.test_headline import ROWS, compute, table

METHOD = Path(__file__).parents[2] / "docs" / "method.md"
TITLES = {
    "log-mel": "floor",
    "text-random": "text classifier, random contexts",
    "text-none": "text classifier, no contexts",
    "text-acpt": "ACPT",
    "clep-probe": "probe",
}
NONE = pd.DataFrame(columns=["fold", "condition", "part", "row"])


def column(uars: dict[str, float], kind: str = LEAVE_OUT, targets: int = 3, **differences: tuple) -> Column:
    values = {row: Value(uar=(uar, uar - 0.1, uar + 0.1), **differences) for row, uar in uars.items()}
    return Column(name="mean" if targets > 1 else "tess", kind=kind, targets=targets, chance=0.25, values=values)


def test_the_verdict_names_the_best_method_chance_supervised_the_floor_and_what_acpt_adds() -> None:
    uars = {"log-mel": 0.4, "text-random": 0.5, "text-none": 0.51, "text-acpt": 0.52, "clep-probe": 0.6}
    lead = replace(
        column(uars, minus_floor=(0.2, 0.1, 0.3), minus_random=(0.02, -0.1, 0.14)),
        comparisons={("clep-probe", "text-acpt"): (0.08, -0.01, 0.17), ("text-acpt", "text-none"): (0.01, -0.02, 0.04)},
    )
    grid = [lead, column({"clep-probe": 0.8}, SUPERVISED)]
    said = [each.replace("\u00a0", " ") for each in sentences(grid, NONE, TITLES, {"ACPT's credit": "credited: why"})]
    assert said == [
        "On 3 left-out corpora, the best method is “probe”: mean UAR .600 [.500, .700] (above chance, .250; supervised"
        " .800).",
        "It is ahead of the next (“ACPT”, .520): +.080 [-.010, +.170], which includes 0: other corpora may turn it"
        " round; it is ahead of the floor (.400): +.200 [+.100, +.300].",
        "The classifier with ACPT (.520) is ahead of its best rival (“no contexts”, .510): +.010 [-.020, +.040], which"
        " includes 0; against random contexts (.500): +.020 [-.100, +.140]; the credit rule says: credited.",
    ]


def test_random_contexts_are_named_once_where_they_are_the_best_rival_and_a_method_that_uses_the_target_wins_nothing():
    uars = {"text-random": 0.5, "text-acpt": 0.52, "target-probe": 0.9}
    first, _, last = sentences([column(uars)], NONE, {**TITLES, "target-probe": "ceiling"}, {})
    assert "the best method without the target's own data is “ACPT”" in first
    assert last == "The classifier with ACPT (.520) is ahead of its best rival (“random contexts”, .500): +.020."


@pytest.mark.parametrize(("acpt", "said"), [(0.5, "is level with"), (0.4, "is behind"), (0.6, "is ahead of")])
def test_one_target_has_a_verdict_that_claims_nothing_of_others(acpt: float, said: str) -> None:
    grid = [column({"log-mel": 0.4, "text-random": 0.5, "text-acpt": acpt}, targets=1)]
    found = list(sentences(grid, NONE, TITLES, {}))
    assert said in found[-1] and "[" not in "".join(found[1:])
    assert "".join(found).count("a single target says nothing about other corpora") == 1


def test_what_was_trained_on_what_is_a_line() -> None:
    facts = {"corpora": {"tess": {}, "emodb": {}, "ravdess": {}}}
    assert (
        trained([column({}, targets=1)], facts)
        == "tess is evaluated whole, after training on training parts of emodb and ravdess alone."
    )
    assert "Supervised: test parts" in trained([column({}, SUPERVISED)], facts)


def test_what_of_a_left_out_corpus_was_not_evaluated_is_said_with_its_emotions() -> None:
    facts = {
        "corpora": {
            "tess": {"utterances": 2800, "not evaluated": {"surprised": 400, "disgusted": 400}},
            "emodb": {"utterances": 535, "not evaluated": {"bored": 81, "no emotion": 2}},
            "savee": {"utterances": 480},
        }
    }
    grid = [
        replace(column({}, targets=1), name=name, utterances=n)
        for name, n in (("tess", 2000), ("emodb", 452), ("savee", 480))
    ]
    assert trained(grid, facts) == (
        "tess (2,000 of 2,800 utterances), emodb (452 of 535 utterances) and savee: each is evaluated, after"
        " training on training parts of the other corpora alone. Not evaluated, as outside the label set:"
        " disgusted, surprised and bored utterances and utterances without an emotion."
    )
    assert "tess is evaluated whole" in trained([replace(grid[0], utterances=2800)], facts)


def test_the_glossary_has_the_words_of_the_documents_and_its_links_exist() -> None:
    lines = METHOD.read_text().split("## Glossary")[1].replace("`", "").splitlines()
    assert {f"| {word} | {meaning} |" for word, meaning in GLOSSARY.items()} <= set(lines)
    assert set(LINKED) <= set(GLOSSARY) and len({anchor(word) for word in GLOSSARY}) == len(GLOSSARY)
    assert linked("<b> collapsed") == '&lt;b&gt; <a class="term" href="#term-collapsed">collapsed</a>'


def test_the_best_of_a_fold_does_not_use_the_target() -> None:
    unfair = "text-acpt-target-standardised"
    found = table(0.4, ours=1.0)
    found["row"] = found.row.replace({"text-acpt": unfair})
    rows = {**ROWS, unfair: "ACPT, standardised on the target"}
    own = found[found.row.isin(rows)]
    of_cells = cells(own, LABELS, confidence=0.95, split_units={f"t{n}": "speaker" for n in range(3)})
    groups, grid = group(of_cells, rows), columns(of_cells, group(of_cells, rows), Headline())
    html = results(grid, groups, of_cells, speaker_uars(own, of_cells), rows, Headline(), Footnotes.of(groups)).html
    fair = [max(each["uar"] for each in of.cells if each["row"] != unfair) for of in groups]
    assert [uar for uar, _ in re.findall(r"highest UAR ([.\d]+), (.*?)</span>", html)] == [figure(uar) for uar in fair]
    assert all(max(each["uar"] for each in of.cells) > uar for of, uar in zip(groups, fair, strict=True))


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


def test_a_warning_is_said_once_and_not_again_in_the_caption() -> None:
    facts = {
        "caption": "Synthetic speech (synthetic-1): scores say nothing. Altered corpora: tess (9 files). Micro is odd.",
        "corpora": {"synthetic-1": {}, "tess": {"altered": "9 files"}},
    }
    cells_of = pd.DataFrame(
        {"marks": [["conditional on one CLEP"]], "fold": "f", "condition": "clean", "part": "whole"}
    )
    html = verdict([column({"text-acpt": 0.5})], cells_of.assign(row="text-acpt"), TITLES, facts).html
    said = re.findall("<li>(.*?)</li>", html.split("</aside>")[0])
    assert [each.partition(":")[0] for each in said[:2]] == ["Synthetic speech", "Altered corpora"]
    assert len(said) == 4 and "conditional on one CLEP" in said[2] and said[3] == "Micro is odd."


@pytest.mark.parametrize(
    ("changed", "part", "altered"),
    [
        ({}, "whole", "no"),
        ({"found": {"utterances": 339, "speakers": 9, "raw_labels": dict.fromkeys("abcd", 1)}},
         "339 of 535 utterances, 9 of 10 speakers, 4 of 7 emotions", "no"),
        ({"found": {"utterances": 540, "speakers": 10, "raw_labels": dict.fromkeys("abcdefg", 1)}},
         "540 utterances, not 535", "no"),
        ({"published": {"listed": 535, "altered": 4}, "alterations": {"with a peak at full scale": 500}},
         "whole", "4 of 535 files are not the published ones, 500 files with a peak at full scale"),
        ({"sample_rate": 22050}, "whole", "22,050 Hz, not 16,000 Hz"),
        ({"differs": ["raw label anger: 126, not 127"]}, "raw label anger: 126, not 127", "no"),
    ],
)  # fmt: skip
def test_how_a_copy_differs_from_its_corpus_is_in_its_facts(changed: dict, part: str, altered: str) -> None:
    card = load_card("emodb")
    figures = {
        "found": {"utterances": 535, "speakers": 10, "raw_labels": card.expected.emotions},
        "sample_rate": 16000, "seconds": 1.0, "utterances": 535, "speakers": 10, "quarantined": 0, "notes": {},
        "published": {"listed": 0, "altered": 0}, "alterations": {}, "emotions": {"angry": 527, "bored": 5}, **changed,
    }  # fmt: skip
    found = corpus_facts(card, figures, changed.get("differs", ["x"] * bool(changed)), evaluated=("angry",))
    assert (found["part of the corpus"], found["altered"]) == (part, altered)
    assert found["not evaluated"] == {"bored": 5, "no emotion": 3}
    said = " ".join(incomplete({"emodb": found}))
    assert all(words in said for words in (part, altered) if words not in ("whole", "no")) and bool(said) == bool(
        changed
    )


def test_the_second_best_method_is_shown_at_once_too() -> None:
    uars = {"log-mel": 0.4, "text-noise": 0.6, "text-vocabulary": 0.7, "text-acpt-redrawn": 0.5, "target-probe": 0.9}
    shown = first_rows([column(uars)], NONE, dict.fromkeys(uars, ""))
    assert shown == ["log-mel", "text-noise", "text-vocabulary"]


def test_what_was_run_leaves_out_what_other_sections_say() -> None:
    facts = {"caption": "Micro is odd.", "preset": "demo", "corpora": {"tess": {"licence": "free"}}}
    assert "Micro" not in was_run(facts).html and "free" in was_run(facts).html
    assert "free" not in was_run(facts, ["corpora"]).html and "demo" in was_run(facts, ["corpora"]).html


def test_a_run_that_leaves_no_corpus_out_says_so() -> None:
    cells = pd.DataFrame({"fold": ["supervised"], "n": [24], "speakers": [2], "marks": [()]})
    (said,) = warnings(cells, {})
    assert said.startswith("No corpus was left out") and said.endswith("Tested on 24 utterances of 2 speakers.")
    assert warnings(cells.assign(fold="leave-out-a"), {}) == []
    assert "the test part, after training on the training part." in trained(
        [column({}, SUPERVISED)], {"corpora": {"a": {}}}
    )


def test_the_title_names_what_was_evaluated() -> None:
    facts = {"corpora": {"a": {}, "b": {}, "c": {}}}
    assert heading(facts, ["b"])[0] == "Results on b"
    assert heading(facts, ["mean", "a", "b"])[0] == "Results on a and b"
    assert heading(facts, ["pooled"])[0] == "Results on a, b and c"


@pytest.mark.parametrize(("backbone", "warned"), [("micro (no pretraining)", 1), ("micro-context (pretrained)", 0)])
def test_a_backbone_without_pretraining_is_warned_of(backbone: str, warned: int) -> None:
    found = warnings(pd.DataFrame({"fold": [], "marks": []}), {"backbone": backbone})
    assert len([each for each in found if "not pretrained" in each]) == warned
