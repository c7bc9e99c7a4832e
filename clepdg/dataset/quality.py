"""Write the quality report of a corpus: two tables and a figure."""

import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clepdg.corpora.cards import SPLITS
from clepdg.emotions import EMOTIONS

if TYPE_CHECKING:
    import pandas as pd

TABLE: Final = "quality.csv"
FAULTS: Final = "faults.csv"
PICTURE: Final = "quality.png"
NONE: Final = "no emotion"
LONGEST_NAMES: Final = 40  # speakers above which single names are no longer drawn
LINES: Final = 14  # of rates and faults in the picture
RATES: Final = 4  # in the picture; the table has all

_drawing = threading.Lock()  # matplotlib has one set of settings and fonts for all threads


def write_quality(
    folder: Path, corpus: str, utterances: "pd.DataFrame", quarantine: "pd.DataFrame", figures: Mapping[str, Any]
) -> None:
    """Write quality.csv, faults.csv (fault, files) and quality.png.

    Equal arguments give equal bytes.

    Args:
        utterances: of the index, `tables.COLUMNS`.
        quarantine: of the index.
        figures: of the index: its notes and rates are shown.
    """
    import pandas as pd

    found = faults(quarantine, figures)
    table(utterances).to_csv(folder / TABLE, index=False, lineterminator="\n")
    kinds = pd.DataFrame({"fault": list(found), "files": list(found.values())})
    kinds.to_csv(folder / FAULTS, index=False, lineterminator="\n")
    _draw(folder / PICTURE, corpus, utterances, found)


def table(utterances: "pd.DataFrame") -> "pd.DataFrame":
    """Return the quality table: rows for corpus, split parts and speakers.

    The first row is the corpus; each part's row precedes those of its speakers.

    Columns: split, speaker, gender ("all" where a row sums over them), utterances, minutes, the quartiles of seconds
    and of rms_db, rates in Hz, and one column of counts per emotion that the corpus has.
    """
    import pandas as pd

    named = utterances.assign(
        emotion=[emotion or NONE for emotion in utterances.emotion],
        gender=[gender or "unknown" for gender in utterances.gender],
        seconds=utterances.num_samples / utterances.sample_rate,
    )
    emotions = [name for name in (*EMOTIONS, NONE) if (named.emotion == name).any()]
    rows = [_row(named, emotions, split="all", speaker="all", gender="all")]
    for split in SPLITS:
        part = named[named.split == split]
        if len(part):
            rows.append(_row(part, emotions, split=split, speaker="all", gender="all"))
        for (speaker, gender), own in part.groupby(["speaker", "gender"]):
            rows.append(_row(own, emotions, split=split, speaker=speaker, gender=gender))
    return pd.DataFrame(rows)


def _row(part: "pd.DataFrame", emotions: list[str], **names: Any) -> dict[str, Any]:
    row: dict[str, Any] = {**names, "utterances": len(part), "minutes": round(part.seconds.sum() / 60, 2)}
    for column in ("seconds", "rms_db"):
        for share, name in ((0.0, "min"), (0.25, "q1"), (0.5, "median"), (0.75, "q3"), (1.0, "max")):
            row[f"{column}_{name}"] = round(float(part[column].quantile(share)), 2) if len(part) else None
    row["rates"] = " ".join(f"{rate}:{count}" for rate, count in sorted(Counter(part.sample_rate).items()))
    counts = Counter(part.emotion)
    return row | {emotion: counts[emotion] for emotion in emotions}


def faults(quarantine: "pd.DataFrame", figures: Mapping[str, Any]) -> dict[str, int]:
    """Return {fault: number of files}: alterations, notes, quarantine."""
    kinds = Counter(_kind(reason) for reason in quarantine.reason)
    found = {f"altered: {what}": count for what, count in figures["alterations"].items()}
    found |= {f"noted: {name}": count for name, count in figures["notes"].items()}
    found |= {"excluded by the card": figures["excluded"]} if figures["excluded"] else {}
    missed = len(figures["unmatched"])
    found |= {"excluded by the card, but not there": missed} if missed else {}
    found |= {"speakers of the card's split who are not there": len(figures["absent"])} if figures["absent"] else {}
    altered = figures["published"]["altered"]
    found |= {f"not the published file (of {figures['published']['listed']} listed)": altered} if altered else {}
    return found | {f"quarantined: {name}": count for name, count in kinds.most_common()}


def _kind(reason: str) -> str:
    """Return the kind of a reason: its text without one file's details."""
    kind = reason.partition(":")[0].partition(" of the corpus's grammar")[0].partition(" as ")[0]
    return kind if len(kind) <= 60 else kind[:59] + "…"


def _draw(path: Path, corpus: str, utterances: "pd.DataFrame", found: Mapping[str, int]) -> None:
    """Draw counts by emotion and speaker, durations, loudness and faults."""
    import matplotlib
    import numpy as np
    from matplotlib.figure import Figure

    colours = dict(zip(SPLITS, ("#a9bdd6", "#e0b15c", "#1f5fa8"), strict=True))
    parts = {split: utterances[utterances.split == split] for split in SPLITS}
    with _drawing, matplotlib.rc_context({"font.size": 8, "font.family": ["DejaVu Sans"]}):
        figure = Figure(figsize=(11, 6.5), layout="constrained")
        axes: Any = figure.subplot_mosaic([["emotion", "speaker", "speaker"], ["seconds", "loudness", "faults"]])
        figure.suptitle(f"{corpus}: {len(utterances)} utterances")
        for name, column in (("emotion", "emotion"), ("speaker", "speaker")):
            values = [value or NONE for value in utterances[column]]
            order = sorted(set(values), key=lambda value: ([*EMOTIONS, NONE, value].index(value), value))
            bottom = np.zeros(len(order))
            for split, part in parts.items():
                counts = Counter(value or NONE for value in part[column])
                heights = np.array([counts[value] for value in order])
                axes[name].bar(range(len(order)), heights, bottom=bottom, color=colours[split], label=split)
                bottom += heights
            shown = order if len(order) <= LONGEST_NAMES else []
            names = [value.rpartition("/")[2].replace("$", r"\$")[:12] for value in shown]
            axes[name].set_xticks(range(len(shown)), names, rotation=90 if len(shown) > 4 else 0)
            axes[name].set_title(f"utterances by {name} ({len(order)})")
        figure.legend(*axes["emotion"].get_legend_handles_labels(), loc="upper right", ncols=3)
        for name, measured, unit in (
            ("seconds", utterances.num_samples / utterances.sample_rate, "duration, s"),
            ("loudness", utterances.rms_db, "rms, dB of full scale"),
        ):
            edges = np.histogram_bin_edges(measured, bins=30) if len(measured) else np.linspace(0, 1, 2)
            stacks = [np.asarray(measured[part.index]) for part in parts.values()]
            axes[name].hist(stacks, bins=edges.tolist(), stacked=True, color=list(colours.values()))
            axes[name].set(title=unit)
        rates = Counter(utterances.sample_rate)
        lines = [f"{count:6d}  at {rate} Hz" for rate, count in rates.most_common(RATES)]
        lines += [f"{count:6d}  {fault}" for fault, count in found.items()]
        lines += [] if found else ["no fault was found"]
        hidden = [f"... and {len(lines) - LINES} more kinds"] if len(lines) > LINES else []
        text = "\n".join([*lines[:LINES], *hidden])
        axes["faults"].text(0, 1, text.replace("$", r"\$"), va="top", family="DejaVu Sans Mono", fontsize=6.5)
        axes["faults"].set_axis_off()
        axes["faults"].set_title("rates and faults", loc="left")
        for name in ("emotion", "speaker", "seconds", "loudness"):
            axes[name].spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=100, metadata={"Software": None})
