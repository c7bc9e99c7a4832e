"""Parse EmoDB, the Berlin Database of Emotional Speech.

Ten actors (5 women, 5 men) speak ten everyday German sentences in seven emotions: 535 files of 16 kHz, mono, kept by a
perception test. German: English text prompts are out of domain.

Address:  http://www.emodb.bilderbar.info/download/download.zip (audio in wav/)
Licence:  none stated on the corpus's pages; free for research
Citation: Burkhardt F, Paeschke A, Rolfes M, Sendlmeier W, Weiss B (2005). A Database of German Emotional Speech.
          Interspeech.

Name: speaker (2 digits), text (3), emotion (1 letter), version (1 letter): 03a01Fa.wav
    emotion  W anger (Wut), L boredom (Langeweile), E disgust (Ekel), A fear (Angst), F happiness (Freude),
             T sadness (Trauer), N neutral
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from clepdg.corpora.parsing import Finding, Utterance, match_name, parse_tree

LABELS: Final = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}
GENDERS: Final = {
    "03": "male",
    "08": "female",
    "09": "female",
    "10": "male",
    "11": "male",
    "12": "male",
    "13": "female",
    "14": "female",
    "15": "male",
    "16": "female",
}
TEXTS: Final = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
NAME: Final = re.compile(rf"({'|'.join(GENDERS)})({'|'.join(TEXTS)})([{''.join(LABELS)}])([a-z])")


def utterances(root: Path) -> Iterator[Utterance | Finding]:
    """Yield the utterances and findings of an EmoDB tree, ordered by path."""
    return parse_tree(root, parse)


def parse(path: str) -> Utterance | Finding:
    """Parse a file's name into an utterance, or a finding."""
    match = match_name(NAME, path)
    if isinstance(match, Finding):
        return match
    speaker, text, emotion, _ = match.groups()
    return Utterance(
        path=path,
        name=match[0],
        speaker=speaker,
        gender=GENDERS[speaker],
        language="de",
        raw_label=LABELS[emotion],
        text=text,
        transcript=TEXTS[text],
    )
