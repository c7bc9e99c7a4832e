"""Parse ESD, the Emotional Speech Database (for voice conversion).

Ten Mandarin (0001-0010) and ten English speakers (0011-0020) say 350 sentences each in five emotions: 35,000 files of
16 kHz, mono. The sentences are the same in every emotion and for every speaker of a language.

Address:  https://github.com/HLTSingapore/Emotional-Speech-Data (on a form to the authors; no open address)
Licence:  research only
Citation: Zhou K, Sisman B, Liu R, Li H (2022). Emotional voice conversion: Theory, databases and ESD.
          Speech Communication 137: 1-18.

Name: speaker/emotion/speaker_number: 0011/Angry/0011_000351.wav; some copies add train, test and evaluation folders
    number  1-350 neutral, then 350 each: angry, happy, sad, surprise
speaker/speaker.txt has id, text and emotion on each line, with tabs or spaces between them; its emotion words are
Chinese for Mandarin speakers, and some of these files are not UTF-8. The label is that of the text file, or the
folder's where the text file has none.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from clepdg.corpora.parsing import Finding, Utterance, match_name, parse_tree
from clepdg.text_files import read_text

LABELS: Final = {
    "neutral": "neutral",
    "angry": "angry",
    "happy": "happy",
    "sad": "sad",
    "surprise": "surprise",
    "surprised": "surprise",
    "中立": "neutral",
    "生气": "angry",
    "快乐": "happy",
    "伤心": "sad",
    "惊喜": "surprise",
}
FEMALE: Final = frozenset(f"00{number}" for number in range(15, 20))  # of the English speakers [mem]
NAME: Final = re.compile(r"(00(?:0[1-9]|1\d|20))_((?!000000)00(?:0\d{3}|1[0-6]\d\d|17[0-4]\d|1750))")
SENTENCES: Final = 350
TABS: Final = re.compile(r"\s*(\d{4}_\d{6})\s*\t+([^\t]*)\t(?:.*\t)?\s*([^\t]*?)\s*")  # id, text, emotion
SPACES: Final = re.compile(rf"\s*(\d{{4}}_\d{{6}})\s+(.*?)\s+({'|'.join(LABELS)})\s*", re.IGNORECASE)
Lines = dict[str, tuple[str, str]]  # id -> (text, emotion)


def utterances(root: Path) -> Iterator[Utterance | Finding]:
    """Yield the utterances and findings of an ESD tree, ordered by path."""
    lines: Lines = {}
    for path in sorted(root.rglob("00[012][0-9].txt")):
        lines |= _read(path)
    return parse_tree(root, partial(parse, lines=lines), folders=r"(00[012]\d)")


def _read(path: Path) -> Lines:
    """Read a speaker's text file, with tabs or spaces between its cells."""
    text = read_text(path, "gb18030" if _is_mandarin(path.stem) else "latin-1")
    found = (TABS.fullmatch(line) or SPACES.fullmatch(line) for line in text.split("\n"))
    return {match[1]: (" ".join(match[2].split()), match[3]) for match in found if match}


def _is_mandarin(speaker: str) -> bool:
    return int(speaker) <= 10


def parse(path: str, lines: Lines | None = None) -> Utterance | Finding:
    """Parse a path with its speaker's lines into an utterance, or a finding."""
    match = match_name(NAME, path)
    if isinstance(match, Finding):
        return match
    speaker, number = match[1], int(match[2])
    folder = next((LABELS[part.lower()] for part in PurePosixPath(path).parts[-2::-1] if part.lower() in LABELS), None)
    transcript, emotion = (lines or {}).get(match[0], (None, ""))
    listed = LABELS.get(emotion.lower())
    if emotion and not listed and not folder:
        return Finding(path=path, reason=f"{speaker}.txt gives it an emotion that is not one: {emotion}")
    if listed and folder and listed != folder:
        return Finding(path=path, reason=f"{speaker}.txt says {listed}, its folder {folder}")
    label = listed or folder
    if not label:
        return Finding(path=path, reason=f"neither {speaker}.txt nor its folder says its emotion")
    mandarin = _is_mandarin(speaker)
    note = "no emotion in the speaker's text file" if emotion else "no line in the speaker's text file"
    return Utterance(
        path=path,
        name=match[0],
        speaker=speaker,
        gender=None if mandarin else "female" if speaker in FEMALE else "male",
        language="zh" if mandarin else "en",
        raw_label=label,
        text=f"{'zh' if mandarin else 'en'}{(number - 1) % SENTENCES + 1:03d}",
        transcript=transcript,
        notes=() if listed else (note,),
    )
