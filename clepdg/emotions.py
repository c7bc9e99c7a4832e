"""Canonical emotions and the label sets of the evaluation."""

from collections.abc import Mapping, Sequence
from typing import Final

EMOTIONS: Final = (
    "angry",
    "happy",
    "neutral",
    "sad",
    "disgusted",
    "fearful",
    "surprised",
    "calm",
    "bored",
    "excited",
    "frustrated",
    "contemptuous",
)

# label set -> {canonical emotion: label}; utterances of other emotions are counted but not evaluated
LABEL_SETS: Final[dict[str, dict[str, str]]] = {
    "4": {"angry": "angry", "happy": "happy", "excited": "happy", "neutral": "neutral", "sad": "sad"},
    "6": {
        "angry": "angry",
        "happy": "happy",
        "excited": "happy",
        "neutral": "neutral",
        "sad": "sad",
        "disgusted": "disgusted",
        "fearful": "fearful",
    },
}
LABEL_SETS["7"] = {**LABEL_SETS["6"], "surprised": "surprised"}  # TESS's, SAVEE's and MELD's
LABEL_SETS["8"] = {**LABEL_SETS["7"], "calm": "calm"}  # RAVDESS's


LabelSet = str | Mapping[str, Sequence[str]]  # name of one above, or {label: its canonical emotions}


def label_of(label_set: LabelSet) -> dict[str, str]:
    """Return {canonical emotion: label} of a label set."""
    if isinstance(label_set, str):
        return LABEL_SETS[label_set]
    found = {emotion: label for label, emotions in label_set.items() for emotion in emotions}
    return {emotion: found[emotion] for emotion in EMOTIONS if emotion in found}


def labels(label_set: LabelSet) -> tuple[str, ...]:
    """Return the labels (N,) of a label set, in their fixed order.

    It is that of the first emotion of each.
    """
    return tuple(dict.fromkeys(label_of(label_set).values()))


def alike(emotion: str, own: LabelSet = "4") -> tuple[str, ...]:
    """Return the emotions with the same label in some label set.

    The emotion itself is included.

    Args:
        own: a label set beside those above.
    """
    same = {emotion}
    for mapping in (*LABEL_SETS.values(), label_of(own)):
        same |= {other for other, label in mapping.items() if label == mapping.get(emotion)}
    return tuple(other for other in EMOTIONS if other in same)
