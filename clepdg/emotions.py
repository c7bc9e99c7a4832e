"""Canonical emotions and the label sets of the evaluation."""

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


def labels(label_set: str) -> tuple[str, ...]:
    """Return the labels (N,) of a label set, in their fixed order."""
    return tuple(dict.fromkeys(LABEL_SETS[label_set].values()))


def alike(emotion: str) -> tuple[str, ...]:
    """Return the emotions with the same label in some label set.

    The emotion itself is included.
    """
    same = {emotion}
    for mapping in LABEL_SETS.values():
        same |= {other for other, label in mapping.items() if label == mapping.get(emotion)}
    return tuple(other for other in EMOTIONS if other in same)
