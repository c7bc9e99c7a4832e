"""The report's section of data: the corpora's cards, counts, faults and quality pictures."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clepdg.corpora.cards import SPLITS
from clepdg.emotions import EMOTIONS
from clepdg.report.section import Section, render

if TYPE_CHECKING:
    import pandas as pd

NONE = "no emotion"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A corpus as the section shows it.

    Attributes:
        card: "title", "licence", "language", "citation", "homepage" and "faults" of its card.
        utterances: of its index: emotion, split, speaker, num_samples, sample_rate.
        faults: found in its files: fault -> number of files.
        differences: from the whole corpus, in short.
        picture: PNG of its quality report.
        copies: utterances that its leave-out fold drops, since a source holds the same audio; None: no such fold.
    """

    card: Mapping[str, Any]
    utterances: "pd.DataFrame"
    faults: Mapping[str, int] = field(default_factory=dict)
    differences: Sequence[str] = ()
    picture: bytes = b""
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
            "differences": own.differences,
            "copies": own.copies,
            "picture": base64.b64encode(own.picture).decode(),
        }
        for name, own in corpora.items()
    ]
    return Section(id="data", title="Data", html=render("data", corpora=shown, splits=SPLITS))


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
