"""Parse MSP-Podcast.

Turns of real podcasts with a Creative Commons licence, rated by a crowd: 207,136 turns in release 1.12, 324 hours, 16
kHz, mono. Mostly American English. Its own partition: Train, Development, Test1, Test2 (other podcasts) and Test3
(labels hidden). Speakers overlap between the test parts, and a part of Train has unknown ones.

Address:  https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Podcast.html (signed agreement; no open address)
Licence:  academic licence
Citation: Lotfian R, Busso C (2019). Building naturalistic emotionally balanced speech corpus by retrieving emotional
          speech from existing podcast recordings. IEEE Transactions on Affective Computing 10(4): 471-483.

Tree: Audios/MSP-PODCAST_0001_0008.wav, Labels/labels_consensus.csv, Partition.txt, Transcripts/<turn>.txt; older
      releases: Audio/, Label/, labels_concensus.csv, and a part Validation in place of Development
Labels: A angry, S sad, H happy, U surprise, F fear, D disgust, C contempt, N neutral, O other, X no agreement
A turn that only Partition.txt names, as those of Test3, has the raw label "hidden".
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Final

from clepdg.corpora.parsing import (
    Finding,
    Utterance,
    add_unlisted,
    audio_files,
    find_nearest,
    fold,
    one_per_name,
    read_rows,
    relative,
)
from clepdg.text_files import read_text

NAME: Final = re.compile(r"MSP-PODCAST_([0-9]+)_[0-9]+(?:_[0-9]+)?")
PARTITION: Final = re.compile(r".*?\b(Train|Development|Validation|Test[1-9])\b.*?(MSP-PODCAST_[0-9_]+)(?:\.wav)?.*")
COLUMNS: Final = ("FileName", "EmoClass", "SpkrID", "Gender", "Split_Set")
HIDDEN: Final = "hidden"


def utterances(root: Path) -> Iterator[Utterance | Finding]:
    """Yield the utterances and findings of an MSP-Podcast tree.

    Raises:
        CorpusError: there is no table of labels, or it lacks a column.
    """
    table, *_ = find_nearest(root, "Label*/labels_con[sc]ensus.csv", "labels_con[sc]ensus.csv", needed_by="MSP-Podcast")
    top = table.parents[1] if fold(table.parent.name).startswith("label") else table.parent
    folders = _children(top, "audios?") or [top / "Audios"]
    found = [relative(root, folder / path) for folder in folders for path in audio_files(folder)]
    audio, twins = one_per_name({path: fold(Path(path).stem) for path in found})
    rows: list[Mapping[str, str]] = [*read_rows(table, COLUMNS)]
    named = {fold(_turn_of(row)) for row in rows}
    rows += [
        {"FileName": name, "EmoClass": HIDDEN, "SpkrID": "Unknown", "Gender": "Unknown", "Split_Set": part}
        for name, part in _partition(top).items()
        if fold(name) not in named and fold(name) in audio
    ]
    words = next(iter(_children(top, "transcripts?")), None)
    listed = (_turn(row, audio, relative(root, folders[0]), words) for row in rows)
    yield from add_unlisted(listed, audio.values(), twins)


def _children(top: Path, pattern: str) -> list[Path]:
    """Return what lies in a folder under a name, in upper or lower case."""
    return sorted(path for path in top.iterdir() if re.fullmatch(pattern, path.name, re.IGNORECASE))


def _turn_of(row: Mapping[str, str]) -> str:
    """Return a turn's name: that of its file, which may lie in a folder."""
    return PureWindowsPath(row["FileName"]).stem


def _partition(top: Path) -> dict[str, str]:
    """Return {turn: part} of Partition.txt, or {} where there is none."""
    lines = [line for path in _children(top, r"partitions?\.txt") for line in read_text(path).split("\n")]
    found = map(PARTITION.fullmatch, lines)
    return {match[2]: match[1] for match in found if match}


def _turn(row: Mapping[str, str], audio: dict[str, str], folder: str, words: Path | None) -> Utterance | Finding:
    name = _turn_of(row)
    path = audio.get(fold(name)) or f"{folder}/{name}.wav"
    match = NAME.fullmatch(name)
    if match is None:
        return Finding(path=path, reason=f"its name is not of the corpus's grammar {NAME.pattern}")
    transcript = words / f"{name}.txt" if words else None
    return Utterance(
        path=path,
        name=name,
        speaker=row["SpkrID"] or "Unknown",
        gender={"Female": "female", "Male": "male"}.get(row["Gender"]),
        language="en",
        raw_label=row["EmoClass"] or HIDDEN,
        text=match[1],  # the podcast
        transcript=read_text(transcript).strip() if transcript and transcript.exists() else None,
        part=row["Split_Set"],
    )
