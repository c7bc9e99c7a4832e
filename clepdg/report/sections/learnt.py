"""The report's section on what the model learnt: curves, embeddings, calibration, contexts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from clepdg.config.folds import LEAVE_OUT, kind
from clepdg.report.facts import IN_WORDS_OF
from clepdg.report.section import Section, render
from clepdg.report.sections.calibration import calibration_chart, calibration_points
from clepdg.report.sections.curves import MOST_FOLDS, Course, curve_chart
from clepdg.report.sections.embedding_map import Map, map_chart

if TYPE_CHECKING:
    import pandas as pd

UAR: Final = "validation UAR"
CONTEXTS: Final = ("nearest_caption_cosine", "nearest_caption_cosine_lowest")  # figures of an output of stage acpt
AMONG: Final = "nearest_caption_cosine_of_captions"
NAMES: Final = {"acpt": "ACPT's", "random": "random, as ACPT starts", "vocabulary": "random words"}


def learnt(
    clep: Sequence[Course],
    acpt: Sequence[Course],
    maps: Sequence[Map],
    contexts: Mapping[str, Sequence[Mapping[str, float]]],
    nearest: Mapping[str, Mapping[str, int]],
    predictions: "pd.DataFrame",
    labels: Mapping[str, tuple[str, ...]],
    rows: Mapping[str, str],
) -> Section | None:
    """Return the section; None where a run has nothing of it.

    Args:
        clep: courses of CLEP, with metrics "loss" and UAR.
        acpt: courses of ACPT, with metrics "content_loss" and "diversity_loss".
        maps: of folds.
        contexts: name of contexts -> figures of each output of stage acpt.
        nearest: name of contexts -> hand-written context -> to how many of them it is the nearest.
        predictions: of all folds.
        labels: fold -> its label set.
        rows: row -> title.
    """
    clep_charts = [
        chart
        for chart in (
            curve_chart(clep, "loss", "clep-loss", "CLEP's loss", "loss"),
            curve_chart(clep, UAR, "clep-validation", "CLEP's zero-shot UAR, validation parts", "UAR"),
        )
        if chart
    ]
    acpt_charts = [
        chart
        for chart in (
            curve_chart(acpt, "content_loss", "acpt-content", "ACPT's content loss", "loss"),
            curve_chart(acpt, "diversity_loss", "acpt-diversity", "ACPT's diversity loss", "loss"),
        )
        if chart
    ]
    reliability = calibration_chart(calibration_points(predictions, labels, rows), rows)
    drawn = [(each, map_chart(each)) for each in sorted(maps, key=lambda each: kind(each.fold) != LEAVE_OUT)]
    if not (clep_charts or acpt_charts or reliability or drawn):
        return None
    trained = {each.fold for each in clep}
    return Section(
        id="learnt",
        title="What the model learnt",
        html=render(
            "learnt",
            clep=clep_charts,
            acpt=acpt_charts,
            lost=bool(clep) and not any("loss" in each.metrics for each in clep),
            hidden=max(0, len(trained) - MOST_FOLDS),
            maps=drawn,
            contexts=[
                (name, NAMES.get(name, name), [_mean(column, figures) for column in CONTEXTS])
                for name, figures in sorted(contexts.items())
            ],
            columns=[IN_WORDS_OF[name] for name in CONTEXTS],
            among=_mean(AMONG, [own for figures in contexts.values() for own in figures]),
            nearest=_nearest(nearest),
            sizes={
                name: (sum(own.values()) // max(len(contexts[name]), 1), len(contexts[name]))
                for name, own in nearest.items()
            },
            calibration=reliability,
        ),
        charts=[*clep_charts, *acpt_charts, *(chart for _, chart in drawn), *([reliability] if reliability else [])],
    )


def _mean(name: str, figures: Sequence[Mapping[str, float]]) -> float:
    return sum(each[name] for each in figures) / max(len(figures), 1)


def _nearest(counts: Mapping[str, Mapping[str, int]]) -> "list[tuple[str, list[float]]]":
    """Return hand-written contexts, each with its share of each name's."""
    captions = {caption for own in counts.values() for caption in own}
    shares = {
        caption: [own.get(caption, 0) / sum(own.values()) for _, own in sorted(counts.items())] for caption in captions
    }
    return sorted(shares.items(), key=lambda item: ([-share for share in item[1]], item[0]))
