"""A chart of embeddings in two dimensions: audio, text and contexts, before and after centring."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clepdg.report.charts import NEUTRAL, columns
from clepdg.report.section import SHAPES, Chart
from clepdg.report.sections.curves import COLOURS, nominal

Floats = NDArray[np.floating[Any]]

SOURCE, TARGET, TEXT, CONTEXT = "audio of sources", "audio of the target", "text", "text in contexts"
NO_CORPUS: Final = "text"  # has no corpus
MOST: Final = {SOURCE: 180, TARGET: 180, TEXT: 60, CONTEXT: 160}  # points of a chart
FITTED: Final = 4000  # at most, of the source utterances that the axes are fitted on
PANELS: Final = ("before centring", "after centring")
APART: Final = 1.1  # from one panel's left side to the next one's; a panel is 1 wide


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Embeddings (U, D) of one kind and corpus, with their labels (U,)."""

    kind: str
    corpus: str
    embeddings: Floats
    labels: Sequence[str]

    def sample(self, most: int) -> "Cloud":
        """Return at most this many of them, the same ones each time."""
        if len(self.labels) <= most:
            return self
        chosen = np.sort(np.random.default_rng(0).permutation(len(self.labels))[:most])
        return Cloud(
            kind=self.kind,
            corpus=self.corpus,
            embeddings=self.embeddings[chosen],
            labels=[self.labels[place] for place in chosen],
        )


@dataclass(frozen=True, kw_only=True)
class Map:
    """Points of a fold.

    Attributes:
        gaps: distance between the centres of audio and of text, before and after centring, of at most 2.
    """

    fold: str
    labels: Sequence[str]
    points: Sequence[Mapping[str, Any]]
    gaps: tuple[float, float]


def embedding_map(
    fold: str, labels: Sequence[str], clouds: Sequence[Cloud], audio_mean: Floats, text_mean: Floats
) -> Map:
    """Project a fold's embeddings onto two axes.

    They are the first principal axes of its source audio. After centring, the mean of its kind is subtracted from each
    embedding, which is then normalised, as classifiers do it. Each panel has axes of its own.

    Args:
        labels: in their order.
        clouds: with at least one of SOURCE.
        audio_mean: (D,), which is subtracted from audio.
        text_mean: (D,), which is subtracted from text.
    """
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    sizes = {kind: sum(cloud.kind == kind for cloud in clouds) for kind in MOST}
    points, gaps = list[dict[str, Any]](), list[float]()
    with threadpool_limits(1):  # sums in one order: equal bytes
        for panel in range(len(PANELS)):
            fitted = [
                _moved(cloud.sample(FITTED // sizes[SOURCE]), audio_mean, text_mean, panel)
                for cloud in clouds
                if cloud.kind == SOURCE
            ]
            axes = PCA(2, svd_solver="full").fit(np.concatenate(fitted))
            drawn = [cloud.sample(MOST[cloud.kind] // sizes[cloud.kind]) for cloud in clouds]
            moved = [_moved(cloud, audio_mean, text_mean, panel) for cloud in drawn]
            gaps.append(_gap(drawn, moved))
            places = [axes.transform(each) for each in moved]
            low, high = np.min(np.concatenate(places), axis=0), np.max(np.concatenate(places), axis=0)
            for cloud, place in zip(drawn, places, strict=True):
                scaled = (place - low) / np.maximum(high - low, 1e-9)
                for label, (x, y) in zip(cloud.labels, scaled, strict=True):
                    where = {"x": round(float(x) + APART * panel, 3), "y": round(float(y), 3)}
                    points.append({**where, "label": label, "kind": cloud.kind, "corpus": cloud.corpus or NO_CORPUS})
    return Map(fold=fold, labels=labels, points=points, gaps=(gaps[0], gaps[1]))


def _moved(cloud: Cloud, audio_mean: Floats, text_mean: Floats, panel: int) -> Floats:
    if not panel:
        return np.asarray(cloud.embeddings, dtype=np.float64)
    x = np.asarray(cloud.embeddings - (audio_mean if cloud.kind in (SOURCE, TARGET) else text_mean), dtype=np.float64)
    moved: Floats = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    return moved


def _gap(clouds: Sequence[Cloud], moved: Sequence[Floats]) -> float:
    """Return the distance between the centres of source audio and text.

    NaN without text.
    """
    pairs = list(zip(clouds, moved, strict=True))
    centres = [[x.mean(axis=0) for cloud, x in pairs if cloud.kind in kinds] for kinds in ((SOURCE,), (TEXT, CONTEXT))]
    if not all(centres):
        return float("nan")
    audio, text = (np.mean(each, axis=0) for each in centres)
    return float(np.linalg.norm(audio - text))


def map_chart(found: Map) -> Chart:
    """Return a map's chart."""
    kinds = [kind for kind in MOST if any(point["kind"] == kind for point in found.points)]
    x = {"field": "x", "type": "quantitative", "axis": None, "scale": {"domain": [-0.03, 1.03 + APART]}}
    y = {"field": "y", "type": "quantitative", "axis": None, "scale": {"domain": [-0.05, 1.2]}}
    titles = [{"x": APART * number, "y": 1.14, "title": title} for number, title in enumerate(PANELS)]
    tooltip = [{"field": name, "type": "nominal"} for name in ("label", "kind", "corpus")]
    corpora = sorted({point["corpus"] for point in found.points}, key=lambda name: (name == NO_CORPUS, name))
    hues = [COLOURS[place % len(COLOURS)] for names in (found.labels, corpora) for place in range(len(names))]
    hues[len(hues) - corpora.count(NO_CORPUS) :] = [NEUTRAL] * corpora.count(NO_CORPUS)
    colour = nominal("colour", [*found.labels, *corpora], hues, columns=columns(4))
    colour["legend"]["values"] = {"expr": f"by === 'corpus' ? {json.dumps(corpora)} : {json.dumps([*found.labels])}"}
    layers = [
        {
            "transform": [{"calculate": "by === 'corpus' ? datum.corpus : datum.label", "as": "colour"}],
            "mark": {"type": "point", "opacity": 0.7, "size": 42},
            "encoding": {
                **{"x": x, "y": y, "tooltip": tooltip},
                "color": colour,
                "shape": nominal("kind", kinds, [*SHAPES], orient="top", symbolFillColor=NEUTRAL, symbolStrokeWidth=0),
            },
        },
        {
            "data": {"values": [{"x": (1 + APART) / 2}]},
            "mark": {"type": "rule", "opacity": 0.25},
            "encoding": {"x": x},
        },
        {
            "data": {"values": titles},
            "mark": {"type": "text", "align": "left", "baseline": "middle", "fontWeight": 600},
            "encoding": {"x": x, "y": y, "text": {"field": "title"}},
        },
        {
            "data": {"values": _middles(found)},
            "mark": {"type": "text", "fontWeight": 600},
            "encoding": {"x": x, "y": y, "text": {"field": "label"}},
        },
    ]
    label = f"Embeddings of {found.fold} in two dimensions, before and after centring, by emotion or corpus and by kind"
    by = [{"name": "by", "value": "emotion"}]  # or "corpus": the page's control sets it
    spec = {"width": "container", "height": 340, "params": by, "data": {"values": [*found.points]}, "layer": layers}
    return Chart(name=f"embeddings-{found.fold}", label=label, spec=spec)


def _middles(found: Map) -> list[dict[str, Any]]:
    """Return the middle of each label's source audio in each panel."""
    groups: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for point in found.points:
        if point["kind"] == SOURCE:
            groups.setdefault((int(point["x"] > (1 + APART) / 2), point["label"]), []).append(point)
    return [
        {"label": label, **{axis: round(float(np.median([each[axis] for each in own])), 3) for axis in "xy"}}
        for (_, label), own in groups.items()
    ]
