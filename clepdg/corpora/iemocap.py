"""Parse IEMOCAP, the Interactive Emotional Dyadic Motion Capture database.

Ten actors in five sessions, a woman and a man each, play scripts and improvise: 10,039 turns of 16 kHz, mono, about
12 hours. American English. Three raters or more per turn; xxx is where no majority agrees. Its clusters are its ten
speakers; two share a session, whose scenes they play together.

Address:  https://sail.usc.edu/iemocap/ (on a request form; no open address)
Licence:  academic agreement
Citation: Busso C, Bulut M, Lee CC, Kazemzadeh A, Mower E, Kim S, Chang JN, Lee S, Narayanan SS (2008). IEMOCAP:
          interactive emotional dyadic motion capture database. Language Resources and Evaluation 42: 335-359.

Tree: SessionN/sentences/wav/<dialogue>/<turn>.wav, SessionN/dialog/EmoEvaluation/<dialogue>.txt (labels),
      SessionN/dialog/transcriptions/<dialogue>.txt
Name: Ses01F_impro01_M000: session 1; F wears the markers, which is not who speaks; improvisation or script; then the
      SPEAKER's letter and the turn's number.
The recordings of whole dialogues (dialog/wav) are not read. AppleDouble files (._Ses...) are not UTF-8 and not read.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from clepdg.corpora.parsing import (
    Finding,
    Utterance,
    add_unlisted,
    audio_files,
    find_nearest,
    fold,
    one_per_name,
    relative,
)
from clepdg.errors import CorpusError
from clepdg.text_files import read_text

NAME: Final = re.compile(r"(Ses0[1-5])[FM]_((?:impro|script)\d\d(?:_\d)?[a-z]?)_([FM])(\d{3})")
LABEL: Final = re.compile(r"\[\d+\.?\d* - \d+\.?\d*\]\s+(Ses\S+)\s+(\w+)\s+\[.*\]\s*")
WORDS: Final = re.compile(r"(Ses\S+) \[[\d. -]+\]:\s*(.*)")


def utterances(root: Path) -> Iterator[Utterance | Finding]:
    """Yield the utterances and findings of an IEMOCAP tree, by session.

    Raises:
        CorpusError: there is no session's folder, or a session has no labels.
    """
    for session in find_nearest(root, "Session[1-5]", needed_by="IEMOCAP"):
        yield from _session(root, session)


def _session(root: Path, session: Path) -> Iterator[Utterance | Finding]:
    wavs = session / "sentences" / "wav"
    found = {relative(root, wavs / path): PurePosixPath(path) for path in audio_files(wavs)}
    strays = [stray for path, file in found.items() if (stray := _stray(path, file, session.name))]
    placed = {path: fold(file.stem) for path, file in found.items() if path not in {stray.path for stray in strays}}
    audio, twins = one_per_name(placed)
    tables = _tables(session, "EmoEvaluation")
    if not tables:
        raise CorpusError(
            "A session of IEMOCAP has no labels.",
            expected="files <dialogue>.txt",
            where=session / "dialog" / "EmoEvaluation",
            do="give the complete release, not only its wav files",
        )
    words = [line for table in _tables(session, "transcriptions") for line in _lines(table)]
    transcripts = {match[1]: match[2] for match in map(WORDS.fullmatch, words) if match}
    listed = []
    for table in tables:
        for match in filter(None, map(LABEL.fullmatch, _lines(table))):
            turn, code = match.groups()
            path = audio.get(fold(turn)) or relative(root, wavs / table.stem / f"{turn}.wav")
            listed.append(_turn(path, turn, code, transcripts.get(turn)))
    yield from add_unlisted(listed, audio.values(), [*strays, *twins])


def _stray(path: str, file: PurePosixPath, session: str) -> Finding | None:
    """Return a finding for a turn in another dialogue's or session's folder."""
    match, folder, dialogue = NAME.fullmatch(file.stem), file.parent.name, file.stem.rpartition("_")[0]
    if match and folder.startswith("Ses") and folder != dialogue:
        return Finding(path=path, reason=f"lies in {folder}, is named {dialogue}")
    if match and match[1][-1] != session[-1]:
        return Finding(path=path, reason=f"lies in {session}, is named {match[1]}")
    return None


def _tables(session: Path, name: str) -> list[Path]:
    """Return the text files of a session's folder, without its subfolders.

    EmoEvaluation has subfolders with the votes of single raters.
    """
    tables = (session / "dialog" / name).glob(f"Ses0{session.name[-1]}*.txt")
    return sorted(path for path in tables if path.is_file())


def _lines(path: Path) -> list[str]:
    return read_text(path).split("\n")


def _turn(path: str, turn: str, code: str, transcript: str | None) -> Utterance | Finding:
    match = NAME.fullmatch(turn)
    if match is None:
        return Finding(path=path, reason=f"its name is not of the corpus's grammar {NAME.pattern}")
    session, scenario, letter, _ = match.groups()
    return Utterance(
        path=path,
        name=turn,
        speaker=session + letter,
        gender="female" if letter == "F" else "male",
        language="en",
        raw_label=code,
        text=scenario,
        transcript=transcript,
    )
