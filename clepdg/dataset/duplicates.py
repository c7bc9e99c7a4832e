"""Twins: files of one corpus that are byte-identical, or hold the same samples under other headers or encodings."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What decides about an utterance that sounds like another."""

    sha256: str  # of the file
    sound: str  # of its rate and samples
    raw_label: str
    part: int  # of the split: 0 train, 1 validation, 2 test


def find_duplicates(sounds: Mapping[str, Fingerprint]) -> tuple[dict[str, str], dict[str, str]]:
    """Find the utterances that sound the same, and say what becomes of them.

    Where labels differ, all are refused: which one is right is not known. Where they agree, those in a later part of
    the split than the first are refused, since they would test what was learnt; the others stay and are noted.

    Returns:
        {utterance_id: reason} of those that are refused, and {utterance_id: note} of those that stay.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for key, sound in sounds.items():
        groups[sound.sound].append(key)
    refused: dict[str, str] = {}
    notes: dict[str, str] = {}
    for keys in groups.values():
        first = min(keys, key=lambda key: (sounds[key].part, key))
        for key in keys:
            own = sounds[key]
            unlike = next((twin for twin in keys if sounds[twin].raw_label != own.raw_label), None)
            twin = unlike or first
            same = "the same bytes" if sounds[twin].sha256 == own.sha256 else "the same audio"
            if unlike is not None:
                refused[key] = f"{same} as {twin}, which is labelled {sounds[twin].raw_label}, not {own.raw_label}"
            elif own.part > sounds[first].part:
                refused[key] = (
                    f"{same} as {twin}, which is in an earlier part of the split: it would test what is learnt"
                )
            elif key != first:
                notes[key] = f"{same} as {twin}"
    return refused, notes
