"""Parse SAVEE, the Surrey Audio-Visual Expressed Emotion database.

Four men, postgraduate students and researchers at Surrey, speak 15 TIMIT sentences per emotion (30 neutral) in seven
emotions: 480 files of 44.1 kHz. British English.

Address:  http://kahlan.eps.surrey.ac.uk/savee/Download.html (free after registration; no open address)
Licence:  research only
Citation: Haq S, Jackson PJB (2010). Multimodal Emotion Recognition. In: Machine Audition, IGI Global, 398-423.

Name: AudioData/speaker/code and number: AudioData/DC/a01.wav; in flattened copies DC_a01.wav
    code     a anger, d disgust, f fear, h happiness, n neutral, sa sadness, su surprise
    speaker  DC JE JK KL, in the official tree only in the folder's name
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from clepdg.corpora.parsing import Finding, Utterance, match_name, parse_tree

LABELS: Final = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}
SPEAKERS: Final = ("DC", "JE", "JK", "KL")
NAME: Final = re.compile(rf"(?:({'|'.join(SPEAKERS)})_)?(?:(a|d|f|h|sa|su)(0[1-9]|1[0-5])|(n)(0[1-9]|[12]\d|30))")


def utterances(root: Path) -> Iterator[Utterance | Finding]:
    """Yield the utterances and findings of a SAVEE tree, ordered by path."""
    return parse_tree(root, parse, folders=f"({'|'.join(SPEAKERS)})")


def parse(path: str) -> Utterance | Finding:
    """Parse a file's path into an utterance, or a finding."""
    match = match_name(NAME, path)
    if isinstance(match, Finding):
        return match
    speaker = match[1] or PurePosixPath(path).parent.name
    if speaker not in SPEAKERS:
        return Finding(path=path, reason=f"neither its name nor its folder is a speaker ({', '.join(SPEAKERS)})")
    code, number = match[2] or match[4], match[3] or match[5]
    return Utterance(
        path=path,
        name=f"{speaker}_{code}{number}",
        speaker=speaker,
        gender="male",
        language="en",
        raw_label=LABELS[code],
        text=f"{code}{number}",  # every emotion has its own numbers
        transcript=None,
    )
