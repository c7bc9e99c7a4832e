"""Protects the look of the report's charts, and what the robustness says: contrast, shapes, whole labels, losses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from clepdg.report.charts import DARK, PALETTE, config, save, styles
from clepdg.report.grid import Column, Value
from clepdg.report.headline import FLOOR
from clepdg.report.section import SHAPES, Chart
from clepdg.report.sections.calibration import calibration_chart
from clepdg.report.sections.curves import Course, curve_chart
from clepdg.report.sections.losses import loss_table, losses, sentences
from clepdg.report.sections.picture import LINES, picture

LIGHT_PAPER, DARK_PAPER = "#ffffff", "#14181c"
TITLES = {"log-mel": "floor", "clep-probe": "probe", "text-none": "none", "text-acpt": "ACPT", "majority": "majority"}


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours as WCAG 2 has it."""
    low, high = sorted(luminance(colour) + 0.05 for colour in (one, other))
    return high / low


def test_marks_stand_out_on_light_and_on_dark_paper() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert {colour: contrast(colour, LIGHT_PAPER) for colour in DARK if contrast(colour, LIGHT_PAPER) < 3} == {}
    assert {
        colour: contrast(colour, DARK_PAPER) for colour in DARK.values() if contrast(colour, DARK_PAPER) < 4.5
    } == {}
    assert {*PALETTE} < {*DARK}


def test_methods_differ_without_their_colours() -> None:
    rows = [f"row-{number}" for number in range(18)]
    found = styles([FLOOR, *rows])
    assert len({(style.shape, style.line) for style in found.values()}) == 19
    assert len({(style.shape, style.filled) for row, style in found.items() if row in [FLOOR, *rows[:12]]}) == 13
    assert len({(style.glyph, style.filled) for row, style in found.items() if row in rows[:12]}) == 12
    assert found[FLOOR].shape not in SHAPES


def limits(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every limit of a text's width in a specification."""
    for name, own in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if isinstance(name, str) and name.lower().endswith("limit"):
            yield name, own
        yield from limits(own)


def test_no_chart_cuts_a_label() -> None:
    found = list(limits(config()))
    assert {value for _, value in found} == {0}  # Vega: no limit
    for part in ("axis", "legend", "header", "title"):
        assert {name for name, _ in limits(config()[part])} >= (
            {"limit"} if part == "title" else {"labelLimit", "titleLimit"}
        )
    title = "a long title of a method " * 6
    lead = Column(name="t", kind="leave-out", targets=1, chance=0.25, values={"clep-probe": Value(uar=(0.5, 0.4, 0.6))})
    point = {"row": "clep-probe", "method": title, "sure": 0.5, "right": 0.5, "predictions": 8}
    course = Course(fold=title, seed="c0", metrics={"loss": [(1, 2.0)]})
    charts = [
        picture([lead], {"clep-probe": title}, ["clep-probe"]),
        calibration_chart([point], {"clep-probe": title}),
        curve_chart([course], "loss", "loss", "loss", "loss"),
    ]
    for chart in charts:
        assert chart is not None and list(limits(chart.spec)) == []


def test_the_picture_marks_the_best_that_counts_and_sets_the_others_aside() -> None:
    uars = {"clep-probe": 0.9, "text-none": 0.6, "text-acpt": 0.7}
    values = {row: Value(uar=(uar, uar - 0.1, uar)) for row, uar in uars.items()}
    lead = Column(name="mean", kind="leave-out-", targets=3, chance=0.25, values=values)
    chart = picture([lead], TITLES, ["text-acpt", "text-none"])
    assert chart is not None and "do not use the target's own audio or labels" in chart.label
    points, names = chart.spec["data"]["values"], chart.spec["layer"][-1]["data"]["values"]
    assert [name["whole"][0].split(":")[0] for name in names] == ["★ ACPT", "none", "hollow, not compared", "probe"]
    assert {point["row"]: point["counts"] for point in points} == {row: row != "clep-probe" for row in uars}
    alone = picture([lead], TITLES, list(uars))
    assert alone is not None and "hollow" not in str(alone.spec["layer"][-1]["data"]) and "do not" not in alone.label


@pytest.mark.parametrize("title", ["several words " * 12, "unbroken" * 21])
def test_the_picture_cuts_a_long_title_to_its_room_and_has_it_whole_on_hover(title: str) -> None:
    lead = Column(
        name="t", kind="leave-out-", targets=1, chance=0.25, values={"clep-probe": Value(uar=(0.5, 0.4, 0.6))}
    )
    chart = picture([lead], {"clep-probe": title}, ["clep-probe"])
    assert chart is not None
    name = chart.spec["layer"][-1]["data"]["values"][0]
    assert name["method"] == f"★ {title}"
    for width, most, lines in LINES:
        cut = name[f"below{width}" if width < 1000 else "whole"]
        assert len(cut) == lines and max(map(len, cut)) <= most and cut[-1].endswith("…")


def heard(uars: dict[str, dict[str, float]], title: str = "leave-out-a") -> pd.DataFrame:
    """Return cells of rows in conditions: clean, noise of two levels, a room."""
    families = {"clean": "", "white-0dB": "noise", "white-20dB": "noise", "room-long": "rooms"}
    return pd.DataFrame(
        [
            {"title": title, "row": row, "condition": name, "family": families[name], "uar": uar}
            for row, own in uars.items()
            for name, uar in own.items()
        ]
    )


def corrupted(clean: float, low: float, high: float, room: float) -> dict[str, float]:
    return {"clean": clean, "white-0dB": low, "white-20dB": high, "room-long": room}


CELLS = heard(
    {
        "majority": corrupted(0.25, 0.25, 0.25, 0.25),
        "log-mel": corrupted(0.4, 0.3, 0.3, 0.3),
        "clep-probe": corrupted(0.8, 0.4, 0.6, 0.7),
        "text-none": corrupted(0.6, 0.4, 0.5, 0.45),
        "text-acpt": corrupted(0.7, 0.4, 0.6, 0.6),
    }
)


def test_the_robustness_names_who_loses_least_of_those_with_something_to_lose() -> None:
    own = losses(CELLS, TITLES)
    assert own is not None
    assert list(sentences(own, TITLES)) == [
        "On leave-out-a, “ACPT” loses least of the methods that are ahead of the floor on clean audio: .150, from .700"
        " to .550 on the mean over noise and rooms.",
        "The classifier with ACPT's contexts loses .150, from .700 to .550; without contexts .150, from .600 to .450,"
        " the floor .100, from .400 to .300.",
    ]


def test_targets_and_families_weigh_the_same_and_a_row_without_a_target_is_left_out() -> None:
    other = heard(
        {"log-mel": corrupted(0.2, 0.2, 0.2, 0.2), "clep-probe": corrupted(0.6, 0.6, 0.6, 0.6)}, "leave-out-b"
    )
    supervised = heard({"log-mel": corrupted(1, 1, 1, 1)}, "supervised: pooled")
    own = losses(pd.concat([CELLS, other, supervised]), TITLES)
    assert own is not None and own.where == "Averaged over 2 left-out targets"
    assert {each.row: (each.clean, each.mean) for each in own.found} == {
        "log-mel": pytest.approx((0.3, 0.25)),
        "clep-probe": pytest.approx((0.7, (0.5 + 0.7) / 4 + 0.6 / 2)),
    }
    columns, lines = loss_table(own, TITLES)
    assert [column["title"] for column in columns] == ["method", "clean", "noise", "rooms", "all families", "corrupted"]
    assert [[cell["text"] for cell in line["cells"]] for line in lines] == [
        [".300", "-.050", "-.050", "-.050", ".250"],
        [".700", "-.150", "-.050", "-.100", ".600"],
    ]
    assert [cell.get("best", False) for cell in lines[1]["cells"]] == [False, True, True, True, False]


def test_nothing_is_said_of_losses_without_corruptions_or_ahead_of_no_floor() -> None:
    assert losses(CELLS[CELLS["condition"] == "clean"], TITLES) is None
    own = losses(CELLS[CELLS["row"].isin(["log-mel", "majority"])], TITLES)
    assert own is not None
    assert list(sentences(own, TITLES)) == [
        "On leave-out-a, no method is ahead of the floor on clean audio, so none has more to lose."
    ]


def test_equal_charts_give_equal_files_in_one_process(tmp_path: Path) -> None:
    rules = {"data": {"values": [{"x": 1, "y": 2}]}, "mark": {"type": "rule", "clip": True}, "width": 50, "height": 20}
    spec = {**rules, "encoding": {name: {"field": name, "type": "quantitative"} for name in ("x", "y")}}
    for folder in ("first", "second"):
        save([Chart(name="rules", label="Rules.", spec=spec)], tmp_path / folder)
    first, second = ((tmp_path / folder / "rules.svg").read_text() for folder in ("first", "second"))
    assert first == second and 'id="clip1"' in first
