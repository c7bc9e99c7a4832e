"""Protects the rows: which there are, that each differs from another in one thing, and what unlike rows say."""

import math
from dataclasses import fields, replace

import pandas as pd
import pytest

from clepdg.config.presets import build
from clepdg.config.rows import (
    ACPT_VARIANTS,
    ALL,
    CLEP_VARIANTS,
    CONTEXTS,
    CORE_ROWS,
    DUAL_CORE_ROWS,
    DUAL_ROWS,
    MAIN,
    MAIN_ROW,
    ON_REQUEST,
    ROWS,
    rows,
)
from clepdg.config.schema import AcptConfig, ClassifierConfig, ClepConfig, TextConfig
from clepdg.emotions import EMOTIONS, LABEL_SETS, alike
from clepdg.errors import ConfigError
from clepdg.evaluation.marks import CEILING, TRANSDUCTIVE, annotate, new_emotion
from clepdg_flows.graph.titles import title


def differences(a, b):
    return {item.name for item in fields(a) if item.name != "title" and getattr(a, item.name) != getattr(b, item.name)}


def test_core_rows_are_the_default_and_the_others_are_asked_for():
    assert rows(None) == dict(CORE_ROWS)
    assert rows((ALL,)) == {name: row for name, row in ROWS.items() if name not in {*ON_REQUEST, *DUAL_ROWS}}
    assert rows(None, dual=True) == {n: r for n, r in ROWS.items() if n in {*CORE_ROWS, *DUAL_CORE_ROWS}}
    assert rows((ALL,), dual=True) == {name: row for name, row in ROWS.items() if name not in ON_REQUEST}
    for name in DUAL_ROWS:
        with pytest.raises(ConfigError, match="need a dual backbone"):
            rows((name,))
    assert list(rows(("text-acpt", "majority"))) == ["majority", "text-acpt"]
    assert MAIN_ROW in CORE_ROWS
    for wrong in (("text-acpt", "nonsense"), ()):
        with pytest.raises(ConfigError, match="clep-frozen-text"):
            rows(wrong)


def test_every_row_names_what_there_is_and_differs_from_a_core_row_in_one_thing():
    for name, row in ROWS.items():
        assert row.variant in CLEP_VARIANTS
        assert row.contexts in CONTEXTS
        row.classifier_config(ClassifierConfig())
        if name not in {*CORE_ROWS, "encoder-probe"}:
            assert min(len(differences(row, core)) for core in CORE_ROWS.values()) == 1, name
    assert len({row.title for row in ROWS.values()}) == len(ROWS)
    for name, row in ROWS.items():
        if row.head == "text" and name not in ("clep-augmented-none",):  # its one factor is of text-none
            assert len(differences(row, ROWS[MAIN_ROW])) <= 1, name


def test_every_variant_changes_the_settings_it_is_made_of():
    for name, variant in CLEP_VARIANTS.items():
        assert (variant(ClepConfig()) == ClepConfig()) == (name == MAIN)
    for name, settings in ACPT_VARIANTS.items():
        assert (replace(AcptConfig(), **settings) == AcptConfig()) == (name == "acpt")
    text = TextConfig()
    listed = [getattr(text, contexts.words) for contexts in CONTEXTS.values() if contexts.words]
    assert len({words for words in listed}) == len(listed) == 2


@pytest.mark.parametrize("preset", ["open", "paper", "speech"])
def test_every_variant_can_be_made_of_a_presets_settings(preset):
    clep = build(preset).clep
    for variant in CLEP_VARIANTS.values():
        assert len(variant(clep).templates) >= (8 if variant(clep).target == "instance" else 1)


def test_what_shares_a_label_is_left_out_together():
    assert alike("happy") == alike("excited") == ("happy", "excited")
    assert alike("sad") == ("sad",)
    for emotion in EMOTIONS:
        assert emotion in alike(emotion)
        for mapping in LABEL_SETS.values():
            assert {mapping.get(other) for other in alike(emotion)} == {mapping.get(emotion)}


def test_titles_say_what_micro_can_not_show():
    micro, real = build("demo"), build("open")
    environments = build("demo", backbone="micro-context")
    for name, row in ROWS.items():
        assert ("not testable: no pretrained words" in title(micro, row)) == name.startswith("new-")
        assert "not testable" not in title(real, row)
        assert "CLAP zero-shot" not in title(micro, row)
        assert "CLAP zero-shot" not in title(environments, row)
        assert ("not testable" in title(environments, row)) == name.startswith("new-")
        assert ("transductive" in title(real, row)) == (name.endswith(("-target-centred", "-target-standardised")))
    transductive = build("open", overrides={"classifier.centring": "target"})
    assert "transductive" in title(transductive, ROWS["text-none"])
    assert "transductive" not in title(transductive, ROWS["clep-zero-shot"])


def test_figures_of_an_emotion_added_by_its_word():
    figures = new_emotion({"angry": 0.5, "happy": None, "neutral": 0.7, "sad": 0.2}, "sad")
    assert figures["new_recall"] == 0.2
    assert figures["others_uar"] == pytest.approx(0.6)
    assert figures["harmonic_mean"] == pytest.approx(2 / (1 / 0.2 + 1 / 0.6))
    assert new_emotion({"angry": 0.0, "sad": 0.0}, "sad")["harmonic_mean"] == 0
    assert math.isnan(new_emotion({"angry": 0.5, "sad": math.nan}, "sad")["harmonic_mean"])


def test_unlike_rows_are_marked_and_the_others_are_left_alone():
    cells = pd.DataFrame(
        {
            "row": ["text-acpt", "new-sad", "target-probe"],
            "recalls": [{"angry": 0.5, "sad": 0.2}] * 3,
            "uar_test": [0.4, 0.4, 0.9],
            "n_test": pd.array([7, 7, 7], dtype="Int64"),
            "marks": [["collapsed"], [], []],
        }
    )
    found = annotate(cells, {"new-sad": "sad"}, ["target-probe"], ["text-acpt"]).set_index("row")
    assert found.marks["text-acpt"] == ["collapsed", TRANSDUCTIVE]
    assert pd.isna(found.new_label["text-acpt"])
    assert found.new_recall["new-sad"] == 0.2
    assert found.marks["new-sad"] == [
        "sad was added by its word alone: new recall 0.200, others uar 0.500, harmonic mean 0.286"
    ]
    assert found.marks["target-probe"] == [CEILING]
