"""Parse the audio-only speech of RAVDESS.

The Ryerson Audio-Visual Database of Emotional Speech and Song. 24 professional actors (12 women, 12 men) speak two
sentences of equal wording in eight emotions, at two intensities and twice each: 1440 files of 48 kHz, 16 bit, in
folders Actor_01 to Actor_24. North American English.

Address:  https://zenodo.org/records/1188976 (Audio_Speech_Actors_01-24.zip)
Licence:  CC BY-NC-SA 4.0
Citation: Livingstone SR, Russo FA (2018). The Ryerson Audio-Visual Database of Emotional Speech and Song.
          PLoS ONE 13(5).

Name: modality-channel-emotion-intensity-statement-repetition-actor, two digits each: 03-01-06-01-02-01-12.wav
    modality    01 audio and video, 02 video, 03 audio      statement   01 kids, 02 dogs
    channel     01 speech, 02 song                          repetition  01, 02
    emotion     01 neutral ... 08 surprised                 actor       01-24, odd male, even female
    intensity   01 normal, 02 strong (none for neutral)
The song archive has the same grammar; its files are findings. Some mirrors hold the whole tree twice.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from clepdg.corpora.parsing import Finding, Utterance, match_name, parse_tree

NAME: Final = re.compile(r"(0[1-3])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])")
LABELS: Final = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
STATEMENTS: Final = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}


def utterances(root: Path) -> Iterator[Utterance | Finding]:
    """Yield the utterances and findings of a RAVDESS tree, ordered by path."""
    return parse_tree(root, parse, folders=r"Actor_(\d\d)", who="actor")


def parse(path: str) -> Utterance | Finding:
    """Parse a file's name into an utterance, or a finding."""
    match = match_name(NAME, path)
    if isinstance(match, Finding):
        return match
    modality, channel, emotion, _, statement, _, actor = match.groups()
    if channel == "02":
        return Finding(path=path, reason="song, not speech (vocal channel 02)")
    if modality != "03":
        return Finding(path=path, reason=f"not of the audio-only part (modality {modality})")
    return Utterance(
        path=path,
        name=match[0],
        speaker=actor,
        gender="male" if int(actor) % 2 else "female",
        language="en",
        raw_label=LABELS[emotion],
        text=statement,
        transcript=STATEMENTS[statement],
    )
