"""Find duplicate recordings: files with equal bytes or equal samples."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """The facts of an utterance that decide about its duplicates."""

    sha256: str  # of the file
    audio: str  # digest of its rate and samples
    raw_label: str
    part: int  # of the split: 0 train, 1 validation, 2 test


def find_duplicates(utterances: Mapping[str, Fingerprint]) -> tuple[dict[str, str], dict[str, str]]:
    """Find duplicate utterances and decide which to refuse.

    Where labels differ, all are refused: the right one is unknown. Where they agree, those in a later part of the split
    than the first are refused, since they would test on training data; the others stay and are noted.

    Returns:
        {utterance_id: reason} of those that are refused, and {utterance_id: note} of those that stay.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for key, utterance in utterances.items():
        groups[utterance.audio].append(key)
    refused: dict[str, str] = {}
    notes: dict[str, str] = {}
    for keys in groups.values():
        first = min(keys, key=lambda key: (utterances[key].part, key))
        unlike = next((key for key in keys if utterances[key].raw_label != utterances[keys[0]].raw_label), None)
        for key in keys:
            own = utterances[key]
            differs = own.raw_label != utterances[keys[0]].raw_label
            conflict = keys[0] if differs else unlike  # the first one with another label
            other = conflict or first
            same = "the same bytes" if utterances[other].sha256 == own.sha256 else "the same audio"
            if conflict is not None:
                label = utterances[other].raw_label
                refused[key] = f"{same} as {other}, which is labelled {label}, not {own.raw_label}"
            elif own.part > utterances[first].part:
                refused[key] = (
                    f"{same} as {other}, which is in an earlier part of the split: it would test what is learnt"
                )
            elif key != first:
                notes[key] = f"{same} as {other}"
    return refused, notes
