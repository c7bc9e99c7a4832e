"""The report's section of data: the corpora's cards, counts, faults and quality pictures."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from clepdg.corpora.cards import SPLITS
from clepdg.emotions import EMOTIONS
from clepdg.report.section import Section, render

if TYPE_CHECKING:
    import pandas as pd

NONE = "no emotion"
SHOWN: Final = 3  # speakers
SOURCES: Final = {  # of a card's faults
    "[S]": "(read in a public source)",
    "[M]": "(measured on the files)",
    "[mem]": "(from memory)",
}


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A corpus as the section shows it.

    Attributes:
        card: "title", "licence", "language", "citation", "homepage" and "faults" of its card.
        utterances: of its index: emotion, split, speaker, num_samples, sample_rate.
        faults: found in its files: fault -> number of files.
        differences: from the whole corpus, in short.
        picture: PNG of its quality report.
        unit: of its card's split, as in `Split`.
        copies: utterances that its leave-out fold drops, since a source holds the same audio; None: no such fold.
    """

    card: Mapping[str, Any]
    utterances: "pd.DataFrame"
    faults: Mapping[str, int] = field(default_factory=dict)
    differences: Sequence[str] = ()
    picture: bytes = b""
    unit: str = "speaker"
    copies: int | None = None


def data(corpora: Mapping[str, Corpus]) -> Section:
    """Return the section.

    Args:
        corpora: name -> what is shown of it.
    """
    shown = [
        {
            "name": name,
            "card": own.card,
            "hours": hours(own.utterances),
            "utterances": len(own.utterances),
            "speakers": int(own.utterances.speaker.nunique()),
            "counts": counts(own.utterances),
            "faults": own.faults,
            "known": [_sourced(fault) for fault in own.card["faults"]],
            "split": split_words(own.utterances, own.unit),
            "differences": own.differences,
            "copies": own.copies,
            "picture": base64.b64encode(own.picture).decode(),
        }
        for name, own in corpora.items()
    ]
    return Section(id="data", title="Data", html=render("data", corpora=shown, splits=SPLITS))


def _sourced(fault: str) -> str:
    """Return a card's fault with its source in words."""
    for tag, words in SOURCES.items():
        fault = fault.replace(tag, words)
    return fault


def split_words(utterances: "pd.DataFrame", unit: str) -> str:
    """Return how a corpus is split, and which speakers are in several parts.

    In the words of the marks on supervised results (clepdg/evaluation/marks.py).
    """
    parts = utterances.groupby("speaker")["split"].unique()
    crossing = parts[parts.map(len) > 1]
    by = {"official": "the corpus's own split"}.get(unit, f"by {unit}")
    if crossing.empty:
        return f"{by}: no speaker is in two parts"
    shown = [str(speaker).rpartition("/")[2] for speaker in crossing.index]
    names = ", ".join(shown[:SHOWN]) + f" and {len(shown) - SHOWN} more" * (len(shown) > SHOWN)
    where = [split for split in SPLITS if crossing.map(lambda own, split=split: split in own).any()]
    test = "" if "test" in where else "; the test part has speakers of its own"
    return f"{by}, not speaker-disjoint: {names} in {' and '.join(where)}{test}"


def hours(utterances: "pd.DataFrame") -> float:
    """Return the hours of all utterances."""
    return float((utterances.num_samples / utterances.sample_rate).sum() / 3600)


def counts(utterances: "pd.DataFrame") -> list[list[Any]]:
    """Count utterances by emotion and split.

    Returns:
        Lines of a name, the counts of train, validation and test, and their sum: of each emotion that the corpus has,
        of utterances without one, of all, and of speakers.
    """
    named = utterances.assign(emotion=utterances.emotion.fillna(NONE))
    lines = list[list[Any]]()
    for emotion in (*EMOTIONS, NONE):
        own = named[named.emotion == emotion]
        if len(own):
            lines.append([emotion, *_by_split(own.groupby("split").size()), len(own)])
    lines.append(["all", *_by_split(named.groupby("split").size()), len(named)])
    speakers = named.groupby("split").speaker.nunique()
    return [*lines, ["speakers", *_by_split(speakers), int(named.speaker.nunique())]]


def _by_split(found: Any) -> list[int]:
    return [int(found.get(split, 0)) for split in SPLITS]
