"""Parse CREMA-D, the Crowd-sourced Emotional Multimodal Actors Dataset.

91 actors (43 women, 48 men, 20 to 74 years) speak 12 sentences in six emotions; the sentence IEO at three levels as
well: 7442 files of 16 kHz, mono. American English. The label used is the acted one, as is usual: the crowd's vote on
the voice alone agrees with it for 41.6 % of the files.

Address:  https://github.com/CheyneyComputerScience/CREMA-D (git lfs; audio in AudioWAV/)
Licence:  ODbL 1.0 (database) and DbCL 1.0 (contents)
Citation: Cao H, Cooper DG, Keutmann MK, Gur RC, Nenkova A, Verma R (2014). CREMA-D: Crowd-Sourced Emotional Multimodal
          Actors Dataset. IEEE Transactions on Affective Computing 5(4).

Name: actor_sentence_emotion_level: 1001_DFA_ANG_XX.wav
    emotion  ANG DIS FEA HAP NEU SAD            level  LO MD HI, XX unspecified
A clone without git lfs holds text pointers in place of audio. AudioMP3/ repeats AudioWAV/ and is ignored. Older copies
misname 1040_ITH_SAD_X.wav.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from clepdg.corpora.parsing import Finding, Utterance, match_name, parse_tree

SENTENCES: Final = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
# of the corpus's own VideoDemographics.csv; the other actors are male
FEMALE: Final = frozenset(
    """
    1002 1003 1004 1006 1007 1008 1009 1010 1012 1013 1018 1020 1021 1024 1025 1028 1029 1030 1037 1043 1046 1047
    1049 1052 1053 1054 1055 1056 1058 1060 1061 1063 1072 1073 1074 1075 1076 1078 1079 1082 1084 1089 1091
    """.split()
)
NAME: Final = re.compile(
    rf"(10(?:0[1-9]|[1-8]\d|9[01]))_({'|'.join(SENTENCES)})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX?)"
)


def utterances(root: Path) -> Iterator[Utterance | Finding]:
    """Yield the utterances and findings of a CREMA-D tree, ordered by path."""
    return parse_tree(root, parse, ignore=frozenset({"AudioMP3"}))


def parse(path: str) -> Utterance | Finding:
    """Parse a file's name into an utterance, or a finding."""
    match = match_name(NAME, path)
    if isinstance(match, Finding):
        return match
    actor, sentence, emotion, level = match.groups()
    return Utterance(
        path=path,
        name=match[0],
        speaker=actor,
        gender="female" if actor in FEMALE else "male",
        language="en",
        raw_label=emotion,
        text=sentence,
        transcript=SENTENCES[sentence],
        notes=("misnamed",) if level == "X" else (),
    )
