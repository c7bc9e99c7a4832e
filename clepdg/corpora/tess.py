"""Parse TESS, the Toronto Emotional Speech Set.

Two actresses, OAF (64 years) and YAF (26), say 200 words in the carrier phrase "Say the word ..." in seven emotions:
2800 files of 24,414 Hz, 16 bit, mono. English.

Address:  https://tspace.library.utoronto.ca/handle/1807/24487 and doi:10.5683/SP2/E8H2MF
Licence:  CC BY-NC-ND 4.0; other copies say CC BY-NC 4.0. Treat as non-commercial, no redistribution.
Citation: Pichora-Fuller MK, Dupuis K (2020). Toronto emotional speech set (TESS). Borealis, doi:10.5683/SP2/E8H2MF.

Name: speaker_word_emotion: OAF_back_angry.wav, with angry disgust fear happy neutral ps sad (ps: pleasant surprise).
The label is the file's: mirrors spell the folders in different ways (OAF_Fear, OAF_fear, YAF_pleasant_surprised).
OA_bite_neutral.wav is OAF's, misnamed in the original set. Some mirrors hold the whole tree twice.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from clepdg.corpora.parsing import Finding, Utterance, match_name, parse_tree

NAME: Final = re.compile(r"(OAF|YAF|OA)_([a-z]+)_(angry|disgust|fear|happy|neutral|ps|sad)")


def utterances(root: Path) -> Iterator[Utterance | Finding]:
    """Yield the utterances and findings of a TESS tree, ordered by path."""
    return parse_tree(root, parse, folders="(OAF|YAF)(?:_.*)?")


def parse(path: str) -> Utterance | Finding:
    """Parse a file's name into an utterance, or a finding."""
    match = match_name(NAME, path)
    if isinstance(match, Finding):
        return match
    speaker, word, emotion = match.groups()
    return Utterance(
        path=path,
        name=match[0],
        speaker="OAF" if speaker == "OA" else speaker,
        gender="female",
        language="en",
        raw_label=emotion,
        text=word,
        transcript=f"Say the word {word}",
        notes=("misnamed",) if speaker == "OA" else (),
    )
