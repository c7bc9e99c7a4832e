"""Protects the report's sections on what the model learnt and on data."""

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clepdg.evaluation.marks import disjoint_marks
from clepdg.report.sections.calibration import calibration_chart, calibration_points
from clepdg.report.sections.curves import Course, curve_chart
from clepdg.report.sections.data import Corpus, counts, data, split_words
from clepdg.report.sections.embedding_map import CONTEXT, MOST, SOURCE, TARGET, TEXT, Cloud, embedding_map, map_chart
from clepdg.report.sections.learnt import UAR, learnt

LABELS = ("angry", "sad")
EMPTY = pd.DataFrame(columns=["condition", "fold", "row"])
CLEP = [
    Course(
        fold="leave-out-a", seed="c0", metrics={"loss": [(0.5, 3.0), (1.0, 2.0)], UAR: [(1, 0.4), (2, 0.6)]}, best=2
    ),
    Course(fold="leave-out-b", seed="c0", metrics={UAR: [(1, 0.5), (2, 0.45)]}, best=1),
]


def clouds(shift: float = 5.0) -> list[Cloud]:
    """Return audio of 2 sources and a target, and text that lies `shift` away from it."""
    rng = np.random.default_rng(0)

    def cloud(kind: str, corpus: str, count: int, where: float) -> Cloud:
        labels = [LABELS[number % 2] for number in range(count)]
        centres = np.array([[where, 1.0, 0.0] if label == "sad" else [where, -1.0, 0.0] for label in labels])
        return Cloud(
            kind=kind, corpus=corpus, embeddings=centres + 0.1 * rng.standard_normal((count, 3)), labels=labels
        )

    return [
        cloud(SOURCE, "a", 500, 0.0),
        cloud(SOURCE, "b", 30, 0.0),
        cloud(TARGET, "c", 400, 0.0),
        cloud(TEXT, "", 8, shift),
        cloud(CONTEXT, "", 300, shift),
    ]


def test_a_map_shows_few_points_the_same_each_time_and_centring_closes_the_gap() -> None:
    found = embedding_map("leave-out-c", LABELS, clouds(), np.zeros(3), np.array([5.0, 0, 0]))
    assert found == embedding_map("leave-out-c", LABELS, clouds(), np.zeros(3), np.array([5.0, 0, 0]))
    kinds = pd.Series([point["kind"] for point in found.points]).value_counts()
    assert all(kinds[kind] <= 2 * most for kind, most in MOST.items()) and len(found.points) <= 2 * 600
    assert kinds[TEXT] == 16  # both panels
    before, after = found.gaps
    assert before > 4 and after < 0.2
    assert all(0 <= point["x"] <= 2.1 and 0 <= point["y"] <= 1 for point in found.points)
    spec = map_chart(found).spec
    json.dumps(spec, allow_nan=False)
    colours = spec["layer"][0]["encoding"]["color"]
    assert colours["scale"]["domain"] == [
        *LABELS,
        *sorted({point["corpus"] for point in found.points} - {"text"}),
        "text",
    ]


def test_a_map_needs_no_text() -> None:
    found = embedding_map("leave-out-c", LABELS, clouds()[:2], np.zeros(3), np.zeros(3))
    assert np.isnan(found.gaps).all()
    section = learnt([], [], [found], {}, {}, EMPTY, {}, {})
    assert section is not None and "apart" not in section.html


def test_curves_show_what_was_recorded() -> None:
    chart = curve_chart(CLEP, "loss", "clep-loss", "CLEP's loss", "loss")
    assert chart is not None
    assert [value["fold"] for value in chart.spec["data"]["values"]] == ["leave-out-a"] * 2
    chart = curve_chart(CLEP, UAR, "clep-validation", "UAR", "UAR")
    assert chart is not None
    assert [value["best"] for value in chart.spec["data"]["values"]] == [False, True, True, False]
    assert curve_chart(CLEP, "content_loss", "acpt", "ACPT", "loss") is None


def test_calibration_bins_hold_equally_many_predictions() -> None:
    rng = np.random.default_rng(0)
    angry = rng.uniform(size=800)
    found = pd.DataFrame({"fold": "leave-out-a", "row": "clep-zero-shot", "condition": "clean", "p_angry": angry})
    found["p_sad"] = 1 - angry
    found["predicted"] = np.where(angry > 0.5, "angry", "sad")
    found["true"] = np.where(rng.uniform(size=800) < angry, "angry", "sad")  # calibrated
    points = calibration_points(found, {"leave-out-a": LABELS}, {"clep-zero-shot": "CLEP zero-shot", "majority": "m"})
    assert [point["predictions"] for point in points] == [100] * 8
    assert all(abs(point["sure"] - point["right"]) < 0.15 for point in points)
    assert calibration_chart(points, {"clep-zero-shot": "CLEP zero-shot"}) is not None
    assert calibration_chart([], {}) is None


def test_the_section_says_that_losses_of_older_models_are_not_recorded() -> None:
    contexts = {"acpt": [{"nearest_caption_cosine": 0.5, "nearest_caption_cosine_lowest": 0.1,
                          "nearest_caption_cosine_of_captions": 0.9}] * 2}  # fmt: skip
    old = learnt(CLEP[1:], [], [], contexts, {}, EMPTY, {}, {})
    new = learnt(CLEP, [], [], {}, {}, EMPTY, {}, {})
    assert old is not None and "Losses are not recorded" in old.html and ".500" in old.html
    assert new is not None and "Losses are not recorded" not in new.html
    assert [chart.name for chart in new.charts] == ["clep-loss", "clep-validation"]
    assert learnt([], [], [], {}, {}, EMPTY, {}, {}) is None


def test_nearest_captions_are_shares_with_the_most_frequent_first() -> None:
    figures = {"nearest_caption_cosine": 0.5, "nearest_caption_cosine_lowest": 0.1,
               "nearest_caption_cosine_of_captions": 0.9}  # fmt: skip
    counts = {"random": {"a car": 4}, "acpt": {"an office": 3, "a car": 1}}
    section = learnt(CLEP, [], [], {"acpt": [figures], "random": [figures]}, counts, EMPTY, {}, {})
    assert section is not None
    cells = re.findall(r"<th scope=\"row\">(an office|a car)</th><td>(.*?)</td><td>(.*?)</td>", section.html)
    assert cells == [("an office", "75 %", "0 %"), ("a car", "25 %", "100 %")]


@pytest.fixture
def utterances() -> pd.DataFrame:
    lines: list[dict[str, Any]] = [
        {"emotion": "sad", "split": "train", "speaker": "a/1"},
        {"emotion": "sad", "split": "train", "speaker": "a/2"},
        {"emotion": None, "split": "test", "speaker": "a/3"},
        {"emotion": "angry", "split": "test", "speaker": "a/3"},
    ]
    return pd.DataFrame(lines).assign(num_samples=16000 * 900, sample_rate=16000)


def test_counts_are_by_emotion_and_split(utterances: pd.DataFrame) -> None:
    assert counts(utterances) == [
        ["angry", 0, 0, 1, 1],
        ["sad", 2, 0, 0, 2],
        ["no emotion", 0, 0, 1, 1],
        ["all", 2, 0, 2, 4],
        ["speakers", 2, 0, 1, 3],
    ]


def test_the_section_of_data_shows_licence_faults_and_what_is_missing(utterances: pd.DataFrame) -> None:
    card = {
        "title": "A",
        "licence": "CC0 <&>",
        "language": "en",
        "citation": "Doe",
        "homepage": "https://a",
        "faults": ("x [M]", "y [S], [mem]"),
    }
    own = Corpus(card=card, utterances=utterances, faults={"altered: resampled": 3}, differences=["4 of 9 utterances"],
                 picture=b"png", copies=2)  # fmt: skip
    html = data({"a": own}).html
    for text in ("CC0 &lt;&amp;&gt;", "Doe", 'href="https://a"', "x (measured on the files)",
                 "y (read in a public source), (from memory)",
                 "altered: resampled (3)", "4 of 9 utterances",
                 "1.00", "data:image/png;base64,cG5n", "not the whole corpus"):  # fmt: skip
        assert text in html, text


@pytest.mark.parametrize(
    ("unit", "speakers", "said"),
    [
        ("speaker", "a/1 a/1 a/2 a/3", "by speaker: no speaker is in two parts"),
        ("text", "a/1 a/1 a/1 a/2",
         "by text, not speaker-disjoint: 1 in train and validation; the test part has speakers of its own"),
        ("official", "a/1 a/2 a/3 a/1", "the corpus's own split, not speaker-disjoint: 1 in train and test"),
    ],
)  # fmt: skip
def test_the_split_is_said_as_the_notes_on_supervised_results_say_it(unit: str, speakers: str, said: str) -> None:
    found = pd.DataFrame({"speaker": speakers.split(), "split": ["train", "train", "validation", "test"]})
    assert split_words(found, unit) == said
    mark = disjoint_marks("supervised", ["a"], {"a": unit})
    assert bool(mark) == ("not speaker-disjoint" in said)
